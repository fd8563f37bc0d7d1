"""A model flattened: steps in order, paths, submodels opened, nothing added."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.graph import Graph, cast, flatten, opened, run_step
from unfreeze.core.keras_internals import get_keras_mask, set_keras_mask, tree
from unfreeze.errors import ScheduleError


def run(graph: Graph, *inputs, training=False):
    """Outputs of all steps, packed as the model's own."""
    pairs = zip(graph.inputs, inputs, strict=True)
    values = {i: keras.ops.convert_to_tensor(x, graph.dtypes[i]) for i, x in pairs}
    for step in graph.steps:
        run_step(step, values, training)
    return graph.pack([values[i] for i in graph.outputs])


def assert_same(got, wanted):
    for a, b in zip(tree.flatten(got), tree.flatten(wanted), strict=True):
        a, b = (keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in (a, b))
        np.testing.assert_array_equal(a, b)


def small_block(name: str, size: int = 3) -> keras.Model:
    x = keras.Input((size,), name="x")
    y = layers.Dense(size, name="dense")(x)
    return keras.Model(x, layers.Add(name="add")([x, layers.Dropout(0.5)(y)]), name=name)


def test_steps_come_after_those_that_feed_them():
    x = keras.Input((3,))
    a = layers.Dense(3, name="a")(x)
    b = layers.Dense(3, name="b")(a)
    model = keras.Model(x, layers.Add(name="sum")([x, a, b]))
    graph = flatten(model)
    assert [step.path for step in graph.steps] == ["a", "b", "sum"]
    known = set(graph.inputs)
    for step in graph.steps:
        assert set(step.inputs) <= known
        known |= set(step.outputs)
    assert graph.shapes[graph.outputs[0]] == (None, 3)
    assert graph.steps[2].inputs == (0, *graph.steps[0].outputs, *graph.steps[1].outputs)
    assert graph.steps[2].outputs == graph.outputs
    assert len(graph.consumers()[graph.inputs[0]]) == 2


def test_submodels_are_opened_and_inner_names_may_repeat():
    x = keras.Input((3,))
    first, second = small_block("first"), small_block("second")
    deep = keras.Sequential([keras.Input((3,)), second, layers.Dense(2, name="dense")], name="deep")
    model = keras.Model(x, deep(first(x)))
    graph = flatten(model)
    dense = [step for step in graph.steps if step.operation.name == "dense"]
    assert [step.path for step in dense] == ["first/dense", "deep/second/dense", "deep/dense"]
    assert [step.containers for step in dense] == [
        ("first",),
        ("deep", "deep/second"),
        ("deep",),
    ]
    data = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    assert_same(run(graph, data), model(data, training=False))


def test_two_layers_of_one_name_in_one_submodel_have_two_paths():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="x")], name="inner")
    other = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="x")], name="inner")
    a, b = keras.Input((3,)), keras.Input((3,))
    left = keras.Model(a, inner(a), name="left")
    right = keras.Model(b, other(b), name="right")
    x = keras.Input((3,))
    paths = [step.path for step in flatten(keras.Model(x, right(left(x)))).steps]
    assert paths == ["left/inner/x", "right/inner/x"]


def test_a_shared_submodel_gives_its_steps_twice_under_one_path():
    block = small_block("block")
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], layers.Subtract()([block(a), block(b)]))
    graph = flatten(model)
    dense = [step for step in graph.steps if step.operation.name == "dense"]
    assert len(dense) == 2
    assert dense[0].operation is dense[1].operation
    assert dense[0].path == dense[1].path == "block/dense"
    data = [np.full((2, 3), value, "float32") for value in (1.0, -2.0)]
    assert_same(run(graph, *data), model(data, training=False))


def test_dict_inputs_and_outputs_keep_their_names_and_order():
    inputs = {name: keras.Input((2,), name=name) for name in ("zeta", "alpha")}
    made = {"small": layers.Dense(1)(inputs["alpha"]), "big": layers.Dense(4)(inputs["zeta"])}
    model = keras.Model(inputs, made)
    graph = flatten(model)
    data = {"zeta": np.ones((2, 2), "float32"), "alpha": np.zeros((2, 2), "float32")}
    got = run(graph, data["alpha"], data["zeta"])  # Keras sorts the keys of a dict
    assert set(got) == {"small", "big"}
    assert_same(got, model(data))


@pytest.mark.parametrize("how", ["by name", "as a dict", "as a list"])
def test_a_submodel_of_two_inputs_is_opened_however_it_is_called(how):
    p, q = keras.Input((2,), name="zz"), keras.Input((2,), name="aa")
    inner = keras.Model([p, q], layers.Subtract()([layers.Dense(2)(p), q]), name="inner")
    x, y = keras.Input((2,), name="x"), keras.Input((2,), name="y")
    calls = {
        "by name": lambda: inner(inputs=[x, y]),
        "as a dict": lambda: inner({"aa": y, "zz": x}),
        "as a list": lambda: inner([x, y]),
    }
    model = keras.Model([x, y], calls[how]())
    graph = flatten(model)
    assert all(step.operation is not inner for step in graph.steps)
    data = [np.random.default_rng(i).normal(size=(2, 2)).astype("float32") for i in (0, 1)]
    assert_same(run(graph, *data), model(data))


def test_a_call_that_does_more_than_the_submodels_graph_stays_one_step():
    rows = keras.Input((4,), name="rows")
    squeezed = keras.Sequential([keras.Input((4, 1)), layers.Rescaling(3.0)], name="squeezed")
    model = keras.Model(rows, squeezed(rows))  # Keras adds the last axis
    graph = flatten(model)
    assert [step.operation for step in graph.steps] == [squeezed]
    data = np.arange(8.0, dtype="float32").reshape(2, 4)
    assert_same(run(graph, data), model(data))


def test_a_layer_written_as_a_subclass_is_one_step():
    class Twice(layers.Layer):
        def __init__(self):
            super().__init__(name="twice")
            self.dense = layers.Dense(3, name="inner")

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return self.dense(self.dense(x))

    x = keras.Input((3,))
    graph = flatten(keras.Model(x, layers.Dense(1, name="head")(Twice()(x))))
    assert [step.path for step in graph.steps] == ["twice", "head"]


def test_operations_without_a_layer_keep_their_constants():
    x = keras.Input((3,))
    model = keras.Model(x, keras.ops.maximum(x * 2.0, np.array([0.5, 1.0, 1.5], "float32")) - 1)
    graph = flatten(model)
    assert not any(step.is_layer for step in graph.steps)
    data = np.array([[-1, 0.3, 2]], "float32")
    assert_same(run(graph, data), model(data))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(run(graph, data)), [[-0.5, 0, 3]])


def test_the_mode_given_by_the_caller_wins_over_the_one_in_the_graph():
    # As in Keras: `training=True` written into a call is overridden (keras#20285).
    x = keras.Input((50,))
    graph = flatten(keras.Model(x, layers.Dropout(0.5, seed=1)(x, training=True)))
    data = np.ones((2, 50), "float32")
    assert_same(run(graph, data), data)
    assert (keras.ops.convert_to_numpy(run(graph, data, training=True)) == 0).any()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_rounding_at_submodels_is_that_of_keras(policy):
    keras.config.set_dtype_policy(policy)
    x = keras.Input((8,))
    y = layers.Dense(8, dtype="float32", name="exact")(x)
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, dtype="float32")], name="inner")
    model = keras.Model(x, inner(y))
    graph = flatten(model)
    data = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    assert_same(run(graph, data), model(data))


def test_a_submodel_whose_input_has_another_dtype_gets_a_cast():
    inner = keras.Sequential([keras.Input((8,), dtype="float16"), layers.Dense(2)], name="inner")
    x = keras.Input((8,))
    model = keras.Model(x, inner(x))
    graph = flatten(model)
    assert [step.path for step in graph.steps] == ["inner/cast", "inner/dense"]
    data = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    assert_same(run(graph, data), model(data))


def test_masks_pass_through_casts():
    keras.config.set_dtype_policy("mixed_bfloat16")
    ids = keras.Input((3,), dtype="int32")
    y = layers.Embedding(5, 4, mask_zero=True)(ids)  # bfloat16
    inner = keras.Sequential([keras.Input((3, 4), dtype="float32"), layers.LSTM(2)], name="inner")
    model = keras.Model(ids, inner(y))
    data = np.array([[1, 2, 0], [3, 0, 0]], "int32")
    assert_same(run(flatten(model), data), model(data))
    tensor = keras.ops.ones((2, 3, 4))
    set_keras_mask(tensor, keras.ops.ones((2, 3), "bool"))
    assert get_keras_mask(cast(tensor, "float16")) is not None


def test_submodels_are_opened_on_inputs_with_masks_and_keep_them():
    ids = keras.Input((3,), dtype="int32")
    y = layers.Embedding(5, 4, mask_zero=True)(ids)
    z = keras.Input((3, 4))
    inner = keras.Model(z, layers.LSTM(2, name="lstm")(z), name="inner")
    model = keras.Model(ids, inner(y))
    graph = flatten(model)
    assert graph.steps[-1].path == "inner/lstm"
    data = np.array([[1, 2, 0], [3, 0, 0]], "int32")
    assert_same(run(graph, data), model(data))
    # The state at the last word that counts, not at the padding.
    short = run(graph, data[:1])
    data[0, 2] = 4
    assert np.abs(keras.ops.convert_to_numpy(run(graph, data[:1]) - short)).max() > 1e-5


def test_a_mask_of_the_callers_keeps_a_submodel_closed():
    z = keras.Input((3, 4))
    inner = keras.Model(z, layers.LSTM(2, name="lstm")(z), name="inner")
    x, mask = keras.Input((3, 4)), keras.Input((3,), dtype="bool")
    model = keras.Model([x, mask], inner(x, mask=mask))
    graph = flatten(model)
    assert [step.operation for step in graph.steps] == [inner]
    data = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    given = np.array([[True, True, False], [True, False, False]])
    assert_same(run(graph, data, given), model([data, given]))


def test_flattening_adds_nothing_to_the_layers():
    block = small_block("block")
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(1)(block(x)))
    nodes = [len(layer._inbound_nodes) for layer in (*model.layers, *block.layers)]
    flatten(model)
    assert nodes == [len(layer._inbound_nodes) for layer in (*model.layers, *block.layers)]


def test_models_without_a_graph_are_refused_with_the_cure():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ScheduleError, match="write it as a functional"):
        flatten(Own())
    with pytest.raises(ScheduleError, match="build it"):
        flatten(keras.Sequential([layers.Dense(2)]))


@pytest.mark.on_each_backend
def test_an_opened_model_has_the_layers_of_its_submodels():
    """Two submodels with layers of one name, one of them called twice; the values are the same."""

    def block(name):
        x = keras.Input((3,))
        y = layers.Dense(3, "relu", name="dense")(x)
        return keras.Model(x, layers.BatchNormalization(name=f"{name}_bn")(y), name=name)

    first, second = block("first"), block("second")
    x = keras.Input((3,), name="given")
    y = second(first(first(x)))
    model = keras.Model(x, layers.Add(name="sum")([y, x]), name="both")
    result = opened(model)
    assert result.name == "both"
    assert [layer.name for layer in result.layers if layer.weights] == [
        "first_dense",
        "first_bn",
        "second_dense",
        "second_bn",
    ]
    data = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    assert_same(result(data), model(data))
    # A copy: training it leaves the model as it is.
    mine = {id(v) for v in model.weights}
    assert not mine & {id(v) for v in result.weights}
    assert opened(result) is result
