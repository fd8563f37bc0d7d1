import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.audio.sound_file import SoundError, open_sound
from unfreeze.audio.wav import WavError, WavFormat, WavStart, read_wav_header, read_wav_start


def wav(data: bytes, *, codec: int = 1, declared: int | None = None, after: bytes = b"") -> bytes:
    fmt = struct.pack("<HHIIHH", codec, 1, 8000, 16000, 2, 16)
    length = len(data) if declared is None else declared
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"LIST" + struct.pack("<I", 3) + b"odd\0"
    chunks += b"data" + struct.pack("<I", length) + data + after
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def test_finds_the_samples_behind_other_chunks() -> None:
    content = wav(b"abcdefgh")
    header = read_wav_header(io.BytesIO(content))
    assert header is not None
    assert content[header.data_start : header.data_end] == b"abcdefgh"
    assert (header.format.codec, header.kept, header.trailing) == (1, 1.0, False)


def test_says_how_much_of_a_truncated_file_is_there() -> None:
    header = read_wav_header(io.BytesIO(wav(b"abcd", declared=16)))
    assert header is not None
    assert header.kept == 0.25


@pytest.mark.parametrize("declared", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_the_length_that_a_pipe_writes_promises_nothing(declared: int) -> None:
    header = read_wav_header(io.BytesIO(wav(b"abcd", declared=declared)))
    assert header is not None
    assert header.kept == 1.0


def test_sees_chunks_after_the_samples() -> None:
    header = read_wav_header(io.BytesIO(wav(b"abcd", after=b"fact\4\0\0\0\1\0\0\0")))
    assert header is not None
    assert header.trailing
    # The pad byte of an odd length is no chunk.
    odd = read_wav_header(io.BytesIO(wav(b"abc", after=b"\0")))
    assert odd is not None
    assert not odd.trailing


def test_knows_mp3_also_in_the_extensible_form() -> None:
    plain = read_wav_header(io.BytesIO(wav(b"", codec=0x55)))
    assert plain is not None
    assert plain.format.holds_mpeg
    guid = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 0, 0, 0x55)
    content = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(guid)) + guid + b"data\0\0\0\0"
    header = read_wav_header(io.BytesIO(content))
    assert header is not None
    assert header.format.codec == 0x55


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


@pytest.mark.parametrize("length", range(16))
def test_a_format_of_fewer_than_16_bytes_is_no_header(length: int) -> None:
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    for before in (b"", chunk(b"fmt ", fmt)):
        content = b"RIFF\0\0\0\0WAVE" + before + chunk(b"fmt ", fmt[:length]) + b"data\2\0\0\0ab"
        assert read_wav_header(io.BytesIO(content)) is None
        with pytest.raises(WavError, match=f"`fmt ` chunk has {length} bytes; a format needs 16"):
            forwards(content)


def test_a_file_with_such_a_format_is_refused_in_plain_words(tmp_path: Path) -> None:
    file = tmp_path / "short.wav"
    fmt = chunk(b"fmt ", b"\1\0\1\0\x40\x1f\0")
    file.write_bytes(b"RIFF\0\0\0\0WAVE" + fmt + chunk(b"data", b"abcd"))
    refusal = r"short\.wav: it is damaged or in a codec"
    with pytest.raises(SoundError, match=refusal), open_sound(file):
        pass


def forwards(content: bytes) -> WavStart:
    """The start of a file that cannot seek."""
    rest = memoryview(content)

    def read(count: int) -> bytes:
        nonlocal rest
        taken, rest = rest[:count], rest[count:]
        return bytes(taken)

    return read_wav_start(read, read)


# Chunks as they come, and chunks that lie about their length.
CHUNKS = st.builds(
    lambda name, content, lie: name + struct.pack("<I", max(len(content) + lie, 0)) + content,
    st.sampled_from([b"fmt ", b"data", b"LIST"]),
    st.binary(max_size=44),
    st.one_of(st.just(0), st.integers(-44, 50), st.just(0xFFFFFF00)),
)


@given(st.one_of(st.binary(max_size=80), st.lists(CHUNKS, max_size=4).map(b"".join)))
def test_any_bytes_give_a_header_or_none(junk: bytes) -> None:
    for content in (junk, b"RIFF\0\0\0\0WAVE" + junk, wav(b"abcd")[:40] + junk):
        header = read_wav_header(io.BytesIO(content))
        if header is None:
            with pytest.raises(WavError):
                forwards(content)
            continue
        assert 0 <= header.kept <= 1
        # RIFF, a whole format and the head of the samples stand before them.
        assert 12 + 24 + 8 <= header.data_start <= header.data_end <= len(content)
        start = forwards(content)
        assert (start.format, start.data_start) == (header.format, header.data_start)
        assert (start.length is not None) == header.sized


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it is not a WAV file"),
        (b"RIFX\0\0\0\0WAVE", "it is not a WAV file"),
        (b"RIFF\0\0\0\0AVI ", "it begins like a WAV file but is not one"),
        (b"RIFF\0\0\0\0WAVEfmt ", "it ends before its samples"),
        (wav(b"abcd")[:24], "it ends before its samples"),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", "it does not say its format"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 5_000, "more than 4,096 chunks"),
    ],
)
def test_says_why_a_header_cannot_be_used(content: bytes, cause: str) -> None:
    assert read_wav_header(io.BytesIO(content)) is None
    with pytest.raises(WavError, match=cause):
        forwards(content)


def test_the_whole_format_is_told() -> None:
    start = forwards(wav(b"abcd"))
    assert start == WavStart(WavFormat(1, 1, 8000, 2, 16), 56, 4)
    assert forwards(wav(b"abcd", declared=0)).length is None


def test_a_million_empty_chunks_end_soon() -> None:
    content = b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 1_000_000
    file = io.BytesIO(content)
    assert read_wav_header(file) is None
    assert file.tell() < 100_000
