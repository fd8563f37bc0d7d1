import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.audio.decode import decode
from unfreeze.audio.mp3 import Mp3Length, frame_of_numbers, mp3_length, side_bytes
from unfreeze.audio.rules import examine
from unfreeze.audio.sound_formats import mpeg_frame

TAG = b"ID3\4\0\0\0\0\1\0" + b"\xff\xfb" * 64


@cache
def mp3(seconds: float, rate: int = 44_100, channels: int = 1, seed: int = 0) -> bytes:
    """Loud and faint noise, so that frames are of unlike size; with a frame of numbers."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(round(seconds * rate), channels))
    samples *= np.linspace(0.001, 0.2, len(samples))[:, None]
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3")
    return file.getvalue()


def length(content: bytes) -> Mp3Length | None:
    return mp3_length(io.BytesIO(content), len(content))


def without_numbers(content: bytes) -> bytes:
    return content[mpeg_frame(content[:8]) :]


def stating(content: bytes, frames: int) -> bytes:
    at = 4 + side_bytes(content)
    assert content[at : at + 4] in (b"Xing", b"Info")
    return content[: at + 8] + frames.to_bytes(4, "big") + content[at + 12 :]


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_frames_are_counted(rate: int, channels: int) -> None:
    content = mp3(3, rate, channels)
    found = length(content)
    assert found is not None
    assert (found.stated, found.varies, found.whole) == (found.found, True, True)
    per_frame = 1152 if rate >= 32_000 else 576
    # The encoder's delay, and the last frame's padding.
    assert 0 <= found.found * per_frame - 3 * rate <= 4 * per_frame
    # Tags, and what is no frame between frames, change nothing.
    other = length(TAG + content + b"TAG" + bytes(125))
    assert other is not None
    assert (other.first, other.found) == (len(TAG), found.found)
    bare = without_numbers(content)
    counted = length(bare)
    assert counted is not None
    assert (counted.stated, counted.found) == (None, found.found)
    second = mpeg_frame(bare[:8])
    broken = length(bare[:second] + mpeg_frame(bare[second : second + 8]) * b"\0" + bare[second:])
    # Two frames in a row show that it is one.
    assert broken is None or broken.found == found.found


def test_one_that_is_cut_off_is_seen() -> None:
    content = mp3(3)
    cut = length(content[: len(content) // 2])
    whole = length(content)
    assert cut is not None
    assert whole is not None
    assert not cut.whole
    assert 0.3 < cut.found / whole.found < 0.8


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfb", b"RIFF" + bytes(100), bytes(5_000), TAG, b"\xff\xd8\xff" * 99]
)
def test_others_are_no_mp3(content: bytes) -> None:
    assert length(content) is None


@given(st.binary(max_size=300), st.integers(0, 2_000))
def test_any_bytes_are_counted_or_not(junk: bytes, at: int) -> None:
    content = mp3(0.5)
    for damaged in (content[:at] + junk, content[:at] + junk + content[at:], TAG + junk):
        found = length(damaged)
        assert found is None or 0 <= found.found < 60


def used(path: Path, content: bytes) -> tuple[float, list[str]]:
    path.write_bytes(content)
    facts, problems = examine(path, path)
    assert facts is not None, problems
    assert len(decode(path, facts.sample_rate)) == round(facts.seconds * facts.sample_rate)
    return facts.seconds, [p.rule for p in problems]


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 2.0, 30.0])
@pytest.mark.parametrize("tag", [b"", TAG])
def test_a_wrong_number_loses_nothing(tmp_path: Path, part: float, tag: bytes) -> None:
    content = mp3(3, channels=2)
    path = tmp_path / "a.mp3"
    assert used(path, tag + content) == (3.0, [])
    right = decode(path)
    found = length(content)
    assert found is not None
    stated = round(part * found.found)
    assert used(path, tag + stating(content, stated)) == (3.0, ["header"])
    np.testing.assert_allclose(decode(path), right, atol=1e-6)
    assert f"says {stated / found.found * 3:.2f} s" in examine(path, path)[1][0].cause


def test_two_files_in_one(tmp_path: Path) -> None:
    seconds, rules = used(tmp_path / "a.mp3", mp3(3) + mp3(2, seed=1))
    # The second one's frame of numbers is a frame of silence, its delay is heard.
    assert 5.0 <= seconds <= 5.15
    assert rules == ["header"]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_without_a_number_it_is_read_to_its_end(tmp_path: Path, rate: int, channels: int) -> None:
    content = mp3(20, rate, channels)
    bare = without_numbers(content)
    path = tmp_path / "a.mp3"
    path.write_bytes(bare)
    # The first frame is faint and small: from it libsndfile takes a wrong length.
    guessed = soundfile.info(path).duration
    assert abs(guessed - 20) > 2
    seconds, rules = used(path, bare)
    assert rules == []
    assert seconds == pytest.approx(20, abs=0.15)
    # The delay of the encoder is not taken off, which the number alone would tell.
    assert decode(path, rate)[4_000:].std() == pytest.approx(0.115 / np.sqrt(channels), rel=0.1)


def test_a_frame_of_numbers_is_a_frame() -> None:
    for rate in (8_000, 16_000, 44_100):
        for channels in (1, 2):
            first = without_numbers(mp3(3, rate, channels))
            made = frame_of_numbers(first, 77, 5_000)
            assert mpeg_frame(made[:8]) == len(made)
            found = length(made + first)
            assert found is not None
            assert found.stated == 77
