"""Random changes of patches: each by itself, and all together."""

from dataclasses import asdict

import keras
import numpy as np
import pytest

from unfreeze.audio.augment_layer import AugmentPatches
from unfreeze.audio.augmentation import AUGMENTATIONS, Augmentation

pytestmark = pytest.mark.on_each_backend

FRAMES, BANDS = 20, 16
X = np.random.default_rng(0).normal(-2, 2, (300, FRAMES, BANDS)).astype("float32")


def changed(x: np.ndarray = X, seed: int = 1, **how) -> np.ndarray:
    layer = AugmentPatches(Augmentation(**how), seed=seed)
    found = keras.ops.convert_to_numpy(layer(x, training=True))
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    return found


@pytest.mark.parametrize("name", ["light", "strong"])
def test_nothing_happens_but_in_training(name):
    layer = AugmentPatches(AUGMENTATIONS[name], seed=0)
    for training in (False, None):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(X, training=training)), X)
    found = keras.ops.convert_to_numpy(layer(X, training=True))
    assert (np.abs(found - X).max(axis=(1, 2)) > 0.01).mean() > 0.9


def test_without_any_change_it_is_the_same_in_training():
    np.testing.assert_array_equal(changed(), X)


def test_a_shift_moves_all_bands_and_repeats_the_edge():
    found = changed(shift=3)
    places = np.arange(FRAMES)
    shifted = {s: X[:, np.clip(places + s, 0, FRAMES - 1)] for s in range(-3, 4)}
    which = [[s for s in shifted if (shifted[s][i] == found[i]).all()] for i in range(len(X))]
    assert all(len(fitting) == 1 for fitting in which)
    counts = [which.count([s]) for s in range(-3, 4)]
    # All are as likely: 43 each, give or take four standard deviations.
    assert min(counts) > 18
    assert max(counts) < 68


def test_a_level_adds_one_number_to_a_patch():
    added = (changed(level=0.5) - X).reshape(len(X), -1)
    np.testing.assert_allclose(added, added[:, :1] * np.ones_like(added), atol=2e-6)
    assert added[:, 0].std() == pytest.approx(0.5, rel=0.15)
    assert added[:, 0].mean() == pytest.approx(0, abs=0.12)


def test_mixing_adds_the_neighbour_by_5_to_20_decibels_weaker():
    found = changed(mix=1.0)
    added = np.log(np.exp(found.astype(float)) - np.exp(X.astype(float))) - np.roll(X, 1, axis=0)
    # Where the neighbour is drowned, subtraction leaves rounding.
    clear = np.roll(X, 1, axis=0) > X
    decibels = [20 / np.log(10) * -a[c] for a, c in zip(added, clear, strict=True)]
    assert max(np.ptp(d) for d in decibels) < 0.1
    weaker = np.array([d.mean() for d in decibels])
    assert weaker.min() > 4.9
    assert weaker.max() < 20.1
    assert weaker.mean() == pytest.approx(12.5, abs=1.0)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_mixing_changes_that_share_of_the_patches(share):
    moved = (changed(mix=share) != X).any(axis=(1, 2)).mean()
    assert moved == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


def test_a_response_adds_a_smooth_curve_over_the_bands():
    added = changed(response=0.3) - X
    np.testing.assert_allclose(added, added[:, :1] * np.ones((1, FRAMES, 1)), atol=2e-6)
    waves = np.cos(np.pi * np.outer([1, 2, 3], np.arange(BANDS) / BANDS))
    parts, *_ = np.linalg.lstsq(waves.T, added[:, 0].T, rcond=None)
    np.testing.assert_allclose(parts.T @ waves, added[:, 0], atol=1e-5)
    np.testing.assert_allclose(parts.std(axis=1), 0.3, rtol=0.2)


def test_a_warp_stretches_the_bands_by_at_most_so_much():
    bands = np.arange(BANDS, dtype="float32")
    ramp = np.broadcast_to(bands, (300, FRAMES, BANDS)).copy()
    found = changed(ramp, warp=0.2)
    # A ramp shows from where each value came: its place times a factor, the last band at most.
    factors = found[:, :, 1]
    np.testing.assert_allclose(found, np.minimum(bands * factors[:, :, None], BANDS - 1), atol=1e-5)
    np.testing.assert_allclose(factors, factors[:, :1] * np.ones((1, FRAMES)), atol=1e-6)
    assert 0.8 <= factors.min() < 0.83
    assert 1.17 < factors.max() <= 1.2


def test_a_warp_keeps_values_within_those_of_the_neighbours():
    found = changed(warp=0.2)
    np.testing.assert_array_equal(found[:, :, 0], X[:, :, 0])
    assert (found.max(axis=2) <= X.max(axis=2) + 1e-5).all()
    assert (found.min(axis=2) >= X.min(axis=2) - 1e-5).all()


def stretches(replaced: np.ndarray) -> list[list[int]]:
    """Lengths of the runs of True in each row."""
    edges = np.diff(np.pad(replaced.astype(int), ((0, 0), (1, 1))), axis=1)
    return [list(np.flatnonzero(row == -1) - np.flatnonzero(row == 1)) for row in edges]


@pytest.mark.parametrize(("axis", "kind"), [(2, "band"), (1, "frame")])
def test_a_mask_puts_the_mean_in_place_of_a_stretch(axis, kind):
    found = changed(**{f"{kind}_masks": 1, f"{kind}_width": 5})
    replaced = found != X
    means = np.broadcast_to(X.mean(axis=(1, 2), keepdims=True), X.shape)
    np.testing.assert_allclose(found[replaced], means[replaced], atol=1e-5)
    # Whole bands or whole frames.
    assert (replaced.any(axis=3 - axis) == replaced.all(axis=3 - axis)).all()
    lengths = stretches(replaced.any(axis=3 - axis))
    assert {len(row) for row in lengths} == {0, 1}
    widths = [sum(row) for row in lengths]
    assert set(widths) == {0, 1, 2, 3, 4, 5}
    # Anywhere: each place is covered now and then.
    covered = replaced.any(axis=3 - axis).sum(axis=0)
    assert covered.min() > 0


def test_two_masks_cover_at_most_two_stretches():
    found = changed(band_masks=2, band_width=3)
    lengths = stretches((found != X).any(axis=1))
    assert {len(row) for row in lengths} == {0, 1, 2}
    assert max(sum(row) for row in lengths) == 6
    assert max(max(row, default=0) for row in lengths) <= 6


def test_a_mask_wider_than_the_patch_covers_it():
    found = changed(X[:, :2], frame_masks=1, frame_width=96)
    spread = np.ptp(found, axis=(1, 2))
    assert (spread < 1e-5).mean() > 0.9


def test_patches_of_a_batch_and_calls_in_turn_differ_and_a_seed_repeats_them():
    same = np.repeat(X[:1], 8, axis=0)
    how = asdict(AUGMENTATIONS["strong"])
    found = changed(same, **how)
    assert len({patch.tobytes() for patch in found}) == 8
    np.testing.assert_array_equal(changed(same, **how), found)
    assert np.abs(changed(same, seed=2, **how) - found).max() > 0.1
    layer = AugmentPatches(AUGMENTATIONS["strong"], seed=1)
    first, second = (keras.ops.convert_to_numpy(layer(same, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, found)
    assert np.abs(second - first).max() > 0.1


def test_saved_and_loaded_it_still_changes_patches_in_training_alone(tmp_path):
    inputs = keras.Input((FRAMES, BANDS))
    layer = AugmentPatches(Augmentation(shift=2, level=0.1, band_masks=1), seed=3, name="augment")
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, FRAMES, BANDS)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", safe_mode=True)
    assert loaded.get_layer("augment").augmentation == layer.augmentation
    np.testing.assert_array_equal(loaded.predict(X[:5], verbose=0), X[:5])
    found = keras.ops.convert_to_numpy(loaded(X[:5], training=True))
    assert np.abs(found - X[:5]).max() > 0.1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_under_mixed_precision_the_type_is_kept(policy):
    layer = AugmentPatches(AUGMENTATIONS["strong"], seed=1, dtype=policy)
    half = policy.removeprefix("mixed_")
    for training in (True, False):
        found = layer(X[:4], training=training)
        assert keras.backend.standardize_dtype(found.dtype) == half
    # The draws are those of float32.
    exact = changed(X[:4], **asdict(AUGMENTATIONS["strong"]))
    again = AugmentPatches(AUGMENTATIONS["strong"], seed=1, dtype=policy)(X[:4], training=True)
    again = keras.ops.convert_to_numpy(keras.ops.cast(again, "float32"))
    np.testing.assert_allclose(again, exact, atol=0.1)


def test_the_named_settings():
    assert AUGMENTATIONS["none"] is None
    light, strong = (asdict(AUGMENTATIONS[name]) for name in ("light", "strong"))
    assert all(light[key] <= strong[key] for key in light)
    assert light["shift"] > 0
