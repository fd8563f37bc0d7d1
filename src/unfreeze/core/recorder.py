"""The history of a stage, its best epoch, and the weights of that epoch."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.core.schedule import AUTO, direction
from unfreeze.errors import StageError

Row = dict[str, Any]
Rank = tuple[float, float]
WORST: Rank = (np.inf, np.inf)


def resolve(monitor: str, log: Mapping[str, float]) -> str:
    """The metric that a schedule's `monitor` means.

    Args:
        monitor: see `unfreeze.core.schedule.Schedule`.
        log: of an epoch; tells what is measured.
    """
    if "val_loss" not in log:
        return "loss" if monitor == AUTO else monitor.removeprefix("val_")
    if monitor == AUTO:
        return "val_accuracy" if "val_accuracy" in log else "val_loss"
    return monitor


def rank(log: Mapping[str, float], monitor: str) -> Rank | None:
    """How good an epoch is: the smaller, the better.

    Accuracy is counted in samples, so that epochs are often equal; the loss then
    tells more.

    Args:
        log: of the epoch.
        monitor: a metric, from `resolve`.

    Returns:
        None where the metric or the loss is not finite.

    Raises:
        StageError: the log does not have the metric.
    """
    value = from_log(monitor, log)
    loss = from_log("val_loss" if monitor.startswith("val_") else "loss", log)
    if not (np.isfinite(value) and np.isfinite(loss)):
        return None
    return (value if direction(monitor) == "min" else -value, loss)


class Recorder(keras.callbacks.Callback):
    """Keeps a row an epoch and the weights of the best one.

    Ties go to the earlier epoch. An epoch whose monitored value is not finite
    is never the best; a loss that is not finite ends the stage.

    Args:
        stage: the stage's name, for the rows.
        variables: what the stage can change, copied at each new best.
        monitor: of the schedule; the metric itself from the first epoch on.
        read_rate: gives an optimizer's learning rate.
        first_step: epochs of the stages before.
    """

    def __init__(
        self, stage: str, variables: Sequence[Any], monitor: str, read_rate: Any, first_step: int
    ) -> None:
        super().__init__()
        self.stage, self.variables, self.monitor = stage, variables, monitor
        self.read_rate, self.step = read_rate, first_step
        self.rows: list[Row] = []
        self.best_epoch = 0
        self.diverged = False
        self.best: list[np.ndarray] = []
        self._best_rank: Rank | None = None
        self._began = time.perf_counter()

    @property
    def best_value(self) -> float:
        """The monitored value of the best epoch; infinite before there is one."""
        return float(self.rows[self.best_epoch - 1][self.monitor]) if self.best_epoch else np.inf

    def go_on(self, rows: Sequence[Row], best_epoch: int, best: list[np.ndarray]) -> None:
        """Take over what an earlier start has recorded."""
        self.rows, self.best_epoch, self.best = list(rows), best_epoch, best
        self.step += len(self.rows)
        if self.rows:
            self.monitor = resolve(self.monitor, self.rows[0])
        if best_epoch:
            self._best_rank = rank(self.rows[best_epoch - 1], self.monitor)

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
        self.monitor = resolve(self.monitor, values)
        found = rank(values, self.monitor)
        if found is not None and (self._best_rank is None or found < self._best_rank):
            self._best_rank, self.best_epoch = found, epoch + 1
            self.best = [np.array(keras.ops.convert_to_numpy(v)) for v in self.variables]

    def restore(self) -> None:
        """Put the best epoch's weights back and mark its row."""
        if not self.best:
            return
        for variable, value in zip(self.variables, self.best, strict=True):
            variable.assign(value)
        for row in self.rows:
            row["best"] = row["epoch"] == self.best_epoch


def from_log(metric: str, logs: Mapping[str, float] | None) -> float:
    """A metric's value.

    Raises:
        StageError: the log does not have it.
    """
    if metric not in (logs or {}):
        have = ", ".join(sorted(logs or {}))
        raise StageError(
            f"a stage goes by {metric!r} (its `until` or `reduce`, or the schedule's `monitor`), "
            f"which the training log does not have; it has: {have}"
        )
    return float((logs or {})[metric])
