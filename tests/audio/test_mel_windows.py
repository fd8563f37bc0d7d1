"""Mel windows: each patch by itself, on the CPU and as a layer, equal to the last bits."""

import hashlib
from dataclasses import replace

import keras
import numpy as np
import pytest

from unfreeze.audio.front_ends import frames_of, patches_of
from unfreeze.audio.mel_windows import MelWindowMaker, mel_bands, mel_windows, rounded_window
from unfreeze.audio.mel_windows_layer import MelPatches
from unfreeze.backbones.birdnet_spec import FRONT_END
from unfreeze.backbones.frontend import Mel, MelWindows

#: As BirdNET's, but 0.2 s at 8 kHz.
SMALL = MelWindows(
    sample_rate=8_000,
    window=1_600,
    hop=800,
    fft=0,
    bands=12,
    low_hz=0.0,
    high_hz=3_000.0,
    log_offset=0.0,
    patch_frames=1,
    patch_hop=1,
    min_samples=1_600,
    mels=(Mel(256, 40, 0.0, 1_000.0, 0.23), Mel(128, 43, 200.0, 3_000.0, 0.19)),
    smallest_hop=80,
)
RNG = np.random.default_rng(0)
WINDOW_BITS = ["e689f7ccf093a825", "4a80fad778afac0a"]
NOISE = RNG.uniform(-0.4, 0.5, 4_000).astype(np.float32)


def test_sizes():
    assert FRONT_END.patch_shape == (511, 96, 2)
    assert FRONT_END.frame_values == 511 * 96 * 2
    assert (FRONT_END.patch_seconds, FRONT_END.steps, FRONT_END.step) == (3.0, 150, 480)
    assert [FRONT_END.patches(n) for n in (1, 144_000, 144_001, 216_000)] == [1, 1, 2, 2]
    assert SMALL.patch_shape == (34, 12, 2)


def test_the_published_window_and_bands():
    # Of the published file, tensors `hann_window/sub_2` of both spectrograms.
    bits = [hashlib.sha256(rounded_window(n).tobytes()).hexdigest()[:16] for n in (2048, 1024)]
    assert bits == WINDOW_BITS
    first = mel_bands(FRONT_END.mels[0], 48_000, 96)
    assert first.shape == (1025, 96)
    # The highest band comes first, and the lowest holds the first bin alone.
    assert np.flatnonzero(first[:, 0]).tolist() == [123, 124, 125, 126, 127]
    assert np.flatnonzero(first[:, -1]).tolist() == [1]
    assert first[1, -1] == pytest.approx(0.08133898, abs=1e-5)


def test_a_patch_is_what_its_definition_says():
    found = mel_windows(NOISE[:1_600], SMALL).reshape(SMALL.patch_shape)
    x = NOISE[:1_600].astype(float)
    x = ((x - x.min()) / (x.max() - x.min() + 1e-6) - 0.5) * 2
    for number, mel in enumerate(SMALL.mels):
        hann = 0.5 - 0.5 * np.cos(2 * np.pi / mel.fft * np.arange(mel.fft))
        frames = np.stack([x[i * mel.hop :][: mel.fft] for i in range(34)])
        values = np.fft.rfft(frames * hann).real @ mel_bands(mel, 8_000, 12)
        expected = (values**2) ** mel.power
        np.testing.assert_allclose(found[..., number], expected, atol=2e-3)


def test_patches_depend_on_their_own_samples_alone_and_not_on_level_or_offset():
    patches = patches_of(NOISE, SMALL)
    assert patches.shape == (4, *SMALL.patch_shape)
    for number in range(4):
        alone = patches_of(NOISE[number * 800 : number * 800 + 1_600], SMALL)[0]
        np.testing.assert_array_equal(patches[number], alone)
    np.testing.assert_allclose(patches_of(0.1 * NOISE + 0.2, SMALL), patches, atol=0.02)


def test_several_waveforms_at_once_and_short_ones_padded():
    maker = MelWindowMaker(SMALL)
    together = maker([NOISE, NOISE[:100], np.zeros(0, np.float32)])
    parts = [NOISE, np.pad(NOISE[:100], (0, 1_500)), np.zeros(1_600, np.float32)]
    np.testing.assert_array_equal(together, np.concatenate([maker([x]) for x in parts]))
    with pytest.raises(ValueError, match="one axis"):
        maker([NOISE[None]])


def test_slowed_down_the_patches_are_the_same_of_more_samples_a_second():
    slowed = SMALL.slowed(4)
    assert (slowed.sample_rate, slowed.high_hz) == (32_000, 12_000.0)
    assert slowed.patch_seconds == 0.05
    np.testing.assert_array_equal(frames_of(NOISE, slowed), frames_of(NOISE, SMALL))


SOUNDS = {
    "noise": NOISE,
    "silence": np.zeros(2_000, np.float32),
    "tone": np.sin(np.arange(1_600) * 0.7).astype(np.float32),
    "low tone": (0.3 * np.sin(np.arange(900) * 0.02)).astype(np.float32),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_the_layer_agrees(name):
    sound = SOUNDS[name]
    layer = MelPatches(SMALL)
    found = keras.ops.convert_to_numpy(layer(sound[None]))[0]
    # What is nearly 0 differs by the rounding of the processor's own division.
    most = 5e-3 if keras.backend.backend() == "jax" else 5e-4
    np.testing.assert_allclose(found, patches_of(sound, SMALL), atol=most)
    assert layer.compute_output_shape((2, len(sound))) == (2, *found.shape)


def test_the_layer_is_saved_with_its_settings():
    again = MelPatches.from_config(MelPatches(SMALL, name="m").get_config())
    assert (again.front_end, again.name) == (SMALL, "m")
    with pytest.raises(ValueError, match="multiple of hop"):
        MelPatches(replace(SMALL, hop=700))
