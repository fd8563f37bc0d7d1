"""What is watched while a stage trains: history, best weights, when to end.

Plain Keras callbacks, so that they work in any `fit` on any backend.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from unfreeze.core.internals import flatten_layers, own_weights
from unfreeze.core.schedule import Plateau, Reached, ReduceRate, direction
from unfreeze.errors import StageError

Row = dict[str, Any]


class StageCallback(keras.callbacks.Callback):
    """A Keras callback that also hears of stages; for progress displays and logs.

    Give it to `fit` among the other callbacks and override what you need. Where
    steps are small, its batch methods are called once for several batches.
    """

    def on_stage_begin(self, plan: Any) -> None:
        """A stage is about to train; `plan` is its `StagePlan`."""

    def on_cache(self, what: str, done: int, total: int) -> None:
        """The prefix runs over the data: `done` of `total` samples (0 when not known)."""

    def on_note(self, text: str) -> None:
        """Something worth a line in the log, such as why a stage is not cached."""

    def on_stage_end(self, result: Any) -> None:
        """A stage has ended; `result` is its `StageResult`."""

    def wants_to_stop(self) -> bool:
        """Whether the run is to end after the step under way; asked before each step.

        `fit` then keeps the state of the last epoch's end in its `run_dir` and
        raises `Stopped`.
        """
        return False


class Recorder(keras.callbacks.Callback):
    """Keeps a row an epoch and the weights of the best one.

    Ties go to the earlier epoch. An epoch whose monitored value is not finite
    is never the best; a loss that is not finite ends the stage.

    Args:
        stage: the stage's name, for the rows.
        variables: what the stage can change, copied at each new best.
        monitor: `val_loss`, or `loss` where there are no validation data.
        read_rate: tells the optimizer's learning rate.
        first_step: epochs of the stages before.
    """

    def __init__(
        self, stage: str, variables: Sequence[Any], monitor: str, read_rate: Any, first_step: int
    ) -> None:
        super().__init__()
        self.stage, self.variables, self.monitor = stage, variables, monitor
        self.read_rate, self.step = read_rate, first_step
        self.rows: list[Row] = []
        self.best_value, self.best_epoch = np.inf, 0
        self.diverged = False
        self.best: list[np.ndarray] = []
        self._began = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the row; copy the weights when they are the best so far."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        values.pop("learning_rate", None)
        self.step += 1
        row: Row = {
            "stage": self.stage,
            "epoch": epoch + 1,
            "step": self.step,
            "seconds": round(time.perf_counter() - self._began, 4),
            "learning_rate": self.read_rate(self.model.optimizer),
            **values,
            "best": False,
        }
        self.rows.append(row)
        if not np.isfinite(values.get("loss", 0.0)):
            self.diverged = True
            self.model.stop_training = True
            return
        value = values.get(self.monitor, np.nan)
        if np.isfinite(value) and value < self.best_value:
            self.best_value, self.best_epoch = value, epoch + 1
            self.best = [np.array(keras.ops.convert_to_numpy(v)) for v in self.variables]

    def restore(self) -> None:
        """Put the best epoch's weights back and mark its row."""
        if not self.best:
            return
        for variable, value in zip(self.variables, self.best, strict=True):
            variable.assign(value)
        for row in self.rows:
            row["best"] = row["epoch"] == self.best_epoch


class FirstEpochGuard(keras.callbacks.Callback):
    """Runs a check after the first epoch, so that a stage that cannot work ends there.

    Waits for the first epoch with a step: under mixed_float16 the first steps may
    be left out, until the loss scale is low enough.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self.check: Callable[[], None] | None = check

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check once. A loss that is not finite is the recorder's to report."""
        if self.check is None or not np.isfinite(float((logs or {}).get("loss", 0.0))):
            return
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if int(keras.ops.convert_to_numpy(inner.iterations)):
            self.check()
            self.check = None


class StopAt(keras.callbacks.Callback):
    """Ends training once a metric reaches a value."""

    def __init__(self, rule: Reached) -> None:
        super().__init__()
        self.rule = rule
        self.best_is = direction(rule.metric, rule.mode)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compare, and refuse a metric that the log does not have."""
        value = _from_log(self.rule.metric, logs)
        reached = value >= self.rule.value if self.best_is == "max" else value <= self.rule.value
        if reached:
            self.model.stop_training = True


class StopOnPlateau(keras.callbacks.Callback):
    """Ends training after `patience` epochs without a gain."""

    def __init__(self, rule: Plateau) -> None:
        super().__init__()
        self.rule = rule
        self.sign = 1.0 if direction(rule.metric, rule.mode) == "min" else -1.0
        self.best, self.waited = np.inf, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Count the epochs since the last gain."""
        value = self.sign * _from_log(self.rule.metric, logs)
        if value < self.best - self.rule.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.rule.patience:
            self.model.stop_training = True


class FlagGuard(keras.callbacks.Callback):
    """Finds `trainable` flags that change while a stage runs, which has no effect or a wrong one.

    Looks at the whole model, also at what the cache has left out of training.

    Args:
        stage: the stage's name, for the message.
        model: the whole model, its flags set for the stage.
    """

    def __init__(self, stage: str, model: keras.Model) -> None:
        super().__init__()
        self.stage, self.whole = stage, model
        self._before = _flags(model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """See what other callbacks did at the end of the epoch before."""
        self.check()

    def check(self) -> None:
        """Compare with the flags at the start.

        Raises:
            StageError: names the layers.
        """
        now = _flags(self.whole)
        changed = [name for name, flag in now.items() if self._before.get(name) != flag]
        if changed:
            layers = list(dict.fromkeys(name.rpartition("/")[0] or name for name in changed))
            more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
            raise StageError(
                f"stage {self.stage!r}: `trainable` was changed while it ran, of "
                f"{', '.join(layers[:5])}{more}. A stage trains what it was compiled for: give "
                "the schedule a further stage instead of changing flags in a callback"
            )


def rule_callbacks(
    until: Plateau | Reached | None, reduce: ReduceRate | None, validated: bool = True
) -> list[keras.callbacks.Callback]:
    """The callbacks that carry out a stage's `until` and `reduce`.

    Without validation data (`validated` is False) a rule for `val_loss` goes by
    `loss`, and so on.
    """
    if not validated:
        until, reduce = _without_validation(until), _without_validation(reduce)
    found: list[keras.callbacks.Callback] = []
    watched = [rule.metric for rule in (until, reduce) if rule is not None]
    if watched:
        found.append(_NeedsMetrics(watched))
    if isinstance(until, Plateau):
        found.append(StopOnPlateau(until))
    elif isinstance(until, Reached):
        found.append(StopAt(until))
    if reduce is not None:
        found.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=reduce.metric,
                factor=reduce.factor,
                patience=reduce.patience,
                min_delta=reduce.min_delta,
                mode=direction(reduce.metric, reduce.mode),
            )
        )
    return found


class _NeedsMetrics(keras.callbacks.Callback):
    """Ends a stage whose rules go by metrics that the log does not have."""

    def __init__(self, metrics: Sequence[str]) -> None:
        super().__init__()
        self.metrics = metrics

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look for each of them."""
        for metric in self.metrics:
            _from_log(metric, logs)


def _from_log(metric: str, logs: dict[str, float] | None) -> float:
    if metric not in (logs or {}):
        have = ", ".join(sorted(logs or {}))
        raise StageError(
            f"a stage's `until` or `reduce` goes by {metric!r}, which the training log does not "
            f"have; it has: {have}"
        )
    return float((logs or {})[metric])


def _without_validation(rule: Any) -> Any:
    if rule is None or not rule.metric.startswith("val_"):
        return rule
    return replace(rule, metric=rule.metric.removeprefix("val_"))


def _flags(model: keras.Model) -> dict[str, bool]:
    """All flags by a name that says the layer; numbered, as names may repeat."""
    found: dict[str, bool] = {}
    for number, layer in enumerate(flatten_layers(model)):
        found[f"{layer.path or layer.name}/#{number}"] = layer.trainable
        for variable in own_weights(layer)[0]:
            found[f"{layer.path or layer.name}/{variable.name}#{number}"] = variable.trainable
    return found
