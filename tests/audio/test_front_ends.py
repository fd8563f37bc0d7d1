"""What stores, streams, changes and mixes patches serves each kind of front end."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

import toy
from unfreeze.audio.augment_layer import AugmentPatches
from unfreeze.audio.augmentation import AUGMENTATIONS, Augmentation
from unfreeze.audio.decode import decode
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.feature_store import build_store, open_store, sound_span
from unfreeze.audio.front_ends import patches_of
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.noisy_patches import NoisyView, make_bank
from unfreeze.audio.rules import examine
from unfreeze.audio.sources import Reading
from unfreeze.backbones.birdnet_spec import FRONT_END as BIRDNET
from unfreeze.backbones.efficientat_spec import FRONT_END as EFFICIENTAT
from unfreeze.backbones.frontend import FrontEnd, front_end_from
from unfreeze.detection.scan import PatchStream
from unfreeze.pipeline.inference import batch_sizes

FRONT = toy.WINDOWS
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000).astype(np.float32)


#: As EfficientAT's, but 0.5 s at 12 kHz.
LOGS = replace(
    EFFICIENTAT,
    sample_rate=12_000,
    window=6_000,
    hop=3_000,
    min_samples=6_000,
    fft=512,
    bands=32,
    high_hz=5_000.0,
    frame=300,
    frame_hop=120,
    smallest_hop=120,
)


@pytest.mark.parametrize("front", [FRONT, FrontEnd(), BIRDNET.slowed(2), EFFICIENTAT])
def test_settings_are_kept_as_plain_values(front):
    assert front_end_from(front.as_plain()) == front


def test_a_store_holds_the_patches_of_each_clip(tmp_path: Path) -> None:
    data = toy.write_sounds(tmp_path / "data", clips=2)
    manifest = read_manifest(data)
    store = build_store(manifest, FRONT, tmp_path / "store")
    again = open_store(tmp_path / "store")
    assert again is not None
    assert again.front_end == FRONT
    view = store.patches([3, 0])
    clips = [manifest.clips[i] for i in (3, 0)]
    expected = [patches_of(decode(clip.path, FRONT.sample_rate), FRONT) for clip in clips]
    np.testing.assert_array_equal(view[:], np.concatenate(expected))
    assert view.shape[1:] == FRONT.patch_shape
    assert view[1].shape == FRONT.patch_shape
    np.testing.assert_array_equal(view.take(np.array([1]), np.array([9]))[:], view[1:2])


@pytest.mark.parametrize(
    ("start", "end", "rows"),
    [
        (2.6, 2.9, (1, 2)),  # the window of 1.5 to 4.5 s, whose middle is 3
        (0.0, 0.1, (0, 1)),
        (9.9, 10.0, (5, 6)),  # no window begins later
        (1.4, 7.6, (1, 4)),  # windows from 1.5, 3 and 4.5
    ],
)
def test_a_sound_is_heard_in_the_windows_that_are_nearest(start, end, rows):
    room = BIRDNET.frames(10 * 48_000)
    assert room == 6
    assert sound_span(start, end, 100, 100 + room, BIRDNET) == (100 + rows[0], 100 + rows[1])


@pytest.mark.parametrize(("front", "steps"), [(FRONT, 1), (FRONT, 25), (FRONT, 50), (LOGS, 5)])
def test_a_stream_cuts_the_same_patches_at_any_hop(front, steps):
    stream = PatchStream(front, steps)
    blocks = [b for piece in np.split(SOUND, [1, 700, 9_000]) for b in stream.push(piece)]
    blocks += stream.finish()
    found = np.concatenate([block.patches for block in blocks])
    np.testing.assert_array_equal(found, patches_of(SOUND, front.with_steps(steps)))
    assert all(len(block.starts) <= 256 for block in blocks)
    assert blocks[-1].ends[-1] == pytest.approx(len(SOUND) / front.sample_rate)


def test_batches_of_large_patches_are_small():
    assert batch_sizes((96, 64)) == (4, 32, 256)
    assert batch_sizes(BIRDNET.patch_shape) == (4, 32)


def changed(x, **how):
    layer = AugmentPatches(Augmentation(**how), seed=1, powers=FRONT.powers, scale=(0.5, 0.4))
    return keras.ops.convert_to_numpy(layer(x, training=True))


def test_mel_windows_are_changed_by_their_logarithms_both_spectrograms_alike():
    x = patches_of(np.tile(SOUND, 4), FRONT)
    np.testing.assert_allclose(changed(x), np.maximum(x, 1e-3), rtol=1e-5)
    # The samples of a patch are scaled, so the level is not changed.
    np.testing.assert_allclose(changed(x, level=0.5), np.maximum(x, 1e-3), rtol=1e-5)
    moved = changed(x, shift=8)
    for patch, own in zip(moved, x, strict=True):
        fits = [
            s
            for s in range(-4, 5)
            if np.allclose(patch, own[np.clip(np.arange(len(own)) + s, 0, len(own) - 1)], atol=2e-3)
        ]
        assert fits
    ratio = np.log(changed(x, response=0.3) / np.maximum(x, 1e-3)) / (2 * np.array(FRONT.powers))
    # One curve over the bands for all columns and both spectrograms.
    np.testing.assert_allclose(ratio, ratio[:, :1, :, :1] * np.ones_like(ratio), atol=1e-2)
    assert np.abs(ratio).max() > 0.05
    strong = AugmentPatches(AUGMENTATIONS["strong"], seed=0, powers=FRONT.powers)
    again = AugmentPatches.from_config(strong.get_config())
    assert (again.powers, again.augmentation) == (FRONT.powers, AUGMENTATIONS["strong"])


def test_logarithms_of_powers_are_changed_in_their_own_unit():
    x = patches_of(SOUND, LOGS)
    unit = LOGS.logs.unit
    assert unit == pytest.approx(0.4)
    for how in ({"level": 0.5}, {"response": 0.3}):
        plain, scaled = (
            AugmentPatches(Augmentation(**how), seed=4, unit=one) for one in (1.0, unit)
        )
        moved = keras.ops.convert_to_numpy(plain(x, training=True)) - x
        found = keras.ops.convert_to_numpy(scaled(x, training=True)) - x
        assert np.abs(moved).max() > 0.1
        np.testing.assert_allclose(found, unit * moved, atol=1e-5)
    again = AugmentPatches.from_config(scaled.get_config())
    assert again.unit == unit
    # A sound twice as loud has values that are higher by as much as the unit says.
    loud, quiet = (patches_of(gain * SOUND, LOGS) for gain in (1.0, 0.5))
    full = quiet > quiet.mean()  # the last patch is padded
    np.testing.assert_allclose((loud - quiet)[full], unit * np.log(2), atol=2e-3)


class Stored:
    """Stands for a `PatchView`."""

    def __init__(self, patches, clip):
        self.patches, self.clip, self.fingerprint = patches, clip, "f"
        self.shape, self.dtype = patches.shape, patches.dtype

    def __len__(self):
        return len(self.patches)

    def __getitem__(self, rows):
        return self.patches[rows]


def test_copies_in_noise_add_powers():
    bank = make_bank(FRONT, 1, np.random.default_rng(0))
    assert bank.patches.shape[1:] == FRONT.patch_shape
    clean = patches_of(SOUND, FRONT)
    stored = Stored(clean, np.zeros(len(clean), np.int64))
    view = NoisyView(stored, bank, np.random.default_rng(3), FRONT, 1, 2)
    copies = view[len(clean) : 3 * len(clean)]
    assert view.shape == (3 * len(clean) + len(bank.patches), *FRONT.patch_shape)
    np.testing.assert_array_equal(view[: len(clean)], clean)
    for row, copy in enumerate(copies):
        own, noise = clean[row % len(clean)], bank.patches[view._noise[row]]
        gain = np.exp(view._loud[row] - view._quiet[row] - view._above[row])
        power = 1 / np.array(FRONT.powers)
        both = own.astype(float) ** power + gain**2 * noise.astype(float) ** power
        expected = (both / (1 + gain**2)) ** (1 / power)
        np.testing.assert_allclose(copy, expected, rtol=1e-3, atol=1e-4)


def test_copies_in_noise_add_the_powers_that_logarithms_are_of():
    bank = make_bank(LOGS, 1, np.random.default_rng(0))
    clean = patches_of(SOUND, LOGS)
    stored = Stored(clean, np.zeros(len(clean), np.int64))
    view = NoisyView(stored, bank, np.random.default_rng(3), LOGS, 1, 1)

    def power(patch):
        return np.maximum(np.exp(5 * patch.astype(float) - 4.5) - 1e-5, 0)

    for row, copy in enumerate(view[len(clean) : 2 * len(clean)]):
        own, noise = clean[row], bank.patches[view._noise[row]]
        gain = np.exp(view._loud[row] - view._quiet[row] - view._above[row])
        both = (power(own) + gain**2 * power(noise)) * np.exp(2 * view._level[row])
        np.testing.assert_allclose(copy, (np.log(both + 1e-5) + 4.5) / 5, atol=1e-3)


def test_what_is_too_high_follows_the_network(tmp_path: Path) -> None:
    time = np.arange(96_000) / 96_000
    soundfile.write(tmp_path / "high.wav", 0.3 * np.sin(6.2832 * 12_000 * time), 96_000)
    file, name = tmp_path / "high.wav", Path("high.wav")
    (told,) = [p.cause for p in examine(file, name)[1]]
    assert "above 7.5 kHz" in told
    how = Reading().by(BIRDNET)
    assert (how.hears, how.window) == (15_000.0, 3.0)
    assert examine(file, name, hears=how.hears)[1] == []
    # Decoded by a process, as formats other than plain WAV are.
    soundfile.write(tmp_path / "high.flac", 0.3 * np.sin(6.2832 * 20_000 * time), 96_000)
    with Decoders() as decoders:
        files = [(tmp_path / "high.flac", Path("high.flac"))]
        (judged,) = decoders.examine(files, hears=how.hears)
    assert "above 15 kHz" in judged[1][0].cause
