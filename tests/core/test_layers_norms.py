"""A BatchNorm layer that is new trains; a pretrained one keeps what it has."""

import logging

import keras
import numpy as np
import pytest

import unfreeze
from unfreeze.core.graph import flatten
from unfreeze.core.layers import apply, entries, find_groups, is_fresh, new_norms, select
from unfreeze.core.presets import preset
from unfreeze.core.schedule import Stage

layers = keras.layers


def make(base_norm: bool = True, pretrained: bool = True) -> keras.Model:
    """A base of convolution (and BatchNorm), and a head with a BatchNorm of its own."""
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, use_bias=not base_norm, name="conv")(x)
    if base_norm:
        x = layers.BatchNormalization(name="base_norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(6, name="hidden")(x)
    x = layers.BatchNormalization(name="head_norm")(x)
    x = layers.Dense(2, activation="softmax", name="out")(layers.ReLU(name="head_relu")(x))
    model = keras.Model(inputs, x)
    if base_norm and pretrained:
        norm = model.get_layer("base_norm")
        norm.moving_mean.assign(np.full(4, 0.1))
        norm.moving_variance.assign(np.full(4, 0.7))
    return model


def new_names(model: keras.Model) -> list[str]:
    known = [entry.layer for entry in entries(flatten(model))]
    new = new_norms(find_groups(flatten(model))[-1].layers, known)
    return [layer.name for layer in known if id(layer) in new]


@pytest.mark.parametrize(("base_norm", "pretrained"), [(True, True), (True, False), (False, False)])
def test_only_the_added_layer_is_new(base_norm, pretrained):
    assert new_names(make(base_norm, pretrained)) == ["head_norm"]


def test_a_layer_put_between_base_and_head_is_new_where_others_have_statistics():
    model = make()
    y = layers.BatchNormalization(name="bridge")(model.get_layer("relu").output)
    y = layers.Dense(2, name="out2")(layers.GlobalAveragePooling2D()(y))
    assert new_names(keras.Model(model.input, y)) == ["bridge"]


def test_a_trained_head_is_not_new():
    model = make()
    model.get_layer("head_norm").moving_mean.assign(np.ones(6))
    assert not is_fresh(model.get_layer("head_norm"))
    assert new_names(model) == []


@pytest.mark.parametrize("policy", ["frozen", "affine", "train"])
def test_a_new_layer_trains_under_every_policy(policy):
    model = make()
    selection = select(flatten(model), Stage("s", train="all", batch_norm=policy))
    apply(model, selection)
    head, base = model.get_layer("head_norm"), model.get_layer("base_norm")
    assert head.trainable
    assert base.trainable == (policy == "train")
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in selection.trained}
    assert {id(head.gamma), id(head.beta)} <= {id(v) for v in selection.trained}
    assert (id(base.gamma) in {id(v) for v in selection.trained}) == (policy != "frozen")
    updating = {id(v) for v in selection.updating}
    assert {id(head.moving_mean), id(head.moving_variance)} <= updating
    assert (id(base.moving_mean) in updating) == (policy == "train")


def test_the_statistics_of_a_new_layer_follow_the_data_in_a_run():
    model = make()
    base = [w.numpy() for w in model.get_layer("base_norm").weights]
    rng = np.random.default_rng(0)
    x, y = rng.normal(3.0, 2.0, (32, 8, 8, 2)).astype("float32"), rng.integers(0, 2, 32)
    unfreeze.fit(model, preset("two_stage").with_changes(epochs=2), (x, y), seed=0, verbose=0)
    hidden = keras.Model(model.input, model.get_layer("hidden").output).predict(x, verbose=0)
    norm = model.get_layer("head_norm")
    # Four updates of momentum 0.99 have gone 4 % of the way from 0 to the mean.
    wanted = 0.04 * hidden.mean(0)
    np.testing.assert_allclose(norm.moving_mean.numpy(), wanted, atol=0.3 * np.abs(wanted).max())
    for before, weight in zip(base, model.get_layer("base_norm").weights, strict=True):
        np.testing.assert_array_equal(before, weight.numpy())


def test_a_base_without_statistics_is_named(caplog):
    model = make(pretrained=False)
    x, y = np.random.default_rng(0).normal(size=(8, 8, 8, 2)), np.arange(8) % 2
    with caplog.at_level(logging.INFO, "unfreeze"):
        unfreeze.fit(model, [Stage("s", "all", epochs=1)], (x, y), seed=0, verbose=0)
    assert "BatchNorm layers base_norm have no statistics yet" in caplog.text
    assert "head_norm" not in caplog.text
