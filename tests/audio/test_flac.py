import io

import numpy as np
import pytest
import soundfile
from benchmarks.hostile_flac import constant_flac, flac_head
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.audio.flac import FlacLength, flac_length, with_total

RNG = np.random.default_rng(0)


def flac(samples: int, rate: int = 16_000, channels: int = 1, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    noise = RNG.normal(scale=0.1, size=(samples, channels))
    soundfile.write(file, noise, rate, format="FLAC", subtype=subtype)
    return file.getvalue()


def length(content: bytes) -> FlacLength | None:
    return flac_length(io.BytesIO(content))


@pytest.mark.parametrize("samples", [1, 1_000, 4_095, 4_096, 4_097, 50_000, 1_000_003])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (11_127, 2), (96_000, 1)])
def test_the_last_frame_shows_the_length(samples: int, rate: int, channels: int) -> None:
    for subtype in ("PCM_16", "PCM_24"):
        content = flac(samples, rate, channels, subtype)
        assert length(content) == FlacLength(samples, samples)
        # Whatever the header states, and whatever follows.
        wrong = with_total(content, 5) + b"TAG" + bytes(125)
        assert length(wrong) == FlacLength(5, samples)


def test_only_the_number_is_changed() -> None:
    content = flac(20_000, channels=2)
    assert with_total(content, 20_000) == content
    changed = with_total(content[:26], 77)
    assert len(changed) == 26
    assert [i for i, (a, b) in enumerate(zip(changed, content[:26], strict=True)) if a != b] == [
        24,
        25,
    ]


def test_hours_are_counted_without_reading_them() -> None:
    total = 75_000 * 65_535
    assert length(constant_flac(0, 8_000, frames=75_000)) == FlacLength(total, total)


def test_what_was_cut_off_is_not_counted() -> None:
    content = flac(100_000)
    found = length(content[: len(content) // 2])
    assert found is not None
    assert found.stated == 100_000
    assert found.found is not None
    assert 45_000 < found.found < 60_000


def test_without_frames_nothing_is_found() -> None:
    assert length(flac_head(16_000, 1, 500)) == FlacLength(500, None)
    assert length(flac_head(16_000, 1, 500) + RNG.bytes(50_000)) == FlacLength(500, None)
    assert length(b"fLaC") is None
    assert length(b"RIFF" + bytes(100)) is None
    # A block of metadata that reaches beyond the end.
    assert length(flac_head(16_000, 1, 500, b"\x84\xff\xff\xff")) == FlacLength(500, None)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_give_a_length_or_none(junk: bytes, at: int) -> None:
    content = constant_flac(0, 8_000, frames=4)
    for damaged in (content[:at] + junk, content[:at] + junk + content[at:], b"fLaC" + junk):
        found = length(damaged)
        assert found is None or 0 <= found.stated < 1 << 36
