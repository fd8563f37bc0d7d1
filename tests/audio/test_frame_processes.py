"""Frames made by processes: the bytes of one thread, whatever happens to a process."""

from dataclasses import replace
from pathlib import Path

import pytest

from unfreeze.audio import frame_processes as module
from unfreeze.audio.feature_store import build_store
from unfreeze.audio.frame_processes import are_worth, cut_units
from unfreeze.audio.manifest import Manifest, read_manifest
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, RunError

FRONT = FrontEnd()


@pytest.fixture
def make(tmp_path: Path, write_sound):
    """Makes a data set of short and long clips, of several rates and formats, by name."""

    def made(*names: str) -> Manifest:
        all_names = [*names, "a.wav", "b.flac", "c.wav", "d.wav", "long.wav", "e.wav", "f.ogg"]
        for number, name in enumerate(all_names):
            seconds = 40 if name.startswith("long") else 0.3 + number / 4
            rate = (16_000, 22_050, 8_000)[number % 3]
            write_sound(f"data/{'xy'[number % 2]}/{name}", seconds=seconds, rate=rate)
        return read_manifest(tmp_path / "data")

    return made


def frames(folder: Path, manifest: Manifest, workers: int = 2) -> bytes:
    build_store(manifest, FRONT, folder, workers=workers)
    return (folder / "frames.f32").read_bytes()


@pytest.fixture
def small_units(monkeypatch) -> None:
    """Units of one clip or a few, and processes for any number of them."""
    monkeypatch.setattr(module, "UNIT", 1 << 14)
    monkeypatch.setattr(module, "_WORTH", 1)


def test_units_are_consecutive_and_large_enough() -> None:
    rows = module.UNIT // 64
    assert cut_units([0], FRONT) == []
    assert cut_units([0, 100], FRONT) == [range(1)]
    offsets = [0, rows // 2, rows - 1, rows + 5, rows + 6, 3 * rows, 3 * rows + 1]
    assert cut_units(offsets, FRONT) == [range(3), range(3, 5), range(5, 6)]


def test_few_clips_and_one_core_need_no_process() -> None:
    units = [range(1)] * 6
    assert are_worth(units, FRONT, 2)
    assert not are_worth(units[1:], FRONT, 2)
    assert not are_worth(units, FRONT, 1)


@pytest.mark.usefixtures("small_units")
def test_processes_write_what_one_thread_writes(make, tmp_path: Path, monkeypatch) -> None:
    manifest, asked, seen = make(), [], list[tuple[int, int]]()
    write = module._Processes.write

    def counted(self, request):
        written = write(self, request)
        asked.append((len(request["clips"]), written))
        return written

    monkeypatch.setattr(module._Processes, "write", counted)
    build_store(manifest, FRONT, tmp_path / "s", workers=2, progress=lambda *at: seen.append(at))
    assert sum(count for count, _ in asked) == 7
    assert all(written for _, written in asked)
    assert len(asked) > 2
    assert seen[-1] == (7, 7)
    found = (tmp_path / "s/frames.f32").read_bytes()
    assert found == frames(tmp_path / "one", manifest, workers=1)


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("how", ["kill", "hang", "hoard"])
def test_a_process_that_dies_costs_its_unit(how: str, make, tmp_path: Path, monkeypatch) -> None:
    manifest = make(f"{how}.wav", f"{how}.flac")
    expected = frames(tmp_path / "one", manifest, workers=1)
    monkeypatch.setattr(module, "_WORKER", "hostile_frames")
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    assert frames(tmp_path / "two", manifest) == expected
    tried = (manifest.root / "tried.txt").read_text().split()
    # Each clip was given to a process once; a unit that killed one was done here.
    assert len(tried) == len(set(tried))
    assert {f"{how}.wav", f"{how}.flac"} <= {*tried}


@pytest.mark.usefixtures("small_units")
def test_a_file_that_has_changed_is_named(make, tmp_path: Path) -> None:
    manifest = make()
    clip = manifest.clips[2]
    moved = (*manifest.clips[:2], replace(clip, content="0" * 64), *manifest.clips[3:])
    with pytest.raises(DataError, match=rf"{clip.path.name} changed while it was being read"):
        frames(tmp_path / "s", replace(manifest, clips=moved))
    # Nothing that looks whole: only what the same clips could go on with.
    left = {p.name for p in (tmp_path / "s").iterdir()}
    assert left <= {".lock", "frames.f32.unfinished", "frames.f32.written"}


@pytest.mark.usefixtures("small_units")
def test_without_processes_threads_write(make, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise RunError("no more processes")

    manifest = make()
    expected = frames(tmp_path / "one", manifest, workers=1)
    monkeypatch.setattr(module, "DecodeProcess", refuse)
    assert frames(tmp_path / "two", manifest) == expected
