"""When a stage ends or lowers its rate: the callbacks behind `until` and `reduce`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from unfreeze.core.recorder import Recorder, from_log
from unfreeze.core.schedule import BEST, Plateau, Reached, ReduceRate, direction


class StopAt(keras.callbacks.Callback):
    """Ends training once a metric reaches a value."""

    def __init__(self, rule: Reached) -> None:
        super().__init__()
        self.rule = rule
        self.best_is = direction(rule.metric, rule.mode)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compare, and refuse a metric that the log does not have."""
        value = from_log(self.rule.metric, logs)
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
        value = self.sign * from_log(self.rule.metric, logs)
        if value < self.best - self.rule.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.rule.patience:
            self.model.stop_training = True


class StopWithoutBest(keras.callbacks.Callback):
    """Ends training after `patience` epochs that the recorder would not keep."""

    def __init__(self, patience: int, recorder: Recorder) -> None:
        super().__init__()
        self.patience, self.recorder = patience, recorder

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Count from the best epoch; nothing has to be remembered."""
        if epoch + 1 - self.recorder.best_epoch >= self.patience:
            self.model.stop_training = True


def rule_callbacks(
    until: Plateau | Reached | None,
    reduce: ReduceRate | None,
    recorder: Recorder,
    validated: bool = True,
) -> list[keras.callbacks.Callback]:
    """The callbacks that carry out a stage's `until` and `reduce`.

    Args:
        until: when to end the stage.
        reduce: when to lower the rate.
        recorder: of the stage; must come before them.
        validated: whether there are validation data. Without, a rule for `val_loss`
            goes by `loss`, and so on.
    """
    if not validated:
        until, reduce = _without_validation(until), _without_validation(reduce)
    found: list[keras.callbacks.Callback] = []
    watched = [rule.metric for rule in (until, reduce) if rule is not None and rule.metric != BEST]
    if watched:
        found.append(_NeedsMetrics(watched))
    if isinstance(until, Plateau) and until.metric == BEST:
        found.append(StopWithoutBest(until.patience, recorder))
    elif isinstance(until, Plateau):
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
            from_log(metric, logs)


def _without_validation(rule: Any) -> Any:
    if rule is None or not rule.metric.startswith("val_"):
        return rule
    return replace(rule, metric=rule.metric.removeprefix("val_"))
