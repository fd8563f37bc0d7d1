import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import cut, flip, no_large_files
from unfreeze.audio.decode import decode, decode_blocks, waveform_blocks
from unfreeze.audio.feature_store import (
    build_store,
    open_store,
    prune_stores,
    sound_span,
    store_fingerprint,
)
from unfreeze.audio.frame_writer import waveform_frames
from unfreeze.audio.logmel import FrameMaker, log_mel_frames, patch_starts
from unfreeze.audio.manifest import Manifest, read_manifest
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, RunError

FRONT = FrontEnd()


@pytest.fixture
def manifest(tmp_path: Path, write_sound) -> Manifest:
    """Clips from below one patch to several, of many rates."""
    for number, (seconds, rate) in enumerate(
        [
            (0.1, 16_000),
            (0.975, 16_000),
            (0.976, 16_000),
            (3.3, 44_100),
            (1.0, 11_127),
            (2.0, 8_000),
        ]
    ):
        write_sound(f"data/{'ab'[number % 2]}/{number}.wav", seconds=seconds, rate=rate)
    return read_manifest(tmp_path / "data")


def test_patches_are_those_of_each_waveform(tmp_path: Path, manifest: Manifest) -> None:
    seen: list[tuple[int, int]] = []
    store = build_store(manifest, FRONT, tmp_path / "s", progress=lambda *at: seen.append(at))
    assert seen[-1] == (6, 6)
    order = [5, 0, 3]
    view = store.patches(order)
    patches, clips = [], []
    for index in order:
        frames = log_mel_frames(decode(manifest.clips[index].path), FRONT)
        for start in patch_starts(len(frames), FRONT):
            patches.append(frames[start : start + 96])
            clips.append(index)
    assert view.clip.tolist() == clips
    np.testing.assert_array_equal(view[:], np.stack(patches))
    # All of them: one for the short ones, more for the others.
    counts = np.bincount(store.patches(range(6)).clip, minlength=6)
    expected = [FRONT.patches(len(decode(clip.path))) for clip in manifest.clips]
    assert counts.tolist() == expected
    assert min(expected) == 1
    assert max(expected) == 6


def test_frames_are_stored_once(tmp_path: Path, manifest: Manifest) -> None:
    store = build_store(manifest, FRONT, tmp_path / "s")
    frames = sum(FRONT.frames(len(decode(clip.path))) for clip in manifest.clips)
    assert (tmp_path / "s/frames.f32").stat().st_size == frames * 64 * 4
    assert len(store.patches(range(6))) * 96 > 1.3 * frames
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        ".lock",
        "clips.npy",
        "frames.f32",
        "meta.json",
    ]


def test_numbers_of_clips(tmp_path: Path, manifest: Manifest) -> None:
    store = build_store(manifest, FRONT, tmp_path / "s")
    assert store.patches([]).shape == (0, 96, 64)
    assert store.patches(np.array([3, 0, 3])).clip.tolist() == [3, 0, 3]
    for wrong in ([-1], [6]):
        with pytest.raises(IndexError, match="0 to 5"):
            store.patches(wrong)


@pytest.mark.parametrize("seconds", [0.5, 30.72, 31.6, 62.9, 100.0])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_long_recordings_piece_by_piece(write_sound, seconds: float, rate: int) -> None:
    path = write_sound("long.wav", seconds=seconds, rate=rate)
    blocks = list(waveform_frames(decode_blocks(path), FrameMaker(FRONT)))
    assert len(blocks) == 1 + (seconds > 33) + (seconds > 64) + (seconds > 95)
    np.testing.assert_array_equal(np.concatenate(blocks), log_mel_frames(decode(path), FRONT))


def test_short_and_long_clips_in_one_bunch(tmp_path: Path, write_sound) -> None:
    for number, seconds in enumerate([0.3, 2.0, 40.0, 0.2, 9.0, 5.0, 11.0, 11.0, 0.1] * 2):
        rate = (16_000, 8_000)[number % 2]
        write_sound(f"data/{'ab'[number % 2]}/{number:02}.wav", seconds=seconds, rate=rate)
    manifest = read_manifest(tmp_path / "data")
    # By one thread, so that one bunch holds several clips.
    store = build_store(manifest, FRONT, tmp_path / "s", workers=1)
    expected = np.concatenate([log_mel_frames(decode(c.path), FRONT) for c in manifest.clips])
    found = np.fromfile(tmp_path / "s/frames.f32", "<f4").reshape(-1, 64)
    np.testing.assert_array_equal(found, expected)
    assert store.clips == 18


def test_a_short_clip_that_has_grown_is_not_read_to_its_end(
    tmp_path: Path, manifest: Manifest, monkeypatch
) -> None:
    path = manifest.clips[0].path
    soundfile.write(path, np.zeros(16_000 * 200), 16_000, subtype="PCM_16")
    read = []
    monkeypatch.setattr(
        "unfreeze.audio.decode_processes.waveform_blocks", lambda *a, **k: counted(*a)
    )

    def counted(sound, resampler):
        for piece in waveform_blocks(sound, resampler, block=16_000):
            read.append(len(piece))
            yield piece

    with pytest.raises(DataError, match=f"{path.name} changed"):
        build_store(manifest, FRONT, tmp_path / "s", workers=1)
    assert 1 <= len(read) <= 3


def stamp(folder: Path) -> int:
    return (folder / "frames.f32").stat().st_mtime_ns


def test_a_store_is_reused_and_replaced(tmp_path: Path, manifest: Manifest) -> None:
    folder = tmp_path / "s"
    first = build_store(manifest, FRONT, folder)
    assert first.fingerprint == store_fingerprint(manifest, FRONT)
    before = stamp(folder)
    seen: list[tuple[int, int]] = []
    build_store(manifest, FRONT, folder, progress=lambda *at: seen.append(at))
    assert (stamp(folder), seen) == (before, [(6, 6)])
    # Labels, groups and splits are no part of it.
    relabelled = replace(
        manifest, clips=tuple(replace(c, label="x", group="y") for c in manifest.clips)
    )
    build_store(relabelled, FRONT, folder)
    assert stamp(folder) == before
    wider = replace(FRONT, patch_hop=24)
    other = build_store(manifest, wider, folder)
    assert stamp(folder) != before
    assert other.fingerprint != first.fingerprint
    assert len(other.patches(range(6))) > len(first.patches(range(6)))
    # What was open before still reads what it was built from.
    np.testing.assert_array_equal(first.patches([0])[:], other.patches([0])[:1])


def test_the_fingerprint_follows_contents_and_their_order(manifest: Manifest) -> None:
    turned = replace(manifest, clips=manifest.clips[::-1])
    fewer = replace(manifest, clips=manifest.clips[1:])
    assert len({store_fingerprint(m, FRONT) for m in (manifest, turned, fewer)}) == 3


@pytest.mark.parametrize("file", ["meta.json", "clips.npy", "frames.f32"])
@pytest.mark.parametrize("damage", ["missing", "short", "long", "junk"])
def test_a_damaged_store_is_built_again(
    tmp_path: Path, manifest: Manifest, file: str, damage: str
) -> None:
    store = build_store(manifest, FRONT, tmp_path / "s")
    whole = store.patches(range(6))[:]
    path = tmp_path / "s" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = {"short": content[:-4], "long": content + b"\0", "junk": b"{}"}
        path.write_bytes(changed[damage])
    # numpy does not mind bytes behind an array.
    if (file, damage) != ("clips.npy", "long"):
        assert open_store(tmp_path / "s") is None
    again = build_store(manifest, FRONT, tmp_path / "s")
    np.testing.assert_array_equal(again.patches(range(6))[:], whole)


def test_a_store_of_another_format_version_is_not_opened(
    tmp_path: Path, manifest: Manifest
) -> None:
    build_store(manifest, FRONT, tmp_path / "s")
    path = tmp_path / "s/meta.json"
    meta = json.loads(path.read_text())
    assert (meta["version"], meta["clips"], meta["front_end"]["bands"]) == (3, 6, 64)
    path.write_text(json.dumps(meta | {"version": 1}))
    assert open_store(tmp_path / "s") is None


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
def test_files_that_change_after_the_manifest_was_read(
    tmp_path: Path, manifest: Manifest, change: str
) -> None:
    path = manifest.clips[2].path
    samples, rate = soundfile.read(path)
    changed = {"longer": np.tile(samples, 3), "shorter": samples[::2], "other": -samples}
    if change == "gone":
        path.unlink()
    else:
        soundfile.write(path, changed[change], rate)
    with pytest.raises(DataError, match=f"{path.name}.*(changed|cannot be opened)"):
        build_store(manifest, FRONT, tmp_path / "s")
    # Nothing that looks whole, and nothing half written, stays behind.
    assert [p.name for p in (tmp_path / "s").iterdir()] == [".lock"]
    assert open_store(tmp_path / "s") is None


def test_a_disk_that_is_too_small(tmp_path: Path, manifest: Manifest, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(RunError, match=r"needs 0\.00 GB .* 0\.00 GB free"):
        build_store(manifest, FRONT, tmp_path / "s")


def test_the_number_of_threads_changes_nothing(tmp_path: Path, manifest: Manifest) -> None:
    for workers in (1, 3):
        build_store(manifest, FRONT, tmp_path / str(workers), workers=workers)
    assert (tmp_path / "1/frames.f32").read_bytes() == (tmp_path / "3/frames.f32").read_bytes()


def test_two_processes_at_once(tmp_path: Path, manifest: Manifest) -> None:
    code = (
        "import sys; from unfreeze.audio.manifest import read_manifest; "
        "from unfreeze.audio.feature_store import build_store; "
        "from unfreeze.backbones.frontend import FrontEnd; "
        "s = build_store(read_manifest(sys.argv[1]), FrontEnd(), sys.argv[2]); "
        "print(float(s.patches(range(6))[:].sum()), 'keras' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(manifest.root), str(tmp_path / "s")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {run.communicate(timeout=60)[0] for run in runs}
    expected = float(build_store(manifest, FRONT, tmp_path / "s").patches(range(6))[:].sum())
    # Neither needed Keras for it.
    assert outputs == {f"{expected} False\n"}


def test_the_animal_sounds(tmp_path: Path, shared_data: Path) -> None:
    manifest = read_manifest(shared_data / "animal-sounds")
    store = build_store(manifest, FRONT, tmp_path / "s")
    view = store.patches(range(396))
    assert view.shape == (2872, 96, 64)
    assert set(view.clip) == set(range(396))
    values = view[:]
    assert np.isfinite(values).all()
    assert values.min() >= np.log(np.float32(0.001)) - 1e-6
    assert -6 < values.mean() < 0


def test_what_a_killed_build_left_is_removed(tmp_path: Path, manifest: Manifest) -> None:
    names = ("frames.f32", "clips.npy", "meta.json")
    for name in names:
        (tmp_path / "s").mkdir(exist_ok=True)
        (tmp_path / "s" / f".partial-0123456789abcdef-{name}").write_bytes(b"half")
    (tmp_path / "s" / ".partial-0123456789abcdef-letter.txt").touch()
    build_store(manifest, FRONT, tmp_path / "s")
    left = {path.name for path in (tmp_path / "s").iterdir()} - {".lock", *names}
    assert left == {".partial-0123456789abcdef-letter.txt"}


@pytest.mark.parametrize("file", ["clips.npy", "frames.f32"])
def test_a_store_with_a_changed_bit_is_built_anew(
    file: str, tmp_path: Path, manifest: Manifest
) -> None:
    expected = build_store(manifest, FRONT, tmp_path / "s").patches(range(6))[:]
    flip(tmp_path / "s" / file)
    assert open_store(tmp_path / "s") is None
    np.testing.assert_array_equal(
        build_store(manifest, FRONT, tmp_path / "s").patches(range(6))[:], expected
    )
    assert open_store(tmp_path / "s") is not None


def test_a_store_that_can_only_be_read_is_used(
    tmp_path: Path, manifest: Manifest, monkeypatch
) -> None:
    build_store(manifest, FRONT, tmp_path / "s")

    class NoLock:
        def __init__(self, *_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system")

    monkeypatch.setattr("unfreeze.audio.feature_store.filelock.FileLock", NoLock)
    assert build_store(manifest, FRONT, tmp_path / "s").clips == 6
    with pytest.raises(RunError, match=r"cannot be written \(Read-only.*Set UNFREEZE_CACHE"):
        build_store(manifest, FRONT, tmp_path / "other")


def test_a_store_that_does_not_fit_leaves_nothing_half_written(
    tmp_path: Path, manifest: Manifest
) -> None:
    with no_large_files(10_000), pytest.raises(RunError, match=r"cannot be written \(File too"):
        build_store(manifest, FRONT, tmp_path / "s")
    assert [p.name for p in (tmp_path / "s").iterdir()] == [".lock"]
    build_store(manifest, FRONT, tmp_path / "s")


def test_a_store_that_is_cut_short_or_removed_while_it_is_read(
    tmp_path: Path, manifest: Manifest
) -> None:
    view = build_store(manifest, FRONT, tmp_path / "s").patches(range(6))
    expected = view[:]
    cut(tmp_path / "s" / "frames.f32")
    with pytest.raises(RunError, match=r"frames\.f32 ends too early.*run again"):
        view[:]
    view = build_store(manifest, FRONT, tmp_path / "s").patches(range(6))
    shutil.rmtree(tmp_path / "s")
    np.testing.assert_array_equal(view[:], expected)


def test_memory_that_runs_out_in_a_thread_ends_the_build_cleanly(
    tmp_path: Path, manifest: Manifest, monkeypatch
) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError("7 TiB")

    monkeypatch.setattr("unfreeze.audio.feature_store.FrameWriter._waveform", greedy)
    with pytest.raises(MemoryError, match="7 TiB"):
        build_store(manifest, FRONT, tmp_path / "s", workers=2)
    assert [p.name for p in (tmp_path / "s").iterdir()] == [".lock"]


def test_the_stores_used_longest_ago_go_but_not_one_that_is_being_built(
    tmp_path: Path,
) -> None:
    for age, name in enumerate(["new", "kept", "busy", "old"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "frames.f32").write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "a file").touch()
    with filelock.FileLock(tmp_path / "busy" / ".lock"):
        os.utime(tmp_path / "busy", (998, 998))
        prune_stores(tmp_path, 300, keep=tmp_path / "kept")
        assert {p.name for p in tmp_path.iterdir()} == {"new", "kept", "busy", "a file"}
        prune_stores(tmp_path, 100, keep=tmp_path / "kept")
        assert {p.name for p in tmp_path.iterdir()} == {"kept", "busy", "a file"}
    prune_stores(tmp_path / "none", 0, keep=tmp_path)


def test_sounds_of_a_recording_are_windows_over_its_frames(tmp_path: Path) -> None:
    rate, front = 16_000, FrontEnd()
    wave = np.random.default_rng(3).normal(0, 0.1, 12 * rate).astype("float32")
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    # Shorter than a patch: at the beginning, in the middle, at the end; then two longer ones.
    spans = [(0.1, 0.3), (5.0, 5.2), (11.9, 12.0), (2.0, 4.5), (10.5, 12.0)]
    rows = "".join(f"{s}\t{e}\tsound\n" for s, e in spans)
    (tmp_path / "a.txt").write_text(rows.replace("sound", "cat", 1))
    manifest = read_manifest(tmp_path)
    store = build_store(manifest, front, tmp_path / "store")
    whole = log_mel_frames(wave, front)
    assert (tmp_path / "store/frames.f32").stat().st_size == whole.size * 4
    by_start = {clip.start: number for number, clip in enumerate(manifest.clips)}
    size = front.patch_frames
    last = len(whole) - size
    expected = {
        0.1: [0],
        5.0: [510 - 48],
        11.9: [last],
        2.0: [200, 248, 296, 344],
        10.5: [1050, 1098],
    }
    for start, first in expected.items():
        view = store.patches([by_start[start]])
        assert view.clip.tolist() == [by_start[start]] * len(first)
        for patch, row in zip(view[:], first, strict=True):
            np.testing.assert_allclose(patch, whole[row : row + size], atol=1e-5)


@settings(deadline=None)
@given(st.floats(0, 30), st.floats(0.01, 30), st.integers(96, 3000), st.integers(0, 10_000))
def test_the_span_of_a_sound_is_in_its_recording(start, length, room, first) -> None:
    front = FrontEnd()
    begin, end = sound_span(start, start + length, first, first + room, front)
    assert first <= begin < end <= first + room
    assert end - begin >= front.patch_frames
    inside = start + length <= room / 100 and length >= 0.96
    if inside:
        assert begin == pytest.approx(first + 100 * start, abs=1)
        assert end == pytest.approx(first + 100 * (start + length), abs=1)
