"""What is watched while a stage trains: history, best weights, when to end.

Plain Keras callbacks, so that they work in any `fit` on any backend.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.core.schedule import Plateau, Reached, ReduceRate, direction

Row = dict[str, Any]


class StageCallback(keras.callbacks.Callback):
    """A Keras callback that also hears of stages; for progress displays and logs.

    Give it to `fit` among the other callbacks and override what you need.
    """

    def on_stage_begin(self, plan: Any) -> None:
        """A stage is about to train; `plan` is its `StagePlan`."""

    def on_cache(self, what: str, done: int, total: int) -> None:
        """The prefix runs over the data: `done` of `total` samples (0 when not known)."""

    def on_note(self, text: str) -> None:
        """Something worth a line in the log, such as why a stage is not cached."""

    def on_stage_end(self, result: Any) -> None:
        """A stage has ended; `result` is its `StageResult`."""


class Recorder(keras.callbacks.Callback):
    """Keeps a row an epoch and the weights of the best one.

    Ties go to the earlier epoch. An epoch whose monitored value is not finite
    is never the best; a loss that is not finite ends the stage.

    Args:
        stage: the stage's name, for the rows.
        variables: what the stage can change, copied at each new best.
        monitor: `val_loss`, or `loss` where there are no validation data.
        read_rate: tells the optimizer's learning rate.
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
        self._best: list[np.ndarray] = []
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
            self._best = [np.array(keras.ops.convert_to_numpy(v)) for v in self.variables]

    def restore(self) -> None:
        """Put the best epoch's weights back and mark its row."""
        if not self._best:
            return
        for variable, value in zip(self.variables, self._best, strict=True):
            variable.assign(value)
        self.rows[self.best_epoch - 1]["best"] = True


class FirstEpochGuard(keras.callbacks.Callback):
    """Runs a check after the first epoch, so that a stage that cannot work ends there."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self.check = check

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check once. A loss that is not finite is the recorder's to report."""
        if epoch == 0 and np.isfinite(float((logs or {}).get("loss", 0.0))):
            self.check()


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


def rule_callbacks(
    until: Plateau | Reached | None, reduce: ReduceRate | None
) -> list[keras.callbacks.Callback]:
    """The callbacks that carry out a stage's `until` and `reduce`."""
    found: list[keras.callbacks.Callback] = []
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


def _from_log(metric: str, logs: dict[str, float] | None) -> float:
    if metric not in (logs or {}):
        have = ", ".join(sorted(logs or {}))
        raise KeyError(f"the training log has no {metric!r}; it has: {have}")
    return float((logs or {})[metric])
