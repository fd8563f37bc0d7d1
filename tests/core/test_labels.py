"""Labels that do not fit the model are refused before anything trains."""

import re

import keras
import numpy as np
import pytest
from keras import layers, losses

from unfreeze import Stage, find_lr, fit
from unfreeze.core.data import as_data
from unfreeze.core.graph import flatten
from unfreeze.core.labels import check_labels
from unfreeze.errors import DataError

X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
FIVE = np.arange(20) % 5
SPARSE = "sparse_categorical_crossentropy"


def make(units: int = 5, activation: str = "softmax") -> keras.Model:
    x = keras.Input((6,))
    return keras.Model(x, layers.Dense(units, activation, name="head")(x))


def check(y, loss, units) -> None:
    model = make(units)
    check_labels(model, flatten(model), loss, as_data((X[: len(y)], y), model), "train")


@pytest.mark.parametrize(
    ("y", "loss", "units", "message"),
    [
        (FIVE + 3, SPARSE, 5, "labels from 3 to 7 do not fit the model's 5 classes, 0 to 4 (12 "),
        (FIVE + 1, SPARSE, 5, "(4 outside; sample 4 has 5). Number the classes from 0"),
        (FIVE + 1, SPARSE, 5, "or give the last layer 6 units"),
        (FIVE - 1, SPARSE, 5, "labels from -1 to 3"),
        (FIVE - 1, SPARSE, 5, "ignore_class=-1"),
        (FIVE.astype("float32") + 1, losses.SparseCategoricalCrossentropy(), 5, "from 1 to 5"),
        (FIVE[:, None] + 1, losses.sparse_categorical_crossentropy, 5, "from 1 to 5"),
        (FIVE - 2, losses.SparseCategoricalCrossentropy(ignore_class=-1), 5, "from -2 to 2"),
        (FIVE / 2, SPARSE, 5, "the label 0.5 of sample 1 is no number of a class"),
        (FIVE * np.nan, SPARSE, 5, "the label nan of sample 0 is no number of a class"),
        (FIVE % 2, SPARSE, 1, "from 0 to 1 do not fit the model's 1 classes, 0 to 0"),
        (np.eye(5)[FIVE], SPARSE, 5, "These look one-hot: use categorical_crossentropy"),
        (FIVE + 3, "crossentropy", 5, "labels from 3 to 7"),
        (np.array(list("abcde") * 4), SPARSE, 5, "the labels are text, not numbers"),
        (np.array(list("abcde") * 4), "mse", 1, "the labels are text, not numbers"),
        (FIVE.astype(object), SPARSE, 5, "the labels are of type object"),
        (np.eye(6)[FIVE], "categorical_crossentropy", 5, "shape (samples, 6) do not fit the model"),
        (FIVE, losses.CategoricalCrossentropy(), 5, "use sparse_categorical_crossentropy, or make"),
        (FIVE[:, None], losses.CategoricalFocalCrossentropy(), 5, "sparse_categorical_crossentr"),
        (FIVE, "binary_crossentropy", 1, "from 0 to 1, and sample 2 has 2"),
        (FIVE % 2 * 2 - 1, losses.BinaryCrossentropy(), 1, "sample 0 has -1"),
        (FIVE % 2, losses.BinaryFocalCrossentropy(), 5, "shape (samples) do not fit binary"),
        (np.eye(6)[FIVE], "binary_crossentropy", 5, "shape (samples, 6) do not fit binary"),
    ],
)
def test_labels_that_the_loss_cannot_take(y, loss, units, message):
    with pytest.raises(DataError, match=re.escape(message)) as raised:
        check(y, loss, units)
    assert str(raised.value).startswith("train: ")


class Own(losses.SparseCategoricalCrossentropy):
    """May do anything with labels."""


@pytest.mark.parametrize(
    ("y", "loss", "units"),
    [
        (FIVE, SPARSE, 5),
        (FIVE[:, None].astype("float32"), SPARSE, 5),
        (FIVE - 1, losses.SparseCategoricalCrossentropy(ignore_class=-1), 5),
        (np.where(FIVE == 2, 255, FIVE), losses.SparseCategoricalCrossentropy(ignore_class=255), 5),
        (FIVE + 3, Own(), 5),
        (FIVE + 3, lambda y, p: keras.ops.mean(p), 5),
        (np.full((20, 5), 0.2), "categorical_crossentropy", 5),
        (np.eye(5)[FIVE], losses.CategoricalCrossentropy(label_smoothing=0.1), 5),
        (FIVE / 5, "binary_crossentropy", 1),
        (FIVE[:, None] % 2, losses.BinaryCrossentropy(label_smoothing=0.1), 1),
        (FIVE == 2, "binary_crossentropy", 1),
        (FIVE * 2 % 4 - 1, "hinge", 1),
        (FIVE * -3.5, "mse", 1),
        (np.array(list("abcde") * 4), Own(), 5),
        (FIVE, "no such loss", 5),
    ],
)
def test_what_keras_takes_passes(y, loss, units):
    check(y, loss, units)


def test_labels_of_each_pixel():
    x = keras.Input((4, 4, 3))
    model = keras.Model(x, layers.Conv2D(3, 1, activation="softmax")(x))
    images, graph = np.zeros((2, 4, 4, 3), "float32"), flatten(model)
    masks = np.ones((2, 4, 4), int)
    for y in (masks, masks[..., None]):
        check_labels(model, graph, SPARSE, as_data((images, y), model), "train")
    masks[1, 2, 3] = 3
    with pytest.raises(DataError, match=r"from 1 to 3 .*3 classes, 0 to 2 \(1 outside; sample 1"):
        check_labels(model, graph, SPARSE, as_data((images, masks), model), "train")
    with pytest.raises(DataError, match=r"shape \(samples, 4\) .*output of shape \(samples, 4, 4"):
        check_labels(model, graph, SPARSE, as_data((images, masks[:, 0]), model), "train")


@pytest.mark.parametrize("by_name", [True, False])
def test_several_outputs_are_checked_each(by_name):
    x = keras.Input((6,))
    first = layers.Dense(5, "softmax", name="kind")(x)
    second = layers.Dense(1, name="size")(x)
    model = keras.Model(x, [first, second])
    y, loss = (FIVE + 1, FIVE * 1.5), (SPARSE, "mse")
    if by_name:
        y, loss = dict(zip(("kind", "size"), y, strict=True)), {"size": "mse", "kind": SPARSE}
    with pytest.raises(DataError, match="train, output 'kind': labels from 1 to 5"):
        check_labels(model, flatten(model), loss, as_data((X, y), model), "train")


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[index * 10 : index * 10 + 10], FIVE[:10] + 3


@pytest.mark.parametrize(
    ("data", "held", "where"),
    [
        ((X, FIVE + 3), None, "train: labels"),
        ((X, FIVE), (X, FIVE + 3), "validation_data: labels"),
        (Batches(), None, r"train \(first batch\): labels"),
        ((X, FIVE), Batches(), r"validation_data \(first batch\): labels"),
    ],
)
def test_a_run_ends_before_it_begins_and_leaves_the_model_alone(data, held, where):
    model, seen = make(), []

    class Seen(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(1)

    model.get_layer("head").trainable = False
    before = model.get_weights()
    with pytest.raises(DataError, match=f"{where} from 3 to 7"):
        fit(
            model,
            [Stage("all", epochs=1)],
            data,
            validation_data=held,
            callbacks=[Seen()],
            verbose=0,
        )
    assert seen == []
    assert not model.get_layer("head").trainable
    assert not getattr(model, "compiled", False)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_sequential_model():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, "softmax")])
    with pytest.raises(DataError, match="labels from 3 to 7"):
        fit(model, [Stage("all", epochs=1)], (X, FIVE + 3), verbose=0)


def test_the_range_test_refuses_them_too():
    with pytest.raises(DataError, match="labels from 3 to 7"):
        find_lr(make(), (X, FIVE + 3))


class _OneBadBatch(keras.utils.PyDataset):
    """Three batches; the last one has a class that there is not."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return np.ones((4, 3), "float32"), np.array([0, 1, 0, 7 if index == 2 else 1])


@pytest.mark.on_each_backend
@pytest.mark.parametrize("cache", ["never", "always"])
def test_a_bad_label_in_a_later_batch_is_named(cache):
    """JAX makes a loss of 0 of it; the others fail in their own words."""
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="head")(hidden))
    stage = Stage("a", "head", epochs=2, cache=cache)
    with pytest.raises(DataError, match=r"train \(batch 2\): labels from 0 to 7 do not fit"):
        fit(model, stage, _OneBadBatch(), seed=0, verbose=0)
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
