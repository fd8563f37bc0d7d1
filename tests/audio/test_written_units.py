"""A build of a feature store that was interrupted goes on: same bytes, and no unit twice."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import flip
from unfreeze.audio import frame_processes
from unfreeze.audio.feature_store import build_store, open_store, store_fingerprint
from unfreeze.audio.frame_processes import cut_units
from unfreeze.audio.frame_writer import FrameWriter
from unfreeze.audio.manifest import Manifest, read_manifest
from unfreeze.audio.written_units import remove_unfinished, unfinished_bytes, written_units
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import RunError

FRONT = FrontEnd()
CLIPS = 12


@pytest.fixture
def manifest(tmp_path: Path, write_sound, monkeypatch) -> Manifest:
    """Clips of a second; two are a unit."""
    monkeypatch.setattr(frame_processes, "UNIT", 2 * 96 * 64)
    for number in range(CLIPS):
        write_sound(f"data/{'xy'[number % 2]}/{number:02}.wav", seconds=1.0)
    return read_manifest(tmp_path / "data")


@pytest.fixture
def expected(tmp_path: Path, manifest: Manifest) -> bytes:
    build_store(manifest, FRONT, tmp_path / "expected", workers=1)
    return (tmp_path / "expected/frames.f32").read_bytes()


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """The numbers of the clips that were computed here."""
    numbers: list[int] = []
    compute = FrameWriter._waveform

    def counted(self, number):
        numbers.append(number)
        return compute(self, number)

    monkeypatch.setattr(FrameWriter, "_waveform", counted)
    return numbers


def interrupt(manifest: Manifest, folder: Path, clips: int) -> None:
    """Build until `clips` are done, then Ctrl-C."""

    def stop(done: int, _: int) -> None:
        if done >= clips:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(manifest, FRONT, folder, workers=1, progress=stop)


@pytest.mark.parametrize("workers", [1, 2])
def test_it_goes_on_from_where_it_was_interrupted(
    workers: int, manifest: Manifest, expected: bytes, read: list[int], tmp_path: Path
) -> None:
    interrupt(manifest, tmp_path / "s", 4)
    assert read == [0, 1, 2, 3]
    assert open_store(tmp_path / "s") is None
    seen: list[tuple[int, int]] = []
    build_store(
        manifest, FRONT, tmp_path / "s", workers=workers, progress=lambda *at: seen.append(at)
    )
    assert sorted(read) == list(range(CLIPS))
    assert seen[0] == (4, CLIPS)
    assert seen[-1] == (CLIPS, CLIPS)
    assert (tmp_path / "s/frames.f32").read_bytes() == expected
    left = {path.name for path in (tmp_path / "s").iterdir()}
    assert left == {".lock", "clips.npy", "frames.f32", "meta.json"}


def test_a_killed_process_leaves_what_it_has_written(
    manifest: Manifest, expected: bytes, read: list[int], tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys\n"
        "from unfreeze.audio import frame_processes\n"
        "frame_processes.UNIT = int(sys.argv[3])\n"
        "from unfreeze.audio.feature_store import build_store\n"
        "from unfreeze.audio.manifest import read_manifest\n"
        "from unfreeze.backbones.frontend import FrontEnd\n"
        "def kill(done, total):\n"
        "    if done == 6:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "build_store(read_manifest(sys.argv[1]), FrontEnd(), sys.argv[2], workers=1, progress=kill)"
    )
    command = [sys.executable, "-c", code, manifest.root, tmp_path / "s", frame_processes.UNIT]
    killed = subprocess.run([*map(str, command)], check=False, timeout=120)
    assert killed.returncode == -9
    build_store(manifest, FRONT, tmp_path / "s", workers=1)
    assert read == list(range(6, CLIPS))
    assert (tmp_path / "s/frames.f32").read_bytes() == expected


def test_bytes_that_a_power_cut_has_lost_are_written_again(
    manifest: Manifest, expected: bytes, read: list[int], tmp_path: Path
) -> None:
    interrupt(manifest, tmp_path / "s", 6)
    with (tmp_path / "s/frames.f32.unfinished").open("r+b") as file:
        # In the second unit: a clip has 98 frames or a few more.
        file.seek(300 * 64 * 4 + 5)
        file.write(b"\0\0")
    with (tmp_path / "s/frames.f32.written").open("r+b") as file:
        # The last line is cut short.
        file.truncate(os.fstat(file.fileno()).st_size - 3)
    read.clear()
    build_store(manifest, FRONT, tmp_path / "s", workers=1)
    assert read == [2, 3, *range(4, CLIPS)]
    assert (tmp_path / "s/frames.f32").read_bytes() == expected


def test_what_belongs_to_other_clips_is_not_used(
    manifest: Manifest, read: list[int], tmp_path: Path, write_sound
) -> None:
    interrupt(manifest, tmp_path / "s", 6)
    write_sound("data/x/00.wav", seconds=1.0)  # other noise
    read.clear()
    changed = read_manifest(tmp_path / "data")
    build_store(changed, FRONT, tmp_path / "s", workers=1)
    assert read == list(range(CLIPS))


def test_an_interruption_before_the_store_is_described_costs_nothing(
    manifest: Manifest, expected: bytes, read: list[int], tmp_path: Path, monkeypatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("unfreeze.audio.feature_store.write_json", stop)
        build_store(manifest, FRONT, tmp_path / "s", workers=1)
    assert open_store(tmp_path / "s") is None
    read.clear()
    build_store(manifest, FRONT, tmp_path / "s", workers=1)
    assert read == []
    assert (tmp_path / "s/frames.f32").read_bytes() == expected
    left = {path.name for path in (tmp_path / "s").iterdir()}
    assert left == {".lock", "clips.npy", "frames.f32", "meta.json"}


@pytest.mark.parametrize(("number", "kept"), [(28, False), (5, True), (32, True)])
def test_only_a_full_disk_costs_what_is_written(
    number: int, kept: bool, manifest: Manifest, read: list[int], tmp_path: Path
) -> None:
    def fail(done: int, _: int) -> None:
        if done >= 6:
            raise OSError(number, os.strerror(number))

    with pytest.raises(RunError):
        build_store(manifest, FRONT, tmp_path / "s", workers=1, progress=fail)
    read.clear()
    build_store(manifest, FRONT, tmp_path / "s", workers=1)
    assert read == list(range(6 if kept else 0, CLIPS))


def test_a_full_disk_leaves_nothing(manifest: Manifest, tmp_path: Path) -> None:
    fingerprint = store_fingerprint(manifest, FRONT)
    final, rows = tmp_path / "frames.f32", [96 * number for number in range(CLIPS + 1)]
    units = cut_units(rows, FRONT)
    with (
        pytest.raises(OSError, match="full"),
        written_units(final, fingerprint, rows, 256, units) as built,
    ):
        built.file.write(b"x" * 256 * 192)
        built.add(units[0])
        assert unfinished_bytes(final) >= 256 * 192
        raise OSError(28, "full")
    assert not list(tmp_path.glob("frames*"))
    assert unfinished_bytes(final) == 0


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_unit_is_left_out_only_if_its_bytes_are_there(data, tmp_path_factory) -> None:
    """Whatever is done in whatever order, and whichever byte is damaged."""
    final = tmp_path_factory.mktemp("s") / "frames.f32"
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=8))
    rows = [0, *np.cumsum(lengths).tolist()]
    units = [range(number, number + 1) for number in range(len(lengths))]
    content = np.random.default_rng(0).bytes(rows[-1] * 8)
    done = data.draw(st.lists(st.sampled_from(units), unique=True))
    with pytest.raises(KeyboardInterrupt), written_units(final, "a" * 64, rows, 8, units) as built:
        for unit in done:
            first, end = rows[unit.start] * 8, rows[unit.stop] * 8
            built.file.seek(first)
            built.file.write(content[first:end])
            built.add(unit)
        raise KeyboardInterrupt
    broken = None
    if done and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        flip(final.with_name("frames.f32.unfinished"), place)
        broken = next(unit for unit in units if rows[unit.start] * 8 <= place < rows[unit.stop] * 8)
    with written_units(final, "a" * 64, rows, 8, units) as built:
        assert built.todo == [unit for unit in units if unit not in done or unit == broken]
        for unit in built.todo:
            first, end = rows[unit.start] * 8, rows[unit.stop] * 8
            built.file.seek(first)
            built.file.write(content[first:end])
            built.add(unit)
    assert final.read_bytes() == content
    remove_unfinished(final)
    assert [path.name for path in final.parent.iterdir()] == ["frames.f32"]
