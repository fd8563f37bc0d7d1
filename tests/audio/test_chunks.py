import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.audio.chunks import others_follow, samples_end

SAMPLES = struct.pack("<50h", *range(-3_000, 2_000, 100))


def chunk(name: bytes, content: bytes, form: str = "<I") -> bytes:
    return name + struct.pack(form, len(content)) + content + b"\0" * (len(content) & 1)


TITLES = chunk(b"LIST", b"INFOISFT\6\0\0\0Lavf60")


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\0",
        b"\1\2\3\4\5\6\7",
        TITLES,
        chunk(b"bext", bytes(602)) + chunk(b"cue ", bytes(4)),
        chunk(b"wamd", b"odd"),
        chunk(b"wamd", b"odd")[:-1],
        # Nobody knows these, but their lengths lead to the end.
        chunk(b"Xy_1", b"12345678") + chunk(b"zz  ", b"123"),
        # Known, and cut off.
        TITLES[:20],
        b"TAG" + bytes(125),
        b"ID3\4\0\0\0\0\0\3abc",
        bytes(4_096),
    ],
)
def test_what_is_no_sample(rest: bytes) -> None:
    content = SAMPLES + rest
    assert others_follow(io.BytesIO(content), len(SAMPLES), len(content))


@pytest.mark.parametrize(
    "rest",
    [
        SAMPLES,
        SAMPLES + TITLES,
        b"TAG" + bytes(200),
        b"Xy_1" + struct.pack("<I", 500) + bytes(100),
        b"Xy_1" + struct.pack("<I", 50) + SAMPLES,
        bytes(200) + b"\1",
        bytes((1 << 20) + 100),
    ],
)
def test_more_samples(rest: bytes) -> None:
    content = SAMPLES + rest
    assert not others_follow(io.BytesIO(content), len(SAMPLES), len(content))


def test_lengths_of_either_order() -> None:
    rest = chunk(b"Abcd", bytes(10), ">I")
    assert others_follow(io.BytesIO(rest), 0, len(rest), ">I")
    assert not others_follow(io.BytesIO(rest), 0, len(rest), "<I")
    long = chunk(b"Abcd", bytes(10), ">q")
    assert others_follow(io.BytesIO(long), 0, len(long), ">q")
    assert not others_follow(io.BytesIO(long), 0, len(long), ">I")
    endless = b"Abcd" + struct.pack(">q", -1) + bytes(50) + b"1"
    assert not others_follow(io.BytesIO(endless), 0, len(endless), ">q")


@given(st.binary(max_size=400), st.sampled_from([b"", TITLES, TITLES + chunk(b"id3 ", b"abc")]))
def test_the_samples_end_where_chunks_begin(samples: bytes, after: bytes) -> None:
    content = b"RIFF....WAVE" + samples + after
    assert samples_end(io.BytesIO(content), 12, len(content)) == 12 + len(samples)


def test_a_name_among_the_samples_is_no_chunk() -> None:
    content = SAMPLES + b"LIST" + SAMPLES + b"bext\xff\0\0\0" + SAMPLES + TITLES
    assert samples_end(io.BytesIO(content), 0, len(content)) == len(content) - len(TITLES)
    cut = content[:-3]
    assert samples_end(io.BytesIO(cut), 0, len(cut)) == len(cut)
