"""Keras' private parts, behind one door."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core import keras_internals

pytestmark = pytest.mark.on_each_backend


def nested() -> keras.Model:
    x = keras.Input((3,))
    y = layers.BatchNormalization(name="bn")(layers.Dense(2, name="dense")(x))
    inner = keras.Model(x, layers.Dropout(0.5, name="drop")(y), name="inner")
    z = keras.Input((3,), name="data")
    return keras.Model(z, layers.Dense(1, name="head")(inner(z)))


def flags(model):
    return {v.path: v.trainable for v in model.weights}


def test_graphs_are_found_where_call_is_keras_own():
    class Own(keras.Model):
        def call(self, x):
            return x

    class Renamed(keras.Model):
        pass

    model = nested()
    assert keras_internals.functional_graph(model) is model
    built = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    assert keras_internals.functional_graph(built) is built._functional
    assert keras_internals.functional_graph(keras.Sequential([layers.Dense(1)])) is None
    assert keras_internals.functional_graph(Own()) is None
    x = keras.Input((2,))
    sub = Renamed(x, layers.Dense(1)(x))
    assert keras_internals.functional_graph(sub) is sub


def test_all_layers_are_found_once_outer_first():
    model = nested()
    names = [layer.name for layer in keras_internals.flatten_layers(model)]
    assert len(names) == len(set(names))
    assert set(names) >= {"inner", "dense", "bn", "drop", "head"}
    assert names.index("inner") < names.index("dense")


def test_learnable_is_what_was_made_to_be_trained_whatever_the_flags():
    frozen = layers.Dense(2)
    frozen.build((None, 2))
    frozen.trainable = False
    assert keras_internals.is_learnable(frozen)
    normalization = layers.Normalization()
    normalization.adapt(np.ones((4, 2)))
    assert not keras_internals.is_learnable(normalization)
    assert not keras_internals.is_learnable(layers.Dropout(0.5))
    assert not keras_internals.is_learnable(keras.ops.add)


def test_flags_set_one_by_one_are_overruled():
    # On TensorFlow `layer.trainable = v` does nothing where the attribute is v
    # already, so what lies inside keeps flags of its own (Keras 3.15).
    model = nested()
    bn = model.get_layer("inner").get_layer("bn")
    bn.trainable = False
    bn.gamma.trainable = True  # as under batch_norm="affine"
    model.trainable = True
    keras_internals.set_trainable(model, True)
    assert all(
        v.trainable for v in model.weights if v.name not in ("moving_mean", "moving_variance")
    )
    keras_internals.set_trainable(model, False)
    assert model.trainable_variables == []
    assert not any(v.trainable for v in (bn.gamma, bn.beta))
    keras_internals.set_trainable(model, False)
    bn.gamma.trainable = True
    keras_internals.set_trainable(model, False)
    assert not bn.gamma.trainable
    keras_internals.set_trainable(model, True)
    assert len(model.trainable_variables) == 6


def test_seed_generators_are_found_at_any_depth():
    assert len(keras_internals.seed_generators(nested())) == 1
    assert keras_internals.seed_generators(layers.Dense(1)) == []
    assert keras_internals.seed_generators(keras.ops.add) == []


def test_a_seeded_dropout_repeats_itself_on_every_backend():
    drop = layers.Dropout(0.5)  # no seed of its own
    model = keras.Sequential([keras.Input((40,)), drop])
    x = np.ones((4, 40), "float32")
    given = drop.seed_generator._initial_seed
    drawn = []
    with keras_internals.seeds_kept(model):
        for seed in (1, 1, 2):
            keras_internals.reseed(drop.seed_generator, seed)
            drawn.append([keras.ops.convert_to_numpy(drop(x, training=True)) for _ in range(2)])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0][0] != drawn[0][1]).any()
    assert (drawn[0][0] != drawn[2][0]).any()
    assert drop.seed_generator._initial_seed == given


def test_names_of_inputs():
    assert keras_internals.input_names(nested()) == ("data",)
    a, b = keras.Input((2,), name="b"), keras.Input((2,), name="a")
    y = layers.Add()([a, b])
    assert keras_internals.input_names(keras.Model([a, b], y)) == ("b", "a")
    assert keras_internals.input_names(keras.Model({"z": a, "y": b}, y)) == ("y", "z")


@pytest.mark.parametrize("name", ["fit", "train_step", "test_step", "compute_loss"])
def test_training_of_the_users_own_is_noticed(name):
    own = type("Own", (keras.Model,), {name: lambda self, *args, **kwargs: None})
    x = keras.Input((2,))
    assert keras_internals.has_custom_training(own(x, layers.Dense(1)(x))) == name
    assert keras_internals.has_custom_training(nested()) is None
    assert keras_internals.has_custom_training(keras.Sequential([layers.Dense(1)])) is None


def test_what_a_model_was_compiled_with_comes_back_as_it_was_given():
    model = nested()
    assert keras_internals.compiled_with(model) == {}

    def own(y, p):
        return keras.ops.mean(p)

    model.compile("sgd", own, metrics=["mae"])
    found = keras_internals.compiled_with(model)
    assert found["loss"] is own
    assert found["metrics"] == ["mae"]


def test_datasets_that_fit_takes():
    assert not keras_internals.is_dataset([(1, 2)])
    assert not keras_internals.is_dataset(np.ones(3))
    torch = pytest.importorskip("torch")
    assert keras_internals.is_dataset(torch.utils.data.DataLoader([1, 2]))
    tf = pytest.importorskip("tensorflow")
    assert keras_internals.is_dataset(tf.data.Dataset.range(3))


class Batches(keras.utils.PyDataset):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.ones((4, self.features), "float32"), np.ones((4, 1), "float32")


def test_variables_are_made_before_the_first_step_which_is_then_traced_once():
    traced = []

    class Counts(layers.Layer):
        def call(self, x, training=False):
            traced.append(training)
            return x

    model = keras.Sequential([keras.Input((3,)), layers.Dense(1), Counts()])
    before = model.get_weights()
    model.compile("adam", "mse", metrics=["mae"])
    keras_internals.build_variables(model, Batches(3))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    if keras.backend.backend() == "tensorflow":
        assert model.optimizer.built
        traced.clear()
        model.fit(Batches(3), verbose=0, shuffle=False)
        assert traced == [True]
    # What is wrong is not said here, but by `fit`.
    model.compile("adam", "mse", metrics=["mae"])
    keras_internals.build_variables(model, Batches(7))
    with pytest.raises(ValueError, match="incompatible"):
        model.fit(Batches(7), verbose=0, shuffle=False)
