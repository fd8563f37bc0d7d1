import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.audio.wav import read_wav_header


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
    assert (header.codec, header.kept, header.trailing) == (1, 1.0, False)


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
    assert read_wav_header(io.BytesIO(wav(b"", codec=0x55))).holds_mpeg  # type: ignore[union-attr]
    guid = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 0, 0, 0x55)
    content = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(guid)) + guid + b"data\0\0\0\0"
    header = read_wav_header(io.BytesIO(content))
    assert header is not None
    assert header.codec == 0x55


@given(st.binary(max_size=80))
def test_any_bytes_give_a_header_or_none(junk: bytes) -> None:
    assert read_wav_header(io.BytesIO(junk)) is None
    for content in (b"RIFF\0\0\0\0WAVE" + junk, wav(b"abcd")[:40] + junk):
        header = read_wav_header(io.BytesIO(content))
        if header is not None:
            assert 0 <= header.kept <= 1
            assert 0 < header.data_start <= header.data_end <= len(content)


def test_a_million_empty_chunks_end_soon() -> None:
    content = b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 1_000_000
    file = io.BytesIO(content)
    assert read_wav_header(file) is None
    assert file.tell() < 100_000
