"""The models of `keras.applications`, without weights and on small images."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.boundary import find_cut
from unfreeze.core.fit import fit
from unfreeze.core.graph import flatten
from unfreeze.core.layers import apply, find_groups, select
from unfreeze.core.presets import PRESETS, gradual, preset
from unfreeze.core.schedule import Schedule
from unfreeze.core.step_model import joined_model, prefix_model, suffix_model

CLASSES = 3
SIZES = {"MobileNetV3Small": 32, "ResNet50": 32, "EfficientNetV2B0": 32, "ConvNeXtTiny": 32}
NAMES = list(SIZES)


def images(name: str, count: int = 4) -> np.ndarray:
    size = SIZES[name]
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("float32")


def make(name: str) -> keras.Model:
    """The base as users take it, with a head; BatchNorm knows the statistics of the images."""
    keras.utils.set_random_seed(1)
    base = getattr(keras.applications, name)(
        input_shape=(SIZES[name],) * 2 + (3,), include_top=False, weights=None
    )
    x = keras.Input(base.input_shape[1:])
    y = layers.GlobalAveragePooling2D(name="pool")(base(x, training=False))
    y = layers.Dropout(0.2, name="drop")(y)
    # Small, as a random net's numbers are large: a softmax that is sure has no gradient.
    small = keras.initializers.RandomNormal(stddev=1e-3)
    head = layers.Dense(CLASSES, activation="softmax", kernel_initializer=small, name="head")
    model = keras.Model(x, head(y))
    norms = [x for x in base.layers if isinstance(x, layers.BatchNormalization)]
    # Without this, frozen statistics of 0 and 1 let no signal through a random net.
    for norm in norms:
        norm.trainable, norm.momentum = True, 0.0
    model(images(name, 24), training=True)
    for norm in norms:
        norm.momentum = 0.99
    return model


@pytest.fixture(
    scope="module",
    # The cut is found by Python alone: one model with BatchNorm and one without show it.
    params=[
        NAMES[0],
        *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:3]),
        pytest.param(NAMES[3], marks=pytest.mark.slow_on("tensorflow")),
    ],
)
def built(request):
    return request.param, make(request.param)


def test_joined_outputs_are_the_models_wherever_it_is_cut(built):
    name, model = built
    graph = flatten(model)
    groups = find_groups(graph)
    assert groups[-1].name == "head"
    assert len(groups) >= 4
    x = images(name, 2)
    wanted = keras.ops.convert_to_numpy(model(x, training=False))
    for group in (groups[len(groups) // 2], groups[-1]):
        cut = find_cut(graph, {id(w) for layer in group.layers for w in layer.weights})
        assert cut.saves_work
        # Fused convolutions round in another order.
        for fused, tolerance in ((False, 1e-5), (True, 1e-4)):
            frontier = prefix_model(cut, model, fused=fused)([x])
            for got in (
                suffix_model(cut, model, frozenset(), fused=fused)(frontier, training=False),
                joined_model(cut, model, frozenset(), fused)(x, training=False),
            ):
                got = keras.ops.convert_to_numpy(got)
                np.testing.assert_allclose(got, wanted, atol=tolerance)


def test_the_head_alone_reads_one_vector_an_image(built):
    _, model = built
    graph = flatten(model)
    selection = select(graph, preset("head_only").stages[0])
    apply(model, selection)
    cut = find_cut(graph, selection.live)
    assert cut.boundary == ("pool",)
    assert [step.path for step in cut.suffix] == ["drop", "head"]


def one_step(schedule: Schedule) -> Schedule:
    return schedule.with_changes(epochs=1, batch_size=None, until=None, reduce=None)


def check(name: str, schedule: Schedule, cache: str = "always") -> None:
    """One step of each stage: what should move moves, all else stands still to the bit."""
    model = make(name)
    before = {v.path: np.array(v.numpy()) for v in model.weights}
    graph = flatten(model)
    x, y = images(name), np.arange(4) % CLASSES
    # `fit` itself fails the stage where frozen weights move or trained ones do not.
    result = fit(model, schedule.with_changes(cache=cache), (x, y), batch_size=4, seed=0, verbose=0)
    assert len(result.stages) == len(schedule)
    assert result.stages[0].audit.layers[-1].moved > 0
    best = next(s for s in schedule if s.name == result.best_stage)
    reached = list(schedule)[: list(schedule).index(best) + 1]
    live = {i for stage in reached for i in select(graph, stage).live}
    for v in model.weights:
        if id(v) not in live:
            np.testing.assert_array_equal(v.numpy(), before[v.path], err_msg=v.path)


# The essence on TensorFlow, too: a stage of head and top on a cache, and one preset with
# a stage that trains everything. PyTorch, which has nothing to compile, runs the presets
# that train the most differently on the smallest model: two stages, many stages, and a
# read-out and then all layers; and the top of a large one. The others take minutes.


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("MobileNetV3Small", marks=pytest.mark.slow_on("jax")),
        pytest.param("ResNet50", marks=pytest.mark.slow_on("tensorflow", "jax")),
        *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[2:]),
    ],
)
@pytest.mark.on_each_backend
def test_the_top_trains_on_the_cache(name):
    check(name, one_step(Schedule(gradual(groups=4).stages[1:2])))


@pytest.mark.slow_on("tensorflow")
def test_two_stages_train_a_small_model():
    check("MobileNetV3Small", one_step(preset("two_stage")))


def cases():
    """Each preset on each model."""
    few = {(NAMES[0], "gradual"), (NAMES[0], "probe_tune")}
    return [
        pytest.param(
            name,
            which,
            marks=() if (name, which) in few else pytest.mark.slow,
        )
        for name in NAMES
        for which in sorted(PRESETS)
        if (name, which) != (NAMES[0], "two_stage")  # as above
    ]


@pytest.mark.slow_on("tensorflow", "jax")
@pytest.mark.parametrize(("name", "which"), cases())
def test_each_preset_trains_each_model(name, which):
    check(name, one_step(preset(which)))
