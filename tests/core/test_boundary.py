"""The freeze boundary: what is prefix, what is suffix, what crosses."""

import keras
import pytest
from keras import layers

from unfreeze.core.boundary import Cut, find_cut, frontier_dtypes
from unfreeze.core.graph import flatten


def cut_of(model: keras.Model, *names: str, views: int = 1) -> Cut:
    """The cut where the layers of these names train."""
    graph = flatten(model)
    steps = [step for step in graph.steps if step.operation.name in names]
    assert {step.operation.name for step in steps} == set(names)
    weights = {id(w) for step in steps for w in step.operation.weights}
    return find_cut(graph, weights, views=views)


def paths(steps) -> list[str]:
    return [step.path for step in steps]


def chain(*parts, shape=(8, 8, 3)) -> keras.Model:
    x = keras.Input(shape, name="input")
    y = x
    for part in parts:
        y = part(y)
    return keras.Model(x, y)


def photo_model() -> keras.Model:
    return chain(
        layers.RandomFlip(name="flip"),
        layers.Conv2D(4, 3, name="conv1"),
        layers.BatchNormalization(name="bn1"),
        layers.Dropout(0.5, name="inside"),
        layers.Conv2D(4, 3, name="conv2"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dropout(0.5, name="before_head"),
        layers.Dense(2, name="head"),
    )


def test_a_chain_is_cut_before_the_first_layer_that_trains():
    model = chain(*(layers.Dense(2, name=name) for name in "abcd"), shape=(2,))
    cut = cut_of(model, "c")
    assert paths(cut.prefix) == ["a", "b"]
    assert paths(cut.suffix) == ["c", "d"]
    assert cut.boundary == ("b",)
    assert cut.passed == ()
    assert cut.saves_work
    assert cut.bytes_per_sample() == 8
    assert frontier_dtypes(cut) == ["float32"]


def test_everything_that_reads_from_what_trains_is_suffix_and_skips_cross():
    x = keras.Input((4,), name="x")
    a = layers.Dense(4, name="a")(x)
    b = layers.Dense(4, name="b")(a)
    c = layers.Dense(4, name="c")(b)
    model = keras.Model(x, layers.Concatenate(name="all")([x, a, b, c]))
    cut = cut_of(model, "c")
    assert paths(cut.suffix) == ["c", "all"]
    assert set(cut.boundary) == {"a", "b"}
    assert cut.passed == cut.graph.inputs
    assert cut.bytes_per_sample() == 2 * 4 * 4


def test_an_output_that_is_all_frozen_crosses_as_it_is():
    x = keras.Input((4,))
    a = layers.Dense(4, name="a")(x)
    model = keras.Model(x, [a, layers.Dense(1, name="head")(a), x])
    cut = cut_of(model, "head")
    assert paths(cut.suffix) == ["head"]
    assert cut.boundary == ("a",)
    assert cut.passed == cut.graph.inputs


def test_a_shared_layer_that_trains_makes_all_its_calls_live():
    shared = layers.Dense(4, name="shared")
    x, y = keras.Input((4,)), keras.Input((4,))
    a = layers.Dense(4, name="a")(shared(x))
    b = layers.Dense(4, name="b")(y)
    model = keras.Model([x, y], layers.Add(name="sum")([a, shared(b)]))
    cut = cut_of(model, "shared")
    assert paths(cut.prefix) == ["b"]
    assert cut.boundary == ("b",)
    assert len(cut.passed) == 1


def test_nothing_frozen_and_nothing_live():
    model = chain(layers.Dense(2, name="a"), layers.Dense(2, name="b"), shape=(2,))
    cut = cut_of(model, "a", "b")
    assert (cut.prefix, cut.frontier) == ((), ())
    assert cut.passed == cut.graph.inputs
    assert not cut.saves_work
    frozen = find_cut(flatten(model), set())
    assert frozen.suffix == ()
    assert frozen.frontier == frozen.graph.outputs


def test_preprocessing_alone_saves_no_work():
    model = chain(layers.Rescaling(0.5), layers.Dense(2, name="head"), shape=(2,))
    cut = cut_of(model, "head")
    assert len(cut.prefix) == 1
    assert not cut.saves_work


def test_random_layers_go_by_their_place():
    cut = cut_of(photo_model(), "head")
    # The flip draws anew in each epoch, so all is live but what it does not touch: nothing.
    assert cut.prefix == ()
    assert cut.live_augmentation == ("flip",)


def test_augmentation_is_not_to_blame_where_nothing_is_frozen():
    layers_of = [x for x in photo_model().layers if x.weights]
    assert cut_of(photo_model(), *(x.name for x in layers_of)).live_augmentation == ()


def test_with_views_augmentation_is_prefix_and_runs_in_training_mode():
    cut = cut_of(photo_model(), "head", views=3)
    assert paths(cut.prefix) == ["flip", "conv1", "bn1", "inside", "conv2", "pool"]
    assert paths(cut.suffix) == ["before_head", "head"]
    assert [s.path for s in cut.prefix if id(s) in cut.augmentation] == ["flip"]
    assert cut.silenced == ("inside",)
    assert cut.live_augmentation == ()


def test_dropout_in_a_frozen_base_is_silenced_and_before_the_head_it_is_live():
    model = chain(*[type(x).from_config(x.get_config()) for x in photo_model().layers[2:]])
    cut = cut_of(model, "head")
    assert cut.silenced == ("inside",)
    assert paths(cut.suffix) == ["before_head", "head"]
    # Once the layer after it trains, it lies above the boundary.
    cut = cut_of(model, "conv2", "head")
    assert paths(cut.prefix) == ["conv1", "bn1"]
    assert cut.silenced == ()


def test_noise_with_frozen_layers_above_is_silenced_only_where_something_was_learned_below():
    model = chain(
        layers.GaussianNoise(0.1, name="noise"),
        layers.Dense(4, name="a"),
        layers.Dense(2, name="head"),
        shape=(4,),
    )
    assert cut_of(model, "head").live_augmentation == ("noise",)
    assert paths(cut_of(model, "head", views=2).prefix) == ["noise", "a"]


def test_batch_norm_that_updates_itself_is_live():
    model = chain(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(scale=False, center=False, name="bn"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2, name="head"),
    )
    assert not model.get_layer("bn").trainable_weights
    cut = cut_of(model, "bn", "head")
    assert paths(cut.prefix) == ["conv"]


def test_a_random_layer_with_weights_is_no_augmentation():
    class Noisy(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense, self.drop = layers.Dense(4), layers.Dropout(0.5)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return self.drop(self.dense(x))

    model = chain(Noisy(name="noisy"), layers.Dense(2, name="head"), shape=(4,))
    cut = cut_of(model, "head")
    assert paths(cut.prefix) == ["noisy"]  # frozen, so in inference mode
    assert cut.silenced == ()


def test_size_of_the_frontier_is_unknown_where_a_dimension_is():
    model = chain(
        layers.Conv1D(4, 3, name="conv"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(2, name="head"),
        shape=(None, 2),
    )
    assert cut_of(model, "head").bytes_per_sample() == 16
    x = keras.Input((None, 2))
    y = layers.Conv1D(4, 3, name="conv")(x)
    y = layers.Conv1D(4, 3, name="top")(y)
    assert cut_of(keras.Model(x, y), "top").bytes_per_sample() is None


def test_unused_steps_are_left_out():
    x = keras.Input((4,))
    base = keras.Model(x, [layers.Dense(4, name="used")(x), layers.Dense(4, name="unused")(x)])
    y = keras.Input((4,))
    model = keras.Model(y, layers.Dense(1, name="head")(base(y)[0]))
    cut = cut_of(model, "head")
    assert paths(cut.prefix) == [f"{base.name}/used"]


@pytest.mark.parametrize("size", [2, 4])
def test_bytes_follow_the_number_type(size):
    model = chain(layers.Dense(5, name="a"), layers.Dense(1, name="head"), shape=(2,))
    assert cut_of(model, "head").bytes_per_sample(size) == 5 * size
