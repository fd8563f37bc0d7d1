"""What a layer keeps frozen itself stays frozen in every stage: LoRA, adapters, own flags."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from unfreeze import Stage, UnfreezeSchedule, fit
from unfreeze.core.graph import flatten
from unfreeze.core.layers import apply, select
from unfreeze.errors import ScheduleError

X = np.random.default_rng(0).normal(size=(48, 6, 8)).astype("float32")
Y = np.arange(48) % 2
HEAD = Stage("head", train="head", epochs=1)
ALL = Stage("all", train="all", epochs=1)


def numbers(variable) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable))


@keras.saving.register_keras_serializable(package="tests")
class Fixed(layers.Layer):
    """Has a weight that it keeps frozen and one that trains."""

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")
        self.shift = self.add_weight(shape=shape[-1:], initializer="ones", name="shift")
        self.scale.trainable = False
        self.count = self.add_weight(shape=(), trainable=False, name="count")

    def call(self, x):
        return x * self.scale + self.shift


@keras.saving.register_keras_serializable(package="tests")
class Adapter(layers.Layer):
    """LoRA by hand: around a layer that it freezes."""

    def build(self, shape):
        self.inner = layers.Dense(8, name="inner")
        self.inner.build(shape)
        self.inner.trainable = False
        self.down = self.add_weight(shape=(8, 2), name="down")
        self.up = self.add_weight(shape=(2, 8), initializer="zeros", name="up")

    def call(self, x):
        return self.inner(x) + x @ self.down @ self.up


def make(middle) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8))
    y = layers.GlobalAveragePooling1D()(middle(x))
    return keras.Model(x, layers.Dense(2, "softmax", name="top")(y))


def lora(layer):
    def prepare(model):
        layer.enable_lora(2)
        return [layer._kernel], [layer.lora_kernel_a, layer.lora_kernel_b]

    return make(layer), prepare


def case(kind: str):
    """A model, what is held in it and what trains beside that."""
    if kind == "dense":
        model, prepare = lora(layers.Dense(8, name="mid"))
    elif kind == "einsum":
        model, prepare = lora(layers.EinsumDense("abc,cd->abd", (None, 8), name="mid"))
    elif kind == "conv":
        model, prepare = lora(layers.Conv1D(8, 3, name="mid"))
    elif kind == "fixed":
        model = make(Fixed(name="mid"))
        return model, [model.get_layer("mid").scale], [model.get_layer("mid").shift]
    else:
        model = make(Adapter(name="mid"))
        mid = model.get_layer("mid")
        return model, [mid.inner.kernel, mid.inner.bias], [mid.down, mid.up]
    return model, *prepare(model)


KINDS = ["dense", "einsum", "conv", "fixed", "adapter"]


def train(model, stages, own_fit: bool, batch_size: int = 16):
    if not own_fit:
        return fit(model, stages, (X, Y), batch_size=batch_size, seed=0, verbose=0).audit
    model.compile("adam", "sparse_categorical_crossentropy")
    callback = UnfreezeSchedule(stages)
    epochs = sum(stage.epochs for stage in stages)
    model.fit(X, Y, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[callback])
    return callback.audit


@pytest.mark.parametrize("own_fit", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_frozen_in_every_stage_and_the_rest_trains(kind, own_fit):
    model, held, free = case(kind)
    before = [numbers(v) for v in held]
    audit = train(model, [HEAD, ALL], own_fit)
    assert all(np.array_equal(numbers(v), old) for v, old in zip(held, before, strict=True))
    assert not any(v.trainable for v in held)
    assert all(v.trainable for v in free)
    for stage in audit.stages:
        rows = {row.layer: row for row in stage.layers}
        for variable in held:
            row = rows[f"mid/{variable.name}"]
            assert (row.trainable, row.moved, row.max_abs) == (False, 0.0, 0.0)
        assert rows["mid"].trainable == (stage.stage == "all")
        assert (rows["mid"].moved > 0) == (stage.stage == "all")
        assert rows["mid"].trained_still == ()
    # Frozen as a whole by the first stage of a second run, it is still known.
    train(model, [HEAD], own_fit)
    train(model, [ALL], own_fit)
    assert all(np.array_equal(numbers(v), old) for v, old in zip(held, before, strict=True))


@pytest.mark.parametrize("kind", ["dense", "adapter"])
def test_one_step_in_which_zeros_hide_a_gradient_is_no_error(kind):
    model, _, free = case(kind)
    start = numbers(free[0])
    audit = train(model, [ALL], False, batch_size=48)
    assert np.array_equal(numbers(free[0]), start)
    assert audit.stages[0].layers[0].moved > 0
    train(model, [Stage("all", train="all", epochs=2)], False, batch_size=48)
    assert not np.array_equal(numbers(free[0]), start)


def test_lora_in_a_base_that_was_frozen_first():
    layer = layers.Dense(8, name="mid")
    model = make(layer)
    layer.trainable = False
    layer.enable_lora(2)
    apply(model, select(flatten(model), ALL))
    assert [v.name for v in layer.trainable_variables] == ["bias", "lora_kernel_a", "lora_kernel_b"]


def test_embeddings_under_lora():
    x = keras.Input((4,), dtype="int32")
    layer = layers.Embedding(9, 6, name="mid")
    y = layers.Dense(2, "softmax", name="top")(layers.Flatten()(layer(x)))
    model = keras.Model(x, y)
    layer.enable_lora(2)
    selection = select(flatten(model), ALL)
    assert [v.path for v in selection.held] == ["mid/embeddings"]
    before = numbers(layer._embeddings)
    tokens = np.random.default_rng(0).integers(0, 9, (48, 4))
    fit(model, [ALL], (tokens, Y), verbose=0)
    assert np.array_equal(numbers(layer._embeddings), before)
    assert numbers(layer.lora_embeddings_b).any()


@pytest.mark.parametrize("with_lora", [False, True])
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_quantized_weights_stay_as_they_are(with_lora):
    layer = layers.Dense(8, name="mid")
    model = make(layer)
    layer.quantize("int8")
    if with_lora:
        layer.enable_lora(2)
    assert {v.name for v in select(flatten(model), HEAD).held} == {"kernel", "kernel_scale"}
    before, bias = numbers(layer._kernel), numbers(layer.bias)
    audit = fit(model, [ALL], (X, Y), seed=0, verbose=0, jit_compile=False).audit
    assert np.array_equal(numbers(layer._kernel), before)
    assert not np.array_equal(numbers(layer.bias), bias)
    rows = {row.layer: (row.trainable, row.moved > 0) for row in audit.stages[0].layers}
    frozen = (False, False)
    assert rows["mid/kernel"] == rows["mid/kernel_scale"] == frozen
    assert rows["mid"] == (True, True)


def test_a_layer_that_was_frozen_as_a_whole_is_unfrozen():
    model = make(layers.TimeDistributed(layers.Dense(8, name="inside"), name="mid"))
    model.get_layer("mid").layer.trainable = False
    model.get_layer("top").trainable = False
    selection = select(flatten(model), ALL)
    assert (len(selection.trained), selection.held) == (4, ())
    apply(model, selection)
    assert len(model.trainable_variables) == 4


def test_a_norm_that_a_stage_froze_inside_a_layer_is_not_held():
    class Block(layers.Layer):
        def build(self, shape):
            self.dense, self.norm = layers.Dense(8), layers.BatchNormalization()
            self.dense.build(shape), self.norm.build(shape)

        def call(self, x):
            return self.norm(self.dense(x))

    model = make(Block(name="mid"))
    norm = model.get_layer("mid").norm
    norm.moving_mean.assign(np.ones(8))  # not a new one
    apply(model, select(flatten(model), Stage("a", train="all", batch_norm="frozen")))
    assert not norm.trainable
    selection = select(flatten(model), Stage("b", train="all", batch_norm="train"))
    assert id(norm.gamma) in {id(v) for v in selection.trained}
    assert selection.held == ()


def test_a_stage_that_finds_only_held_weights_says_so():
    class Still(Fixed):
        def build(self, shape):
            super().build(shape)
            self.shift.trainable = False

    model = make(Still(name="mid"))
    with pytest.raises(ScheduleError, match=r"trains nothing.*keep them frozen themselves"):
        select(flatten(model), Stage("mid", train="mid"))


def test_a_head_under_lora_cannot_be_solved():
    model = make(layers.Dense(8, name="mid"))
    model.get_layer("top").enable_lora(1)
    with pytest.raises(ScheduleError, match="solve needs one last dense layer"):
        fit(model, [Stage("head", train="head", epochs=1, solve=True)], (X, Y), verbose=0)
