"""Patch models and clip models: what they read, what they copy, and what survives saving."""

import keras
import numpy as np
import pytest

from toy import build_toy
from unfreeze.audio.augment_layer import AugmentPatches
from unfreeze.audio.augmentation import AUGMENTATIONS
from unfreeze.audio.clip_model import (
    OwnClasses,
    clip_model,
    head_input,
    notice_of,
    own_part_of,
    own_scores,
    parts_of,
    patch_model,
)
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.yamnet import build_yamnet, yamnet_with_top
from unfreeze.backbones.yamnet_spec import CLASSES, class_names
from unfreeze.core.fit import fit
from unfreeze.core.presets import preset, vary
from unfreeze.core.read_out import adapt, projection_of
from unfreeze.errors import ScheduleError

PATCHES = np.random.default_rng(0).normal(-2, 2, size=(5, 96, 64)).astype("float32")


@pytest.fixture(scope="module")
def published(yamnet_weights):
    model = yamnet_with_top(yamnet_weights)
    return model, model.predict(PATCHES, verbose=0)


def trained(weights, *moved):
    """A patch model in which some layers have other weights than were published."""
    model = patch_model(build_yamnet(weights), 3, seed=0)
    for name in moved:
        layer = model.get_layer(name)
        layer.set_weights([w + 0.05 for w in layer.get_weights()])
    return model


@pytest.mark.parametrize(
    ("moved", "copied"),
    [
        ((), 1),  # the published top alone
        (("block14_pointwise",), 5),  # and its norm, its ReLU and the mean
        (("block13_depthwise_bn",), 2 + 3 + 3 + 3 + 2),
        (("conv1",), 85 - 2),  # all but the input and the reshape
    ],
)
def test_published_scores_stay_whatever_has_moved(yamnet_weights, published, moved, copied):
    _, expected = published
    model = trained(yamnet_weights, *moved)
    before = model.predict(PATCHES, verbose=0)
    scores = own_scores(model, yamnet_with_top(yamnet_weights), "audioset_")
    both = keras.Model(model.inputs, [model.outputs[0], scores])
    mine, own = both.predict(PATCHES, verbose=0)
    np.testing.assert_allclose(own, expected, atol=1e-6)
    np.testing.assert_allclose(mine, before, atol=1e-6)
    assert sum(layer.name.startswith("audioset_") for layer in both.layers) == copied


def test_a_copy_is_needed_for_statistics_that_moved(yamnet_weights, published):
    """BatchNorm statistics are no trainable weights, and change the scores all the same."""
    model = trained(yamnet_weights)
    norm = model.get_layer("block14_pointwise_bn")
    norm.moving_variance.assign(norm.moving_variance * 4)
    scores = own_scores(model, yamnet_with_top(yamnet_weights), "audioset_")
    own = keras.Model(model.inputs, scores).predict(PATCHES, verbose=0)
    np.testing.assert_allclose(own, published[1], atol=1e-6)


@pytest.mark.on_each_backend
def test_the_clip_model_gives_both_by_name_and_loads_in_safe_mode(
    yamnet_weights, published, tmp_path
):
    model = trained(yamnet_weights, "block14_pointwise")
    scores = own_scores(model, yamnet_with_top(yamnet_weights), "audioset_")
    labels = ("cat", "dog", "frog")
    own = OwnClasses(scores, class_names(), "audioset", "AudioSet")
    clip_model(model, FrontEnd(), labels, own, "a notice").save(tmp_path / "m.keras")
    whole = keras.models.load_model(tmp_path / "m.keras", compile=False, safe_mode=True)
    waveform = np.random.default_rng(1).normal(scale=0.1, size=(2, 40_000)).astype("float32")
    out = whole.predict(waveform, verbose=0)
    assert set(out) == {"classes", "audioset"}
    assert out["classes"].shape == (2, 3)
    assert out["audioset"].shape == (2, CLASSES)
    np.testing.assert_allclose(out["classes"].sum(axis=1), 1, atol=1e-5)

    patches, _, found = parts_of(whole)
    assert found == labels
    assert len(patches.outputs) == 1
    part = own_part_of(whole)
    assert (part.labels, part.key, part.title) == (class_names(), "audioset", "AudioSet")
    assert notice_of(whole) == "a notice"
    rows = part.model.predict(PATCHES, verbose=0)
    np.testing.assert_allclose(rows[:, :3], patches.predict(PATCHES, verbose=0), atol=1e-6)
    np.testing.assert_allclose(rows[:, 3:], published[1], atol=1e-6)


def test_a_clip_model_without_own_classes_has_one_output(yamnet_weights):
    whole = clip_model(trained(None), FrontEnd(), ("a", "b", "c"))
    assert own_part_of(whole) is None
    assert whole.output_shape == (None, 3)


STRONG = AUGMENTATIONS["strong"]
LABELS = np.arange(24) % 3
SOUNDS = np.random.default_rng(2).normal(-3, 2, (24, 96, 64)).astype("float32")
SOUNDS[np.arange(24), :, 20 * LABELS + 4] += 6


def read_everywhere(augmentation=None, seed=0, backbone=None):
    """A patch model on the toy backbone that reads every depth, fitted to the sounds."""
    model = patch_model(backbone or build_toy(), 3, seed, "auto", augmentation)
    adapt(model, SOUNDS)
    return model


@pytest.mark.on_each_backend
def test_taps_read_each_block_by_its_frequencies():
    model = patch_model(build_toy(), 3, 0, "auto")
    assert model.name == "patch_classifier"
    # 16 bands of 8 filters, then 4 of 16.
    assert model.get_layer("tap_block1").output.shape == (None, 16 * 8)
    assert model.get_layer("tap_block2").output.shape == (None, 4 * 16)
    assert model.output_shape == (None, 3)
    some = patch_model(build_toy(), 3, 0, ["block2_conv"])
    assert [layer.name for layer in some.layers if layer.name.startswith("tap_")] == [
        "tap_block2_conv",
        "tap_block2_conv_root",
    ]
    with pytest.raises(ScheduleError, match="taps: 'block7' matches no layer of the network"):
        patch_model(build_toy(), 3, 0, "block7")


@pytest.mark.on_each_backend
@pytest.mark.parametrize("taps", ["auto", None])
def test_augmentation_changes_nothing_but_training(taps):
    plain, augmented = (
        patch_model(build_toy(), 3, 0, taps, augmentation) for augmentation in (None, STRONG)
    )
    for model in (plain, augmented) if taps == "auto" else ():
        adapt(model, SOUNDS)
    layer = augmented.get_layer("augment")
    assert isinstance(layer, AugmentPatches)
    assert layer.augmentation == STRONG
    expected = plain.predict(SOUNDS, verbose=0)
    np.testing.assert_allclose(augmented.predict(SOUNDS, verbose=0), expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.01
    inner = keras.Model(augmented.inputs[0], augmented.get_layer("block2_relu").output)
    first, second = (keras.ops.convert_to_numpy(inner(SOUNDS, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 0.01


def test_with_augmentation_the_backbone_is_copied_with_its_weights():
    backbone = build_toy()
    norm = backbone.get_layer("block1_bn")
    norm.set_weights([w + 0.25 for w in norm.get_weights()])
    shared, copied = (patch_model(backbone, 3, 0, "auto", how) for how in (None, STRONG))
    assert "block2_relu" in [layer.name for layer in shared.layers]
    for layer in backbone.layers[:9]:
        assert shared.get_layer(layer.name) is layer
        assert copied.get_layer(layer.name) is not layer
        pairs = zip(copied.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    copied.get_layer("block1_conv").set_weights(
        [w + 1 for w in backbone.get_layer("block1_conv").get_weights()]
    )
    assert np.abs(backbone.get_layer("block1_conv").get_weights()[0]).max() < 1


def test_the_head_reads_the_embedding_or_the_projected_taps():
    backbone = build_toy()
    assert head_input(patch_model(backbone, 3, 0)) is backbone.output
    model = patch_model(backbone, 3, 0, "auto")
    assert head_input(model) is projection_of(model).output
    assert head_input(model).shape == (None, 256)
    augmented = patch_model(build_toy(), 3, 0, None, STRONG)
    assert head_input(augmented).shape == backbone.output.shape


def test_a_clip_model_that_reads_everywhere_survives_saving_in_safe_mode(tmp_path):
    model = read_everywhere(STRONG)
    labels = ("low", "middle", "high")
    whole = clip_model(model, FrontEnd(), labels)
    whole.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", compile=False, safe_mode=True)
    waveform = np.random.default_rng(1).normal(scale=0.1, size=(2, 40_000)).astype("float32")
    expected = whole.predict(waveform, verbose=0)
    np.testing.assert_allclose(loaded.predict(waveform, verbose=0), expected, atol=1e-6)
    assert np.ptp(expected) > 0.01
    patches, _, found = parts_of(loaded)
    assert found == labels
    assert projection_of(patches).is_fitted
    assert patches.get_layer("augment").augmentation == STRONG
    np.testing.assert_allclose(
        patches.predict(SOUNDS, verbose=0), model.predict(SOUNDS, verbose=0), atol=1e-6
    )


def test_seeds_of_augmentation_share_the_cache_of_a_head_that_is_solved(tmp_path):
    results, models = [], []
    for seed in (0, 1):
        models.append(read_everywhere(STRONG, seed))
        schedule = vary(preset("probe"), {"epochs": "1"})
        data = (SOUNDS, LABELS)
        results.append(fit(models[-1], schedule, data, verbose=0, seed=seed, cache_dir=tmp_path))
    assert [r.stages[0].cache.split(":")[0] for r in results] == ["cached", "reused"]
    first, second = (model.predict(SOUNDS, verbose=0) for model in models)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert (first.argmax(axis=1) == LABELS).mean() > 0.9


def test_published_scores_stay_beside_a_head_that_reads_everywhere(yamnet_weights, published):
    model = patch_model(build_yamnet(yamnet_weights), 3, 0, "auto", STRONG)
    scores = own_scores(model, yamnet_with_top(yamnet_weights), "audioset_")
    both = keras.Model(model.inputs, [model.outputs[0], scores])
    np.testing.assert_allclose(both.predict(PATCHES, verbose=0)[1], published[1], atol=1e-6)
    # The mean over the last map, which no tap reads, and the published top.
    assert sum(layer.name.startswith("audioset_") for layer in both.layers) == 2
