"""A stage whose weights are solved, not stepped: logistic regression on cached outputs.

Where a stage trains one last dense layer above frozen ones, its loss is convex: a solver
finds the weights in a second, without a learning rate. Only the strength of the
regularization is open. Each "epoch" of the stage tries one, and the best by the schedule's
`monitor` is kept. Without validation data only the first is tried: the training loss would
always choose the weakest.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.core.boundary import Solvable, solvable
from unfreeze.core.callbacks import Recorder
from unfreeze.core.data import Rows, ShuffledRows
from unfreeze.core.finite import is_finite, some
from unfreeze.core.layers import Selection
from unfreeze.core.regression import STRENGTHS, regression
from unfreeze.core.stage_caching import Job, Ready
from unfreeze.errors import StageError


def solve_stage(
    job: Job,
    ready: Ready,
    selection: Selection,
    recorder: Recorder,
    scores: Sequence[keras.callbacks.Callback] = (),
    after: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Run a stage with `solve`; the recorder then knows its history and best weights.

    Args:
        job: the run.
        ready: the stage's compiled model, and its cached data.
        selection: what the stage trains.
        recorder: fresh, of this stage.
        scores: callbacks that add to the log.
        after: callbacks of the run and the stage, which read it.

    Raises:
        StageError: labels, weights or outputs of frozen layers that no solver takes.
    """
    stage = selection.stage
    found = solvable(job.whole.graph, selection)
    assert isinstance(ready.train, ShuffledRows)
    rows = ready.train.rows
    strengths = STRENGTHS[: 1 if ready.validation is None else stage.epochs]
    listeners = keras.callbacks.CallbackList(
        [*scores, recorder, *after],
        model=ready.model,
        epochs=len(strengths),
        steps=1,
        verbose=0,
    )
    inputs, labels, weights = _material(job, rows, ready.train.views, stage.name)
    _check(inputs, labels, weights, found, stage.name)
    weights /= weights.mean()
    listeners.on_train_begin()
    sides = getattr(job.compile_with.get("loss"), "side_weights", None)
    for number, strength in enumerate(strengths):
        job.stop_if_asked()
        listeners.on_epoch_begin(number)
        kernel, bias = regression(
            *(inputs, labels, weights, strength, found.layer.units, found.activation),
            use_bias=found.layer.use_bias,
            sides=sides,
        )
        if not (is_finite(kernel) and is_finite(bias)):
            raise StageError(
                f"stage {stage.name!r}: the solver found weights that are not finite with "
                f"C={strength}. Likely cause: outputs of the frozen layers that are too large"
            )
        found.layer.set_weights([kernel, bias] if found.layer.use_bias else [kernel])
        logs = {"C": strength, **_measured(ready)}
        listeners.on_epoch_end(number, logs)
        if ready.model.stop_training:
            break
    listeners.on_train_end()


def _material(
    job: Job, rows: Rows, views: int, stage: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (samples, numbers), labels and weights of all views."""
    labels = keras.tree.flatten(rows.y)
    if len(labels) != 1:
        raise StageError(f"stage {stage!r}: solve needs one array of labels, not {len(labels)}")

    def all_views(part: Any) -> np.ndarray:
        values = np.asarray(part[np.arange(len(part))])
        # A stream may have another order in each view; it then has labels for each view, too.
        return values if len(part) > rows.n else np.concatenate([values] * views)

    inputs, y = all_views(rows.x[0]).astype(np.float64), all_views(labels[0])
    weights = np.ones(len(y))
    if rows.weight is not None:
        weights = weights * all_views(keras.tree.flatten(rows.weight)[0]).reshape(len(y))
    if job.class_weight:
        columns = y.reshape(len(y), -1)
        classes = columns.argmax(axis=1) if columns.shape[1] > 1 else columns[:, 0]
        weights = weights * np.array([job.class_weight.get(int(c), 1.0) for c in classes])
    return inputs, y, weights


def _check(
    inputs: np.ndarray, labels: np.ndarray, weights: np.ndarray, wanted: Solvable, stage: str
) -> None:
    units = wanted.layer.units
    parts = {"outputs of the frozen layers": inputs, "labels": labels, "sample weights": weights}
    for name, part in parts.items():
        bad = np.flatnonzero(~np.isfinite(part.reshape(len(part), -1).astype(float)).all(axis=1))
        if len(bad):
            raise StageError(
                f"stage {stage!r}: the {name} are not finite: is there NaN in the data? "
                f"See samples {some(bad)}"
            )
    numbers = wanted.activation == "softmax" and labels.shape[1:] != (units,)
    if numbers and not (labels.min() >= 0 and labels.max() < units):
        raise StageError(
            f"stage {stage!r}: labels from {labels.min()} to {labels.max()} do not fit a layer of "
            f"{units} units, which stand for the classes 0 to {units - 1}"
        )
    if not weights.sum() > 0:
        raise StageError(f"stage {stage!r}: the weights of all samples are 0")


def _measured(ready: Ready) -> dict[str, float]:
    logs = dict(ready.model.evaluate(ready.train, verbose=0, return_dict=True))
    if ready.validation is not None:
        held = ready.model.evaluate(ready.validation, verbose=0, return_dict=True)
        logs |= {f"val_{name}": value for name, value in held.items()}
    return {name: float(value) for name, value in logs.items()}
