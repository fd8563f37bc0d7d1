"""Metrics that a schedule watches are looked up before anything trains."""

import keras
import numpy as np
import pytest

from graphs import Recipe, build, draw_inputs, draw_labels, loss_of
from small_runs import HELD, Batches, X, Y, make
from unfreeze.core.data import as_data
from unfreeze.core.graph import flatten
from unfreeze.core.log_names import check_log_names
from unfreeze.core.objective import objective
from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage
from unfreeze.errors import DataError, ScheduleError


def look(
    data=(X, Y),
    held=HELD,
    loss=None,
    metrics=None,
    scored=False,
    model=None,
    callbacks=(),
    **schedule,
):
    model = model or make()
    graph, stage = flatten(model), {k: v for k, v in schedule.items() if k != "monitor"}
    monitor = schedule.get("monitor", "val_loss")
    train = as_data(data, model)
    check_log_names(
        model,
        graph,
        objective(model, graph, train, loss, metrics),
        train,
        None if held is None else as_data(held, model),
        Schedule([Stage("a", "head", **stage)], monitor=monitor),
        scored,
        callbacks,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"monitor": "auto"},
        {"monitor": "val_accuracy", "held": None},  # the training metric takes its place
        {"until": Plateau("best")},
        {"until": Reached("val_accuracy", 1.0), "reduce": ReduceRate("loss")},
        {"until": Reached("val_accuracy", 1.0), "held": None},
        {"until": Reached("val_whatever_score", 1.0), "scored": True},
        {"data": Batches(), "held": Batches(), "monitor": "val_accuracy"},
    ],
)
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_names_that_there_will_be_pass(options):
    look(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"monitor": "val_f1_score"},
            r"the schedule's monitor watches 'val_f1_score', which the training log will not have"
            r".*It will have: accuracy, loss, val_accuracy, val_loss$",
        ),
        ({"until": Reached("val_acc", 1.0)}, r"`until` of stage 'a' .*mean 'val_accuracy'\?"),
        ({"reduce": ReduceRate("mae")}, "`reduce` of stage 'a' watches 'mae'"),
        ({"until": Reached("val_f1", 1.0), "held": None}, r"watches 'f1'.*: accuracy, loss$"),
        ({"until": Reached("f1", 1.0), "scored": True}, "watches 'f1'"),
    ],
)
def test_other_names_are_refused_with_those_that_there_will_be(options, message):
    with pytest.raises(ScheduleError, match=message):
        look(**options)


def test_names_follow_metrics_and_outputs():
    one_hot = keras.utils.to_categorical(Y)
    metrics = ["auc", keras.metrics.F1Score(name="f1"), "accuracy"]
    message = "It will have: accuracy, auc, f1, loss$"
    with pytest.raises(ScheduleError, match=message):
        look((X, one_hot), None, "categorical_crossentropy", metrics, monitor="recall")
    recipe = Recipe(("dense",), 1, inputs=("map",), outputs=2)
    data = (draw_inputs(recipe, 4), draw_labels(recipe, 4))
    with pytest.raises(ScheduleError, match=r"It will have: loss, \w+_loss, \w+_loss$"):
        look(data, None, loss_of(recipe), model=build(recipe), monitor="recall")


@pytest.mark.parametrize("metrics", [["acuracy"], {"head": ["acuracy"]}])
def test_a_metric_that_keras_does_not_know(metrics):
    message = r"Keras knows no metric 'acuracy'\. Did you mean 'accuracy'\?"
    with pytest.raises(DataError, match=message):
        look(loss="sparse_categorical_crossentropy", metrics=metrics)


def test_the_model_is_left_as_it_was():
    model = make()
    before = [np.array(w) for w in model.get_weights()]
    look(model=model)
    assert not model.compiled
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class AddsToTheLog(keras.callbacks.Callback):
    pass


def test_what_keras_callbacks_watch_is_looked_up_too():
    stop = keras.callbacks.EarlyStopping("val_acuracy", mode="max")
    best = keras.callbacks.ModelCheckpoint(
        "a.keras", "val_acuracy", save_best_only=True, mode="max"
    )
    message = r"monitor of EarlyStopping watches 'val_acuracy'.*Did you mean 'val_accuracy'\?"
    with pytest.raises(ScheduleError, match=message):
        look(callbacks=[keras.callbacks.CSVLogger("a.csv"), stop])
    with pytest.raises(ScheduleError, match="the monitor of ModelCheckpoint watches"):
        look(callbacks=[best])
    with pytest.raises(
        ScheduleError, match=r"ReduceLROnPlateau watches 'val_loss'.*: accuracy, lo"
    ):
        look(callbacks=[keras.callbacks.ReduceLROnPlateau()], held=None)
    # Its monitor is not used; and code of the user's may add to the log.
    look(callbacks=[keras.callbacks.ModelCheckpoint("a.keras", "val_acuracy")])
    look(callbacks=[AddsToTheLog(), stop])
    look(callbacks=[keras.callbacks.LambdaCallback(), stop])
    look(callbacks=[keras.callbacks.EarlyStopping("learning_rate", mode="min")])
