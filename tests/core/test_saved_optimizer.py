"""Models saved after `fit` load without a warning, with the weights and the state they had."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.fit import fit
from unfreeze.core.optimizers import LayerRates
from unfreeze.core.saved_optimizer import rebuilt_flags
from unfreeze.core.schedule import Stage
from unfreeze.core.unfreeze_schedule import UnfreezeSchedule

X = np.random.default_rng(0).normal(size=(16, 6, 8)).astype("float32")
Y = np.arange(16) % 2
AFFINE = {"train": "all", "batch_norm": "affine"}


def attention(head="head"):
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2, "softmax", name=head)(x))


def normed():
    inputs = keras.Input((6, 8))
    x = layers.Conv1D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(2, "softmax", name="head")(x))
    model.get_layer("bn").moving_mean.assign(np.full(4, 0.1))
    return model


def nested():
    whole = attention()
    base = keras.Model(whole.input, whole.get_layer("norm").output, name="base")
    inputs = keras.Input((6, 8))
    x = layers.Bidirectional(layers.LSTM(3), name="both")(base(inputs))
    return keras.Model(inputs, layers.Dense(2, "softmax", name="head")(x))


def saved_and_loaded(model, folder):
    """Any warning is an error, but for numpy's of Keras on PyTorch."""
    file = folder / "model.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        model.save(file)
        return keras.models.load_model(file)


def train(model, **fields):
    stage = Stage("stage", epochs=2, **{"learning_rate": 0.01, **fields})
    return fit(model, stage, X, Y, batch_size=8, seed=1, verbose=0)


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (attention, {"train": "head"}),
        (normed, AFFINE),
        pytest.param(nested, {"train": "head"}, marks=pytest.mark.slow_on("tensorflow", "jax")),
    ],
)
def test_no_variable_of_the_optimizer_is_skipped(make, fields, tmp_path):
    model = make()
    train(model, **fields)
    loaded = saved_and_loaded(model, tmp_path)
    for own, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)
    # Its class is Keras' own, and this package is not needed to load it.
    assert type(loaded.optimizer).__module__.startswith("keras.")
    assert len(loaded.optimizer.variables) == 2 + 2 * len(loaded.trainable_variables)
    # What Keras makes of the flags is why.
    assert len(loaded.trainable_variables) != len(model.trainable_variables)
    flags = {id(v): v.trainable for v in model.weights} | rebuilt_flags(model)
    assert list(flags.values()) == [v.trainable for v in loaded.weights]


def test_state_of_a_training_that_went_on_is_saved_with_its_weights(tmp_path):
    model = attention()
    train(model, train="head")
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    loaded = saved_and_loaded(model, tmp_path)
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 4
    own, other = (
        {v.path.split("/", 1)[1]: np.array(v.numpy()) for v in m.optimizer.variables}
        for m in (model, loaded)
    )
    assert set(own) < set(other)
    for name, values in other.items():
        np.testing.assert_array_equal(values, own.get(name, np.zeros_like(values)))
    assert np.abs(own["head_kernel_momentum"]).max() > 0
    # And the loaded model trains.
    loaded.fit(X, Y, batch_size=8, verbose=0)
    assert int(loaded.optimizer.iterations) == 6


def test_weights_saved_alone_come_back_into_both_models(tmp_path):
    model = attention()
    train(model, train="head")
    model.fit(X, Y, batch_size=8, verbose=0)
    loaded, file = saved_and_loaded(model, tmp_path), tmp_path / "model.weights.h5"
    model.save_weights(file)
    before = [np.array(v.numpy()) for v in model.optimizer.variables]
    model.fit(X, Y, batch_size=8, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        model.load_weights(file)
        loaded.load_weights(file)
    for variable, value in zip(model.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


# JAX multiplies no matrices of 16 bits on a CPU.
@pytest.mark.needs_backend("tensorflow", "torch")
def test_under_mixed_float16_the_inner_optimizer_too(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = attention()
    train(model, train="head")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(
        saved_and_loaded(model, tmp_path).optimizer, keras.optimizers.LossScaleOptimizer
    )


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    "make",
    [attention, pytest.param(nested, marks=pytest.mark.slow_on("tensorflow", "jax"))],
)
def test_rates_by_layer_come_back_with_the_state_of_each_weight(make, tmp_path):
    model = make()
    trained = ["norm", "head"] if make is attention else ["base/norm", "head"]
    train(model, train=trained, learning_rate={"default": 0.01, "*norm": 0.1})
    loaded = saved_and_loaded(model, tmp_path)
    assert isinstance(loaded.optimizer, LayerRates)
    own, other = (dict(m.optimizer.factors) for m in (model, loaded))
    assert sorted(own.values()) == [0.1, 0.1, 1.0, 1.0]
    # Of weights that train again after loading, as of those that no factor names.
    assert sorted(other.values()) == [0.1, 0.1] + [1.0] * (len(other) - 2)
    assert len(other) > len(own)
    slots = {v.path.split("/", 1)[1]: v.numpy() for v in loaded.optimizer.variables}
    moved = [v for v in model.optimizer.variables if "momentum" in v.path]
    model.fit(X, Y, batch_size=8, verbose=0)
    again = saved_and_loaded(model, tmp_path)
    slots = {v.path.split("/", 1)[1]: np.array(v.numpy()) for v in again.optimizer.variables}
    for variable in moved:
        name = variable.path.split("/", 1)[1].removeprefix("base_")
        np.testing.assert_array_equal(slots[name], variable.numpy())
        assert np.abs(slots[name]).max() > 0
    again.fit(X, Y, batch_size=8, verbose=0)
    assert int(again.optimizer.iterations) == 4


def test_after_a_fit_of_ones_own(tmp_path):
    model = attention()
    model.compile("adam", "sparse_categorical_crossentropy")
    stages = UnfreezeSchedule(Stage("head", train="head", epochs=1))
    model.fit(X, Y, batch_size=8, epochs=1, verbose=0, callbacks=[stages])
    assert int(saved_and_loaded(model, tmp_path).optimizer.iterations) == 2


def test_a_model_compiled_again_is_keras_own_affair(tmp_path):
    model = attention()
    train(model, train="head")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, batch_size=8, verbose=0)
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        saved_and_loaded_as_it_is(model, tmp_path)


def saved_and_loaded_as_it_is(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def test_a_model_that_cannot_be_built_again_is_saved_as_ever(tmp_path):
    class Odd(layers.Layer):
        def __init__(self):
            super().__init__(name="odd")
            self.inner = layers.Dense(3)

        def call(self, x):
            return self.inner(x)

    inputs = keras.Input((6, 8))
    x = layers.GlobalAveragePooling1D()(Odd()(inputs))
    model = keras.Model(inputs, layers.Dense(2, "softmax", name="head")(x))
    train(model, train="head")
    model.save(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size > 1000
