"""`fit`: runs a schedule on a model. The one loop of the package.

For each stage: select layers, set flags, find the boundary, cache the prefix's
outputs where that pays, compile the rest with the stage's own optimizer, train,
restore the best weights, audit, record. Prefix and suffix share layers with the
model, so nothing is copied back.
"""

import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.audit import Audit, audit_stage, enforce, snapshot
from unfreeze.core.cache import prune
from unfreeze.core.data import Rows, Stream, as_data
from unfreeze.core.graph import Graph, count_numbers, flatten
from unfreeze.core.internals import flatten_layers, has_custom_training, seed_generators, tree
from unfreeze.core.losses import default_loss
from unfreeze.core.optimizers import get_learning_rate, stage_optimizer
from unfreeze.core.plan import plan_stage
from unfreeze.core.presets import preset
from unfreeze.core.rates import base_rate, layer_factors
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.select import Selection, apply, check, flags
from unfreeze.core.stage import Ready, Source, make_ready
from unfreeze.core.state import StageResult, finished_stages, identity, write_stage
from unfreeze.core.watch import FirstEpochGuard, Recorder, Row, StageCallback, rule_callbacks
from unfreeze.errors import DataError, ScheduleError, StageError

log = logging.getLogger("unfreeze")


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a run did.

    Attributes:
        model: the model given to `fit`, with the best weights of the run.
        stages: a result for each stage that trained.
        best_stage: the stage whose weights the model has.
        seed: the seed that repeats the run.
    """

    model: keras.Model
    stages: tuple[StageResult, ...]
    best_stage: str
    seed: int

    @property
    def history(self) -> list[Row]:
        """A row for each epoch of all stages."""
        return [row for stage in self.stages for row in stage.rows]

    @property
    def audit(self) -> Audit:
        """What moved in each stage; prints as a table."""
        return Audit(tuple(stage.audit for stage in self.stages))


def fit(
    model: keras.Model,
    schedule: Schedule | Sequence[Stage] | str,
    train: Any,
    validation_data: Any = None,
    batch_size: int = 32,
    loss: Any = None,
    metrics: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    run_dir: str | Path | None = None,
    seed: int | None = None,
    verbose: Any = "auto",
    *,
    class_weight: dict[int, float] | None = None,
    cache_dir: str | Path | None = None,
    cache_limit: int | None = None,
    fuse: bool = True,
    jit_compile: bool | str = "auto",
) -> FitResult:
    """Train a model in stages.

    Args:
        model: a built functional or Sequential model, of any nesting.
        schedule: a `Schedule`, a list of `Stage`, or the name of a preset.
        train: `(x, y)` or `(x, y, sample_weight)` with arrays, memory maps or
            anything indexed by an integer array; or a `keras.utils.PyDataset`,
            `tf.data.Dataset` or torch `DataLoader`.
        validation_data: likewise; its loss chooses the best epoch and ends
            stages. Without it the training loss does.
        batch_size: where a stage does not say its own.
        loss: as for `compile`. None: the loss the model was compiled with, or
            the one that its last activation and the labels ask for.
        metrics: as for `compile`; None likewise.
        callbacks: Keras callbacks, used in every stage. A `StageCallback` also
            hears of stages.
        run_dir: keeps each finished stage and the caches; a run that was broken
            off goes on after its last finished stage.
        seed: of the order of samples and of dropout. None draws one.
        verbose: as for Keras' `fit`.
        class_weight: weight of each class, by integer label.
        cache_dir: where caches stand, to share them between runs. None: in
            `run_dir`, or else a temporary folder that is removed at the end.
        cache_limit: bytes. A larger cache is not made, and the oldest are
            removed beyond it. None: half of the free disk.
        fuse: run convolutions and BatchNorm with fixed statistics as one (same
            maths, about twice the speed).
        jit_compile: as for `compile`.

    Returns:
        The result; the model itself holds the best weights of all stages, the
        flags of the last stage, and is compiled for `evaluate`.

    Raises:
        ScheduleError: the schedule does not fit the model; before any training.
        DataError: the data do not fit the model; before any training.
        StageError: a stage did not do what it claims, or its loss diverged.
        RunError: `run_dir` holds another run.
    """
    plan = _as_schedule(schedule)
    custom = has_custom_training(model)
    if custom is not None:
        raise ScheduleError(
            f"{type(model).__name__} overrides `{custom}`, which a stage's rebuilt suffix would pass "
            "over: train it by its own fit with the callback UnfreezeSchedule"
        )
    graph = flatten(model)
    restore_flags = flags(model)
    selections = check(graph, plan)
    seed = int(np.random.SeedSequence().entropy % (1 << 31)) if seed is None else seed
    data = as_data(train, model)
    held = None if validation_data is None else as_data(validation_data, model, "validation_data")
    loss, metrics = _loss_and_metrics(model, graph, data, loss, metrics)
    with ExitStack() as stack:
        folder = _cache_folder(cache_dir, run_dir, stack)
        job = _Job(
            model=model,
            graph=graph,
            source=Source(data, held, {}),
            compile_with={"loss": loss, "metrics": metrics, "jit_compile": jit_compile},
            callbacks=tuple(callbacks),
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
            class_weight=class_weight,
            folder=folder,
            limit=cache_limit,
            fuse=fuse,
        )
        try:
            return _run(job, plan, selections, None if run_dir is None else Path(run_dir))
        except BaseException:
            restore_flags()
            raise


@dataclass(frozen=True, eq=False)
class _Job:
    """What all stages of a run share."""

    model: keras.Model
    graph: Graph
    source: Source
    compile_with: dict[str, Any]
    callbacks: tuple[keras.callbacks.Callback, ...]
    batch_size: int
    seed: int
    verbose: Any
    class_weight: dict[int, float] | None
    folder: Path
    limit: int | None
    fuse: bool

    @property
    def listeners(self) -> list[StageCallback]:
        return [c for c in self.callbacks if isinstance(c, StageCallback)]

    def note(self, text: str) -> None:
        log.info(text)
        for listener in self.listeners:
            listener.on_note(text)


def _run(
    job: _Job, schedule: Schedule, selections: Sequence[Selection], run_dir: Path | None
) -> FitResult:
    run: dict[str, Any] = {}
    finished: list[tuple[StageResult, Path]] = []
    if run_dir is not None:
        run = identity(schedule, job.seed, job.source.digest("train"))
        finished = finished_stages(run_dir, run)
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
            result = _run_stage(job, selection, number, len(_rows(results)))
            results.append(result)
            if run_dir is not None:
                write_stage(run_dir, run, results, job.model)
        if result.best_value < best_value or not best:
            best_stage, best_value = result.stage, result.best_value
            best = job.model.get_weights()
    if best_stage != results[-1].stage:
        job.model.set_weights(best)
        job.note(
            f"no later stage improved on {best_stage!r} ({results[-1].monitor} {best_value:.4f}): "
            "its weights are kept"
        )
    _compile_whole(job, results[-1].stage, selections)
    return FitResult(job.model, tuple(results), best_stage, job.seed)


def _run_stage(job: _Job, selection: Selection, number: int, first_step: int) -> StageResult:
    stage = selection.stage
    began = time.perf_counter()
    _reseed(job.model, job.seed, number)
    for listener in job.listeners:
        listener.on_stage_begin(plan_stage(job.graph, selection))

    def on_cache(what: str, done: int, total: int) -> None:
        for listener in job.listeners:
            listener.on_cache(what, done, total)

    batch_size = stage.batch_size or job.batch_size
    ready = make_ready(
        job.model,
        job.graph,
        selection,
        job.source,
        batch_size=batch_size,
        seed=_stage_seed(job.seed, number),
        folder=job.folder,
        limit=job.limit,
        fuse=job.fuse,
        on_cache=on_cache,
    )
    job.note(f"stage {stage.name!r}: {ready.note}")
    recorder = _recorder(job, selection, first_step)
    before = snapshot(job.model)
    guard = FirstEpochGuard(lambda: enforce(audit_stage(job.model, selection, before), selection))
    _train(job, ready, selection, [recorder, guard])
    if not recorder.rows:
        raise StageError(f"stage {stage.name!r} ended before its first epoch was over")
    audit = audit_stage(job.model, selection, before)
    recorder.restore()
    if recorder.diverged:
        raise StageError(
            f"stage {stage.name!r}: the loss was not finite in epoch {len(recorder.rows)}. Likely "
            "cause: a learning rate that is too high, or NaN in the data. The model has the weights "
            f"of epoch {recorder.best_epoch or 'none'}"
        )
    enforce(audit, selection)
    if job.limit is not None:
        prune(job.folder, job.limit, keep=set())
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


def _recorder(job: _Job, selection: Selection, first_step: int) -> Recorder:
    monitor = "loss" if job.source.validation is None else "val_loss"
    variables = (*selection.trained, *selection.updating)
    name = selection.stage.name
    return Recorder(name, variables, monitor, get_learning_rate, first_step)


def _train(
    job: _Job, ready: Ready, selection: Selection, watchers: list[keras.callbacks.Callback]
) -> None:
    stage = selection.stage
    optimizer = stage_optimizer(
        stage.optimizer,
        base_rate(stage),
        selection.trained,
        layer_factors(job.graph, selection),
    )
    compile_with = {name: _fresh(value) for name, value in job.compile_with.items()}
    ready.model.compile(optimizer=optimizer, **compile_with)
    stage_callbacks = [c() if isinstance(c, type) else c for c in stage.callbacks]
    ready.model.fit(
        ready.train,
        validation_data=ready.validation,
        epochs=stage.epochs,
        callbacks=[
            *watchers,
            *rule_callbacks(stage.until, stage.reduce),
            *job.callbacks,
            *stage_callbacks,
        ],
        class_weight=job.class_weight,
        verbose=job.verbose,
        shuffle=isinstance(job.source.train, Stream),
    )


def _loss_and_metrics(
    model: keras.Model, graph: Graph, data: Rows | Stream, loss: Any, metrics: Any
) -> tuple[Any, Any]:
    if loss is not None:
        return loss, metrics
    if getattr(model, "compiled", False):
        config = model.get_compile_config() or {}
        if config.get("loss") is not None:
            found = keras.saving.deserialize_keras_object(config["loss"])
            own = keras.saving.deserialize_keras_object(config.get("metrics"))
            return found, metrics if metrics is not None else own
    y = data.y if isinstance(data, Rows) else next(iter(data.batches()))[1]
    if y is None or len(tree.flatten(y)) != 1:
        raise DataError("no default loss for these labels: give `loss`")
    found, own = default_loss(graph, tree.flatten(y)[0])
    return found, metrics if metrics is not None else own


def _compile_whole(job: _Job, last: str, selections: Sequence[Selection]) -> None:
    """Leave the model compiled, so that `evaluate` works and `fit` would go on with the last stage."""
    selection = next(s for s in selections if s.stage.name == last)
    stage = selection.stage
    optimizer = stage_optimizer(stage.optimizer, base_rate(stage), selection.trained, {})
    job.model.compile(
        optimizer=optimizer, **{name: _fresh(value) for name, value in job.compile_with.items()}
    )


def _fresh(value: Any) -> Any:
    """Metrics hold state and must not be shared between stages: make them anew."""
    if isinstance(value, keras.metrics.Metric):
        return type(value).from_config(value.get_config())
    if isinstance(value, list | tuple):
        return type(value)(_fresh(part) for part in value)
    if isinstance(value, dict):
        return {key: _fresh(part) for key, part in value.items()}
    return value


def _reseed(model: keras.Model, seed: int, number: int) -> None:
    """Set the seed of every random layer by the run's seed, the stage and its place."""
    generators = {id(g): g for layer in flatten_layers(model) for g in seed_generators(layer)}
    for place, generator in enumerate(generators.values()):
        value = np.random.SeedSequence((seed, number, place)).generate_state(1)[0] >> 1
        generator.state.assign(np.array([int(value), 0], dtype=generator.state.dtype))


def _stage_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _cache_folder(
    cache_dir: str | Path | None, run_dir: str | Path | None, stack: ExitStack
) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    if run_dir is not None:
        return Path(run_dir) / "cache"
    # Memory maps may still be open on Windows when the folder goes.
    return Path(
        stack.enter_context(
            tempfile.TemporaryDirectory(prefix="unfreeze-", ignore_cleanup_errors=True)
        )
    )


def _as_schedule(schedule: Schedule | Sequence[Stage] | str) -> Schedule:
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        return preset(schedule)
    return Schedule(tuple(schedule))


def _rows(results: Sequence[StageResult]) -> list[Row]:
    return [row for result in results for row in result.rows]
