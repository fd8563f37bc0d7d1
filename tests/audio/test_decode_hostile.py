"""A part of what `python -m benchmarks.hostile_audio` reads."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from benchmarks.hostile_corpus import Trap, encoded, mutated, traps, write_corpus
from benchmarks.hostile_flac import constant_flac

from unfreeze.audio import sound_file
from unfreeze.audio.decode import decode
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.logmel import log_mel_frames
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.rules import examine
from unfreeze.audio.sound_file import SoundError
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.recordings import find_recordings
from unfreeze.detection.scan import read_patches
from unfreeze.errors import DataError, show

QUICK = [trap for trap in traps() if not trap.heavy]


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders() as processes:
        yield processes


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(folder, len(QUICK) + 102, seed=1, heavy=False)


def test_every_file_is_read_or_named_with_its_cause(corpus: list[Path], decoders) -> None:
    assert len(corpus) > 250
    found = decoders.examine((path, Path(path.name)) for path in corpus)
    read = 0
    for path, (facts, problems) in zip(corpus, found, strict=True):
        fatal = [problem for problem in problems if problem.fatal]
        assert (facts is None) == bool(fatal), path.name
        assert all(p.cause and p.rule != "harmful" for p in problems), problems
        read += facts is not None
    # Neither is all refused, nor all let through.
    assert 60 < read < 200


def test_a_search_reads_or_names_every_file(corpus: list[Path], decoders) -> None:
    refused: dict[Path, SoundError] = {}
    for path in corpus:
        patches = 0
        try:
            for item in read_patches(path, FrontEnd(), 48, decoders):
                block = getattr(item, "patches", np.zeros((0, 1, 1)))
                assert np.isfinite(block).all(), path.name
                patches += len(block)
        except SoundError as error:
            refused[path] = error
        assert patches or path in refused
    assert all(error.path == path and error.cause for path, error in refused.items())
    assert "harmful" not in {error.rule for error in refused.values()}
    assert 100 < len(refused) < len(corpus) - 60


@pytest.mark.parametrize("trap", [t for t in QUICK if t.causes], ids=lambda trap: trap.name)
def test_traps_are_seen_through(tmp_path: Path, decoders, trap: Trap) -> None:
    path = tmp_path / trap.name
    path.write_bytes(trap.make())
    ((facts, problems),) = decoders.examine([(path, Path(trap.name))])
    assert facts is None
    assert problems[0].rule in trap.causes


def test_the_same_seed_gives_the_same_files() -> None:
    def make(seed: int) -> list[tuple[str, bytes]]:
        return list(mutated(np.random.default_rng(seed), 40))

    assert make(3) == make(3)
    assert make(3) != make(4)


def test_a_header_that_lies_about_the_length_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bomb.flac"
    path.write_bytes(constant_flac(0, 8_000, frames=75_000))
    cause = r"claims 171 hours of sound or more; at most \d+ are plausible for a file of 1\.13 MB"
    with pytest.raises(SoundError, match=cause):
        decode(path)


def test_a_file_with_more_sound_than_its_size_can_hold_is_given_up(
    tmp_path: Path, monkeypatch
) -> None:
    # Hours of sound take seconds to decode: the limit is lowered in place of that.
    monkeypatch.setattr(sound_file, "_HOURS", 0.05)
    path = tmp_path / "bomb.flac"
    path.write_bytes(constant_flac(0, 16_000, frames=100, total=0))
    with pytest.raises(SoundError, match="it decodes to 0 hours of sound or more") as caught:
        decode(path)
    assert caught.value.rule == "too_long"
    assert examine(path, path)[1][0].rule == "too_long"


def test_a_clip_of_more_than_a_day_is_refused(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "long.flac"
    path.write_bytes(constant_flac(300, 16_000))
    assert examine(path, path)[0] is not None
    monkeypatch.setattr("unfreeze.audio.rules.LONGEST_CLIP", 240.0)
    ((rule, cause),) = [(p.rule, p.cause) for p in examine(path, path)[1]]
    assert (rule, cause[:11]) == ("too_long", "it promises")
    path.write_bytes(constant_flac(300, 16_000, total=0))
    ((rule, cause),) = [(p.rule, p.cause) for p in examine(path, path)[1]]
    assert (rule, cause[:6]) == ("too_long", "it has")
    # It can still be searched.
    assert len(decode(path)) > 300 * 16_000


def test_a_flac_of_unknown_length_is_whole(tmp_path: Path) -> None:
    # As programs write it that write to a pipe.
    samples = np.random.default_rng(0).normal(scale=0.1, size=20_000)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="FLAC")
    content = bytearray(file.getvalue())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])
    path = tmp_path / "pipe.flac"
    path.write_bytes(content)
    facts, problems = examine(path, path)
    assert problems == []
    assert facts is not None
    assert facts.seconds == 1.25
    assert len(decode(path)) == 20_000


@pytest.mark.parametrize("value", [1e12, 1e13, 1e38])
def test_samples_that_would_make_infinite_frames_are_refused(tmp_path: Path, value: float) -> None:
    samples = np.random.default_rng(0).normal(scale=0.1, size=8_000)
    samples[4_000] = value
    path = tmp_path / "loud.wav"
    soundfile.write(path, samples, 16_000, "FLOAT")
    facts, problems = examine(path, path)
    if value > sound_file.LARGEST_SAMPLE:
        assert (facts, [p.rule for p in problems]) == (None, ["non_finite"])
        with pytest.raises(SoundError, match="larger than 1e12"):
            decode(path)
    else:
        assert [p.rule for p in problems] == ["too_loud"]
        assert np.isfinite(log_mel_frames(decode(path), FrontEnd())).all()


def test_links_in_circles_are_named(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "good.wav").write_bytes(encoded("WAV", "PCM_16", seed=ord(label)))
    (tmp_path / "a/one.wav").symlink_to("two.wav")
    (tmp_path / "a/two.wav").symlink_to("one.wav")
    (tmp_path / "a/self.flac").symlink_to("self.flac")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "b/here").symlink_to(".")
    manifest = read_manifest(tmp_path, max_bad=1.0)
    assert len(manifest.clips) == 2
    told = [(str(p.path), p.rule, "symbolic" in p.cause) for p in manifest.problems]
    assert told == [
        ("a/one.wav", "missing", True),
        ("a/self.flac", "missing", True),
        ("a/two.wav", "missing", True),
        ("a/up", "link", False),
        ("b/here", "link", False),
    ]
    found = [recording.name for recording in find_recordings([tmp_path], recursive=True)]
    assert [str(name) for name in found] == ["a/good.wav", "b/good.wav"]
    with pytest.raises(DataError, match="does not exist"):
        find_recordings([tmp_path / "a/one.wav"])


@pytest.mark.parametrize(
    "name",
    [b"new\nline.flac", b"\xff\xfe.flac", b"\x1b[2J.flac", b"x" * 240 + b".flac", b"-rf.flac"],
)
def test_odd_names_reach_every_reader(tmp_path: Path, decoders, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(encoded("FLAC", "PCM_16"))
    ((facts, problems),) = decoders.examine([(path, path)])
    assert facts is not None
    assert problems == []
    path.write_bytes(b"fLaC" + bytes(50))
    ((_, problems),) = decoders.examine([(path, path)])
    assert problems[0].rule == "unreadable"
    with pytest.raises(SoundError) as caught:
        list(read_patches(path, FrontEnd(), 48, decoders))
    assert str(caught.value).isprintable()
    assert show(path) in str(caught.value)


def test_files_and_folders_that_may_not_be_read(tmp_path: Path, monkeypatch, decoders) -> None:
    # The tests may run as root, for whom all is open: the calls themselves refuse.
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(10):
            content = encoded("FLAC", "PCM_16", seed=10 * ord(label) + number)
            (tmp_path / label / f"{number}.flac").write_bytes(content)
    real = Path.open

    def refuse(self: Path, *args: object, **options: object) -> object:
        if self.name == "3.flac":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    manifest = read_manifest(tmp_path)
    assert len(manifest.clips) == 18
    assert [(str(p.path), p.rule, p.cause) for p in manifest.problems] == [
        (f"{label}/3.flac", "unreadable", "it cannot be read: Permission denied") for label in "ab"
    ]
    with pytest.raises(SoundError, match=r"3\.flac: it cannot be read: Permission denied"):
        list(read_patches(tmp_path / "a/3.flac", FrontEnd(), 48, decoders))
    scandir = os.scandir

    def refuse_b(path: str) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_b)
    with pytest.raises(DataError, match="/b cannot be listed: Permission denied"):
        read_manifest(tmp_path)
    with pytest.raises(DataError, match="/b cannot be listed: Permission denied"):
        find_recordings([tmp_path], recursive=True)
