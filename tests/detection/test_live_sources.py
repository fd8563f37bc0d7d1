"""Sound through a real pipe, in pieces that tear samples apart."""

import contextlib
import io
import os
import threading

import numpy as np
import pytest
import soundfile

from unfreeze.audio.decode import decode
from unfreeze.detection.live_sources import pipe_blocks
from unfreeze.errors import DataError

RNG = np.random.default_rng(0)
SOUND = (0.3 * RNG.normal(size=9_001)).clip(-1, 1)


def piped(content, rate=16_000, sample_rate=16_000, step=999):
    """What comes out of a pipe that `content` is written to in steps."""
    reading, writing = os.pipe()

    def write():
        # The reader may refuse what it gets and go.
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as file:
            for at in range(0, len(content), step):
                file.write(content[at : at + step])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        blocks = list(pipe_blocks(reading, rate, sample_rate))
    finally:
        os.close(reading)
        thread.join()
    return np.concatenate(blocks)


def pcm(sound):
    return (sound * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("step", [1, 3, 999, 100_000])
def test_bare_samples_come_out_as_they_went_in(step):
    content = pcm(SOUND[:2000])
    expected = np.frombuffer(content, "<i2") / np.float32(32768)
    np.testing.assert_array_equal(piped(content, step=step), expected.astype(np.float32))


def test_half_a_sample_at_the_end_is_left_out():
    assert len(piped(pcm(SOUND) + b"x")) == len(SOUND)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_is_read_as_a_file_is(tmp_path, subtype, channels):
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.stack([SOUND, -0.5 * SOUND][:channels], axis=1), 16_000, subtype)
    np.testing.assert_allclose(piped(path.read_bytes()), decode(path), atol=1e-6)


def test_channels_that_cancel_are_mixed_as_in_a_file(tmp_path):
    path = tmp_path / "sound.wav"
    sign = np.where(np.arange(len(SOUND)) < 6_000, -1, 1)
    soundfile.write(path, np.stack([SOUND, sign * SOUND], axis=1), 16_000, "PCM_16")
    found = piped(path.read_bytes())
    np.testing.assert_array_equal(found, decode(path))
    assert found[:4_000].std() > 0.25


def test_resampling_is_that_of_files(tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, SOUND, 44_100, "PCM_16")
    found, expected = piped(path.read_bytes()), decode(path)
    assert abs(len(found) - len(expected)) <= 1
    np.testing.assert_allclose(found[: len(expected)], expected[: len(found)], atol=1e-6)
    bare = piped(pcm(SOUND), rate=44_100)
    np.testing.assert_allclose(bare[:3000], expected[:3000], atol=1e-3)


def test_what_follows_the_samples_of_a_wav_file_is_no_sound():
    memory = io.BytesIO()
    soundfile.write(memory, SOUND, 16_000, "PCM_16", format="WAV")
    assert len(piped(memory.getvalue() + b"LIST\x04\0\0\0abcd")) == len(SOUND)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_a_wav_file_of_unknown_length_goes_on_to_the_end(length):
    memory = io.BytesIO()
    soundfile.write(memory, SOUND, 16_000, "PCM_16", format="WAV")
    content = memory.getvalue()
    at = content.index(b"data") + 4
    head = content[:at] + length.to_bytes(4, "little")
    assert len(piped(head + content[at + 4 :])) == len(SOUND)


@pytest.mark.parametrize(
    ("content", "rate", "cause"),
    [
        (b"", 16_000, "no sound arrived"),
        (b"x", 16_000, "no sound arrived"),
        (pcm(SOUND), 3, "3 Hz: give 1000 to"),
        (b"RIFF0000AVI ", 16_000, "begins like a WAV file"),
        (b"RIFF0000WAVE", 16_000, "ends before its samples"),
        (b"RIFF0000WAVEdata0000", 16_000, "does not say its format"),
        (b"RIFF\0\0\0\0WAVEfmt \x07\0\0\0\1\0\1\0\x80\x3e\0\0data\2\0\0\0ab", 16_000,
         "`fmt ` chunk has 7 bytes; a format needs 16; send 16-bit samples"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x06\0\x01\0\x80\x3e\0\0\x80\x3e\0\0\x01\0\x08\0"
         b"data\0\0\0\0abcd", 16_000, "format 6 with 8 bits"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(content, rate, cause):
    with pytest.raises(DataError, match=cause):
        piped(content, rate)


def test_a_large_chunk_before_the_samples_is_passed_over():
    memory = io.BytesIO()
    soundfile.write(memory, SOUND, 16_000, "PCM_16", format="WAV")
    content = memory.getvalue()
    large = b"LIST" + (200_001).to_bytes(4, "little") + bytes(200_002)
    np.testing.assert_array_equal(
        piped(content[:12] + large + content[12:], step=70_000), piped(content)
    )


def test_samples_that_are_no_numbers_are_refused():
    memory = io.BytesIO()
    soundfile.write(memory, np.array([0, np.nan]), 16_000, "FLOAT", format="WAV")
    with pytest.raises(DataError, match="NaN"):
        piped(memory.getvalue())
