"""The names in the training log, known before the first epoch.

A schedule's `monitor` and the rules of its stages name metrics. Keras makes these names when it
sees the first batch; so does this, without training: a misspelt name is refused at once, with
the names that there are. Where Keras cannot tell them yet, the first epoch decides.

Inside a `fit` of the user's own it is not certain: nothing tells a callback whether there are
validation data, and one before it may add to the log. There it is a warning, before the first
step of a graph, and after it for a model that has code of its own, which only its log shows.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

import keras
import numpy as np

from unfreeze.core.boundary import inference_cut
from unfreeze.core.callbacks import StageCallback, resolve
from unfreeze.core.data import Rows, Stream
from unfreeze.core.graph import Graph
from unfreeze.core.keras_internals import (
    compiled_with,
    functional_graph,
    has_custom_training,
    names_of_logs,
)
from unfreeze.core.objective import fresh
from unfreeze.core.schedule import AUTO, BEST, Schedule
from unfreeze.core.step_model import joined_model
from unfreeze.errors import DataError, ScheduleError, did_you_mean

# Keras chooses what these mean by the labels; `keras.metrics.get` does not know them all.
_CHOSEN_BY_LABELS = ("accuracy", "acc", "crossentropy", "ce")


def check_log_names(
    model: keras.Model,
    graph: Graph,
    compile_with: dict[str, Any],
    data: Rows | Stream,
    held: Rows | Stream | None,
    schedule: Schedule,
    scored: bool,
    callbacks: Sequence[Any] = (),
) -> None:
    """Look up the metrics that a schedule watches, before anything trains.

    Args:
        model: the whole model; it is not compiled.
        graph: the same, flattened.
        compile_with: loss and metrics, as for `compile`.
        data: the training data.
        held: the validation data, or None.
        schedule: its `monitor`, and the rules of its stages.
        scored: whether `validation_scores` adds names that only it knows.
        callbacks: of the run, in their order.

    Raises:
        DataError: a metric that Keras does not know.
        ScheduleError: a watched metric that the log will not have, with those that it will.
    """
    for name in _texts([compile_with.get("metrics"), compile_with.get("weighted_metrics")]):
        _check_metric(name)
    names = _names(model, graph, compile_with, data)
    if not names:
        return
    if held is not None:
        names |= {f"val_{name}" for name in names}
    for where, name in (*_watched(schedule, names), *_watched_by(callbacks)):
        if name in names or (scored and name.startswith("val_")):
            continue
        hint = did_you_mean(name, names)
        raise ScheduleError(
            f"{where} watches {name!r}, which the training log will not have.{hint} It will have: "
            f"{', '.join(sorted(names))}"
        )


def doubtful_names(
    model: keras.Model, schedule: Schedule, logs: Collection[str] | None = None
) -> list[str]:
    """Look up the metrics that a schedule watches in the user's own `fit`.

    Args:
        model: compiled. One that is no graph, or whose class has its own way to train,
            may log anything: its first step decides.
        schedule: its `monitor`, and the rules of its stages.
        logs: the names in the log of the first step; None before that step.

    Returns:
        A warning for each that the model's own metrics do not have: before the first step
        for a graph, after it for any other model.
    """
    graph = functional_graph(model) is not None and not has_custom_training(model)
    if graph == (logs is not None):
        return []
    names = _names_of_compiled(model) if logs is None else set(logs)
    adds = "a callback before UnfreezeSchedule" + ("" if graph else ", or `test_step`,")
    known = names | {f"val_{name}" for name in names}
    return [
        f"{where} watches {name!r}, which `fit` logs only if {adds} adds it."
        f"{did_you_mean(name, known)} The model logs {', '.join(sorted(names))}, and the "
        "same with val_ before them where there are validation data"
        for where, name in _watched(schedule, known)
        if names and name not in known
    ]


def _names_of_compiled(model: keras.Model) -> set[str]:
    """Names of the loss and the metrics of a compiled model; none where Keras cannot tell."""
    outputs = [np.zeros([size or 1 for size in t.shape], np.float32) for t in model.outputs]
    numbers = [np.zeros(part.shape[:-1], np.int32) for part in outputs]
    given = compiled_with(model)
    # Labels are not known here: like the outputs, or the number of a class. The names are the same.
    for y in (outputs, numbers):
        with suppress(Exception):
            # Not the model itself, whose metrics would keep what they made of these labels.
            probe = keras.Model(model.inputs, model.outputs)
            parts = ("loss", "loss_weights", "metrics", "weighted_metrics")
            probe.compile("sgd", **{part: fresh(given.get(part)) for part in parts})
            one = len(outputs) == 1
            return names_of_logs(probe, y[0] if one else y, outputs[0] if one else outputs)
    return set()


def _watched(schedule: Schedule, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Where a metric is named, and the name in the log that is meant."""
    if schedule.monitor != AUTO:
        yield "the schedule's monitor", resolve(schedule.monitor, dict.fromkeys(names, 0.0))
    for stage in schedule:
        for field in ("until", "reduce") if stage.epochs else ():
            rule = getattr(stage, field)
            if rule is not None and rule.metric != BEST:
                # Without validation data, rules watch the training data's metric.
                name = rule.metric if "val_loss" in names else rule.metric.removeprefix("val_")
                yield f"`{field}` of stage {stage.name!r}", name


def _watched_by(callbacks: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """The metrics that callbacks of Keras steer by, up to one that may add to the log."""
    steering = (keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau)
    for callback in callbacks:
        known = type(callback).__module__.startswith("keras.") or isinstance(
            callback, StageCallback
        )
        if not known or isinstance(callback, keras.callbacks.LambdaCallback):
            return
        steers = isinstance(callback, steering) or getattr(callback, "save_best_only", False)
        # Keras' own schedulers put the rate into the log.
        if steers and callback.monitor != "learning_rate":
            yield f"the monitor of {type(callback).__name__}", callback.monitor


def _names(
    model: keras.Model, graph: Graph, compile_with: dict[str, Any], data: Rows | Stream
) -> set[str]:
    """Names of the loss and the metrics of training data; none where Keras cannot tell."""
    y = data.first()[1]
    probe = joined_model(inference_cut(graph), model, frozenset(), fused=False)
    # The first epoch reports what is wrong here, in Keras' own words.
    with suppress(Exception):
        settings = {name: fresh(value) for name, value in compile_with.items()}
        probe.compile("sgd", **settings)
        return names_of_logs(probe, y, graph.pack(_outputs(graph, y)))
    return set()


def _outputs(graph: Graph, y: Any) -> list[np.ndarray]:
    """Arrays of the outputs' shapes; sizes that vary are those of the labels, or 1."""
    labels = keras.tree.flatten(y)
    found = []
    for place, index in enumerate(graph.outputs):
        like = labels[place].shape if place < len(labels) else ()
        sizes = [
            size or (like[axis] if axis < len(like) else 1)
            for axis, size in enumerate(graph.shapes[index])
        ]
        found.append(np.zeros(sizes, np.float32))
    return found


def _texts(value: Any) -> Iterator[str]:
    """Metrics given by their names, however they are nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _check_metric(name: str) -> None:
    if name in _CHOSEN_BY_LABELS:
        return
    try:
        keras.metrics.get(name)
    except ValueError:
        known = [*_CHOSEN_BY_LABELS, *(_snake(n) for n in dir(keras.metrics) if n[0].isupper())]
        raise DataError(
            f"metrics: Keras knows no metric {name!r}.{did_you_mean(name, known)} Name one of "
            "keras.metrics, such as 'accuracy', or give a metric object"
        ) from None


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
