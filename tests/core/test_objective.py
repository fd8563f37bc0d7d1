"""Loss and metrics: the user's, the compiled model's, or the default."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.data import as_data
from unfreeze.core.graph import flatten
from unfreeze.core.objective import fresh, objective
from unfreeze.errors import DataError

X = np.ones((6, 2), "float32")
Y = np.array([0, 1, 2, 0, 1, 2])


def make() -> keras.Model:
    x = keras.Input((2,))
    return keras.Model(x, layers.Dense(3, activation="softmax")(x))


def found(model, y=Y, loss=None, metrics=None):
    return objective(model, flatten(model), as_data((X, y), model), loss, metrics)


def own_loss(y, p):
    return keras.ops.mean(p)


def test_the_users_loss_wins_and_brings_no_metrics():
    model = make()
    model.compile(loss="mse", metrics=["mae"])
    assert found(model, loss=own_loss) == {"loss": own_loss, "metrics": None}
    assert found(model, loss="mse", metrics=["mae"]) == {"loss": "mse", "metrics": ["mae"]}


def test_a_compiled_model_gives_its_loss_with_weights_and_metrics():
    model = make()
    model.compile(loss=own_loss, metrics=["accuracy"], weighted_metrics=["mse"], loss_weights=[2.0])
    assert found(model) == {
        "loss": own_loss,
        "loss_weights": [2.0],
        "metrics": ["accuracy"],
        "weighted_metrics": ["mse"],
    }
    assert found(model, metrics=["mae"])["metrics"] == ["mae"]


def test_else_the_labels_decide():
    default = found(make())
    assert isinstance(default["loss"], keras.losses.SparseCategoricalCrossentropy)
    assert [m.name for m in default["metrics"]] == ["accuracy"]
    assert found(make(), metrics=["mse"])["metrics"] == ["mse"]


def test_a_default_of_an_earlier_run_is_chosen_anew_for_other_labels():
    model = make()
    model.compile(**found(model))
    again = found(model, y=np.eye(3)[Y])
    assert isinstance(again["loss"], keras.losses.CategoricalCrossentropy)


def test_without_labels_there_is_no_default():
    model = make()
    with pytest.raises(DataError, match="give `loss`"):
        found(model, y=None)
    with pytest.raises(DataError, match="give `loss`"):
        found(model, y=[Y, Y])


def test_metrics_are_made_anew_and_everything_else_is_kept():
    metric = keras.metrics.TopKCategoricalAccuracy(k=2, name="top2")
    one = np.eye(3, dtype="float32")[[0]]
    metric.update_state(one, one)
    given = {"a": [metric, "mae"], "b": (own_loss,)}
    made = fresh(given)
    assert made["a"][1] == "mae"
    assert made["b"] == (own_loss,)
    copy = made["a"][0]
    assert copy is not metric
    assert (copy.name, copy.k) == ("top2", 2)
    assert float(copy.result()) == 0.0
    assert float(metric.result()) == 1.0
