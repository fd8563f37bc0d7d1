"""What a stage will do: counts, the boundary, its size and the work before it."""

import json

import keras
import pytest

from unfreeze.backbones.registry import get_backbone
from unfreeze.core.boundary import Span, StagePlan, multiply_adds, plan_stage, why_uncached
from unfreeze.core.graph import flatten
from unfreeze.core.layers import select
from unfreeze.core.schedule import Stage

layers = keras.layers


def small(augment: bool = False, size: int | None = 8) -> keras.Model:
    """Two convolutions with BatchNorm, dropout between them, and a head."""
    inputs = x = keras.Input((size, size, 2))
    if augment:
        x = layers.RandomFlip(name="flip")(x)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="block1_conv")(x)
    x = layers.BatchNormalization(name="block1_norm")(x)
    x = layers.SpatialDropout2D(0.1, name="block1_drop")(x)
    x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="block2_conv")(x)
    x = layers.BatchNormalization(name="block2_norm")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(x))


def plan(model: keras.Model, **stage: object) -> StagePlan:
    graph = flatten(model)
    return plan_stage(graph, select(graph, Stage("s", **stage)))  # type: ignore[arg-type]


CONV1, CONV2, OUT = 3 * 3 * 2 * 4, 3 * 3 * 4 * 6, 6 * 3 + 3
TOTAL = CONV1 + CONV2 + OUT + 4 * 4 + 4 * 6
WORK = CONV1 * 64 + CONV2 * 16 + 6 * 3


def test_a_head_stage() -> None:
    found = plan(small(), train="head", epochs=7)
    assert found == StagePlan(
        stage="s",
        epochs=7,
        trains=("out",),
        spans=(Span("out", "out", 1),),
        layers_total=5,
        weights_trained=OUT,
        weights_updating=0,
        weights_total=TOTAL,
        prefix_layers=4,
        prefix_work=pytest.approx((WORK - 18) / WORK),
        cached=True,
        boundary=("pool",),
        cache_bytes=6 * 4,
        silenced=("block1_drop",),
        live_augmentation=(),
    )
    assert found.cacheable


def test_a_middle_stage_under_each_batch_norm_policy() -> None:
    for policy, weights, updating in [
        ("frozen", CONV2 + OUT, 0),
        ("affine", CONV2 + OUT + 2 * 6, 0),
        ("train", CONV2 + OUT + 2 * 6, 2 * 6),
    ]:
        found = plan(small(), train=["block2_*", "out"], batch_norm=policy)
        assert (found.weights_trained, found.weights_updating) == (weights, updating)
        # A frozen BatchNorm between two layers that train breaks no run.
        count = 2 if policy == "frozen" else 3
        assert found.spans == (Span("block2_conv", "out", count),)
        # The dropout feeds no frozen layer but BatchNorm: it belongs to what trains.
        assert found.boundary == ("block1_norm",)
        assert found.cache_bytes == 8 * 8 * 4 * 4
        assert found.prefix_work == pytest.approx(CONV1 * 64 / WORK)


def test_a_stage_that_trains_everything_has_nothing_to_cache() -> None:
    found = plan(small(), train="all")
    assert (found.prefix_layers, found.cache_bytes, found.boundary) == (0, 0, ())
    assert found.prefix_work == 0.0
    assert not found.cacheable
    assert not found.cached
    assert found.silenced == ()


@pytest.mark.parametrize(
    ("stage", "work", "reason"),
    [
        # 0.11 forward of 0.11 + 3 x 0.89 in each epoch, in four of five epochs.
        ({}, 0.11, "it would save 3.2% of the work"),
        ({}, 0.39, None),
        ({"epochs": 2}, 0.26, None),
        ({"epochs": 2}, 0.24, "it would save 4.8% of the work"),
        ({"epochs": 1}, 0.99, "one epoch would use it only once"),
        ({}, None, None),
        ({"cache": "always"}, 0.01, None),
        ({"cache": "never"}, 0.99, "the stage says cache='never'"),
        ({"views": 2, "epochs": 1}, 0.01, None),
    ],
)
def test_a_cache_must_save_a_twentieth_of_the_work(stage, work, reason) -> None:
    assert why_uncached(Stage("s", **{"epochs": 5, **stage}), work) == reason


def test_what_is_not_kept_is_told() -> None:
    assert plan(small(), train=["block2_*", "out"], cache="always").cached
    assert not plan(small(), train=["block2_*", "out"], epochs=1).cached
    assert not plan(small(), train="head", cache="never").cached


def test_dropout_of_a_head_with_batch_norm_is_not_silenced() -> None:
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="base")(inputs)
    x = layers.Dropout(0.5, name="base_drop")(x)
    x = layers.Dense(5, name="base_out")(x)
    x = layers.Dropout(0.5, name="head_drop")(x)
    x = layers.Dense(5, name="head_mix")(x)
    x = layers.BatchNormalization(name="head_norm")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head_out")(x))
    found = plan(model, train="head_*")
    assert found.silenced == ("base_drop",)
    assert found.boundary == ("base_out",)


def test_runs_of_neighbours() -> None:
    found = plan(small(), train=["block1_conv", "out"])
    assert found.spans == (Span("block1_conv", "block1_conv", 1), Span("out", "out", 1))
    assert found.trains == ("block1_conv", "out")


def test_augmentation_keeps_the_prefix_live_unless_there_are_views() -> None:
    live = plan(small(augment=True), train="head")
    assert live.live_augmentation == ("flip",)
    assert not live.cacheable
    cached = plan(small(augment=True), train="head", views=3)
    assert cached.live_augmentation == ()
    assert cached.boundary == ("pool",)


def test_sizes_that_are_not_known() -> None:
    found = plan(small(size=None), train=["block2_*", "out"])
    assert found.cache_bytes is None
    assert found.prefix_work is None
    assert plan(small(size=None), train="head").cache_bytes == 6 * 4


def test_plain_data() -> None:
    found = json.loads(json.dumps(plan(small(), train="head").as_dict()))
    assert found["spans"] == [{"first": "out", "last": "out", "layers": 1}]
    assert found["cache_bytes"] == 24


def work_of(layer: keras.layers.Layer, shape: tuple[int, ...]) -> int | None:
    graph = flatten(keras.Sequential([layers.Input(shape), layer]))
    return sum(multiply_adds(graph, step) or 0 for step in graph.steps)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Dense(5), (7,), 35),
        (layers.Dense(5), (4, 7), 4 * 35),
        (layers.Conv1D(5, 3, padding="same"), (8, 2), 3 * 2 * 5 * 8),
        (layers.Conv2D(5, 3, strides=2, padding="same"), (8, 8, 2), 9 * 2 * 5 * 16),
        (layers.DepthwiseConv2D(3, padding="same"), (8, 8, 2), 9 * 2 * 64),
        (layers.SeparableConv2D(5, 3, padding="same"), (8, 8, 2), (9 * 2 + 2 * 5) * 64),
        (layers.Conv2DTranspose(5, 2, strides=2), (4, 4, 3), 4 * 3 * 5 * 16),
        (layers.Embedding(100, 8), (6,), 0),
        (layers.BatchNormalization(), (8, 8, 2), 0),
        (layers.ReLU(), (8, 8, 2), 0),
    ],
)
def test_multiply_adds(layer: keras.layers.Layer, shape: tuple[int, ...], expected: int) -> None:
    assert work_of(layer, shape) == expected


def test_yamnet_does_what_is_published_of_it() -> None:
    """About 69.2 million multiply-adds a patch with its 521 classes; 0.5 million are the top's."""
    graph = flatten(get_backbone("yamnet").build(weights=None))
    work = sum(multiply_adds(graph, step) or 0 for step in graph.steps)
    assert work == 68_631_552
    assert work + 1024 * 521 == pytest.approx(69.2e6, rel=1e-3)
