"""What watches a stage: history, best weights, rules, flags."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.optimizers import get_learning_rate
from unfreeze.core.schedule import Plateau, Reached, ReduceRate
from unfreeze.core.watch import FirstEpochGuard, FlagGuard, Recorder, rule_callbacks
from unfreeze.errors import StageError


def model_stub(rate=0.1):
    return SimpleNamespace(optimizer=keras.optimizers.SGD(rate), stop_training=False)


def play(callbacks, logs, model=None) -> int:
    """Feed a log an epoch to the callbacks; the epoch (from 1) after which training stops."""
    model = model or model_stub()
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    for epoch, log in enumerate(logs):
        for callback in callbacks:
            callback.on_epoch_begin(epoch)
        for callback in callbacks:
            callback.on_epoch_end(epoch, log)
        if model.stop_training:
            return epoch + 1
    return len(logs)


def losses(*values, metric="val_loss"):
    return [{"loss": 1.0, metric: value} for value in values]


def record(values, monitor="val_loss", **options):
    """A recorder after these losses, and the variable that it watched, which counts epochs."""
    variable = keras.Variable(np.zeros(2, "float32"))

    class Count(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            variable.assign(np.full(2, epoch + 1.0))

    recorder = Recorder("s", [variable], monitor, get_learning_rate, 3)
    play([Count(), recorder], values)
    return recorder, variable


def test_a_row_for_each_epoch():
    recorder, _ = record([{"loss": 2.0, "val_loss": 3.0, "learning_rate": 9.0}])
    (row,) = recorder.rows
    assert row.pop("seconds") >= 0
    assert row.pop("learning_rate") == pytest.approx(0.1)
    assert row == {
        "stage": "s",
        "epoch": 1,
        "step": 4,
        "loss": 2.0,
        "val_loss": 3.0,
        "best": False,
    }


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([3.0, 2.0, 1.0], 3),
        ([1.0, 2.0, 3.0], 1),
        ([3.0, 1.0, 1.0, 1.0], 2),  # a tie goes to the first
        ([2.0, 2.0], 1),
        ([np.nan, 2.0, 1.0, np.nan], 3),
        ([np.inf, 2.0], 2),
        ([-1.0, -2.0], 2),
    ],
)
def test_the_best_epochs_weights_come_back(values, best):
    recorder, variable = record(losses(*values))
    recorder.restore()
    assert recorder.best_epoch == best
    assert recorder.best_value == values[best - 1]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), [best, best])
    assert [row["best"] for row in recorder.rows] == [i + 1 == best for i in range(len(values))]


def test_without_a_finite_value_there_is_no_best_and_nothing_is_restored():
    recorder, variable = record(losses(np.nan, np.nan))
    recorder.restore()
    assert (recorder.best_epoch, recorder.diverged) == (0, False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), [2, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_ends_the_stage(value):
    logs = [{"loss": 1.0, "val_loss": 1.0}, {"loss": value, "val_loss": 0.5}, {"loss": 1.0}]
    recorder, _ = record(logs)
    assert recorder.diverged
    assert len(recorder.rows) == 2
    assert recorder.best_epoch == 1


@pytest.mark.parametrize(
    ("rule", "values", "last"),
    [
        (Plateau("val_loss", 2), [3, 2, 1, 1, 1, 0], 5),
        (Plateau("val_loss", 2), [3, 3, 3], 3),
        (Plateau("val_loss", 2, min_delta=0.5), [3, 2.8, 2.6, 2.0], 3),
        (Plateau("val_loss", 3), [3, 4, 2, 4, 5, 1], 6),
        (Plateau("val_accuracy", 1), [0.1, 0.2, 0.2], 3),
        (Plateau("val_odd", 1, mode="max"), [1, 2, 1, 9], 3),
        (Reached("val_accuracy", 0.9), [0.5, 0.9, 1.0], 2),
        (Reached("val_loss", 0.5), [1.0, 0.6, 0.5, 0.1], 3),
        (Plateau("val_loss", 1), [np.nan, 1.0, 0.5], 1),
    ],
)
def test_rules_end_a_stage(rule, values, last):
    assert play(rule_callbacks(rule, None), losses(*values, metric=rule.metric)) == last


def test_a_plateau_lowers_the_rate():
    model = model_stub(1.0)
    (_, reduce) = rule_callbacks(None, ReduceRate("val_loss", factor=0.5, patience=2))
    play([reduce], losses(1.0, 1.0, 1.0, 1.0, 1.0), model)
    assert get_learning_rate(model.optimizer) == pytest.approx(0.25)


@pytest.mark.parametrize("rules", [(Plateau("val_acc"), None), (None, ReduceRate("val_acc"))])
def test_a_metric_that_is_not_there_is_named(rules):
    with pytest.raises(StageError, match=r"by 'val_acc'.*it has: loss, val_loss"):
        play(rule_callbacks(*rules), losses(1.0))


def test_without_validation_data_the_training_metric_takes_its_place():
    rules = rule_callbacks(Plateau("val_loss", 1), ReduceRate("val_loss"), validated=False)
    assert play(rules, [{"loss": 1.0}, {"loss": 0.5}, {"loss": 0.6}]) == 3
    rules = rule_callbacks(Reached("val_accuracy", 0.9), None, validated=False)
    assert play(rules, [{"accuracy": 0.5}, {"accuracy": 0.95}, {"accuracy": 1.0}]) == 2


def test_the_guard_waits_for_a_step_and_then_looks_once():
    checks = []
    model = model_stub()
    guard = FirstEpochGuard(lambda: checks.append(1))
    play([guard], [{"loss": np.nan}, {"loss": 1.0}], model)
    assert checks == []  # no step yet: mixed_float16 leaves out those that overflow
    model.optimizer.iterations.assign(1)
    play([guard], [{"loss": 1.0}, {"loss": 1.0}], model)
    assert checks == [1]


def test_the_guard_sees_through_loss_scaling():
    checks = []
    model = model_stub()
    inner = model.optimizer
    model.optimizer = keras.optimizers.LossScaleOptimizer(inner)
    model.optimizer.build([keras.Variable(1.0)])
    guard = FirstEpochGuard(lambda: checks.append(1))
    play([guard], [{"loss": 1.0}], model)
    assert checks == []  # the wrapper may have counted, but no step was taken
    inner.iterations.assign(1)
    play([guard], [{"loss": 1.0}], model)
    assert checks == [1]


def nested() -> keras.Model:
    x = keras.Input((3,))
    inner = keras.Sequential(
        [x, layers.Dense(2, name="dense"), layers.BatchNormalization(name="bn")], name="inner"
    )
    z = keras.Input((3,))
    return keras.Model(z, layers.Dense(1, name="head")(inner(z)))


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("place", ["layer", "variable"])
def test_a_changed_flag_is_found_and_its_layer_named(value, place):
    model = nested()
    bn = model.layers[1].layers[1]
    bn.trainable = not value
    guard = FlagGuard("probe", model)
    guard.check()
    if place == "layer":
        bn.trainable = value
    else:
        bn.gamma.trainable = value
    with pytest.raises(StageError, match=r"stage 'probe': `trainable` was changed.*bn"):
        guard.on_epoch_begin(1)
    if place == "layer":
        bn.trainable = not value
    else:
        bn.gamma.trainable = not value
    guard.check()
