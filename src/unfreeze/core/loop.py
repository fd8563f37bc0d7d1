"""Stage after stage: the one training loop of the package, behind `unfreeze.fit`.

Each stage trains a model of its own over the shared layers, so nothing is copied
back. A stage starts from the best weights of the one before, with seeds, order
and optimizer of its own: that is what makes a resumed run the same run.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.audit import audit_stage, enforce, snapshot
from unfreeze.core.cache import CacheRoom, prune
from unfreeze.core.data import Stream
from unfreeze.core.estimate import estimate_stages, in_words
from unfreeze.core.graph import count_numbers
from unfreeze.core.internals import flatten_layers, reseed, seed_generators
from unfreeze.core.norms import is_fresh, norms
from unfreeze.core.objective import fresh
from unfreeze.core.optimizers import get_learning_rate, stage_optimizer
from unfreeze.core.pace import feed_by_threads, steps_a_call
from unfreeze.core.plan import plan_stage
from unfreeze.core.rates import base_rate, layer_factors
from unfreeze.core.select import Selection, apply
from unfreeze.core.stage import Batches, Ready, Source, Whole, make_ready
from unfreeze.core.state import StageResult, finished_stages, write_stage
from unfreeze.core.watch import (
    FirstEpochGuard,
    FlagGuard,
    Recorder,
    StageCallback,
    rule_callbacks,
)
from unfreeze.errors import StageError

log = logging.getLogger("unfreeze")


@dataclass(frozen=True, eq=False)
class Job:
    """What all stages of a run share.

    Attributes:
        whole: the model.
        source: the data.
        room: where caches stand.
        compile_with: for `compile`, besides the optimizer.
        callbacks: the user's, for every stage.
        batch_size: where a stage or a dataset does not say its own.
        seed: of the run.
        verbose: as for Keras' `fit`.
        class_weight: as for Keras' `fit`.
    """

    whole: Whole
    source: Source
    room: CacheRoom
    compile_with: dict[str, Any]
    callbacks: tuple[keras.callbacks.Callback, ...]
    batch_size: int
    seed: int
    verbose: Any
    class_weight: dict[int, float] | None

    @property
    def model(self) -> keras.Model:
        """The whole model."""
        return self.whole.model

    @property
    def listeners(self) -> list[StageCallback]:
        """Callbacks that hear of stages."""
        return [c for c in self.callbacks if isinstance(c, StageCallback)]

    def note(self, text: str) -> None:
        """Tell the log and the listeners."""
        log.info(text)
        for listener in self.listeners:
            listener.on_note(text)


def run_stages(
    job: Job, selections: Sequence[Selection], run_dir: Path | None, identity: dict[str, Any]
) -> tuple[tuple[StageResult, ...], str]:
    """Run all stages, or those that an earlier run in `run_dir` has not ended.

    Returns:
        A result for each stage with epochs, and the name of the best stage, whose
        weights the model then has.
    """
    finished = finished_stages(run_dir, identity) if run_dir is not None else []
    _tell_time(job, [s for s in selections if s.stage.epochs][len(finished) :])
    results: list[StageResult] = []
    best: list[np.ndarray] = []
    best_stage, best_value = "", np.inf
    for number, selection in enumerate(selections):
        if not selection.stage.epochs:
            job.note(f"stage {selection.stage.name!r} has 0 epochs: left out")
            continue
        apply(job.model, selection)
        if len(results) < len(finished):
            result, weights = finished[len(results)]
            job.model.load_weights(weights)
            results.append(result)
            job.note(f"stage {result.stage!r} was finished before: its weights are loaded")
        else:
            epochs = sum(result.epochs for result in results)
            results.append(_run_stage(job, selection, number, epochs))
            if run_dir is not None:
                write_stage(run_dir, identity, results, job.model)
        if results[-1].best_value < best_value or not best:
            best_stage, best_value = results[-1].stage, results[-1].best_value
            best = job.model.get_weights()
    if best_stage != results[-1].stage:
        job.model.set_weights(best)
        job.note(
            f"no later stage improved on {best_stage!r} ({results[-1].monitor} {best_value:.4f}): "
            "its weights are kept"
        )
    last = next(s for s in reversed(selections) if s.stage.epochs)
    # So that `evaluate` works, and `fit` would go on with the last stage.
    job.model.compile(optimizer=_optimizer(job, last), **_compile_with(job))
    return tuple(results), best_stage


def _tell_time(job: Job, left: Sequence[Selection]) -> None:
    """Note how long the rest will take, where anybody hears it."""
    if not (job.listeners or log.isEnabledFor(logging.INFO)):
        return
    times = estimate_stages(job.whole, left, job.source, job.room, job.batch_size)
    if times:
        parts = ", ".join(f"{t.stage} {in_words(t.seconds)}" for t in times)
        total = in_words(sum(t.seconds for t in times))
        job.note(f"about {total} if no stage ends early" + (f" ({parts})" if times[1:] else ""))


def _run_stage(job: Job, selection: Selection, number: int, epochs_before: int) -> StageResult:
    stage = selection.stage
    began = time.perf_counter()
    _reseed(job.model, job.seed, number)
    for listener in job.listeners:
        listener.on_stage_begin(plan_stage(job.whole.graph, selection))

    def on_cache(what: str, done: int, total: int) -> None:
        for listener in job.listeners:
            listener.on_cache(what, done, total)

    batches = Batches(_batch_size(job, selection), _stage_seed(job.seed, number))
    ready = make_ready(job.whole, selection, job.source, job.room, batches, on_cache)
    job.note(f"stage {stage.name!r}: {ready.note}")
    _warn_of_unlearned_norms(job, selection)
    monitor = "loss" if job.source.validation is None else "val_loss"
    variables = (*selection.trained, *selection.updating)
    recorder = Recorder(stage.name, variables, monitor, get_learning_rate, epochs_before)
    before = snapshot(job.model)
    guard = FirstEpochGuard(lambda: enforce(audit_stage(job.model, selection, before)))
    _train(job, ready, selection, [recorder, guard])
    recorder.restore()
    _check_record(recorder)
    # Of the weights that are kept: those of the best epoch.
    audit = audit_stage(job.model, selection, before)
    enforce(audit)
    if job.room.limit is not None:
        prune(job.room.folder, job.room.limit)
    result = StageResult(
        stage=stage.name,
        epochs=len(recorder.rows),
        best_epoch=recorder.best_epoch,
        monitor=recorder.monitor,
        best_value=float(recorder.best_value),
        seconds=round(time.perf_counter() - began, 3),
        cache=ready.note,
        trained_weights=count_numbers(selection.trained),
        audit=audit,
        rows=tuple(recorder.rows),
    )
    for listener in job.listeners:
        listener.on_stage_end(result)
    return result


def _warn_of_unlearned_norms(job: Job, selection: Selection) -> None:
    updating = {id(v) for v in selection.updating}
    chosen = [norm for entry in selection.chosen for norm in norms(entry.layer)]
    fresh = [n.name for n in chosen if id(n.moving_mean) not in updating and is_fresh(n)]
    if fresh:
        more = f" and {len(fresh) - 3} more" if len(fresh) > 3 else ""
        job.note(
            f"stage {selection.stage.name!r}: BatchNorm layers {', '.join(fresh[:3])}{more} have "
            "no statistics yet (mean 0, variance 1) and get none under batch_norm="
            f"{selection.stage.batch_norm!r}: a base that is not pretrained wants 'train'"
        )


def _train(
    job: Job, ready: Ready, selection: Selection, watchers: list[keras.callbacks.Callback]
) -> None:
    stage = selection.stage
    own = [c() if isinstance(c, type) else c for c in stage.callbacks]
    feed_by_threads(ready)
    ready.model.compile(
        optimizer=_optimizer(job, selection),
        steps_per_execution=steps_a_call(ready, [*job.callbacks, *own]),
        **_compile_with(job),
    )
    flags = FlagGuard(stage.name, job.model)
    rules = rule_callbacks(stage.until, stage.reduce, job.source.validation is not None)
    try:
        ready.model.fit(
            ready.train,
            validation_data=ready.validation,
            epochs=stage.epochs,
            callbacks=[flags, *watchers, *rules, *job.callbacks, *own],
            class_weight=job.class_weight,
            verbose=job.verbose,
            shuffle=False,
        )
    except StageError:
        raise
    except Exception:
        # A backend that trips over changed flags says so in words of its own.
        flags.check()
        raise
    flags.check()


def _check_record(recorder: Recorder) -> None:
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


def _optimizer(job: Job, selection: Selection) -> keras.optimizers.Optimizer:
    factors = layer_factors(selection)
    stage = selection.stage
    return stage_optimizer(stage.optimizer, base_rate(stage), selection.trained, factors)


def _compile_with(job: Job) -> dict[str, Any]:
    return {name: fresh(value) for name, value in job.compile_with.items()}


def _batch_size(job: Job, selection: Selection) -> int:
    stage, data = selection.stage, job.source.train
    if not isinstance(data, Stream):
        return stage.batch_size or job.batch_size
    own = len(data.first()[0][0])
    if stage.batch_size not in (None, own):
        job.note(
            f"stage {stage.name!r}: batch_size={stage.batch_size} is not used, as the "
            f"{type(data.source).__name__} makes its own batches of {own}"
        )
    return own


def _reseed(model: keras.Model, seed: int, number: int) -> None:
    """Set the seed of every random layer by the run's seed, the stage and its place."""
    generators = {id(g): g for layer in flatten_layers(model) for g in seed_generators(layer)}
    for place, generator in enumerate(generators.values()):
        value = np.random.SeedSequence((seed, number, place)).generate_state(1)[0] >> 1
        reseed(generator, int(value))


def _stage_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
