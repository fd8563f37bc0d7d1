import gc
import math
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio import decode_processes as module
from unfreeze.audio.decode import Resampler, decode
from unfreeze.audio.decode_processes import DecodeProcess, Decoders
from unfreeze.audio.feature_store import build_store
from unfreeze.audio.manifest import build_manifest, examine_source
from unfreeze.audio.rules import examine
from unfreeze.audio.sound_file import SoundError
from unfreeze.audio.sources import find_source
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.scan import Begun, Ended, read_patches, scan_files
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.errors import DataError, RunError


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders() as processes:
        yield processes


@pytest.fixture
def bad() -> Iterator[Decoders]:
    """Processes that do as the file's name tells; see `hostile_worker`."""
    with Decoders(module="hostile_worker") as processes:
        yield processes


def tried(path: Path) -> int:
    return (path.parent / "tried.txt").read_text().splitlines().count(path.name)


def judged(decoders: Decoders, *paths: Path) -> list[tuple[str, str]]:
    """Rule and cause of each file, empty for a good one."""
    found = decoders.examine((path, Path(path.name)) for path in paths)
    assert [p.path.name for _, problems in found for p in problems] == [
        path.name for path, (_, problems) in zip(paths, found, strict=True) for _ in problems
    ]
    assert all((facts is None) == bool(problems) for facts, problems in found)
    return [(p[0].rule, p[0].cause) if p else ("", "") for _, p in found]


def pieces(decoders: Decoders, path: Path, rate: int = 16_000, block: int = 1 << 21) -> np.ndarray:
    with decoders.waveform(path, Resampler(rate), block=block) as sound:
        return np.concatenate(list(sound.blocks))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.mp3", {}),
        ("24.wav", {"subtype": "PCM_24"}),
        ("16.wav", {"subtype": "PCM_16"}),
    ],
)
def test_a_process_gives_what_is_read_here(write_sound, decoders, name: str, how: dict) -> None:
    path = write_sound(name, seconds=1.3, rate=22_050, channels=2, **how)
    assert decoders.examine([(path, Path("x"))]) == [examine(path, Path("x"))]
    for block in (1 << 21, 5_000):
        np.testing.assert_array_equal(pieces(decoders, path, block=block), decode(path))
    with decoders.waveform(path, Resampler(8_000)) as sound:
        assert (sound.sample_rate, sound.path) == (22_050, path)
        assert sound.promised == pytest.approx(1.3 * 22_050, rel=0.1)
        assert sound.content() == examine(path, Path("x"))[0].content


def test_what_breaks_a_rule_is_known_at_the_end_of_the_waveform(tmp_path, decoders) -> None:
    tone = 0.5 * np.sin(np.arange(48_000) * 2 * np.pi * 9_000 / 48_000)
    for name in ("high.wav", "high.flac"):
        path = tmp_path / name
        soundfile.write(path, np.stack([tone, tone / 2], 1), 48_000)
        expected = [(p.rule, p.cause, p.fatal) for p in examine(path, Path("x"))[1]]
        assert [rule for rule, _, _ in expected] == ["too_high"]
        for judge in (True, False):
            with decoders.waveform(path, Resampler(16_000), judge=judge) as sound:
                assert sound.findings == []
                assert sum(map(len, sound.blocks)) == 16_000
                assert sound.findings == (expected if judge else [])


def test_plain_wav_files_and_what_is_no_sound_need_no_process(write_sound, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(module, "DecodeProcess", refuse)
    good = write_sound("good.wav", subtype="PCM_16")
    empty, text = good.with_name("empty.flac"), good.with_name("text.mp3")
    empty.touch()
    text.write_text("hello " * 100)
    with Decoders() as decoders:
        rules = [rule for rule, _ in judged(decoders, good, empty, text, good.with_name("none"))]
        assert rules == ["", "empty", "unreadable", "missing"]
        np.testing.assert_array_equal(pieces(decoders, good), decode(good))
        with pytest.raises(SoundError, match="text"):
            pieces(decoders, text)


@pytest.mark.parametrize(
    ("name", "tries", "cause"),
    [
        ("kill.flac", 2, "killed by the system"),
        ("half.flac", 2, "killed by the system"),
        ("crash.flac", 2, r"crashes \(SIGSEGV\)"),
        ("nonsense.flac", 2, "gives an invalid answer"),
        ("slow.flac", 1, "takes more than 0 s to decode"),
        ("defect.flac", 1, "unexpected error.*ZeroDivisionError: by nothing"),
    ],
)
def test_what_a_file_does_is_said_of_it_alone(
    write_sound, bad, name: str, tries: int, cause: str
) -> None:
    before = write_sound("before.flac")
    # Long enough for several blocks.
    path = write_sound(name, seconds=3, rate=48_000)
    after = write_sound("after.flac")
    (first, _), (rule, said), (last, _) = judged(bad, before, path, after)
    assert (first, rule, last) == ("", "harmful", "")
    assert re.search(cause, said), said
    assert (tried(before), tried(path), tried(after)) == (1, tries, 1)
    with pytest.raises(SoundError, match=cause) as caught:
        pieces(bad, path, block=1 << 15)
    assert caught.value.path == path
    np.testing.assert_array_equal(pieces(bad, after), decode(after))


def test_a_file_that_hangs_is_given_up_at_once(write_sound) -> None:
    path, after = write_sound("hang.flac"), write_sound("after.flac")
    with Decoders(module="hostile_worker", patience=1) as decoders:
        ((rule, said),) = judged(decoders, path)
        assert rule == "harmful"
        assert "hangs: it sent nothing for 1 s" in said
        assert tried(path) == 1
        # A machine that is busy may take a second for a good file.
        decoders._patience = 60
        assert judged(decoders, after) == [("", "")]


def test_a_process_may_not_hoard_memory(write_sound, bad) -> None:
    pytest.importorskip("resource")
    if sys.platform != "linux":
        pytest.skip("only Linux holds a process to RLIMIT_DATA")
    assert judged(bad, write_sound("hoard.flac")) == [
        ("harmful", "it takes more than 1.1 GB of memory to decode")
    ]


def test_a_file_that_is_not_to_blame_is_read_by_the_next_process(write_sound, bad) -> None:
    path = write_sound("once.flac", seconds=3, rate=48_000)
    assert judged(bad, path) == [("", "")]
    (path.parent / "tried.txt").unlink()
    # It dies in the middle; what follows is what was missing.
    np.testing.assert_array_equal(pieces(bad, path, block=1 << 15), decode(path))
    assert tried(path) == 2


def test_the_check_of_a_data_set_and_a_search_go_on(tmp_path: Path, write_sound, bad) -> None:
    bad_names = {7: "kill.flac", 13: "crash.flac"}
    for number in range(24):
        name = bad_names.get(number, f"{number:02}.flac")
        write_sound(f"data/{'ab'[number % 2]}/{name}", seconds=2.5)
    seen: list[tuple[int, int]] = []
    source = find_source(tmp_path / "data")
    good, problems = examine_source(
        source, decoders=bad, workers=2, progress=lambda *at: seen.append(at)
    )
    manifest = build_manifest(source.root, source.labels, good, problems)
    assert len(manifest.clips) == 22
    assert sorted(p.path.name for p in manifest.problems) == ["crash.flac", "kill.flac"]
    assert seen[-1] == (24, 24)

    paths = [entry.path for entry in source.entries]
    ended: dict[str, Exception | None] = {}
    patches: Counter[str] = Counter()
    for number, item in scan_files(Constant(), FrontEnd(), paths, 48, workers=2, decoders=bad):
        if isinstance(item, Ended):
            ended[paths[number].name] = item.error
        elif isinstance(item, ScoreBlock):
            patches[paths[number].name] += len(item.starts)
    failed = {name: error for name, error in ended.items() if error is not None}
    assert sorted(failed) == ["crash.flac", "kill.flac"]
    assert all(isinstance(e, DataError) and name in str(e) for name, e in failed.items())
    assert len(ended) == 24
    assert patches == dict.fromkeys(set(ended) - set(failed), 5)


class Constant:
    """Stands for a network."""

    def predict_on_batch(self, patches: np.ndarray) -> np.ndarray:
        return np.full((len(patches), 2), 0.5, np.float32)


def test_a_clip_that_kills_when_the_features_are_computed_is_named(
    tmp_path: Path, write_sound, monkeypatch
) -> None:
    for number in range(6):
        write_sound(f"data/{'ab'[number % 2]}/{number}.flac")
    source = find_source(tmp_path / "data")
    manifest = build_manifest(source.root, source.labels, *examine_source(source))
    monkeypatch.setattr(
        "unfreeze.audio.feature_store.Decoders", lambda: Decoders(module="hostile_worker")
    )
    path = manifest.clips[2].path
    (path.parent / "tried.txt").touch()
    path.rename(path.with_name("kill.flac"))
    clips = [
        replace(c, path=path.with_name("kill.flac")) if c.path == path else c
        for c in manifest.clips
    ]
    with pytest.raises(DataError, match=r"kill\.flac: the decoder is killed"):
        build_store(replace(manifest, clips=tuple(clips)), FrontEnd(), tmp_path / "s")
    assert not (tmp_path / "s/meta.json").exists()


def test_names_with_line_breaks_and_foreign_bytes(write_sound, decoders) -> None:
    good = write_sound("good.flac")
    odd = good.with_name(os.fsdecode(b"new\nline \xff\x1b.flac"))
    good.rename(odd)
    assert judged(decoders, odd) == [("", "")]
    np.testing.assert_array_equal(pieces(decoders, odd), decode(odd))
    odd.write_bytes(odd.read_bytes()[:60])
    with pytest.raises(SoundError, match=r"new\\nline \\xff\\x1b\.flac: "):
        pieces(decoders, odd)


def test_a_relative_path_is_seen_from_here(write_sound, decoders, monkeypatch) -> None:
    path = write_sound("there/a.flac")
    decoders.examine([(path, path)])
    monkeypatch.chdir(path.parent)
    assert judged(decoders, Path("a.flac")) == [("", "")]


def test_a_process_that_cannot_start_is_told(write_sound) -> None:
    with Decoders(module="no_such_module") as decoders, pytest.raises(RunError) as caught:
        judged(decoders, write_sound("a.flac"))
    assert str(caught.value).startswith("The process that decodes sound files could not start: ")
    assert "no_such_module" in str(caught.value)


def test_a_frozen_program_does_not_start_itself(write_sound, monkeypatch) -> None:
    path = write_sound("a.flac")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with Decoders(module="no_such_module") as decoders:
        assert judged(decoders, path) == [("", "")]
        np.testing.assert_array_equal(pieces(decoders, path), decode(path))


def ids(decoders: Decoders) -> list[int]:
    return [process._process.pid for process in decoders._idle]


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_process_reads_file_after_file_and_ends_with_its_owner(write_sound) -> None:
    path = write_sound("a.flac")
    with Decoders() as decoders:
        judged(decoders, path)
        (first,) = ids(decoders)
        pieces(decoders, path)
        # Ctrl-C reaches it too, and is not its business.
        os.kill(first, signal.SIGINT)
        judged(decoders, path)
        assert ids(decoders) == [first]
        assert not gone(first)
    assert gone(first)
    forgotten = Decoders()
    judged(forgotten, path)
    (second,) = ids(forgotten)
    del forgotten
    gc.collect()
    assert gone(second)


def test_a_file_that_is_not_read_to_its_end_leaves_no_process_behind(write_sound) -> None:
    path = write_sound("a.flac", seconds=20)
    with Decoders() as decoders:
        with decoders.waveform(path, Resampler(16_000), block=16_000) as sound:
            next(sound.blocks)
        assert ids(decoders) == []
        np.testing.assert_array_equal(pieces(decoders, path), decode(path))
        # The same from a search that is given up.
        patches = read_patches(path, FrontEnd(), 48, decoders)
        assert isinstance(next(patches), Begun)
        patches.close()
        assert ids(decoders) == []


def test_further_processes_are_started_when_threads_have_waited(write_sound, monkeypatch) -> None:
    path = write_sound("a.flac")
    with Decoders() as decoders:
        monkeypatch.setattr(module, "_WORTH", 1000.0)
        barrier = threading.Barrier(2, timeout=60)

        def read() -> None:
            barrier.wait()
            for _ in range(5):
                decoders.examine([(path, path)])

        def both() -> int:
            threads = [threading.Thread(target=read) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return len(ids(decoders))

        assert both() == 1
        monkeypatch.setattr(module, "_WORTH", 0.0)
        assert both() == 2


def test_a_reader_may_take_its_time(write_sound) -> None:
    path = write_sound("a.flac", seconds=5)
    process = DecodeProcess("unfreeze.audio.decode_worker", 60)
    request = {"paths": [str(path)], "sample_rate": 16_000, "block": 16_000, "judge": False}
    deadlines = [process._deadline for _ in process.ask(request)]
    process.close()
    # The clock stands still between two messages.
    assert deadlines == [math.inf] * len(deadlines)
    assert len(deadlines) > 4


def test_a_process_that_is_killed_while_it_waits_is_replaced(write_sound, decoders) -> None:
    path = write_sound("a.flac")
    judged(decoders, path)
    for process in ids(decoders):
        os.kill(process, signal.SIGKILL)
    assert judged(decoders, path) == [("", "")]


def test_a_closed_process_is_closed_once_more_without_harm() -> None:
    process = DecodeProcess("unfreeze.audio.decode_worker", 60)
    process.close()
    process.close()
    assert gone(process._process.pid)
