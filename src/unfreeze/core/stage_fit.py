"""The `fit` of one stage made ready, from its first epoch or from where it was broken off."""

from typing import Any

import keras

from unfreeze.core.checkpoint import FILE as EPOCH_FILE
from unfreeze.core.checkpoint import Checkpointer, Parts
from unfreeze.core.job import Job
from unfreeze.core.memory import first_line, is_out_of_memory
from unfreeze.core.objective import fresh
from unfreeze.core.optimizers import stage_optimizer
from unfreeze.core.pace import feed_by_threads, steps_a_call
from unfreeze.core.rates import base_rate, layer_factors
from unfreeze.core.recorder import Recorder
from unfreeze.core.rules import rule_callbacks
from unfreeze.core.select import Selection
from unfreeze.core.stage import Ready
from unfreeze.core.stopping import StopWhenAsked
from unfreeze.core.watch import FirstEpochGuard, FlagGuard
from unfreeze.errors import StageError


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
            guard found what must not be.
        RunError: the checkpoint to go on from is damaged.
    """
    stage = selection.stage
    own = [c() if isinstance(c, type) else c for c in stage.callbacks]
    feed_by_threads(ready)
    ready.model.compile(
        optimizer=new_optimizer(selection),
        steps_per_execution=steps_a_call(ready, [*job.callbacks, *own]),
        **compile_with(job),
    )
    flags = FlagGuard(stage.name, job.model)
    rules = rule_callbacks(stage.until, stage.reduce, recorder, job.source.validation is not None)
    callbacks = [flags, recorder, guard, *rules, *job.callbacks, *own]
    done, keep = 0, _nothing
    if job.run_dir is not None:
        parts = Parts(recorder.variables, ready.model, job.model, recorder, rules)
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
            class_weight=job.class_weight,
            verbose=job.verbose,
            shuffle=False,
        )
    except StageError:
        raise
    except Exception as error:
        # A backend that trips over changed flags says so in words of its own.
        flags.check()
        cause = _cause(ready, error)
        if is_out_of_memory(cause):
            raise StageError(
                f"stage {stage.name!r}: there is not enough memory for its steps "
                f"({first_line(cause)}). Give it a smaller batch_size, or close other programs"
            ) from error
        raise cause from (None if cause is error else error)
    flags.check()


def _nothing() -> None:
    """Where nothing is kept."""


def _cause(ready: Ready, error: Exception) -> Exception:
    """What went wrong in a thread that made batches, or else the error itself.

    A backend tells the former as text inside an error of its own.
    """
    failures = [getattr(feed, "failure", None) for feed in (ready.train, ready.validation)]
    return next((failure for failure in failures if failure is not None), error)


def _go_on(job: Job, ready: Ready, stage: str, done: int) -> None:
    """Bring the data to where they were after some epochs."""
    job.note(f"stage {stage!r} goes on after epoch {done}")
    if hasattr(ready.train, "skip"):
        ready.train.skip(done)
    else:
        kind = type(ready.train).__name__
        job.note(f"the {kind} starts its own order anew: the result may differ a little")


def check_record(recorder: Recorder) -> None:
    """Refuse a history without a best epoch.

    Raises:
        StageError: no epoch, or a loss that was not finite; with the likely cause.
    """
    name, rows = recorder.stage, recorder.rows
    if not rows:
        raise StageError(f"stage {name!r} ended before its first epoch was over")
    if recorder.diverged:
        raise StageError(
            f"stage {name!r}: the loss was not finite in epoch {len(rows)}. Likely cause: a "
            "learning rate that is too high, or NaN in the data. The model has the weights of "
            f"epoch {recorder.best_epoch or 'none'}"
        )
    if not recorder.best_epoch:
        raise StageError(
            f"stage {name!r}: {recorder.monitor} was not finite in any epoch, so that no epoch is "
            "the best. Likely cause: NaN or wrong labels in the validation data"
        )


def new_optimizer(selection: Selection) -> keras.optimizers.Optimizer:
    """A fresh optimizer for a stage, with its rates by layer."""
    factors = layer_factors(selection)
    stage = selection.stage
    return stage_optimizer(stage.optimizer, base_rate(stage), selection.trained, factors)


def compile_with(job: Job) -> dict[str, Any]:
    """What a stage's model is compiled with besides the optimizer; metrics made anew."""
    return {name: fresh(value) for name, value in job.compile_with.items()}
