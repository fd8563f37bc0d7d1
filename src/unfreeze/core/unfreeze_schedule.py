"""`UnfreezeSchedule`: the stages of a schedule inside one `model.fit` of your own.

For your own loop, data pipeline or `train_step`, and for subclassed models. At each stage
boundary, before the first step of an epoch, it sets the flags, builds a new optimizer for
exactly the variables that train, and makes the train function again. Each stage ends with its
best weights and an audit, as in `unfreeze.fit`. What one `fit` cannot do is refused: batch
sizes by stage, caches, views, LoRA. Dropout in frozen layers stays on, as Keras runs them in
training mode.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from unfreeze.core.audit import Audit, Snapshot, StageAudit, audit_stage, enforce, snapshot
from unfreeze.core.averages import KEPT_ANYWAY, start_averages, swaps_averages
from unfreeze.core.callbacks import WORST, FirstEpochGuard, Rank, Recorder, rule_callbacks
from unfreeze.core.finite import guess
from unfreeze.core.graph import count_numbers, outline
from unfreeze.core.groups import why_few_groups
from unfreeze.core.keras_internals import building_scope, compiled_optimizer, resumed_epoch
from unfreeze.core.layers import Selection, apply, check, unlearned_norms
from unfreeze.core.log_names import doubtful_names
from unfreeze.core.optimizers import get_learning_rate
from unfreeze.core.presets import as_schedule
from unfreeze.core.run_state import StageResult
from unfreeze.core.saved_optimizer import save_as_rebuilt
from unfreeze.core.schedule import BEST, INSISTING, Schedule, Stage
from unfreeze.core.stage_caching import log
from unfreeze.core.stage_fit import (
    averaged_weights,
    check_record,
    check_steps,
    new_optimizer,
    rate_by_epoch,
)
from unfreeze.core.stale_flags import DetectStaleFlags
from unfreeze.errors import ScheduleError, StageError

# Passed on to the callbacks of the running stage as they come.
_PASSED_ON = (
    "on_train_batch_begin",
    "on_test_begin",
    "on_test_end",
    "on_test_batch_begin",
)


class RunningStage:
    """The stage that trains now inside a `fit`, with its own callbacks.

    Args:
        model: the model that `fit` trains, its flags and optimizer set for the stage.
        selection: the stage, and what it trains.
        monitor: of the schedule.
        steps: epochs of the stages before.
        params: of the callbacks of `fit`.
    """

    def __init__(
        self,
        model: keras.Model,
        selection: Selection,
        monitor: str,
        steps: int,
        params: dict[str, Any],
    ) -> None:
        self.model, self.selection, self.stage = model, selection, selection.stage
        self.before: Snapshot = snapshot(model)
        self.began = time.perf_counter()
        self.epochs, self.over, self.validated = 0, False, False
        changing = (*selection.trained, *selection.updating)
        self.recorder = Recorder(
            self.stage.name, changing, monitor, get_learning_rate, steps, start=self.before
        )
        self.callbacks = [
            averaged_weights(selection),
            DetectStaleFlags(),
            *rate_by_epoch(self.stage),
            self.recorder,
            FirstEpochGuard(self._enforce),
        ]
        own = [c() if isinstance(c, type) else c for c in self.stage.callbacks]
        self.params = {**params, "epochs": self.stage.epochs}
        self._join([*self.callbacks, *own])
        self._rules_at = len(self.callbacks)
        self.callbacks += own

    def _join(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        for callback in callbacks:
            callback.set_params(self.params)
            callback.set_model(self.model)

    def check_log(self, logs: dict[str, float]) -> None:
        """Refuse a log without the metrics that the stage needs."""
        name = self.stage.name
        if self.epochs == 0:
            # Only now is it known whether `fit` has validation data.
            self.validated = "val_loss" in logs
            rules = self.stage.until, self.stage.reduce
            made = rule_callbacks(*rules, self.recorder, self.validated)
            self._join(made)
            for callback in made:
                callback.on_train_begin()
            self.callbacks[self._rules_at : self._rules_at] = made
        if ("val_loss" in logs) != self.validated:
            raise StageError(f"stage {name!r} needs val_loss in every epoch: validation_freq=1")
        for rule in (self.stage.until, self.stage.reduce):
            metric = "" if rule is None else rule.metric
            metric = metric if self.validated else metric.removeprefix("val_")
            if rule is not None and metric not in (*logs, BEST):
                raise StageError(
                    f"stage {name!r} watches {rule.metric!r}, which the log of `fit` does not "
                    f"have; it has {', '.join(sorted(logs))}"
                )

    def result(self) -> StageResult:
        """Audit the stage, put its best weights back, and sum it up."""
        self.recorder.restore()
        check_record(self.recorder)
        # Of the weights that are kept: those of the best epoch.
        audit = self._audit()
        enforce(audit, known=unlearned_norms([self.selection]))
        return StageResult(
            stage=self.stage.name,
            epochs=self.epochs,
            best_epoch=self.recorder.best_epoch,
            monitor=self.recorder.monitor,
            best_value=self.recorder.best_value,
            seconds=round(time.perf_counter() - self.began, 3),
            cache="not cached: one fit",
            trained_weights=count_numbers(self.selection.trained),
            audit=audit,
            rows=tuple(self.recorder.rows),
        )

    def _enforce(self) -> None:
        if self.recorder.diverged:
            return
        faint = enforce(self._audit(), known=unlearned_norms([self.selection]))
        if faint is not None:
            log.warning(faint)

    def _audit(self) -> StageAudit:
        return audit_stage(self.model, self.selection, self.before, self.model.optimizer)


class UnfreezeSchedule(keras.callbacks.Callback):
    """Runs a schedule inside `model.fit`. Give it first among the callbacks.

    Compile the model as usual, and give `fit` at least as many epochs as all
    stages may need; training ends when the last stage does. A stage without an
    `optimizer` uses the kind and settings that the model was compiled with, at
    the stage's own rate. After `fit` the model has the best weights of all
    stages and the flags and optimizer of the last one.

    Args:
        schedule: a `Schedule`, a `Stage` or a list of them, or the name of a preset, whose
            batch size is ignored here.

    Attributes:
        results: a `StageResult` for each stage that has ended.
        best_stage: the stage whose weights the model has after `fit`.

    Raises:
        ScheduleError: at once for a stage that one `fit` cannot run; when `fit`
            starts for one that does not fit the model, or too few epochs.
        StageError: from within `fit`: the model is not compiled, flags changed
            during a stage, a metric is missing, the loss diverged, a stage did not
            do what it claims, or another callback ended training early.

    Examples:
        >>> head = unfreeze.Stage("head", train="head", epochs=2, learning_rate=1e-2)
        >>> rest = unfreeze.Stage("all", train="all", epochs=1, learning_rate=1e-4)
        >>> stages = unfreeze.UnfreezeSchedule([head, rest])
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> history = model.fit(x, y, epochs=3, verbose=0, callbacks=[stages])
        >>> [result.stage for result in stages.results]
        ['head', 'all']
    """

    def __init__(self, schedule: Schedule | Stage | Sequence[Stage] | str) -> None:
        super().__init__()
        self.schedule = as_schedule(schedule)
        if isinstance(schedule, str):
            # A preset's batch size is only a proposal; the data of `fit` have their own.
            self.schedule = self.schedule.with_changes(batch_size=None)
        for stage in self.schedule:
            _refuse_what_one_fit_cannot_do(stage)
        self.results: list[StageResult] = []
        self.best_stage = ""
        self._left: list[Selection] = []
        self._running: RunningStage | None = None
        self._best: tuple[Rank, list[np.ndarray]] = (WORST, [])
        wanted = any(stage.callbacks for stage in self.schedule)
        # Keras waits for the numbers of every step as soon as one callback listens to them that
        # does not say so: here only where a stage has callbacks of its own.
        self.async_safe, self._begun = not wanted, False
        for name in (*_PASSED_ON, *(("on_test_batch_end",) if wanted else ())):
            setattr(self, name, self._pass_on(name))

    @property
    def audit(self) -> Audit:
        """What moved in each stage that has ended."""
        return Audit(tuple(result.audit for result in self.results))

    def set_model(self, model: keras.Model) -> None:
        """Check the whole schedule against the model, before the first step."""
        super().set_model(model)
        if not getattr(model, "compiled", False) or model.optimizer is None:
            raise StageError(
                f"model {model.name!r} is not compiled: UnfreezeSchedule needs its loss and "
                "its optimizer"
            )
        # Keras may call batch methods from a thread of its own, and on JAX `self.model` reads
        # variables, which the next step has given away by then.
        self._whole = model
        self._graph = outline(model)
        self._template = compiled_optimizer(model)
        self._scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        self._left = [s for s in check(self._graph, self.schedule) if s.stage.epochs]
        few = why_few_groups(self._left[0].groups, self.schedule)
        for text in (few, unlearned_norms(self._left)):
            if text is not None:
                log.warning(text)
        with building_scope(model):
            for selection in self._left:
                self._optimizer(selection)

    def on_train_begin(self, logs: Any = None) -> None:
        """Start afresh; a second `fit` runs the schedule again."""
        self.results, self.best_stage, self._running = [], "", None
        self._best, self._begun = (WORST, []), False
        log.info("the stages share one `fit`: nothing is cached, dropout in frozen layers stays on")
        self._refuse_too_few(self.params["epochs"])
        for stage in self.schedule:
            check_steps(stage, self.params.get("steps"), "give `fit` steps_per_epoch")
        for text in doubtful_names(self.model, self.schedule):
            log.warning(text)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """After the first step, look up what only its log can show."""
        if not self._begun:
            self._begun = True
            for text in doubtful_names(self._whole, self.schedule, logs or {}):
                log.warning(text)
        if not self.async_safe:
            self._pass_on("on_train_batch_end")(batch, logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the next stage where the one before has ended."""
        if self._running is None and not self.results:
            if resumed_epoch(self.model) is not None:
                raise StageError(
                    "BackupAndRestore cannot resume in the middle of a schedule: "
                    "use unfreeze.fit(..., run_dir=...), which can"
                )
            self._refuse_too_few(self.params["epochs"] - epoch)
        if self._running is None or self._running.over:
            self._next_stage()
        running = self._current
        for callback in running.callbacks:
            callback.on_epoch_begin(running.epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Record the epoch and see whether the stage is over."""
        running = self._current
        running.check_log(logs or {})
        asked = self.model.stop_training
        self.model.stop_training = False
        for callback in running.callbacks:
            callback.on_epoch_end(running.epochs, logs)
        running.epochs += 1
        running.over = self.model.stop_training or running.epochs == running.stage.epochs
        if running.recorder.diverged:
            running.recorder.restore()
            # The state of the old one may be NaN, too.
            self._renew_optimizer(running.selection)
            raise StageError(
                f"stage {running.stage.name!r}: {running.recorder.fault} in its epoch "
                f"{running.epochs}. {guess()}. The model has {running.recorder.kept}"
            )
        # Only the end of the last stage ends `fit`; another callback may, too.
        self.model.stop_training = asked or (running.over and not self._left)

    def on_train_end(self, logs: Any = None) -> None:
        """End the last stage; raise an error where stages are left."""
        if self._running is not None:
            self._end_stage()
        if self._left:
            left = ", ".join(selection.stage.name for selection in self._left)
            raise StageError(
                f"another callback ended training before these stages: {left}. "
                "Leave EarlyStopping out and end stages by their own `until=Plateau(...)`"
            )
        if self.best_stage != self.results[-1].stage:
            self.model.set_weights(self._best[1])

    @property
    def _current(self) -> RunningStage:
        if self._running is None:
            raise StageError("UnfreezeSchedule works inside model.fit only")
        return self._running

    def _next_stage(self) -> None:
        if self._running is not None:
            self._end_stage()
        selection = self._left.pop(0)
        apply(self.model, selection)
        self._renew_optimizer(selection)
        steps = sum(result.epochs for result in self.results)
        self._running = RunningStage(
            self.model, selection, self.schedule.monitor, steps, self.params
        )
        for callback in self._running.callbacks:
            callback.on_train_begin()

    def _renew_optimizer(self, selection: Selection) -> None:
        with building_scope(self.model):
            optimizer = self._optimizer(selection, self.params.get("steps"))
            optimizer.build(self.model.trainable_variables)
            start_averages(optimizer)
        self.model.optimizer = optimizer
        save_as_rebuilt(self.model)
        self.model.make_train_function(force=True)

    def _end_stage(self) -> None:
        running = self._current
        for callback in running.callbacks:
            callback.on_train_end()
        result = running.result()
        self.results.append(result)
        if result.rank < self._best[0] or not self.best_stage:
            self.best_stage = result.stage
            self._best = (result.rank, self.model.get_weights())
        self._running = None

    def _optimizer(
        self, selection: Selection, batches: int | None = None
    ) -> keras.optimizers.Optimizer:
        stage = selection.stage
        if stage.average is not None and stage.optimizer is None:
            # Refuses averages of two kinds, as a stage with such an optimizer does.
            replace(stage, optimizer=self._template)
        made = new_optimizer(selection, batches, self._template)
        # Under mixed_float16 `compile` wraps whatever it is given; so does a stage.
        wrapper = keras.optimizers.LossScaleOptimizer
        wrap = self._scaled and not isinstance(made, wrapper)
        return wrapper(made, initial_scale=self.model.optimizer.initial_scale) if wrap else made

    def _refuse_too_few(self, epochs: int) -> None:
        needed = sum(stage.epochs for stage in self.schedule)
        if epochs < needed:
            raise ScheduleError(
                f"the stages may need {needed} epochs, but `fit` has {epochs}: give epochs={needed}"
            )

    def _pass_on(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            for callback in self._running.callbacks if self._running is not None else ():
                getattr(callback, name)(*args, **kwargs)

        return call


def _refuse_what_one_fit_cannot_do(stage: Stage) -> None:
    reasons = []
    if stage.batch_size is not None:
        reasons.append("batch_size is fixed by the data of `fit`; leave it out of the stage")
    if stage.cache in INSISTING:
        reasons.append(f"cache={stage.cache!r} needs unfreeze.fit")
    if stage.solve:
        reasons.append("solve needs unfreeze.fit")
    if stage.keep == "last":
        reasons.append("keep='last' needs unfreeze.fit")
    if stage.lora is not None:
        reasons.append(
            "lora needs unfreeze.fit; or call layer.enable_lora(rank) before compile and leave "
            "lora out: stages train what the layers have"
        )
    if not stage.augment:
        reasons.append("augment=False needs unfreeze.fit")
    if any(swaps_averages(callback) for callback in stage.callbacks):
        reasons.append(f"SwapEMAWeights: {KEPT_ANYWAY}")
    if stage.views > 1:
        reasons.append(f"views={stage.views} needs unfreeze.fit")
    if reasons:
        raise ScheduleError(f"stage {stage.name!r} inside one model.fit: {'; '.join(reasons)}")
