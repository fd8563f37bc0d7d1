"""Log-mel windows: mirrored edges, Kaldi's bands; each patch by itself."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from unfreeze.audio.front_ends import frames_of, patches_of
from unfreeze.audio.logmel_windows import LogMelWindowMaker, kaldi_bands, symmetric_hann
from unfreeze.audio.logmel_windows_layer import LogMelPatches
from unfreeze.backbones.efficientat_spec import FRONT_END
from unfreeze.backbones.frontend import front_end_from

#: As EfficientAT's, but 0.2 s at 8 kHz.
SMALL = replace(
    FRONT_END,
    sample_rate=8_000,
    window=1_600,
    hop=800,
    min_samples=1_600,
    fft=256,
    bands=16,
    high_hz=3_500.0,
    frame=200,
    frame_hop=80,
    smallest_hop=80,
)
RNG = np.random.default_rng(0)
NOISE = RNG.uniform(-0.4, 0.5, 4_000).astype(np.float32)


def test_sizes():
    assert FRONT_END.patch_shape == (200, 128)
    assert (FRONT_END.patch_seconds, FRONT_END.steps, FRONT_END.step) == (2.0, 100, 320)
    assert [FRONT_END.patches(n) for n in (1, 64_000, 64_001, 96_000)] == [1, 1, 2, 2]
    assert SMALL.patch_shape == (20, 16)
    assert front_end_from(FRONT_END.as_plain()) == FRONT_END


def test_bands():
    bands = kaldi_bands(FRONT_END)
    assert bands.shape == (513, 128)
    # Nothing of 0 Hz, nor above 15 kHz.
    assert not bands[0].any()
    assert not bands[481:].any()
    # A bin between two centres counts once in all.
    np.testing.assert_allclose(bands[10:450].sum(axis=1), 1, atol=1e-4)
    window = symmetric_hann(800)
    assert window[0] == window[-1] == 0
    np.testing.assert_allclose(window, window[::-1], atol=1e-12)


def test_a_patch_is_what_its_definition_says():
    found = patches_of(NOISE[:1_600], SMALL)[0]
    x = NOISE[:1_600].astype(float)
    y = x[1:] - 0.97 * x[:-1]
    # Mirrored about the first and the last sample, which do not come twice.
    y = np.concatenate([y[100:0:-1], y, y[-2:-102:-1]])
    time = np.arange(200)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / 199)
    bins = np.exp(-2j * np.pi * np.outer(np.arange(129), time) / 256)
    for column in (0, 1, 7, 19):
        power = np.abs(bins @ (y[80 * column : 80 * column + 200] * window)) ** 2
        expected = (np.log(power @ kaldi_bands(SMALL) + 1e-5) + 4.5) / 5
        np.testing.assert_allclose(found[column], expected, atol=1e-5)


def test_each_patch_is_computed_by_itself():
    found = patches_of(NOISE, SMALL)
    assert found.shape == (4, 20, 16)
    for row, start in enumerate((0, 800, 1_600, 2_400)):
        one = patches_of(NOISE[start : start + 1_600], SMALL)[0]
        np.testing.assert_array_equal(found[row], one)
    both = LogMelWindowMaker(SMALL)([NOISE, NOISE[:100]])
    np.testing.assert_array_equal(both[:4], frames_of(NOISE, SMALL))
    np.testing.assert_array_equal(both[4:], frames_of(NOISE[:100], SMALL))
    with pytest.raises(ValueError, match="one axis"):
        patches_of(np.zeros((2, 100), np.float32), SMALL)


def test_slow_sound_is_heard_as_the_network_hears_it():
    slowed = FRONT_END.slowed(2.0)
    assert (slowed.sample_rate, slowed.high_hz) == (64_000, 30_000.0)
    np.testing.assert_array_equal(kaldi_bands(slowed), kaldi_bands(FRONT_END))


@pytest.mark.on_each_backend
@pytest.mark.parametrize("samples", [300, 1_600, 1_601, 4_000])
def test_the_layer_agrees(samples):
    time = np.arange(samples) / 8_000
    tone = np.sin(2 * np.pi * 1_000 * time).astype(np.float32)
    batch = np.stack([NOISE[:samples], tone, np.zeros(samples, np.float32)])
    layer = LogMelPatches(SMALL)
    found = keras.ops.convert_to_numpy(layer(batch))
    expected = np.stack([patches_of(sound, SMALL) for sound in batch])
    np.testing.assert_allclose(found, expected, atol=SMALL.tolerance / 10, rtol=0)
    assert layer.compute_output_shape(batch.shape) == found.shape
    again = LogMelPatches.from_config(layer.get_config())
    assert again.front_end == SMALL


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of hop, got 1600 and 700"):
        LogMelPatches(replace(SMALL, hop=700))
    with pytest.raises(ValueError, match="must be even, got 201"):
        LogMelPatches(replace(SMALL, frame=201))
