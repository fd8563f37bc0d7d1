from pathlib import Path

import numpy as np
import pytest

from unfreeze.audio.patches import FrameFile, PatchView, clip_means, repeat_by_clip
from unfreeze.errors import RunError

FRAMES = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
STARTS = np.array([0, 3, 20, 44, 10])


@pytest.fixture
def view(tmp_path: Path) -> PatchView:
    FRAMES.tofile(tmp_path / "frames.f32")
    frames = FrameFile(tmp_path / "frames.f32", bands=4)
    return PatchView(frames, STARTS, np.array([0, 0, 1, 2, 2]), patch_frames=6, fingerprint="a")


def expected(starts: np.ndarray) -> np.ndarray:
    return np.stack([FRAMES[start : start + 6] for start in starts])


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(4, 0, -2),
        np.array([4, 0, 0, -1]),
        [1, 2],
        np.array([True, False, True, True, False]),
    ],
)
def test_indexing_is_as_in_numpy(view: PatchView, index: object) -> None:
    patches = view[index]
    assert patches.dtype == np.float32
    np.testing.assert_array_equal(patches, expected(STARTS[index]))
    # The caller may write to it.
    patches += 1


def test_one_patch_and_none(view: PatchView) -> None:
    np.testing.assert_array_equal(view[2], FRAMES[20:26])
    np.testing.assert_array_equal(view[np.int64(-1)], FRAMES[10:16])
    assert view[np.array([], dtype=int)].shape == (0, 6, 4)
    assert view[5:].shape == (0, 6, 4)
    with pytest.raises(IndexError):
        view[5]
    with pytest.raises(IndexError):
        view[np.array([0, 5])]


def test_it_looks_like_an_array(view: PatchView) -> None:
    assert (view.shape, view.ndim, view.dtype, len(view)) == ((5, 6, 4), 3, np.float32, 5)
    np.testing.assert_array_equal(np.asarray(view), expected(STARTS))
    assert np.asarray(view, dtype=np.float64).dtype == np.float64


def test_without_positional_reads(view: PatchView, monkeypatch) -> None:
    # As on Windows.
    monkeypatch.delattr("os.preadv", raising=False)
    np.testing.assert_array_equal(view[:], expected(STARTS))


def test_the_fingerprint_follows_the_patches(tmp_path: Path, view: PatchView) -> None:
    frames = FrameFile(tmp_path / "frames.f32", bands=4)

    def fingerprint(starts: np.ndarray, store: str) -> str:
        return PatchView(frames, starts, np.zeros(5, int), 6, store).fingerprint

    assert view.fingerprint == fingerprint(STARTS, "a")
    assert len({view.fingerprint, fingerprint(STARTS[::-1], "a"), fingerprint(STARTS, "b")}) == 3


def test_a_file_cut_short_is_an_error_and_no_crash(tmp_path: Path, view: PatchView) -> None:
    with (tmp_path / "frames.f32").open("r+b") as file:
        file.truncate(4 * 4 * 48)
    np.testing.assert_array_equal(view[:3], expected(STARTS[:3]))
    with pytest.raises(RunError, match=r"frames\.f32 ends too early"):
        view[:]


def test_repeat_by_clip() -> None:
    labels = np.array(["a", "b", "c"])
    assert repeat_by_clip(labels, np.array([2, 0, 0])).tolist() == ["c", "a", "a"]
    assert repeat_by_clip(np.eye(3), np.array([1, 1])).tolist() == [[0, 1, 0]] * 2


def test_clip_means() -> None:
    scores = np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 1]], dtype=np.float32)
    means = clip_means(scores, np.array([3, 0, 3, 3]), 5)
    np.testing.assert_allclose(means[3], [0.5, 0.5])
    np.testing.assert_allclose(means[0], [0, 1])
    assert np.isnan(means[[1, 2, 4]]).all()
    with pytest.raises(ValueError, match="4 scores for 3 patches"):
        clip_means(scores, np.array([0, 0, 0]), 1)
