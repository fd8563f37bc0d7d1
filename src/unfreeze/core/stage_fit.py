"""Trains one prepared stage, from its first epoch or from where it was interrupted.

It also decides how steps are called and fed. A small suffix on cached outputs computes for
a fraction of the time that each call costs in Python, so several steps go into one call:
on TensorFlow on 2 CPU cores a head of 1024-64-20 on 20,000 cached rows trained 1.5 to 2.4
times as fast with 16 steps per call as with one, to the same weights, bit by bit; more
steps per call gained nothing more. For large steps, threads make the batches.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from unfreeze.backend import first_line, is_out_of_memory
from unfreeze.core.averages import AveragedWeights, EpochAverages, TakeOut
from unfreeze.core.boundary import multiply_adds
from unfreeze.core.callbacks import (
    FirstEpochGuard,
    FlagGuard,
    Recorder,
    StageCallback,
    StopWhenAsked,
    ValidationScores,
    rule_callbacks,
)
from unfreeze.core.data import ShuffledRows, Stream, known_batches
from unfreeze.core.finite import faults, guess
from unfreeze.core.keras_internals import build_variables, graph_loops_pay
from unfreeze.core.labels import classes_to_watch, find_misfit
from unfreeze.core.layers import Selection
from unfreeze.core.objective import fresh
from unfreeze.core.one_time import EndsTooSoon, OneTime
from unfreeze.core.optimizers import base_rate, layer_factors, rate_by_step, stage_optimizer
from unfreeze.core.run_state import EPOCH_FILE as EPOCH_FILE
from unfreeze.core.run_state import Checkpointer, Parts
from unfreeze.core.schedule import BY_STEP, Stage
from unfreeze.core.solve import solve_stage
from unfreeze.core.stage_caching import Job, Ready
from unfreeze.core.standard_error import StandardErrors
from unfreeze.errors import DataError, ScheduleError, StageError

_STEPS = 16
# Multiply-adds of a step, forward, above which the call's cost no longer counts:
# about 2 ms of forward and backward at 50 GFLOP/s.
_SMALL_STEP = 20_000_000
_BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


def steps_a_call(ready: Ready, callbacks: Iterable[keras.callbacks.Callback]) -> int:
    """Number for `compile(steps_per_execution=...)`.

    1 where a step is large, or a callback must be called for each batch.
    """
    if not graph_loops_pay() or any(hears_batches(callback) for callback in callbacks):
        return 1
    return _STEPS if has_small_steps(ready) else 1


def has_small_steps(ready: Ready) -> bool:
    """Whether a step computes for no longer than the call that runs it costs."""
    size = getattr(ready.train, "batch_size", None)
    program = ready.model.program
    work = [multiply_adds(program.graph, s) for s in (*program.frozen, *program.steps)]
    if size is None or any(part is None for part in work):
        return False
    return bool(size * sum(part or 0 for part in work) <= _SMALL_STEP)


def feed_by_threads(ready: Ready) -> None:
    """Let threads make the batches of a stage with large steps, where that pays off.

    On TensorFlow, Keras turns off the automatic tuning of `tf.data` for a dataset
    with several workers. With it, every second epoch or so ended with a pause of
    about a second, while the tuner's thread was waited for (1.5 s epochs took
    1.45 s or 2.5 s; without it 1.45 s). The workers cost 0.1 s per epoch to start,
    which is too much for small steps.
    """
    if not graph_loops_pay() or has_small_steps(ready):
        return
    for feed in (ready.train, ready.validation):
        if isinstance(feed, ShuffledRows):
            feed.workers, feed.max_queue_size = 2, 4


def hears_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback overrides a method that Keras calls for each batch.

    A `StageCallback` does not count: its batch methods are for progress displays.
    """
    if isinstance(callback, StageCallback):
        return False
    base = keras.callbacks.Callback
    own = vars(callback)  # where a LambdaCallback has them
    return any(n in own or getattr(type(callback), n) is not getattr(base, n) for n in _BATCH_HOOKS)


def fit_stage(
    job: Job,
    ready: Ready,
    selection: Selection,
    number: int,
    recorder: Recorder,
    guard: FirstEpochGuard,
) -> None:
    """Train a stage to its end; the recorder then knows its history and best weights.

    Args:
        job: the run.
        ready: the stage's model and data.
        selection: what the stage trains.
        number: of the stage, from 0.
        recorder: fresh, of this stage.
        guard: looks at what moved after the first epoch.

    Raises:
        StageError: flags changed meanwhile, a rule's metric is missing, or the
            guard found a fault.
        RunError: the checkpoint to resume from is damaged.
    """
    stage = selection.stage
    own = [c() if isinstance(c, type) else c for c in stage.callbacks]
    of_run = job.run_callbacks.in_stage(recorder.step)
    feed_by_threads(ready)
    steps = {"steps_per_execution": steps_a_call(ready, [*job.callbacks, *own])}
    batches = getattr(job.source.train, "steps", None) or known_batches(ready.train)
    ready.model.compile(
        optimizer=new_optimizer(selection, batches), **{**steps, **compile_with(job)}
    )
    loss = job.compile_with["loss"]
    ready.model.watch_classes(classes_to_watch(job.model, job.whole.graph, loss, job.source.train))
    if isinstance(ready.train, ShuffledRows):
        build_variables(ready.model, ready.train)
    scores = scores_of(job, ready)
    if stage.solve:
        after = [*of_run, *own]
        solve_stage(job, ready, selection, recorder, scores, after)
        return
    flags = FlagGuard(stage.name, job.model)
    rules = rule_callbacks(stage.until, stage.reduce, recorder, job.source.validation is not None)
    rates = rate_by_epoch(stage)
    averages = averaged_weights(selection)
    source = getattr(job.source.train, "source", None)
    callbacks = [
        flags,
        *([EndsTooSoon(source, batches or 0)] if isinstance(source, OneTime) else []),
        averages,
        *rates,
        *scores,
        recorder,
        _HopelessValidation(job, recorder),
        guard,
        *rules,
        *of_run,
        *own,
        TakeOut(averages),
    ]
    done, keep = 0, _nothing
    if job.run_dir is not None:
        means = averages.of_epochs.means if averages.of_epochs is not None else ()
        parts = Parts(recorder.variables, ready.model, job.model, recorder, rules, means)
        saver = Checkpointer(job.run_dir / EPOCH_FILE, number, parts, job.note)
        callbacks.append(saver)
        done, keep = saver.restore(), saver.keep
        if done:
            _go_on(job, ready, stage.name, done)
    callbacks.append(StopWhenAsked(job.wants_to_stop, keep))
    if done >= stage.epochs:
        return
    try:
        ready.model.fit(
            ready.train,
            validation_data=ready.validation,
            initial_epoch=done,
            epochs=stage.epochs,
            callbacks=callbacks,
            steps_per_epoch=getattr(job.source.train, "steps", None),
            class_weight=job.class_weight,
            verbose=0,
            shuffle=False,
        )
    except (StageError, DataError):
        raise
    except Exception as error:
        # A backend that fails because flags changed reports that in its own words.
        flags.check()
        check_later_labels(job, error)
        cause = _cause(ready, error)
        if is_out_of_memory(cause):
            raise StageError(
                f"stage {stage.name!r}: there is not enough memory for its steps "
                f"({first_line(cause)}). Give it a smaller batch_size, or close other programs"
            ) from error
        raise cause from (None if cause is error else error)
    flags.check()


def check_later_labels(job: Job, error: Exception | None = None) -> None:
    """After a failure, look for labels beyond a dataset's first batch that do not fit.

    Raises:
        DataError: names the batch.
    """
    loss, source = job.compile_with["loss"], job.source
    for data, what in ((source.train, "train"), (source.validation, "validation_data")):
        found = find_misfit(job.model, job.whole.graph, loss, data, what)
        if found is not None:
            raise found from error


class _HopelessValidation(keras.callbacks.Callback):
    """Ends a stage after its first epoch if its validation data make `val_loss` NaN in each."""

    def __init__(self, job: Job, recorder: Recorder) -> None:
        super().__init__()
        self.job, self.recorder = job, recorder

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look at the data only if the first epoch gives a reason."""
        value = float((logs or {}).get("val_loss", 0.0))
        if epoch == 0 and not (np.isfinite(value) or self.recorder.diverged):
            data = self.job.source.validation
            self.model.stop_training |= any(True for _ in faults(data, "validation_data"))


def scores_of(job: Job, ready: Ready) -> list[keras.callbacks.Callback]:
    """The callbacks that add to the log: standard errors, and the run's own scores."""
    if ready.validation is None:
        return []
    found: list[keras.callbacks.Callback] = []
    if job.tells_errors:
        found.append(StandardErrors(ready.model.tell_errors(job.monitor)))
    if job.score is not None:
        found.append(ValidationScores(job.score, ready.validation))
    return found


def averaged_weights(selection: Selection) -> AveragedWeights:
    """The callback for the averages of a stage, over epochs or those of its optimizer."""
    stage = selection.stage
    if stage.average is None:
        return AveragedWeights()
    return AveragedWeights(EpochAverages(selection.trained, stage.epochs))


def rate_by_epoch(stage: Stage) -> list[keras.callbacks.Callback]:
    """The callback for a `decay` by epochs: it needs the epoch alone, so no state is saved."""
    if stage.decay != "cosine":
        return []
    full = float(base_rate(stage))
    schedule = keras.callbacks.LearningRateScheduler
    return [schedule(lambda epoch, _: full * stage.rate_factor(epoch))]


def _nothing() -> None:
    """Used where there is no checkpoint to write."""


def _cause(ready: Ready, error: Exception) -> Exception:
    """What went wrong in a thread that made batches, or else the error itself.

    A backend reports the former as text inside an error of its own.
    """
    failures = [getattr(feed, "failure", None) for feed in (ready.train, ready.validation)]
    return next((failure for failure in failures if failure is not None), error)


def _go_on(job: Job, ready: Ready, stage: str, done: int) -> None:
    """Move the data on to where they were after some epochs."""
    job.note(f"stage {stage!r} resumes after epoch {done}")
    if hasattr(ready.train, "skip"):
        ready.train.skip(done)
    else:
        kind = type(ready.train).__name__
        job.note(f"the {kind} starts its own order again: the result may differ a little")


def check_record(recorder: Recorder, cause: Callable[[], str] = guess) -> None:
    """Refuse a history without a best epoch.

    Args:
        recorder: of the stage, its weights restored.
        cause: looks for what made numbers that are not finite, and says it.

    Raises:
        StageError: no epoch, or something that was not finite; with the cause.
    """
    name, rows = recorder.stage, recorder.rows
    if not rows:
        raise StageError(f"stage {name!r} ended before its first epoch was over")
    if recorder.diverged:
        raise StageError(
            f"stage {name!r}: {recorder.fault} in epoch {len(rows)}. {cause()}. The model has "
            f"{recorder.kept}"
        )
    if not recorder.best_epoch:
        raise StageError(
            f"stage {name!r}: {recorder.monitor} was not finite in any epoch, so that no epoch is "
            f"the best. {cause()}, or the metric itself has no value for these data. The model "
            f"has {recorder.kept}"
        )


def new_optimizer(
    selection: Selection, batches: int | None = None, template: Any = None
) -> keras.optimizers.Optimizer:
    """A fresh optimizer for a stage, with its rates by layer.

    Args:
        selection: the stage.
        batches: in an epoch; a `decay` by steps needs it. None leaves the highest rate.
        template: for a stage without an optimizer of its own; None is Adam.
    """
    stage = selection.stage
    template = template if stage.optimizer is None else stage.optimizer
    rate = base_rate(stage)
    if stage.decay in BY_STEP and batches is not None:
        inner = getattr(template, "inner_optimizer", template)
        a_step = getattr(inner, "gradient_accumulation_steps", None) or 1
        rate = rate_by_step(stage, max(1, batches * stage.epochs // a_step))
    return stage_optimizer(template, rate, selection.trained, layer_factors(selection))


def check_steps(stage: Stage, batches: int | None, cure: str) -> None:
    """Refuse a `decay` by steps where nobody knows how many steps there will be.

    Args:
        stage: any stage.
        batches: in an epoch, or None.
        cure: what tells the number.

    Raises:
        ScheduleError: it needs the number.
    """
    if stage.decay in BY_STEP and stage.epochs and batches is None:
        raise ScheduleError(
            f"stage {stage.name!r}: decay={stage.decay!r} needs the number of batches in an epoch, "
            f"which the data do not tell: {cure}, or use decay='cosine', which goes by epochs"
        )


def check_batches(selections: Iterable[Selection], data: Any) -> None:
    """The same for all stages of a run, before the first.

    Raises:
        ScheduleError: a stage needs the number.
    """
    batches = (data.steps or known_batches(data.source)) if isinstance(data, Stream) else 1
    for selection in selections:
        cure = "call .apply(tf.data.experimental.assert_cardinality(n)) on a tf.data.Dataset"
        check_steps(selection.stage, batches, cure)


def compile_with(job: Job) -> dict[str, Any]:
    """What a stage's model is compiled with besides the optimizer; with fresh metrics."""
    return {name: fresh(value) for name, value in job.compile_with.items()}
