"""Which pairs of convolution and BatchNorm run as one, and which must not."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.boundary import find_cut
from unfreeze.core.fusing import FusedLinear, fuse_steps
from unfreeze.core.graph import flatten
from unfreeze.core.step_model import joined_model

NONE: frozenset[int] = frozenset()
DATA = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")


def randomize(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(1)
    for variable in model.weights:
        low, high = (0.5, 1.5) if "variance" in variable.name else (-1.0, 1.0)
        variable.assign(rng.uniform(low, high, variable.shape).astype("float32"))
    return model


def fused_paths(model: keras.Model, updating=NONE) -> list[str]:
    """Paths of steps that run as one, in a stage that trains everything."""
    graph = flatten(model)
    cut = find_cut(graph, {id(v) for v in model.weights})
    steps = fuse_steps(cut.suffix, cut, updating)
    return [step.path for step in steps if isinstance(step.operation, FusedLinear)]


def assert_same_outputs(model: keras.Model) -> None:
    cut = find_cut(flatten(model), {id(v) for v in model.weights})
    got = keras.ops.convert_to_numpy(joined_model(cut, model, NONE)(DATA, training=True))
    wanted = keras.ops.convert_to_numpy(model(DATA, training=False))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def conv(name="conv", **options):
    return layers.Conv2D(4, 3, padding="same", name=name, **options)


def norm(name="bn"):
    return layers.BatchNormalization(name=name)


def test_a_convolution_and_its_batch_norm_run_as_one_with_the_same_numbers():
    x = keras.Input((6, 6, 3))
    y = layers.ReLU()(norm("bn1")(conv("conv1")(x)))
    y = norm("bn2")(layers.DepthwiseConv2D(3, name="deep")(y))
    model = randomize(keras.Model(x, y))
    assert fused_paths(model) == ["conv1", "deep"]
    assert_same_outputs(model)


def test_batch_norm_that_updates_its_statistics_is_left_alone():
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, norm("bn2")(conv("conv2")(norm("bn1")(conv("conv1")(x)))))
    bn = model.get_layer("bn1")
    updating = frozenset({id(bn.moving_mean), id(bn.moving_variance)})
    assert fused_paths(model, updating) == ["conv2"]


def two_readers(x):
    y = conv()(x)
    return layers.Add()([y, norm()(y)])


def output_too(x):
    y = conv()(x)
    return [y, norm()(y)]


def activation_between(x):
    return norm()(conv(activation="relu")(x))


def layer_between(x):
    return norm()(layers.ReLU()(conv()(x)))


def wrong_axis(x):
    return layers.BatchNormalization(axis=1, name="bn")(conv()(x))


def with_a_mask(x):
    y = layers.Reshape((36, 3))(x)
    mask = keras.ops.ones_like(y[:, :, 0], dtype="bool")
    return layers.BatchNormalization(name="bn")(layers.Dense(3, name="conv")(y), mask=mask)


def own_class(x):
    class MyNorm(layers.BatchNormalization):
        pass

    return MyNorm(name="bn")(conv()(x))


@pytest.mark.parametrize(
    "build",
    [
        two_readers,
        output_too,
        activation_between,
        layer_between,
        wrong_axis,
        with_a_mask,
        own_class,
    ],
)
def test_what_does_not_fit_is_left_alone(build):
    x = keras.Input((6, 6, 3))
    assert fused_paths(keras.Model(x, build(x))) == []


def test_a_pair_that_is_cut_apart_is_left_alone():
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, norm()(conv()(x)))
    cut = find_cut(flatten(model), {id(v) for v in model.get_layer("bn").weights})
    for steps in (cut.prefix, cut.suffix):
        assert fuse_steps(steps, cut, NONE) == steps


def test_a_shared_pair_is_one_layer_and_each_call_is_fused():
    pair = keras.Sequential([keras.Input((6, 6, 3)), conv(), norm()], name="pair")
    x, y = keras.Input((6, 6, 3)), keras.Input((6, 6, 3))
    model = randomize(keras.Model([x, y], layers.Add()([pair(x), pair(y)])))
    graph = flatten(model)
    cut = find_cut(graph, {id(v) for v in model.weights})
    fused = [s for s in fuse_steps(cut.suffix, cut, NONE) if isinstance(s.operation, FusedLinear)]
    assert len(fused) == 2
    assert fused[0].operation is fused[1].operation


def test_a_batch_norm_after_two_convolutions_is_fused_with_each():
    shared = norm()
    x = keras.Input((6, 6, 3))
    model = randomize(
        keras.Model(x, layers.Subtract()([shared(conv("a")(x)), shared(conv("b")(x))]))
    )
    assert sorted(fused_paths(model)) == ["a", "b"]
    assert_same_outputs(model)
