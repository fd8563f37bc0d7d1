"""`fit`: runs a schedule on a model. The one loop of the package.

For each stage: select layers, set flags, find the boundary, cache the prefix's
outputs where that pays, compile the rest with the stage's own optimizer, train,
restore the best weights, audit, record. Prefix and suffix share layers with the
model, so nothing is copied back.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.audit import Audit
from unfreeze.core.cache import CacheRoom
from unfreeze.core.data import as_data, check_class_weight
from unfreeze.core.digest import describe
from unfreeze.core.graph import flatten
from unfreeze.core.internals import has_custom_training, seeds_kept
from unfreeze.core.job import Job
from unfreeze.core.loop import run_stages
from unfreeze.core.objective import objective
from unfreeze.core.optimizers import stage_optimizer
from unfreeze.core.presets import as_schedule
from unfreeze.core.rates import base_rate, layer_factors
from unfreeze.core.recorder import Row
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.select import check, flags
from unfreeze.core.stage import Source, Whole, check_caches
from unfreeze.core.state import StageResult, identity, recorded_seed
from unfreeze.errors import ScheduleError


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
        validation_data: likewise; they choose the best epoch (the schedule's
            `monitor` says by what) and end stages. Without them the training
            data do.
        batch_size: where a stage does not say its own.
        loss: as for `compile`. None: the loss the model was compiled with, or
            the one that its last activation and the labels ask for.
        metrics: as for `compile`; None likewise.
        callbacks: Keras callbacks, used in every stage. A `StageCallback` also
            hears of stages.
        run_dir: keeps each finished stage, the state within a stage, and the
            caches; a run that was broken off goes on where it was, to the same
            weights. Callbacks of your own start anew. At most 3 % of the time go
            into it.
        seed: of the order of samples and of dropout. None draws one.
        verbose: as for Keras' `fit`.
        class_weight: weight of each class, by integer label.
        cache_dir: where caches stand, to share them between runs. None: in
            `run_dir`, or else a temporary folder that is removed at the end.
        cache_limit: bytes. A larger cache is not made, and the oldest are
            removed beyond it. None: half of the free disk.
        fuse: run convolutions and BatchNorm with fixed statistics as one (same
            maths, about twice the speed).
        jit_compile: as for `compile`. "auto" leaves XLA off with TensorFlow on a
            CPU, where it ran YAMNet's blocks at less than half the speed.

    Returns:
        The result; the model itself holds the best weights of all stages, the
        flags of the last stage, and is compiled for `evaluate`.

    Raises:
        ScheduleError: the schedule does not fit the model; before any training.
        DataError: the data do not fit the model; before any training.
        StageError: a stage did not do what it claims, or its loss diverged.
        RunError: `run_dir` holds another run, or a damaged one.
        Stopped: a `StageCallback` wanted to stop; the model is then in the middle of
            a stage, and `run_dir` holds what the same call goes on from.
    """
    plan = as_schedule(schedule)
    custom = has_custom_training(model)
    if custom is not None:
        raise ScheduleError(
            f"{type(model).__name__} overrides `{custom}`, which a stage's rebuilt suffix would "
            "pass over: train it by its own fit with the callback UnfreezeSchedule"
        )
    graph = flatten(model)
    selections = check(graph, plan)
    _refuse_backups((*callbacks, *(c for stage in plan for c in stage.callbacks)))
    for selection in selections:
        # Made here to be refused here, not at the stage's turn.
        factors = layer_factors(selection)
        stage = selection.stage
        stage_optimizer(stage.optimizer, base_rate(stage), selection.trained, factors)
    data = as_data(train, model)
    held = None if validation_data is None else as_data(validation_data, model, "validation_data")
    if class_weight:
        check_class_weight(data)
    compile_with = objective(model, graph, data, loss, metrics)
    home = None if run_dir is None else Path(run_dir)
    if seed is None:
        seed = recorded_seed(home)
    if seed is None:
        seed = int(np.random.default_rng().integers(1 << 31))
    source = Source(data, held, {})
    settings: dict[str, Any] = {}
    if home is not None:
        described = {"train": describe(data), "validation": describe(held)}
        settings = {"batch_size": batch_size, "class_weight": class_weight, "loss": compile_with}
        places = {id(variable): place for place, variable in enumerate(model.weights)}
        trained = {s.stage.name: sorted(places[v] for v in s.live) for s in selections}
        settings = identity(plan, seed, described, settings, trained)
    restore_flags = flags(model)
    with ExitStack() as stack:
        stack.enter_context(seeds_kept(model))
        room = CacheRoom(_cache_folder(cache_dir, home, stack), cache_limit)
        check_caches(graph, selections, source, room)
        job = Job(
            whole=Whole(model, graph, fuse),
            source=source,
            room=room,
            compile_with={**compile_with, "jit_compile": jit_compile},
            callbacks=tuple(callbacks),
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
            class_weight=class_weight,
            monitor=plan.monitor,
            run_dir=home,
        )
        try:
            results, best = run_stages(job, selections, settings)
        except BaseException:
            restore_flags()
            raise
    return FitResult(model, results, best, seed)


def _refuse_backups(callbacks: Sequence[Any]) -> None:
    kind = keras.callbacks.BackupAndRestore
    if any(isinstance(c, kind) or c is kind for c in callbacks):
        raise ScheduleError(
            "BackupAndRestore knows one fit only and would start a stage in the middle of "
            "another: give run_dir instead, which goes on where a run was broken off"
        )


def _cache_folder(cache_dir: str | Path | None, run_dir: Path | None, stack: ExitStack) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    if run_dir is not None:
        return run_dir / "cache"
    # Memory maps may still be open on Windows when the folder goes.
    return Path(
        stack.enter_context(
            tempfile.TemporaryDirectory(prefix="unfreeze-", ignore_cleanup_errors=True)
        )
    )
