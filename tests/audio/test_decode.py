from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.audio.decode import (
    Resampler,
    decode,
    decode_blocks,
    resampled_length,
    waveform_blocks,
)
from unfreeze.audio.sound_file import SoundError, open_sound
from unfreeze.errors import DataError


def test_a_sine_keeps_frequency_and_level(tmp_path: Path) -> None:
    path = tmp_path / "sine.wav"
    time = np.arange(44_100) / 44_100
    left, right = 0.6 * np.sin(2 * np.pi * 1000 * time), np.zeros(44_100)
    soundfile.write(path, np.stack([left, right], axis=1), 44_100)
    waveform = decode(path)
    assert waveform.dtype == np.float32
    assert waveform.shape == (16_000,)
    expected = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(waveform[500:-500], expected[500:-500], atol=2e-4)


@pytest.mark.parametrize("rate", [8_000, 11_127, 16_000, 22_050, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pieces_are_the_whole_to_the_bit(write_sound, rate: int, channels: int) -> None:
    path = write_sound("noise.wav", seconds=0.7, rate=rate, channels=channels)
    whole = decode(path)
    pieces = list(decode_blocks(path, block=2000))
    assert len(pieces) > 1
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert len(whole) == resampled_length(round(0.7 * rate), rate, 16_000)
    samples = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    expected = soxr.resample(samples, rate, 16_000)
    np.testing.assert_allclose(whole, expected[: len(whole)], atol=1e-6)


def test_one_resampler_for_many_files_changes_no_bit(write_sound) -> None:
    resampler = Resampler(16_000)
    # More rates than it keeps, each of them twice and more, lengths mixed.
    rates = [8_000, 11_127, 44_100, 22_050, 48_000, 12_000, 24_000, 32_000, 9_999, 8_000]
    for number, rate in enumerate(rates + rates[::-1]):
        path = write_sound(f"{number}.wav", seconds=0.05 + 0.1 * (number % 3), rate=rate)
        with open_sound(path) as sound:
            pieces = list(waveform_blocks(sound, resampler))
        np.testing.assert_array_equal(np.concatenate(pieces), decode(path))
        with open_sound(path) as sound:
            # Given up after the first piece.
            next(waveform_blocks(sound, resampler, block=700))


def test_a_flac_of_three_channels_at_96_khz(write_sound) -> None:
    path = write_sound("wide.flac", seconds=0.5, rate=96_000, channels=3, subtype="PCM_24")
    waveform = decode(path)
    assert waveform.shape == (8_000,)
    assert 0.15 < waveform.std() < 0.25


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_one_sample(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "one.wav"
    soundfile.write(path, [0.5], rate)
    assert len(decode(path)) == resampled_length(1, rate, 16_000) > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused(tmp_path: Path, bad: float) -> None:
    samples = np.full(16_000, 0.1)
    samples[9_000] = bad
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    with pytest.raises(SoundError, match=r"bad\.wav: it has NaN") as caught:
        decode(path)
    assert caught.value.rule == "non_finite"


def test_a_header_without_samples(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros(0), 16_000)
    with pytest.raises(DataError, match="no samples"):
        decode(path)


def test_a_truncated_wav_gives_what_it_has(write_sound) -> None:
    path = write_sound("cut.wav", seconds=1.0)
    whole = decode(path)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 6_000])
    np.testing.assert_array_equal(decode(path), whole[:6_000])


def test_peaks_above_one_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([0.0, 1.5, -2.0, 0.0]), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(decode(path), np.float32([0, 1.5, -2, 0]))


@given(st.integers(1, 10**9), st.sampled_from([8000, 11127, 44100, 192000]))
def test_resampled_length_is_the_nearest(samples: int, rate: int) -> None:
    length = resampled_length(samples, rate, 16_000)
    assert length >= 1
    assert abs(length - samples * 16_000 / rate) <= 0.5 or length == 1
    assert resampled_length(samples, rate, rate) == samples


def test_every_odd_file_of_the_animal_sounds_is_read(shared_data: Path, capfd) -> None:
    paths = [p for p in sorted((shared_data / "animal-sounds").rglob("*")) if p.is_file()]
    assert len(paths) == 396
    for path in paths:
        waveform = decode(path)
        info = soundfile.info(str(path))
        expected = info.frames * 16_000 / info.samplerate
        # The length of MP3 is an estimate; its decoder drops up to two frames.
        slack = 2 * 1152 * 16_000 / info.samplerate if "MPEG" in info.subtype else 1
        assert abs(len(waveform) - expected) <= slack, path
        assert np.isfinite(waveform).all()
        assert waveform.std() > 1e-3, path
    assert capfd.readouterr().err == ""
