"""Stage after stage: the one training loop of the package, behind `unfreeze.fit`.

Each stage trains a model of its own over the shared layers, so nothing is copied
back. A stage starts from the best weights of the one before, with seeds, order
and optimizer of its own: that is what makes a resumed run the same run.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.audit import audit_stage, enforce, snapshot
from unfreeze.core.cache import prune
from unfreeze.core.checkpoint import FILE as EPOCH_FILE
from unfreeze.core.data import Stream
from unfreeze.core.estimate import estimate_stages, in_words
from unfreeze.core.graph import count_numbers
from unfreeze.core.internals import flatten_layers, reseed, seed_generators
from unfreeze.core.job import Job, log
from unfreeze.core.norms import is_fresh, norms
from unfreeze.core.optimizers import get_learning_rate
from unfreeze.core.plan import plan_stage
from unfreeze.core.recorder import Recorder
from unfreeze.core.select import Selection, apply
from unfreeze.core.stage import Batches, make_ready
from unfreeze.core.stage_fit import check_record, compile_with, fit_stage, new_optimizer
from unfreeze.core.state import (
    StageResult,
    begin_or_go_back,
    finished_stages,
    load_weights,
    sweep,
    write_stage,
)
from unfreeze.core.watch import FirstEpochGuard


def run_stages(
    job: Job, selections: Sequence[Selection], identity: dict[str, Any]
) -> tuple[tuple[StageResult, ...], str]:
    """Run all stages, or what an earlier run in the job's `run_dir` has not done.

    Returns:
        A result for each stage with epochs, and the name of the best stage, whose
        weights the model then has.
    """
    run_dir = job.run_dir
    finished: list[tuple[StageResult, Path]] = []
    if run_dir is not None:
        sweep(run_dir)
        finished = finished_stages(run_dir, identity)
    _tell_time(job, [s for s in selections if s.stage.epochs][len(finished) :])
    results: list[StageResult] = []
    best: list[np.ndarray] = []
    kept: StageResult | None = None
    for number, selection in enumerate(selections):
        if not selection.stage.epochs:
            job.note(f"stage {selection.stage.name!r} has 0 epochs: left out")
            continue
        apply(job.model, selection)
        if run_dir is not None and not (results or finished):
            begin_or_go_back(run_dir, identity, job.model)
        if len(results) < len(finished):
            result, weights = finished[len(results)]
            load_weights(job.model, weights)
            results.append(result)
            job.note(f"stage {result.stage!r} was finished before: its weights are loaded")
        else:
            epochs = sum(result.epochs for result in results)
            results.append(_run_stage(job, selection, number, epochs))
            if job.run_dir is not None and not _record(job, job.run_dir, identity, results):
                job = replace(job, run_dir=None)
            job.stop_if_asked()
        if kept is None or results[-1].rank < kept.rank:
            kept, best = results[-1], job.model.get_weights()
    assert kept is not None
    if kept is not results[-1]:
        job.model.set_weights(best)
        job.note(
            f"no later stage improved on {kept.stage!r} ({kept.monitor} {kept.best_value:.4f}): "
            "its weights are kept"
        )
    last = next(s for s in reversed(selections) if s.stage.epochs)
    # So that `evaluate` works, and `fit` would go on with the last stage.
    job.model.compile(optimizer=new_optimizer(last), **compile_with(job))
    return tuple(results), kept.stage


def _record(job: Job, run_dir: Path, identity: dict[str, Any], results: list[StageResult]) -> bool:
    """Record the stages that have ended; False where that cannot be written."""
    try:
        write_stage(run_dir, identity, results, job.model)
        (run_dir / EPOCH_FILE).unlink(missing_ok=True)
    except OSError as error:
        job.note(
            f"stage {results[-1].stage!r} cannot be kept in {run_dir} ({error.strerror or error}): "
            "the run goes on, but if it were broken off, it would go on from before the end of "
            "this stage"
        )
        return False
    return True


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
        job.stop_if_asked()
        for listener in job.listeners:
            listener.on_cache(what, done, total)

    batches = Batches(_batch_size(job, selection), _stage_seed(job.seed, number))
    ready = make_ready(job.whole, selection, job.source, job.room, batches, on_cache)
    job.note(f"stage {stage.name!r}: {ready.note}")
    _warn_of_unlearned_norms(job, selection)
    variables = (*selection.trained, *selection.updating)
    recorder = Recorder(stage.name, variables, job.monitor, get_learning_rate, epochs_before)
    before = snapshot(job.model)
    guard = FirstEpochGuard(lambda: enforce(audit_stage(job.model, selection, before)))
    fit_stage(job, ready, selection, number, recorder, guard)
    recorder.restore()
    check_record(recorder)
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
        best_value=recorder.best_value,
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
