"""One stage of `UnfreezeSchedule`: what it watches, and what it comes to."""

import time
from typing import Any

import keras

from unfreeze.core.audit import Snapshot, audit_stage, enforce, snapshot
from unfreeze.core.compiled import DetectStaleFlags
from unfreeze.core.graph import count_numbers
from unfreeze.core.optimizers import get_learning_rate
from unfreeze.core.recorder import Recorder
from unfreeze.core.rules import rule_callbacks
from unfreeze.core.schedule import BEST
from unfreeze.core.select import Selection
from unfreeze.core.state import StageResult
from unfreeze.core.watch import FirstEpochGuard
from unfreeze.errors import StageError


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
        self.recorder = Recorder(self.stage.name, changing, monitor, get_learning_rate, steps)
        self.callbacks = [
            DetectStaleFlags(),
            self.recorder,
            FirstEpochGuard(self._enforce),
            *rule_callbacks(self.stage.until, self.stage.reduce, self.recorder),
            *(c() if isinstance(c, type) else c for c in self.stage.callbacks),
        ]
        for callback in self.callbacks:
            callback.set_params({**params, "epochs": self.stage.epochs})
            callback.set_model(model)

    def check_log(self, logs: dict[str, float]) -> None:
        """Refuse a log that lacks what the stage is steered by."""
        name = self.stage.name
        if self.epochs == 0:
            self.validated = "val_loss" in logs
        if ("val_loss" in logs) != self.validated:
            raise StageError(f"stage {name!r} needs val_loss in every epoch: validation_freq=1")
        for rule in (self.stage.until, self.stage.reduce):
            if rule is not None and rule.metric not in (*logs, BEST):
                raise StageError(
                    f"stage {name!r} watches {rule.metric!r}, which the log of `fit` does not "
                    f"have; it has {', '.join(sorted(logs))}"
                )

    def result(self) -> StageResult:
        """Audit the stage, put its best weights back, and sum it up."""
        if not self.recorder.rows:
            raise StageError(f"stage {self.stage.name!r} ended before its first epoch was over")
        self.recorder.restore()
        # Of the weights that are kept: those of the best epoch.
        audit = audit_stage(self.model, self.selection, self.before)
        enforce(audit)
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
        enforce(audit_stage(self.model, self.selection, self.before))
