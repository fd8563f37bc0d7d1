"""Headers that state a wrong length: the samples that are there are used, everywhere."""

import io
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unfreeze.audio.decode import Resampler, decode
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.feature_store import build_store
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.rules import examine
from unfreeze.audio.sound_file import library_source
from unfreeze.audio.stated_length import View, ViewedFile
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.scan import PatchBlock, read_patches

RATE, SAMPLES = 16_000, 48_000
TITLES = b"LIST" + struct.pack("<I", 26) + b"INFOISFT\x0e\0\0\0Lavf58.29.100\0"
# What the 32 bits of a length may hold instead of the truth.
WRONG = {
    "zero": lambda right: 0,
    "first block": lambda right: 2_048,
    "odd": lambda right: 2_047,
    "twice": lambda right: 2 * right,
    "ten times": lambda right: 10 * right,
    "unknown": lambda right: 0xFFFFFFFF,
    "half of 4 GiB": lambda right: 0x7FFFF000,
    "nearly half of 4 GiB": lambda right: 0x7FFFEFFF,
    "wrapped": lambda right: (right + (1 << 32) - 90_000) % (1 << 32),
}


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders() as processes:
        yield processes


def noise(channels: int = 1, samples: int = SAMPLES) -> np.ndarray:
    rng = np.random.default_rng(0)
    wave = 0.3 * np.sin(np.arange(samples) / 9)[:, None]
    return wave + rng.normal(scale=0.01, size=(samples, channels))


@cache
def encoded(kind: str, subtype: str, channels: int = 1, samples: int = SAMPLES) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(channels, samples), RATE, format=kind, subtype=subtype)
    return file.getvalue()


def put(content: bytes, at: int, value: int, order: str = "<I") -> bytes:
    field = struct.pack(order, value)
    return content[:at] + field + content[at + len(field) :]


def wav(kind: str, subtype: str, channels: int = 1) -> tuple[bytes, int]:
    """A WAV file that ends with its samples, and the place of their length."""
    content = encoded(kind, subtype, channels)
    at = content.index(b"data") + 4
    (length,) = struct.unpack("<I", content[at : at + 4])
    return content[: at + 4 + length], at


def warning(path: Path, seconds: float = SAMPLES / RATE) -> tuple[str, str]:
    """The rule and the cause of the only problem of a file that is used in full."""
    facts, problems = examine(path, path)
    assert facts is not None, problems
    assert facts.seconds == pytest.approx(seconds, abs=1e-9)
    ((rule, cause, fatal),) = [(p.rule, p.cause, p.fatal) for p in problems]
    assert not fatal
    assert f"the file holds {seconds:.2f} s; all of it is used" in cause
    return rule, cause


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    ("kind", "subtype", "channels"),
    [
        ("WAV", "PCM_U8", 1),
        ("WAV", "PCM_16", 1),
        ("WAV", "PCM_16", 2),
        ("WAV", "PCM_24", 1),
        ("WAV", "PCM_32", 2),
        ("WAV", "FLOAT", 1),
        ("WAVEX", "PCM_16", 2),
        ("WAVEX", "PCM_24", 1),
        ("WAV", "ULAW", 1),
    ],
)
def test_every_wrong_length_of_a_wav_file(
    tmp_path: Path, wrong: str, kind: str, subtype: str, channels: int
) -> None:
    content, at = wav(kind, subtype, channels)
    right = len(content) - at - 4
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    expected = decode(path)
    assert examine(path, path)[1] == []
    stated = WRONG[wrong](right)
    says = f"the header says {stated // (right // SAMPLES) / RATE:.2f} s"
    # The length of the whole file may be wrong with it, or right.
    for riff in (len(content) - 8, min(at - 4 + stated, 0xFFFFFFFF), 0, 0xFFFFFFFF):
        for after in (b"", TITLES):
            path.write_bytes(put(put(content, at, stated), 4, riff) + after)
            rule, cause = warning(path)
            assert cause.startswith(says)
            np.testing.assert_array_equal(decode(path), expected)
            cut_or_wrong = wrong in ("ten times", "nearly half of 4 GiB") and not after
            if not cut_or_wrong:
                assert rule == "header"


@pytest.mark.parametrize("wrong", [0, 2_048, 96_000, 300_000, 0xFFFFFFFF])
def test_a_wrong_length_of_the_whole_file_changes_nothing(tmp_path: Path, wrong: int) -> None:
    content, _ = wav("WAV", "PCM_16")
    path = tmp_path / "a.wav"
    path.write_bytes(put(content, 4, wrong) + TITLES)
    facts, problems = examine(path, path)
    assert facts is not None
    assert (facts.seconds, problems) == (3.0, [])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 0xFFFFFFFF) | st.integers(0, 400_000),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from([("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAVEX", "FLOAT")]),
    st.sampled_from([b"", TITLES, TITLES + b"id3 \4\0\0\0abcd"]),
)
def test_any_wrong_lengths_give_the_samples_of_the_right_ones(
    tmp_path: Path, data: int, riff: int, kind: tuple[str, str], after: bytes
) -> None:
    content, at = wav(*kind)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    right = decode(path)
    path.write_bytes(put(put(content, 4, riff), at, data) + after)
    found = decode(path)
    # Fewer than 8 bytes may be scraps, and the first samples of a chunk's length.
    assert len(right) - 4 <= len(found) <= len(right)
    np.testing.assert_array_equal(found, right[: len(found)])


@pytest.mark.parametrize("chunk", [b"LIST", b"bext", b"cue ", b"id3 ", b"wamd", b"Xy_1"])
@pytest.mark.parametrize("length", [1, 2, 31, 5_000])
def test_a_chunk_behind_the_samples_is_never_played(
    tmp_path: Path, chunk: bytes, length: int
) -> None:
    content, at = wav("WAV", "PCM_16")
    right = len(content) - at - 4
    filling = np.random.default_rng(length).bytes(length) + b"\0" * (length & 1)
    path = tmp_path / "a.wav"
    path.write_bytes(content + chunk + struct.pack("<I", length) + filling)
    facts, problems = examine(path, path)
    assert (facts is not None and facts.seconds, problems) == (3.0, [])
    if chunk != b"Xy_1":
        for wrong in (0, 2_048, 2 * right, 0xFFFFFFFF):
            path.write_bytes(put(content, at, wrong) + chunk + struct.pack("<I", length) + filling)
            assert warning(path)[0] == "header"


@pytest.mark.parametrize("total", [1, 1_024, 24_000, 96_000, 480_000, (1 << 36) - 1])
@pytest.mark.parametrize(("channels", "subtype"), [(1, "PCM_16"), (2, "PCM_24")])
def test_every_wrong_length_of_a_flac_file(
    tmp_path: Path, total: int, channels: int, subtype: str
) -> None:
    content = encoded("FLAC", subtype, channels)
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    expected = decode(path)
    numbers = int.from_bytes(content[18:26], "big") >> 36 << 36
    path.write_bytes(put(content, 18, numbers | total, ">Q"))
    rule, cause = warning(path)
    assert rule == "header"
    assert cause.startswith(f"the header says {total / RATE:.2f} s")
    np.testing.assert_array_equal(decode(path), expected)


@pytest.mark.parametrize("length", [0, 8, 2_056, 192_000, 960_000, 0xFFFFFFFF])
@pytest.mark.parametrize("after", [b"", b"NAME\0\0\0\4abcd"])
def test_every_wrong_length_of_an_aiff_file(tmp_path: Path, length: int, after: bytes) -> None:
    content = encoded("AIFF", "PCM_16")
    path = tmp_path / "a.aiff"
    path.write_bytes(content + after)
    expected = decode(path)
    assert len(expected) == SAMPLES
    path.write_bytes(put(content, content.index(b"SSND") + 4, length, ">I") + after)
    assert warning(path)[0] == "header"
    np.testing.assert_array_equal(decode(path), expected)


@pytest.mark.parametrize("length", [-1, 0, 4, 2_048, 192_004, 1 << 40])
@pytest.mark.parametrize("after", [b"", b"info\0\0\0\0\0\0\0\4\0\0\0\0"])
def test_every_wrong_length_of_a_caf_file(tmp_path: Path, length: int, after: bytes) -> None:
    content = encoded("CAF", "PCM_16")
    at = content.index(b"data") + 4
    path = tmp_path / "a.caf"
    path.write_bytes(content + after)
    expected = decode(path)
    assert examine(path, path)[1] == []
    path.write_bytes(put(content, at, length, ">q") + after)
    np.testing.assert_array_equal(decode(path), expected)
    if length == -1:
        # "To the end", by the format's own rules.
        assert examine(path, path)[1] == []
    else:
        warning(path)


@pytest.mark.parametrize("length", [0, 2_048, 192_000])
def test_every_wrong_length_of_an_au_file(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.au"
    path.write_bytes(put(encoded("AU", "PCM_16"), 8, length, ">I"))
    assert warning(path)[0] == "header"


@pytest.mark.parametrize("length", [0, 2_048, 192_000, 1 << 40])
def test_lengths_of_64_bits(tmp_path: Path, length: int) -> None:
    content = encoded("RF64", "PCM_16")
    path = tmp_path / "a.rf64"
    path.write_bytes(put(content, content.index(b"ds64") + 16, length, "<Q"))
    warning(path)
    # The same under the newer name, which libsndfile does not know.
    path.write_bytes(b"BW64" + content[4:])
    facts, problems = examine(path, path)
    assert (facts is not None and facts.seconds, problems) == (3.0, [])


def test_a_length_that_wrapped_at_4_gib(tmp_path: Path) -> None:
    # A file of 4 GiB and a bit, most of it a hole that takes no room.
    content, at = wav("WAV", "PCM_16")
    more = (1 << 32) + 64_000
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(put(put(content, at, len(content) - at - 4 + 64_000), 4, 36))
        file.seek(len(content) + more - 4)
        file.write(b"\1\2\3\4")
    with library_source(path, 1.0) as source, soundfile.SoundFile(source) as sound:
        assert sound.frames == SAMPLES + more // 2
        sound.seek(sound.frames - 2)
        assert sound.read(dtype="int16").tolist() == [0x0201, 0x0403]


@pytest.mark.parametrize(
    ("kept", "rule"), [(0.99, None), (0.6, "truncated"), (0.35, "truncated"), (0.05, None)]
)
def test_a_file_that_was_cut_off(tmp_path: Path, kept: float, rule: str | None) -> None:
    path = tmp_path / "a.wav"
    content, _ = wav("WAV", "PCM_16")
    path.write_bytes(content[: 44 + 2 * round(kept * SAMPLES)])
    facts, problems = examine(path, path)
    if kept == 0.05:
        assert facts is None
        ((fatal, cause),) = [(p.fatal, p.cause) for p in problems]
        assert fatal
        assert cause.startswith("the header says 3.00 s, the file holds 0.15 s, hardly any")
        return
    assert facts is not None
    assert facts.seconds == round(kept * SAMPLES) / RATE
    assert [p.rule for p in problems] == ([rule] if rule else [])


def test_a_second_of_an_hour_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    soundfile.write(path, np.tile(noise()[:, 0], 200), 4_000, subtype="PCM_U8")
    content = path.read_bytes()
    path.write_bytes(content[:-4_000])
    ((rule, cause),) = [(p.rule, p.cause) for p in examine(path, path)[1]]
    assert rule == "truncated"
    assert cause.startswith(
        "the header says 2400.00 s, the file holds 2399.00 s; all of it is used"
    )


@pytest.mark.parametrize("case", ["zero.wav", "small24.wav", "twice.flac", "twice.aiff"])
def test_every_reader_has_the_same_length(tmp_path: Path, decoders: Decoders, case: str) -> None:
    if case == "zero.wav":
        content, at = wav("WAV", "PCM_16")
        content = put(content, at, 0)
    elif case == "small24.wav":
        content, at = wav("WAVEX", "PCM_24", 2)
        content = put(content, at, 6_000)
    elif case == "twice.flac":
        content = encoded("FLAC", "PCM_16")
        numbers = int.from_bytes(content[18:26], "big")
        content = put(content, 18, numbers + SAMPLES, ">Q")
    else:
        content = encoded("AIFF", "PCM_16")
        content = put(content, content.index(b"SSND") + 4, 4 * SAMPLES, ">I")
    for label in "ab":
        path = tmp_path / "data" / label / case
        path.parent.mkdir(parents=True)
        # The samples differ, or they would be one clip with two labels.
        path.write_bytes(content[:-1] + label.encode() if case != "twice.flac" else content)
    if case == "twice.flac":
        path.write_bytes(content + b"TAG" + bytes(125))
    assert len(decode(path)) == SAMPLES
    ((facts, problems),) = decoders.examine([(path, path)])
    assert facts is not None
    assert (facts.seconds, [p.rule for p in problems]) == (3.0, ["header"])
    with decoders.waveform(path, Resampler(RATE)) as sound:
        assert sum(map(len, sound.blocks)) == SAMPLES
    front = FrontEnd()
    blocks = [b for b in read_patches(path, front, 48, decoders) if isinstance(b, PatchBlock)]
    assert blocks[-1].ends[-1] == 3.0
    manifest = read_manifest(tmp_path / "data")
    assert [clip.seconds for clip in manifest.clips] == [3.0, 3.0]
    store = build_store(manifest, front, tmp_path / "store")
    patches = (front.frames(SAMPLES) - front.patch_frames) // front.patch_hop + 1
    assert len(store.patches([0, 1])) == 2 * patches


def test_a_view_reads_as_a_file_does(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    content = b"head" + bytes(range(10, 60))
    rng = np.random.default_rng(0)
    with ViewedFile(path, View(b"head", 10, 60)) as viewed:
        assert viewed.read() == content
        assert viewed.seek(0, io.SEEK_END) == len(content)
        assert viewed.read(5) == b""
        for at, count in rng.integers(0, 60, (200, 2)).tolist():
            assert viewed.seek(at) == viewed.tell() == at
            assert viewed.read(count) == content[at : at + count]
