"""Copies of patches in noise: exact powers, the same each time, read in any order."""

import hashlib

import numpy as np
import pytest

from unfreeze.audio import noisy_patches
from unfreeze.audio.noisy_patches import NoisyView, make_bank
from unfreeze.backbones.frontend import FrontEnd

FRONT = FrontEnd()


class Stored:
    """Stands for a `PatchView`."""

    def __init__(self, patches, clip):
        self.patches, self.clip = patches, clip
        self.shape, self.dtype = patches.shape, patches.dtype
        self.fingerprint = hashlib.sha256(patches.tobytes()).hexdigest()

    def __len__(self):
        return len(self.patches)

    def __getitem__(self, rows):
        return self.patches[rows]


@pytest.fixture(scope="module")
def bank():
    return make_bank(FRONT, 2, np.random.default_rng(0))


@pytest.fixture(scope="module")
def stored():
    rng = np.random.default_rng(1)
    magnitudes = rng.uniform(0, 1, (9, 96, 64)) * 10 ** rng.uniform(-2, 1, (9, 1, 1))
    patches = np.log(magnitudes + FRONT.log_offset).astype(np.float32)
    return Stored(patches, np.array([2, 2, 2, 5, 5, 7, 7, 7, 7]))


def view_of(stored, bank, seed=3, copies=2):
    return NoisyView(stored, bank, np.random.default_rng(seed), FRONT, 10, copies)


def test_each_kind_of_background_is_there(bank):
    assert len(bank.kinds) == 9
    assert np.bincount(bank.kind).tolist() == [2] * 9
    assert len(bank.clip) == len(bank.patches) == 18 * 5
    less = bank.without(("wind", "hum"))
    assert "wind" not in less.kinds
    assert np.bincount(less.kind).tolist() == [2] * 7
    assert np.unique(less.clip).tolist() == list(range(14))
    kept = bank.patches[np.isin(bank.kind[bank.clip], [0, 1, 3, 4, 6, 7, 8])]
    np.testing.assert_array_equal(less.patches, kept)


def test_clips_copies_and_background_follow_each_other(stored, bank):
    view = view_of(stored, bank)
    assert view.shape == (9 + 18 + 90, 96, 64)
    np.testing.assert_array_equal(view[:9], stored.patches)
    np.testing.assert_array_equal(view[27:], bank.patches)
    assert view.clip[:9].tolist() == stored.clip.tolist()
    # Six copies of three clips, from number 10 on; then the background.
    assert np.unique(view.clip[9:27]).tolist() == list(range(10, 16))
    assert view.source[:6].tolist() == [2, 5, 7, 2, 5, 7]
    assert view.clip[9:18].tolist() == [10, 10, 10, 11, 11, 12, 12, 12, 12]
    assert view.clip[27:].tolist() == (16 + bank.clip).tolist()
    assert set(view.source[6:].tolist()) == {-1}


def test_it_reads_like_an_array(stored, bank):
    view = view_of(stored, bank)
    whole = np.asarray(view)
    rows = np.random.default_rng(0).permutation(len(view))
    np.testing.assert_array_equal(view[rows], whole[rows])
    np.testing.assert_array_equal(view[12], whole[12])
    np.testing.assert_array_equal(view[5:40:3], whole[5:40:3])
    np.testing.assert_array_equal(view[rows > 50], whole[rows > 50])
    assert np.isfinite(whole).all()


def test_noise_is_so_far_below_the_clip_as_was_drawn(stored, bank, monkeypatch):
    """With noise of one known power, and no change of level, the powers can be counted."""
    monkeypatch.setattr(noisy_patches, "_LEVEL", (0.0, 0.0))
    for above in (0.0, 10.0, 20.0):
        monkeypatch.setattr(noisy_patches, "_ABOVE", (above, above))
        view = view_of(stored, bank, copies=1)

        def power(patches):
            magnitude = np.exp(patches.astype(np.float64)) - FRONT.log_offset
            return (magnitude**2).mean(axis=(1, 2))

        copies, own = power(view[9:18]), power(stored.patches)
        for clip in (2, 5, 7):
            mine = stored.clip == clip
            share = (copies[mine] - own[mine]).mean() / own[mine].mean()
            assert share == pytest.approx(10 ** (-above / 10), rel=0.02)


def test_the_seed_decides_and_the_fingerprint_tells(stored, bank):
    one, same, other = (view_of(stored, bank, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one[:], same[:])
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert not np.array_equal(one[9:27], other[9:27])


def test_of_very_many_patches_there_are_fewer_copies(stored, bank, monkeypatch):
    monkeypatch.setattr(noisy_patches, "_MOST", 12)
    assert len(view_of(stored, bank)) == 9 + 9 + 90
    monkeypatch.setattr(noisy_patches, "_MOST", 8)
    assert len(view_of(stored, bank)) == 9 + 90
