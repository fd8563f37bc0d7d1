"""Callbacks of a stage that trains: history, best epoch, rules that end it, and guards.

All are plain Keras callbacks, so they work in any `fit` on any backend. `Recorder`
keeps the history and the best weights; `rule_callbacks` makes the callbacks behind
`until` and `reduce`; `FirstEpochGuard` and `FlagGuard` stop a stage that does not do
what it says; `StopWhenAsked` ends a run after the current step. It asks before each
step (2 microseconds), and never during validation, so that epoch is kept.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from unfreeze.core.finite import is_finite, not_finite, some
from unfreeze.core.keras_internals import flatten_layers, own_weights, tree
from unfreeze.core.schedule import AUTO, BEST, Plateau, Reached, ReduceRate, direction
from unfreeze.errors import StageError, Stopped

Row = dict[str, Any]
Rank = tuple[float, float]
# What the monitor "auto" means, the first that the log has.
PREFERRED = ("val_mean_average_precision", "val_balanced_accuracy", "val_accuracy")
WORST: Rank = (np.inf, np.inf)


class History(list[Row]):
    """The rows of a run's epochs, and the same as Keras' `History` has it."""

    @property
    def epoch(self) -> list[int]:
        """Numbers of the epochs over all stages, from 0."""
        return list(range(len(self)))

    @property
    def history(self) -> dict[str, list[float]]:
        """The numbers of each name, one for each epoch; NaN where an epoch has none."""
        kept = ("stage", "epoch", "step", "seconds", "best")
        names = {name: None for row in self for name in row if name not in kept}
        return {name: [row.get(name, np.nan) for row in self] for name in names}


def resolve(monitor: str, log: Mapping[str, float]) -> str:
    """The metric that a schedule's `monitor` means.

    Args:
        monitor: see `unfreeze.core.schedule.Schedule`.
        log: of an epoch; shows which metrics there are.
    """
    if "val_loss" not in log:
        return "loss" if monitor == AUTO else monitor.removeprefix("val_")
    if monitor == AUTO:
        return next((name for name in PREFERRED if name in log), "val_loss")
    return monitor


def rank(log: Mapping[str, float], monitor: str) -> Rank | None:
    """The rank of an epoch: smaller is better.

    Accuracy counts samples, so epochs often tie; the loss then decides.

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
    """Keeps one row per epoch and the weights of the best epoch.

    Ties go to the earlier epoch. An epoch whose monitored value is not finite is never
    the best. A loss, a weight or a state of the optimizer that is not finite ends the
    stage: such weights are never kept.

    Args:
        stage: the stage's name, for the rows.
        variables: what the stage can change, copied at each new best.
        monitor: that of the schedule; from the first epoch on, the metric it stands for.
        read_rate: gives an optimizer's learning rate; None where it has none to tell.
        first_step: epochs of the earlier stages.
        keep_last: whether each epoch counts as better than those before it.
        start: the weights at the start of the stage by the id of each variable, which come
            back where no epoch is the best.
    """

    def __init__(
        self,
        stage: str,
        variables: Sequence[Any],
        monitor: str,
        read_rate: Any,
        first_step: int,
        keep_last: bool = False,
        start: Mapping[int, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.keep_last = keep_last
        start = start or {}
        known = all(id(v) in start for v in variables)
        self._start = [start[id(v)] for v in variables] if known else []
        # A layer of the user's may begin with infinity, as a running minimum does.
        self._watched = [v for v in variables if is_finite(start.get(id(v), 0.0))]
        self.stage, self.variables, self.monitor = stage, variables, monitor
        self.read_rate, self.step = read_rate, first_step
        self.rows: list[Row] = []
        self.best_epoch = 0
        self.fault = ""
        self.best: list[np.ndarray] = []
        self._best_rank: Rank | None = None
        self._began = time.perf_counter()

    @property
    def diverged(self) -> bool:
        """Whether something was not finite; `fault` says what."""
        return bool(self.fault)

    @property
    def best_value(self) -> float:
        """The monitored value of the best epoch; infinite before there is one."""
        return float(self.rows[self.best_epoch - 1][self.monitor]) if self.best_epoch else np.inf

    def go_on(self, rows: Sequence[Row], best_epoch: int, best: list[np.ndarray]) -> None:
        """Resume from what an interrupted run recorded."""
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
        rate = self.read_rate(self.model.optimizer)
        row: Row = {
            "stage": self.stage,
            "epoch": epoch + 1,
            "step": self.step,
            "seconds": round(time.perf_counter() - self._began, 4),
            **({} if rate is None else {"learning_rate": rate}),
            **values,
            "best": False,
        }
        self.rows.append(row)
        self.fault = self._look_for_fault(values)
        if self.fault:
            self.model.stop_training = True
            return
        self.monitor = resolve(self.monitor, values)
        found = rank(values, self.monitor)
        first = self.keep_last or self._best_rank is None
        if found is not None and (first or found < (self._best_rank or WORST)):
            self._best_rank, self.best_epoch = found, epoch + 1
            self.best = [np.array(keras.ops.convert_to_numpy(v)) for v in self.variables]

    def _look_for_fault(self, values: Mapping[str, float]) -> str:
        if not np.isfinite(values.get("loss", 0.0)):
            return "the loss was not finite"
        weights = not_finite(self._watched)
        if weights:
            return f"weights were not finite ({some(weights)})"
        state = not_finite(getattr(self.model.optimizer, "variables", ()))
        return f"the optimizer's state was not finite ({some(state)})" if state else ""

    def restore(self) -> None:
        """Put the best epoch's weights back, or those of the start, and mark the best row."""
        values = self.best or self._start
        for variable, value in zip(self.variables if values else (), values, strict=True):
            variable.assign(value)
        for row in self.rows:
            row["best"] = row["epoch"] == self.best_epoch

    def restore_if_broken(self) -> None:
        """For a stage that an error ended: no weights that are not finite may stay."""
        if self.fault or not_finite(self._watched):
            self.restore()

    @property
    def kept(self) -> str:
        """Which weights `restore` puts back, in words."""
        if self.best_epoch:
            return f"the weights of epoch {self.best_epoch}"
        return "the weights that it had at the start of the stage"


def from_log(metric: str, logs: Mapping[str, float] | None) -> float:
    """A metric's value.

    Raises:
        StageError: the log does not have it.
    """
    if metric not in (logs or {}):
        have = ", ".join(sorted(logs or {}))
        raise StageError(
            f"a stage watches {metric!r} (in `until`, `reduce` or the schedule's `monitor`), "
            f"which the training log does not have. Name one that it has: {have}"
        )
    return float((logs or {})[metric])


class ValidationScores(keras.callbacks.Callback):
    """Adds scores of all predictions for the validation data to each epoch's log.

    Metrics see batches; this sees them all, in order, as scores by recording or by speaker
    need. It must come before whatever reads the log.

    Args:
        score: from the model's outputs for all validation samples to values by name; they
            join the log as `val_<name>`.
        data: the validation data that the stage's model takes, in order.
    """

    def __init__(self, score: Callable[[Any], Mapping[str, float]], data: Any) -> None:
        super().__init__()
        self.score, self.data = score, data

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Predict and score. The recorder reports a loss that is not finite."""
        if logs is not None and np.isfinite(logs.get("loss", 0.0)):
            logs.update(self.measure(self.model))

    def measure(self, model: keras.Model) -> dict[str, float]:
        """The scores of a model, by their names in the log.

        Raises:
            StageError: outputs are NaN, which no score can be trusted to notice.
        """
        # Of what the stage is fed: its own `predict` takes inputs of the whole model.
        outputs = keras.Model.predict(model, self.data, verbose=0)
        for part in tree.flatten(outputs):
            rows = np.flatnonzero(np.isnan(np.asarray(part).reshape(len(part), -1)).any(axis=1))
            if len(rows):
                raise StageError(
                    f"the model's outputs for validation samples {some(rows)} are NaN, so that "
                    "they have no score. Likely cause: NaN in the validation data, or a learning "
                    "rate that is too high"
                )
        found = self.score(outputs)
        return {f"val_{name}": float(value) for name, value in found.items()}


class StageCallback(keras.callbacks.Callback):
    """A Keras callback that is also called for stages, for progress displays and logs.

    Pass it to `fit` with the other callbacks and override what you need. Where
    steps are small, its batch methods are called once for several batches.

    Attributes:
        hears_warnings: whether `on_note` is called for warnings, which the log shows, too.

    Examples:
        >>> class Names(unfreeze.StageCallback):
        ...     def on_stage_end(self, result):
        ...         print("finished:", result.stage)
        >>> result = unfreeze.fit(model, "probe", x, y, callbacks=[Names()], seed=1, verbose=0)
        finished: head
    """

    hears_warnings = True

    def on_stage_begin(self, plan: Any) -> None:
        """A stage is about to train; `plan` is its `StagePlan`."""

    def on_cache(self, what: str, done: int, total: int) -> None:
        """The prefix runs over the data: `done` of `total` samples (0 when not known)."""

    def on_note(self, text: str) -> None:
        """Something worth a line in the log, such as why a stage is not cached."""

    def on_stage_end(self, result: Any) -> None:
        """A stage has ended; `result` is its `StageResult`."""

    def wants_to_stop(self) -> bool:
        """Whether to end the run after the current step; called before each step.

        `fit` then saves the state at the end of the last epoch in its `run_dir`
        and raises `Stopped`.
        """
        return False


class FirstEpochGuard(keras.callbacks.Callback):
    """Runs a check after the first epoch, so that a stage that cannot work ends there.

    Waits for the first epoch with a step: under mixed_float16 the first steps may
    be skipped, until the loss scale is low enough.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self.check: Callable[[], None] | None = check

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check once. The recorder reports a loss that is not finite."""
        if self.check is None or not np.isfinite(float((logs or {}).get("loss", 0.0))):
            return
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if int(keras.ops.convert_to_numpy(inner.iterations)):
            self.check()
            self.check = None


class FlagGuard(keras.callbacks.Callback):
    """Finds `trainable` flags that change while a stage runs, which has no effect or a wrong one.

    Looks at the whole model, including the layers that a cache replaces.

    Args:
        stage: the stage's name, for the message.
        model: the whole model, its flags set for the stage.
    """

    def __init__(self, stage: str, model: keras.Model) -> None:
        super().__init__()
        self.stage, self.whole = stage, model
        self._before = _flags(model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Check what other callbacks did at the end of the previous epoch."""
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
                f"stage {self.stage!r}: `trainable` was changed while the stage ran, for "
                f"{', '.join(layers[:5])}{more}. A stage trains what it was compiled for: add "
                "a stage to the schedule instead of changing flags in a callback"
            )


def _flags(model: keras.Model) -> dict[str, bool]:
    """All flags by the layer's name, numbered because names may repeat."""
    found: dict[str, bool] = {}
    for number, layer in enumerate(flatten_layers(model)):
        found[f"{layer.path or layer.name}/#{number}"] = layer.trainable
        for variable in own_weights(layer)[0]:
            found[f"{layer.path or layer.name}/{variable.name}#{number}"] = variable.trainable
    return found


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
    """Ends training after `patience` epochs that are not better than the best one."""

    def __init__(self, patience: int, recorder: Recorder) -> None:
        super().__init__()
        self.patience, self.recorder = patience, recorder

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Count from the best epoch, so there is no count to save."""
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
        validated: whether there are validation data. Without them, a rule for
            `val_loss` uses `loss`, and so on.
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
    """Ends a stage whose rules watch metrics that the log does not have."""

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


class StopWhenAsked(keras.callbacks.Callback):
    """Ends a stage's `fit` by raising `Stopped`.

    It must come after every callback that saves something at the end of an epoch. It
    has no hook at the end of a step, which would make Keras wait for each step.

    Args:
        asked: whether to stop.
        keep: called first; writes what is not yet on disk.
    """

    def __init__(self, asked: Callable[[], bool], keep: Callable[[], None]) -> None:
        super().__init__()
        self.asked, self.keep = asked, keep

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Stop before another step begins."""
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop between two epochs; after the last one the stage ends, and is recorded."""
        if not self.model.stop_training and epoch + 1 < self.params["epochs"]:
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.asked():
            self.keep()
            raise Stopped
