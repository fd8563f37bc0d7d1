"""The published scores survive any training, with as little copied as can be."""

import keras
import numpy as np
import pytest

from unfreeze.audio.clip_model import clip_model, own_part_of, parts_of, patch_model
from unfreeze.audio.own_classes import PREFIX, own_scores
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.yamnet import build_yamnet, yamnet_with_top
from unfreeze.backbones.yamnet_spec import CLASSES, class_names

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
    scores = own_scores(model, yamnet_with_top(yamnet_weights))
    both = keras.Model(model.inputs, [model.outputs[0], scores])
    mine, own = both.predict(PATCHES, verbose=0)
    np.testing.assert_allclose(own, expected, atol=1e-6)
    np.testing.assert_allclose(mine, before, atol=1e-6)
    assert sum(layer.name.startswith(PREFIX) for layer in both.layers) == copied


def test_a_copy_is_needed_for_statistics_that_moved(yamnet_weights, published):
    """BatchNorm statistics are no trainable weights, and change the scores all the same."""
    model = trained(yamnet_weights)
    norm = model.get_layer("block14_pointwise_bn")
    norm.moving_variance.assign(norm.moving_variance * 4)
    scores = own_scores(model, yamnet_with_top(yamnet_weights))
    own = keras.Model(model.inputs, scores).predict(PATCHES, verbose=0)
    np.testing.assert_allclose(own, published[1], atol=1e-6)


def test_the_clip_model_gives_both_by_name_and_loads_in_safe_mode(
    yamnet_weights, published, tmp_path
):
    model = trained(yamnet_weights, "block14_pointwise")
    scores = own_scores(model, yamnet_with_top(yamnet_weights))
    labels = ("cat", "dog", "frog")
    clip_model(model, FrontEnd(), labels, (scores, class_names())).save(tmp_path / "m.keras")
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
    both, names = own_part_of(whole)
    assert names == class_names()
    rows = both.predict(PATCHES, verbose=0)
    np.testing.assert_allclose(rows[:, :3], patches.predict(PATCHES, verbose=0), atol=1e-6)
    np.testing.assert_allclose(rows[:, 3:], published[1], atol=1e-6)


def test_a_clip_model_without_own_classes_has_one_output(yamnet_weights):
    whole = clip_model(trained(None), FrontEnd(), ("a", "b", "c"))
    assert own_part_of(whole) is None
    assert whole.output_shape == (None, 3)
