"""`unfreeze.fit`: runs a schedule on a model, stage after stage.

For each stage: select layers, set flags, find the boundary, cache the prefix's
outputs where that pays off, compile the rest with an optimizer of its own, train, restore
the best weights, audit, record. Each stage trains a model over the shared layers, so
nothing is copied back. Invariant: a stage starts from the best weights of the one
before, with its own seed, order and optimizer, so a resumed run gives the same result.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.cache_room import CacheRoom
from unfreeze.core.audit import Audit, StageAudit, audit_stage, enforce, snapshot
from unfreeze.core.averages import KEPT_ANYWAY, swaps_averages
from unfreeze.core.boundary import check_stages, plan_stage
from unfreeze.core.callbacks import FirstEpochGuard, History, Recorder
from unfreeze.core.data import Stream, check_batch_size, check_class_weight
from unfreeze.core.data_parallel import check_devices, left_out, on_devices
from unfreeze.core.estimate import estimate_stages, in_words
from unfreeze.core.fingerprints import describe
from unfreeze.core.finite import find_cause, not_finite, some, warning
from unfreeze.core.given_data import gather
from unfreeze.core.graph import check_is_model, count_numbers, flatten
from unfreeze.core.groups import why_few_groups
from unfreeze.core.html_tables import html_table
from unfreeze.core.keras_internals import (
    building_scope,
    flatten_layers,
    has_custom_training,
    reseed,
    seed_generators,
    seeds_kept,
)
from unfreeze.core.labels import check_labels
from unfreeze.core.layers import Selection, apply, flags, unlearned_norms
from unfreeze.core.log_names import check_log_names
from unfreeze.core.lora import lora_while
from unfreeze.core.mixup import mixed_rows, refuse_sparse_metrics
from unfreeze.core.objective import compile_settings, objective, own_loss
from unfreeze.core.optimizers import compiled_before, get_learning_rate, remember, with_compiled
from unfreeze.core.prefix_cache import prune
from unfreeze.core.presets import as_schedule
from unfreeze.core.progress import Progress, progress_for
from unfreeze.core.run_callbacks import RunCallbacks, as_callbacks
from unfreeze.core.run_state import EPOCH_FILE as EPOCH_FILE
from unfreeze.core.run_state import (
    StageResult,
    begin_or_go_back,
    finished_stages,
    identity,
    load_weights,
    recorded_seed,
    sweep,
    write_stage,
)
from unfreeze.core.saved_optimizer import save_as_rebuilt
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.stage_caching import Batches, Job, Source, Whole, check_caches, log, make_ready
from unfreeze.core.stage_fit import (
    check_batches,
    check_later_labels,
    check_record,
    compile_with,
    fit_stage,
    new_optimizer,
)
from unfreeze.errors import ScheduleError, StageError


def run_stages(
    job: Job, selections: Sequence[Selection], identity: dict[str, Any]
) -> tuple[tuple[StageResult, ...], str]:
    """Run all stages, or those that an earlier run in the job's `run_dir` did not finish.

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
            job.note(f"stage {selection.stage.name!r} has 0 epochs: skipped")
            continue
        apply(job.model, selection)
        if run_dir is not None and not (results or finished):
            begin_or_go_back(run_dir, identity, job.model)
        if len(results) < len(finished):
            result, weights = finished[len(results)]
            load_weights(job.model, weights)
            results.append(result)
            job.note(f"stage {result.stage!r} is already finished: its weights are loaded")
        else:
            epochs = sum(result.epochs for result in results)
            with lora_while(job.model, selection, (job.seed, number)) as adapted:
                results.append(_run_stage(job, adapted, number, epochs))
            if job.run_dir is not None and not _record(job, job.run_dir, identity, results):
                job = replace(job, run_dir=None)
            job.stop_if_asked()
        if kept is None or _preferred(job, results[-1], kept, selection.stage.keep == "last"):
            kept, best = results[-1], job.model.get_weights()
    assert kept is not None
    if kept is not results[-1]:
        job.model.set_weights(best)
        job.note(
            f"no later stage improved on {kept.stage!r} ({kept.monitor} {kept.best_value:.4f}): "
            "its weights are kept"
        )
    last = next(s for s in reversed(selections) if s.stage.epochs)
    # So that `evaluate` works, and `fit` would continue the last stage.
    optimizer = remember(new_optimizer(last), compiled_before(job.model))
    job.model.compile(optimizer=optimizer, **compile_with(job))
    # Saved as it is, an optimizer without variables would be missed when it is loaded.
    with building_scope(job.model):
        job.model.optimizer.build(job.model.trainable_variables)
    save_as_rebuilt(job.model)
    job.run_callbacks.end(job.model)
    return tuple(results), kept.stage


def _preferred(job: Job, new: StageResult, kept: StageResult, keeps_last: bool) -> bool:
    """Whether a stage is kept instead of the best one before it.

    Where validation is too noisy to choose an epoch by, it is too noisy to drop a whole
    stage for a small difference: such a stage is dropped if it is worse by more than a
    standard error (as the rule of Breiman et al., "Classification and Regression Trees",
    1984, 3.4.3).
    """
    if new.rank < kept.rank:
        return True
    gap = new.rank[0] - kept.rank[0]
    chance = float(np.hypot(new.error, kept.error))
    if not (keeps_last and new.monitor == kept.monitor):
        return False
    if not chance:
        job.note(
            f"stage {new.stage!r} is compared with {kept.stage!r} without a standard error: "
            f"{new.monitor} is not a mean over validation samples"
        )
    if gap > chance:
        return False
    job.note(
        f"stage {new.stage!r} is kept: its {new.monitor} {new.best_value:.4f} differs from that of "
        f"{kept.stage!r}, {kept.best_value:.4f}, by no more than its standard error, "
        f"{chance:.4f}"
    )
    return True


def _record(job: Job, run_dir: Path, identity: dict[str, Any], results: list[StageResult]) -> bool:
    """Record the stages that have ended; False where that cannot be written."""
    try:
        write_stage(run_dir, identity, results, job.model)
        (run_dir / EPOCH_FILE).unlink(missing_ok=True)
    except OSError as error:
        job.note(
            f"stage {results[-1].stage!r} could not be saved in {run_dir} "
            f"({error.strerror or error}): the run continues, but if it is interrupted, it will "
            "resume from before the end of this stage"
        )
        return False
    return True


def _tell_time(job: Job, left: Sequence[Selection]) -> None:
    """Note how long the rest will take, if something listens."""
    # The running line tells the time left by itself.
    listeners = [x for x in job.listeners if not isinstance(x, Progress)]
    if not (listeners or log.isEnabledFor(logging.INFO)):
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

    size = _batch_size(job, selection)
    batches = Batches(size, _stage_seed(job.seed, number), job.devices)
    ready = make_ready(job.whole, selection, job.source, job.room, batches, on_cache)
    job.note(f"stage {stage.name!r}: {ready.note}")
    variables = (*selection.trained, *selection.updating)
    before = snapshot(job.model)
    recorder = Recorder(
        stage.name,
        variables,
        job.monitor,
        _no_rate if stage.solve else get_learning_rate,
        epochs_before,
        keep_last=stage.keep == "last",
        start=before,
    )

    def look() -> StageAudit:
        return audit_stage(job.model, selection, before, ready.model.optimizer)

    def check_first_epoch() -> None:
        faint = None if recorder.diverged else enforce(look(), known=unlearned_norms([selection]))
        if faint is not None:
            job.warn(faint)

    guard = FirstEpochGuard(check_first_epoch)
    try:
        fit_stage(job, ready, selection, number, recorder, guard)
    except BaseException:
        recorder.restore_if_broken()
        raise
    recorder.restore()
    source = job.source
    if recorder.diverged or not recorder.best_epoch:
        check_later_labels(job)
    check_record(recorder, lambda: find_cause(source.train, source.validation, ready.train))
    # Of the weights that are kept: those of the best epoch.
    audit = look()
    # A solver may find the weights that are there already.
    enforce(audit, still=stage.solve, known=unlearned_norms([selection]))
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


def _no_rate(optimizer: Any) -> None:
    """The learning rate of a stage that takes no steps."""


def _batch_size(job: Job, selection: Selection) -> int:
    stage, data = selection.stage, job.source.train
    if not isinstance(data, Stream):
        return stage.batch_size or job.batch_size
    own = len(data.first()[0][0])
    if stage.batch_size not in (None, own):
        job.note(
            f"stage {stage.name!r}: batch_size={stage.batch_size} is ignored, because the "
            f"{type(data.source).__name__} makes its own batches of {own}"
        )
    return own


def _reseed(model: keras.Model, seed: int, number: int) -> None:
    """Set the seed of every random layer from the run's seed, the stage and its place."""
    generators = {id(g): g for layer in flatten_layers(model) for g in seed_generators(layer)}
    for place, generator in enumerate(generators.values()):
        value = np.random.SeedSequence((seed, number, place)).generate_state(1)[0] >> 1
        reseed(generator, int(value))


def _stage_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


@dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """What a run did; prints as a table, also in a notebook.

    Attributes:
        model: the model given to `fit`, with the best weights of the run.
        stages: a result for each stage that trained.
        best_stage: the stage whose weights the model has.
        seed: the seed that repeats the run.

    Examples:
        >>> result = unfreeze.fit(model, "probe", x, y, validation_split=0.2, seed=1, verbose=0)
        >>> result.best_stage, len(result.history.history["val_loss"])
        ('head', 7)
    """

    model: keras.Model
    stages: tuple[StageResult, ...]
    best_stage: str
    seed: int

    @property
    def history(self) -> History:
        """A row for each epoch of all stages; `history.history` is as Keras has it."""
        return History(row for stage in self.stages for row in stage.rows)

    @property
    def audit(self) -> Audit:
        """What moved in each stage; prints as a table."""
        return Audit(tuple(stage.audit for stage in self.stages))

    def __repr__(self) -> str:
        lines = [
            f"{s.stage}: best of {s.epochs} epochs is {s.best_epoch} ({s.monitor} "
            f"{s.best_value:.4g}), {s.trained_weights:,} weights trained, {s.seconds:.1f} s; "
            f"{s.cache}"
            for s in self.stages
        ]
        return "\n".join((*lines, self._kept()))

    def _repr_html_(self) -> str:
        headers = ("stage", "epochs", "best epoch", "monitor", "value", "weights", "s", "cache")
        rows = [
            (
                *(s.stage, s.epochs, s.best_epoch, s.monitor, s.best_value),
                *(s.trained_weights, s.seconds, s.cache),
            )
            for s in self.stages
        ]
        return html_table(headers, rows, f"training of {self.model.name}", [self._kept()])

    def _kept(self) -> str:
        return f"The model has the weights of stage {self.best_stage!r}; seed {self.seed}."


def fit(
    model: keras.Model,
    schedule: Schedule | Stage | Sequence[Stage] | str,
    train: Any,
    y: Any = None,
    validation_data: Any = None,
    batch_size: int = 32,
    loss: Any = None,
    metrics: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = (),
    run_dir: str | Path | None = None,
    seed: int | None = None,
    verbose: Any = "auto",
    *,
    sample_weight: Any = None,
    validation_split: float = 0.0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    class_weight: dict[int, float] | None = None,
    mixup: float = 0.0,
    validation_scores: Callable[[Any], Mapping[str, float]] | None = None,
    cache_dir: str | Path | None = None,
    cache_limit: int | None = None,
    fuse: bool = True,
    jit_compile: bool | str = "auto",
    devices: int = 1,
) -> FitResult:
    """Train a model in stages.

    Args:
        model: a built functional or Sequential model, of any nesting.
        schedule: a `Schedule`, a `Stage` or a list of them, or the name of a preset. A stage
            without an `optimizer` takes the kind and settings of the one that the model was
            compiled with, if any, at the stage's own rate; else Adam. Also taken over from
            `compile`: `run_eagerly`, `steps_per_execution`, `auto_scale_loss`, `loss_weights`,
            `weighted_metrics`.
        train: x, with `y`; or `(x, y)` or `(x, y, sample_weight)`. They are arrays, tensors,
            tables of pandas, memory maps or anything indexed by an integer array; for several
            inputs a list or a dict. Or a `keras.utils.PyDataset`, `tf.data.Dataset`, torch
            `DataLoader`; with `steps_per_epoch` also a generator.
        y: labels, where `train` is x alone.
        validation_data: `(x, y)` or a dataset, likewise; they choose the best epoch (the schedule's
            `monitor` says by what) and end stages. Without them the training
            data do.
        batch_size: for stages that do not set their own.
        loss: as for `compile`. None: the loss the model was compiled with, or
            the one that fits its last activation and the labels.
        metrics: as for `compile`; None likewise.
        callbacks: Keras callbacks. They see one run: its epochs count over all stages.
            `EarlyStopping`, `ReduceLROnPlateau` and `LearningRateScheduler` start again in
            each stage; so does a `StageCallback`, which is also called for stages.
        run_dir: folder for each finished stage, the state within a stage, and the
            caches. An interrupted run resumes where it stopped and ends with the
            same weights; your own callbacks start again. Saving takes at most 3 % of
            the time.
        seed: of the order of samples and of dropout. None draws one.
        verbose: 0 prints nothing, 2 a line for each epoch, "auto" or 1 also a line that
            shows the running epoch, in a terminal or a notebook.
        sample_weight: a weight for each sample, where `y` is given.
        validation_split: share of the samples, the last ones, to validate with instead of
            `validation_data`; of arrays.
        steps_per_epoch: batches that make an epoch, of a dataset without an end. It is not
            cached, and goes on from epoch to epoch.
        validation_steps: likewise; the first batches, the same ones in every epoch.
        class_weight: weight of each class, by integer label.
        mixup: mix each training sample with another one, and their labels alike, by shares from
            Beta(mixup, mixup), 0 to 10 (0.2, say; 0 does not). Arrays only; in stages with
            `augment`, in cached and solved ones only with `views`.
        validation_scores: called after each epoch with the model's outputs for all
            validation samples, in order; what it returns joins the log as `val_<name>`,
            where the schedule's `monitor` and rules find it. A score `x_error` is the standard
            error of `val_x`, in place of the one that `fit` computes: a stage with keep="last" is
            dropped for an earlier one only if it is worse by more than a standard error.
        cache_dir: folder for caches, to share them between runs. None: in
            `run_dir`, or else a temporary folder that is removed at the end.
        cache_limit: bytes. A larger cache is not made, and the oldest caches are
            removed beyond it. None: half of the free disk space.
        fuse: run convolutions and BatchNorm with fixed statistics as one (same
            maths, about twice the speed).
        jit_compile: as for `compile`. "auto" is what the model was compiled with; Keras' own
            "auto" leaves XLA off with TensorFlow on a CPU, where it ran YAMNet's blocks at less
            than half the speed.
        devices: divide each batch among this many devices of this machine; with JAX and
            arrays. The result is that of one device, rounding apart.

    Returns:
        The result; the model itself holds the best weights of all stages, the
        flags of the last stage, and is compiled for `evaluate`.

    Raises:
        ScheduleError: the schedule does not fit the model; before any training.
        DataError: the data do not fit the model; before any training.
        StageError: a stage did not do what it claims, or its loss diverged.
        RunError: `run_dir` holds another run, or a damaged one.
        Stopped: a `StageCallback` asked to stop; the model is then in the middle of
            a stage, and the same call resumes from `run_dir`.

    Examples:
        >>> head = unfreeze.Stage("head", train="head", epochs=5, learning_rate=1e-2)
        >>> rest = unfreeze.Stage("all", train="all", epochs=2, learning_rate=1e-4)
        >>> result = unfreeze.fit(
        ...     model, [head, rest], x, y, validation_split=0.2, seed=1, verbose=0
        ... )
        >>> [stage.stage for stage in result.stages]
        ['head', 'all']
    """
    check_is_model(model, "fit")
    check_batch_size(batch_size)
    callbacks = (*as_callbacks(callbacks), *progress_for(verbose))
    plan = as_schedule(schedule)
    custom = has_custom_training(model)
    if custom is not None:
        raise ScheduleError(
            f"{type(model).__name__} overrides `{custom}`, which a stage would not use: train it "
            "with its own fit and the callback UnfreezeSchedule"
        )
    graph = flatten(model)
    plan, given = with_compiled(plan, compiled_before(model)), plan
    selections = check_stages(graph, plan)
    steps = compile_settings(model, jit_compile)
    _refuse_callbacks((*callbacks, *(c for stage in plan for c in stage.callbacks)))
    for selection in selections:
        # Made now, so that a bad one is refused before any stage runs.
        new_optimizer(selection)
    data, held = gather(
        *(model, train, y, sample_weight, validation_data),
        *(validation_split, steps_per_epoch, validation_steps),
    )
    check_batches(selections, data)
    sizes = {s.stage.batch_size or batch_size for s in selections if s.stage.epochs}
    check_devices(devices, data, held, sizes)
    if class_weight:
        check_class_weight(data)
    if mixup:
        given_loss = own_loss(model, loss)
        data, held = mixed_rows(data, held, graph, given_loss, mixup, class_weight)
    compile_with = objective(model, graph, data, loss, metrics)
    check_labels(model, graph, compile_with["loss"], data, "train")
    check_labels(model, graph, compile_with["loss"], held, "validation_data")
    if mixup:
        refuse_sparse_metrics([compile_with.get("metrics"), compile_with.get("weighted_metrics")])
    scored = validation_scores is not None
    check_log_names(model, graph, compile_with, data, held, plan, scored, callbacks)
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
        settings |= {"mixup": mixup} if mixup else {}
        places = {id(variable): place for place, variable in enumerate(model.weights)}
        trained = {s.stage.name: sorted(places[v] for v in s.live) for s in selections}
        settings = identity(plan, seed, described, settings, trained)
    _refuse_broken(selections)
    restore_flags = flags(model)
    with ExitStack() as stack:
        stack.enter_context(seeds_kept(model))
        stack.enter_context(on_devices(model, devices))
        room = CacheRoom(_cache_folder(cache_dir, home, stack), cache_limit)
        check_caches(graph, selections, source, room)
        job = Job(
            whole=Whole(model, graph, fuse),
            source=source,
            room=room,
            compile_with={**compile_with, **steps},
            callbacks=tuple(callbacks),
            batch_size=batch_size,
            seed=seed,
            # Mixed samples have them as weights of their own.
            class_weight=None if mixup else class_weight,
            monitor=plan.monitor,
            score=validation_scores,
            run_dir=home,
            run_callbacks=RunCallbacks(callbacks, sum(stage.epochs for stage in plan)),
            devices=devices,
            tells_errors=_tells_errors(plan),
        )
        few = why_few_groups(selections[0].groups, plan)
        unlearned = unlearned_norms([s for s in selections if s.stage.epochs])
        fewer = left_out(data, sizes, devices)
        for text in (
            few,
            unlearned,
            fewer,
            warning(data, "train"),
            warning(held, "validation_data"),
        ):
            if text is not None:
                job.warn(text)
        if plan is not given:
            job.note(_taken_over(plan, given))
        try:
            results, best = run_stages(job, selections, settings)
        except BaseException:
            restore_flags()
            raise
    return FitResult(model, results, best, seed)


def _tells_errors(plan: Schedule) -> bool:
    """Whether a stage may be kept although an earlier one looks better."""
    return any(stage.keep == "last" for stage in [s for s in plan if s.epochs][1:])


def _taken_over(plan: Schedule, given: Schedule) -> str:
    changed = [new for new, old in zip(plan, given, strict=True) if new is not old]
    names = ", ".join(repr(stage.name) for stage in changed)
    kind = type(changed[0].optimizer).__name__
    return f"{kind}, with which the model was compiled, is the optimizer of {names}, at their rates"


def _refuse_broken(selections: Sequence[Selection]) -> None:
    """Refuse to train on from weights that are NaN or infinite already."""
    trained = {id(v): v for selection in selections for v in selection.trained}
    broken = not_finite(trained.values())
    if broken:
        raise StageError(
            f"weights are not finite before the first stage: {some(broken)}. Build or load the "
            "model again; an earlier training may have left it like this"
        )


def _refuse_callbacks(callbacks: Sequence[Any]) -> None:
    if any(swaps_averages(callback) for callback in callbacks):
        raise ScheduleError(f"SwapEMAWeights: {KEPT_ANYWAY}")
    kind = keras.callbacks.BackupAndRestore
    if any(isinstance(c, kind) or c is kind for c in callbacks):
        raise ScheduleError(
            "BackupAndRestore knows only one fit and would start a stage in the middle of "
            "another: give run_dir instead, which resumes an interrupted run"
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
