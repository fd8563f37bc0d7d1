"""`UnfreezeSchedule`: the stages of a schedule inside one user's `model.fit`.

For those who keep their own loop, data pipeline or `train_step`. At each stage
boundary, before the first step of an epoch: flags are set, a new optimizer is
built for exactly the variables that train, and the train function is made anew.
Each stage ends with its best weights and an audit, as in `unfreeze.fit`.

What one `fit` cannot do is refused: batch sizes by stage, caches and views.
Dropout in frozen layers stays on, as Keras runs them in training mode.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.core.audit import Audit
from unfreeze.core.graph import flatten
from unfreeze.core.internals import building_scope, compiled_optimizer, resumed_epoch
from unfreeze.core.optimizers import stage_optimizer
from unfreeze.core.presets import as_schedule
from unfreeze.core.rates import base_rate, layer_factors
from unfreeze.core.recorder import WORST, Rank
from unfreeze.core.running_stage import RunningStage
from unfreeze.core.schedule import INSISTING, Schedule, Stage
from unfreeze.core.select import Selection, apply, check
from unfreeze.core.state import StageResult
from unfreeze.errors import ScheduleError, StageError

# Passed on to the callbacks of the running stage as they come.
_PASSED_ON = (
    "on_train_batch_begin",
    "on_test_begin",
    "on_test_end",
    "on_test_batch_begin",
)
# These too, but only where a stage has callbacks of its own: Keras waits for the
# numbers of every step as soon as one callback listens to them.
_PASSED_ON_IF_WANTED = ("on_train_batch_end", "on_test_batch_end")


class UnfreezeSchedule(keras.callbacks.Callback):
    """Runs a schedule inside `model.fit`. Give it first among the callbacks.

    Compile the model as usual, and give `fit` at least as many epochs as all
    stages may need; training ends when the last stage does. A stage without an
    `optimizer` uses the kind and settings that the model was compiled with, at
    the stage's own rate. After `fit` the model has the best weights of all
    stages and the flags and optimizer of the last one.

    Args:
        schedule: a `Schedule`, a list of `Stage`, or the name of a preset, whose
            batch size does not count here.

    Attributes:
        results: a `StageResult` for each stage that has ended.
        best_stage: the stage whose weights the model has after `fit`.

    Raises:
        ScheduleError: at once for a stage that one `fit` cannot run; when `fit`
            starts for one that does not fit the model, or too few epochs.
        StageError: from within `fit`: the model is not compiled, flags changed
            during a stage, a metric is missing, the loss diverged, a stage did not
            do what it claims, or another callback ended training early.
    """

    def __init__(self, schedule: Schedule | Sequence[Stage] | str) -> None:
        super().__init__()
        self.schedule = as_schedule(schedule)
        if isinstance(schedule, str):
            # A preset's batch size is a proposal; here the data of `fit` have theirs.
            self.schedule = self.schedule.with_changes(batch_size=None)
        for stage in self.schedule:
            _refuse_what_one_fit_cannot_do(stage)
        self.results: list[StageResult] = []
        self.best_stage = ""
        self._left: list[Selection] = []
        self._running: RunningStage | None = None
        self._best: tuple[Rank, list[np.ndarray]] = (WORST, [])
        wanted = any(stage.callbacks for stage in self.schedule)
        for name in (*_PASSED_ON, *(_PASSED_ON_IF_WANTED if wanted else ())):
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
        self._graph = flatten(model)
        self._template = compiled_optimizer(model)
        self._scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        self._left = [s for s in check(self._graph, self.schedule) if s.stage.epochs]
        with building_scope(model):
            for selection in self._left:
                self._optimizer(selection)

    def on_train_begin(self, logs: Any = None) -> None:
        """Start afresh; a second `fit` runs the schedule again."""
        self.results, self.best_stage, self._running = [], "", None
        self._best = (WORST, [])
        self._refuse_too_few(self.params["epochs"])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Change stages where the one before has ended."""
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
            raise StageError(
                f"stage {running.stage.name!r}: the loss was not finite in its epoch "
                f"{running.epochs}. Likely cause: a learning rate that is too high, or NaN in the "
                "data"
            )
        # Only the end of the last stage ends `fit`; another callback may, too.
        self.model.stop_training = asked or (running.over and not self._left)

    def on_train_end(self, logs: Any = None) -> None:
        """End the last stage; complain where stages are left."""
        if self._running is not None:
            self._end_stage()
        if self._left:
            left = ", ".join(selection.stage.name for selection in self._left)
            raise StageError(
                f"training was ended by another callback before these stages: {left}. "
                "End stages by their own `until=Plateau(...)`, and leave EarlyStopping out"
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
            # `fit` itself does this at its very end only.
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            self._end_stage()
        selection = self._left.pop(0)
        apply(self.model, selection)
        with building_scope(self.model):
            optimizer = self._optimizer(selection)
            optimizer.build(self.model.trainable_variables)
        self.model.optimizer = optimizer
        self.model.make_train_function(force=True)
        steps = sum(result.epochs for result in self.results)
        self._running = RunningStage(
            self.model, selection, self.schedule.monitor, steps, self.params
        )
        for callback in self._running.callbacks:
            callback.on_train_begin()

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

    def _optimizer(self, selection: Selection) -> keras.optimizers.Optimizer:
        stage = selection.stage
        made = stage_optimizer(
            self._template if stage.optimizer is None else stage.optimizer,
            base_rate(stage),
            selection.trained,
            layer_factors(selection),
        )
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
    if stage.views > 1:
        reasons.append(f"views={stage.views} needs unfreeze.fit")
    if reasons:
        raise ScheduleError(f"stage {stage.name!r} inside one model.fit: {'; '.join(reasons)}")
