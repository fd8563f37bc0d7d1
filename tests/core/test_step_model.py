"""Models made of steps: same layers, same numbers, and they speak for the whole model."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.boundary import Cut, find_cut
from unfreeze.core.graph import flatten
from unfreeze.core.keras_internals import get_keras_mask
from unfreeze.core.step_model import joined_model, masks_of, prefix_model, suffix_model

pytestmark = pytest.mark.on_each_backend

NONE: frozenset[int] = frozenset()


def array(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


def make(size: int = 3) -> keras.Model:
    x = keras.Input((size,), name="x")
    y = layers.Dense(4, activation="tanh", name="base")(x)
    y = layers.Dropout(0.5, seed=3, name="inside")(y)
    y = layers.Dense(4, activation="tanh", name="base2")(y)
    y = layers.Dropout(0.5, seed=4, name="above")(y)
    return keras.Model(x, layers.Dense(2, name="head")(y), name="whole")


def cut_at(model: keras.Model, *names: str, views: int = 1) -> Cut:
    weights = {id(v) for name in names for v in model.get_layer(name).weights}
    return find_cut(flatten(model), weights, views=views)


DATA = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


def test_prefix_gives_the_frontier_in_inference_mode_whatever_the_mode_of_the_call():
    model = make()
    prefix = prefix_model(cut_at(model, "head"), model)
    expected = array(model.get_layer("base2")(model.get_layer("base")(DATA)))
    for training in (False, True):
        (frontier,) = prefix([DATA], training=training)
        np.testing.assert_allclose(array(frontier), expected, atol=1e-6)
    assert prefix.name == "whole_prefix"


def test_suffix_and_joined_are_the_rest_and_the_whole():
    model = make()
    cut = cut_at(model, "head")
    (frontier,) = prefix_model(cut, model)([DATA])
    wanted = array(model(DATA, training=False))
    suffix, joined = suffix_model(cut, model, NONE), joined_model(cut, model, NONE)
    np.testing.assert_allclose(array(suffix(frontier, training=False)), wanted, atol=1e-6)
    np.testing.assert_allclose(array(joined(DATA, training=False)), wanted, atol=1e-6)
    assert [layer.name for layer in suffix.step_layers] == ["above", "head"]


def test_in_training_mode_dropout_above_the_boundary_fires_and_below_it_does_not():
    model = make()
    joined = joined_model(cut_at(model, "head"), model, NONE)
    seen = {}

    def watch(name):
        layer = model.get_layer(name)
        call = layer.call

        def watched(inputs, training=False):
            seen[name] = training
            return call(inputs, training=training)

        layer.call = watched

    watch("inside"), watch("above")
    joined(DATA, training=True)
    assert seen == {"inside": False, "above": True}


def test_augmentation_of_views_runs_in_training_mode():
    x = keras.Input((6, 6, 1))
    y = layers.RandomFlip("horizontal", seed=1, name="flip")(x)
    y = layers.Conv2D(2, 3, name="conv")(y)
    y = layers.Dense(1, name="head")(layers.GlobalMaxPooling2D()(y))
    model = keras.Model(x, y)
    data = np.random.default_rng(0).normal(size=(16, 6, 6, 1)).astype("float32")
    prefix = prefix_model(cut_at(model, "head", views=2), model)
    first, second = (array(prefix([data])[0]) for _ in range(2))
    assert (np.abs(first - second).reshape(16, -1).max(axis=1) > 0).any()
    assert (np.abs(first - second).reshape(16, -1).max(axis=1) == 0).any()


def test_nothing_below_the_boundary_gets_gradients():
    model = make()
    joined = joined_model(cut_at(model, "head"), model, NONE)
    # Flags are on everywhere: only the cut keeps the base still.
    before = [array(w) for w in model.weights]
    joined.compile(keras.optimizers.SGD(1.0), "mse")
    joined.fit(DATA, np.ones((5, 2), "float32"), verbose=0)
    moved = [np.abs(array(w) - old).max() for w, old in zip(model.weights, before, strict=True)]
    assert moved[:4] == [0.0] * 4
    assert min(moved[4:]) > 0


def test_dict_inputs_are_taken_by_name_in_any_order_and_with_more_besides():
    b, a = keras.Input((2,), name="b"), keras.Input((2,), name="a")
    model = keras.Model([b, a], layers.Dense(1, name="head")(layers.Subtract()([b, a])))
    joined = joined_model(cut_at(model, "head"), model, NONE)
    first, second = np.ones((3, 2), "float32"), np.full((3, 2), 5.0, "float32")
    wanted = array(model([first, second]))
    np.testing.assert_allclose(array(joined([first, second])), wanted, atol=1e-6)
    given = {"a": second, "b": first, "id": np.arange(3)}
    np.testing.assert_allclose(array(joined(given)), wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 6, 6), (4, 6, 6, 1), (4, 6, 6, 1, 1)])
def test_a_last_axis_of_one_may_lack_or_be_too_many_as_in_keras(shape):
    x = keras.Input((6, 6, 1))
    y = layers.GlobalMaxPooling2D()(layers.Conv2D(2, 3)(x))
    model = keras.Model(x, layers.Dense(1, name="head")(y))
    joined = joined_model(cut_at(model, "head"), model, NONE)
    data = np.random.default_rng(0).normal(size=shape).astype("float32")
    np.testing.assert_allclose(array(joined(data)), array(model(data)), atol=1e-6)


def embedding_model() -> keras.Model:
    ids = keras.Input((4,), dtype="int32")
    y = layers.Embedding(7, 3, mask_zero=True, name="words")(ids)
    y = layers.LSTM(3, return_sequences=True, name="lstm")(y)
    return keras.Model(ids, layers.Dense(2, name="head")(y))


IDS = np.array([[1, 2, 0, 0], [3, 4, 5, 6], [6, 0, 0, 0]], "int32")


@pytest.mark.parametrize("names", [("head",), ("lstm", "head")])
def test_masks_cross_the_boundary_as_data(names):
    model = embedding_model()
    cut = cut_at(model, *names)
    masks = masks_of(prefix_model(cut, model), [IDS])
    prefix = prefix_model(cut, model, masks)
    assert prefix.program.emit_masks == masks
    made = [array(x) for x in prefix([IDS])]  # numbers only, as on disk
    masked = tuple(cut.frontier[i] for i in masks)
    assert len(masked) == 1
    suffix = suffix_model(cut, model, NONE, masked)
    got, wanted = suffix(made), model(IDS)
    np.testing.assert_allclose(array(got), array(wanted), atol=1e-6)
    # The loss leaves padding out by the mask of the output.
    np.testing.assert_array_equal(array(get_keras_mask(got)), IDS != 0)
    joined = joined_model(cut, model, NONE)(IDS)
    np.testing.assert_array_equal(array(get_keras_mask(joined)), IDS != 0)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_under_mixed_precision_the_parts_are_the_whole(policy):
    keras.config.set_dtype_policy(policy)
    model = make()
    cut = cut_at(model, "head")
    (frontier,) = prefix_model(cut, model)([DATA])
    half = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(frontier.dtype) == half
    stored = array(keras.ops.cast(frontier, "float32"))  # numpy has no bfloat16
    wanted = array(keras.ops.cast(model(DATA), "float32"))
    for got in (suffix_model(cut, model, NONE)(stored), joined_model(cut, model, NONE)(DATA)):
        np.testing.assert_array_equal(array(keras.ops.cast(got, "float32")), wanted)


def test_it_speaks_for_the_whole_model(tmp_path):
    model = make()
    suffix = suffix_model(cut_at(model, "head"), model, NONE)
    assert suffix.get_layer("base") is model.get_layer("base")
    assert suffix.get_config() == model.get_config()
    suffix.save(tmp_path / "whole.keras")
    loaded = keras.models.load_model(tmp_path / "whole.keras")
    np.testing.assert_allclose(array(loaded(DATA)), array(model(DATA)), atol=1e-6)
    suffix.save_weights(tmp_path / "w.weights.h5")
    other = make()
    suffix_model(cut_at(other, "head"), other, NONE).load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_allclose(array(other(DATA)), array(model(DATA)), atol=1e-6)
    lines: list[str] = []
    suffix.summary(print_fn=lines.append)
    assert "base2" in "\n".join(lines)


def test_no_call_nodes_are_added_and_the_model_can_still_be_cloned():
    model = make()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    for _ in range(3):
        joined = joined_model(cut_at(model, "head"), model, NONE)
        joined.compile("sgd", "mse")
        joined.fit(DATA, np.ones((5, 2)), verbose=0)
        joined.predict(DATA, verbose=0)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(array(clone(DATA)), array(model(DATA)), atol=1e-6)


def test_several_outputs_keep_their_structure():
    x = keras.Input((3,), name="x")
    y = layers.Dense(4, name="base")(x)
    made = {"first": layers.Dense(2, name="one")(y), "second": [layers.Dense(1, name="two")(y), y]}
    model = keras.Model(x, made)
    joined = joined_model(cut_at(model, "one", "two"), model, NONE)
    got, wanted = joined(DATA), model(DATA)
    keras.tree.assert_same_structure(got, wanted)
    for a, b in zip(keras.tree.flatten(got), keras.tree.flatten(wanted), strict=True):
        np.testing.assert_allclose(array(a), array(b), atol=1e-6)
