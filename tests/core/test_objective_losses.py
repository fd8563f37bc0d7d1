"""The loss follows from the last activation and the labels, or none is guessed."""

import keras
import numpy as np
import pytest
from keras import layers, losses

from unfreeze.core.graph import flatten
from unfreeze.core.objective import default_loss
from unfreeze.errors import DataError


def model_of(units=3, activation=None, tail=(), shape=(4,)) -> keras.Model:
    x = keras.Input(shape)
    y = layers.Dense(units, activation=activation)(x)
    for layer in tail:
        y = layer(y)
    return keras.Model(x, y)


def ints(*shape, high=3):
    return np.random.default_rng(0).integers(0, high, (8, *shape))


def floats(*shape):
    return np.random.default_rng(0).random((8, *shape))


ONE_HOT = np.eye(3)[ints()]
CASES = [
    (model_of(3, "softmax"), ints(), losses.SparseCategoricalCrossentropy),
    (model_of(3, "softmax"), ints(1), losses.SparseCategoricalCrossentropy),
    (model_of(3, "softmax"), ONE_HOT, losses.CategoricalCrossentropy),
    (model_of(3, "softmax"), ONE_HOT.astype(int), losses.CategoricalCrossentropy),
    (model_of(3, "softmax", shape=(5, 4)), ints(5), losses.SparseCategoricalCrossentropy),
    (model_of(3, "softmax", shape=(5, 4)), np.eye(3)[ints(5)], losses.CategoricalCrossentropy),
    (model_of(1, "sigmoid"), ints(high=2), losses.BinaryCrossentropy),
    (model_of(1, "sigmoid"), ints(1, high=2), losses.BinaryCrossentropy),
    (model_of(3, "sigmoid"), ints(3, high=2), losses.BinaryCrossentropy),
    (model_of(3), ints(), losses.SparseCategoricalCrossentropy),
    (model_of(1), floats(), losses.MeanSquaredError),
    (model_of(1), floats(1), losses.MeanSquaredError),
    (model_of(3), floats(3), losses.MeanSquaredError),
    (model_of(3, tail=[layers.Softmax()]), ints(), losses.SparseCategoricalCrossentropy),
    (
        model_of(3, tail=[layers.Activation("softmax", dtype="float32")]),
        ints(),
        losses.SparseCategoricalCrossentropy,
    ),
    (model_of(3, tail=[keras.ops.softmax]), ints(), losses.SparseCategoricalCrossentropy),
    (model_of(1, "sigmoid", tail=[layers.Reshape((1,))]), ints(high=2), losses.BinaryCrossentropy),
]


@pytest.mark.parametrize(("model", "y", "wanted"), CASES)
def test_the_loss_fits_and_can_be_computed(model, y, wanted):
    loss, metrics = default_loss(flatten(model), y)
    assert type(loss) is wanted
    if wanted is losses.SparseCategoricalCrossentropy:
        softmax = any(s > 0.999 for s in _row_sums(model))
        assert loss.get_config()["from_logits"] != softmax
    model.compile(loss=loss, metrics=metrics)
    x = np.ones((8, *model.input_shape[1:]), "float32")
    values = model.evaluate(x, y, verbose=0)
    assert np.isfinite(values).all()
    assert len(values) == 2


def _row_sums(model):
    x = np.ones((1, *model.input_shape[1:]), "float32")
    out = keras.ops.convert_to_numpy(model(x))
    return [float(out.sum(axis=-1).mean())] if abs(out.sum(axis=-1).mean() - 1) < 1e-4 else [0.0]


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (model_of(3, "softmax"), floats(5)),
        (model_of(3, "sigmoid"), ints()),
        (model_of(1), ints()),
        (model_of(3), ints(3)),
        (model_of(3), floats()),
        (model_of(3, "tanh"), floats(3)),
    ],
)
def test_where_no_rule_fits_the_user_is_asked(model, y):
    with pytest.raises(DataError, match="give `loss`"):
        default_loss(flatten(model), y)


def test_several_outputs_need_a_loss_of_the_users():
    x = keras.Input((2,))
    model = keras.Model(x, [layers.Dense(1)(x), layers.Dense(1)(x)])
    with pytest.raises(DataError, match="2 outputs: give `loss`"):
        default_loss(flatten(model), ints())


def test_the_activation_is_not_looked_for_behind_other_weights():
    model = model_of(3, "softmax", tail=[layers.Dense(2)])
    loss, _ = default_loss(flatten(model), ints(high=2))
    assert loss.get_config()["from_logits"]
    x = keras.Input((2,))
    two = [layers.Dense(3, activation="softmax")(x) for _ in range(2)]
    with pytest.raises(DataError):
        default_loss(flatten(keras.Model(x, layers.Add()(two))), ints(3))
