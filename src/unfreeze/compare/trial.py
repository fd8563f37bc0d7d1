"""One run of one strategy: train, score, and measure how far each layer moved."""

import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.augmentation import read_augmentation
from unfreeze.audio.background_clips import cut_quiet
from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.audio.patches import PatchView
from unfreeze.backbones.registry import get_backbone
from unfreeze.compare.detector_scores import Judge, detect
from unfreeze.compare.strategies import Strategy
from unfreeze.compare.trial_splits import TrialSplit
from unfreeze.core.audit import Snapshot, snapshot
from unfreeze.core.boundary import check_stages
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.graph import flatten
from unfreeze.core.keras_internals import flatten_layers, own_weights
from unfreeze.core.layers import find_groups
from unfreeze.errors import StageError
from unfreeze.pipeline.backbone_limits import check_limits
from unfreeze.pipeline.calibration import SMALLEST
from unfreeze.pipeline.chosen_schedule import check_head
from unfreeze.pipeline.class_weights import read_class_weights
from unfreeze.pipeline.inference import view_scores
from unfreeze.pipeline.label_scoring import label_thresholds
from unfreeze.pipeline.patch_training import Material, fit_patches, make_material, new_model
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.pipeline.training_data import (
    NamedProgress,
    TrainingData,
    label_numbers,
    read_inputs,
)

Record = dict[str, Any]


def run_trial(
    material: Material,
    trial: TrialSplit,
    strategy: Strategy,
    run_dir: Path | None = None,
    callbacks: Sequence[StageCallback] = (),
    judge: Judge | None = None,
) -> Record:
    """Train a strategy on a split, and score it on clips that no choice was based on.

    Args:
        material: the inputs that all runs share.
        trial: the split and the seed.
        strategy: how to train.
        run_dir: keeps the state of the run, so that it can be resumed.
        callbacks: notified of progress.
        judge: annotated recordings that the model searches as a detector.

    Returns:
        A dict ready for JSON: `strategy`, `seed`, `fold`; `scores` by part, each
        with the clips' `truth`, `guess`, `likelihood` (of the truth), and `group`,
        a position in `groups`; also `right` and `score`, its name, where a clip may have
        several labels; `validation` loss and accuracy of the best epoch by
        patches; `seconds` of all epochs, `cache_seconds` for the shared cache;
        `epochs` by stage, `best_stage`, `patches` by part, and `moved`, one row per
        layer; with a judge `detection`, as from `unfreeze.compare.detector_scores.detect`. A
        strategy that diverged has an `error` and no scores.
    """
    split = trial.split
    wanted = {**split.parts(), **({"seen": trial.seen} if len(trial.seen) else {})}
    views = {name: material.store.patches(clips) for name, clips in wanted.items()}
    cut = cut_quiet(material.manifest, split, views, material.backbone.front_end)
    manifest, parts = cut.manifest, cut.parts
    classes = len(manifest.labels)
    taps, augment, class_weight = strategy.settings(material)
    model = new_model(
        *(material.backbone, material.weights, classes, trial.seed, taps, augment),
        several=manifest.several,
    )
    before = snapshot(model)
    clock = _CacheClock()
    record: Record = {"strategy": strategy.name, "seed": trial.seed, "fold": trial.fold}
    record["patches"] = {name: len(view) for name, view in parts.items()}
    began = time.perf_counter()
    try:
        result = fit_patches(
            model,
            strategy.schedule,
            manifest,
            parts,
            trial.seed,
            run_dir=run_dir,
            callbacks=[clock, *callbacks],
            fuse=strategy.fuse,
            class_weight=class_weight,
        )
    except StageError as error:
        return {**record, "error": str(error)}
    spent = time.perf_counter() - began
    seconds = sum(row["seconds"] for row in result.history)
    best = next(stage for stage in result.stages if stage.stage == result.best_stage)
    row = best.rows[best.best_epoch - 1]
    record |= {
        "seconds": round(seconds, 2),
        "cache_seconds": round(clock.seconds, 2),
        # A resumed run has taken more than the time since it was resumed.
        "wall_seconds": round(max(spent, seconds), 2),
        "epochs": {stage.stage: stage.epochs for stage in result.stages},
        "best_stage": result.best_stage,
        "validation": {"loss": row.get("val_loss"), "accuracy": row.get("val_accuracy")},
        "scores": {
            name: _predictions(model, manifest, view, parts["validation"])
            for name, view in parts.items()
            if name in ("test", "seen")
        },
        "moved": movements(model, before),
    }
    if judge is not None:
        began = time.perf_counter()
        record["detection"] = detect(model, material, cut, trial.seed, judge)
        record["wall_seconds"] = round(record["wall_seconds"] + time.perf_counter() - began, 2)
    del model, result
    # A model and its optimizers refer to each other, so only the collector frees them.
    gc.collect()
    return record


def _predictions(
    model: keras.Model, manifest: Manifest, view: PatchView, held: PatchView
) -> dict[str, Any]:
    clips = np.unique(view.clip)
    rows = view_scores(model, view, len(manifest.clips))[0][clips]
    names = [manifest.clips[int(i)].group for i in clips]
    groups = sorted(set(names))
    place = {name: number for number, name in enumerate(groups)}
    grouped = {"group": [place[name] for name in names], "groups": groups}
    if manifest.several:
        table = heard_table(manifest)
        known = np.unique(held.clip)
        means = view_scores(model, held, len(manifest.clips))[0][known]
        cuts = label_thresholds(table[known], means)
        return {**_label_sets(table[clips], rows, cuts), **grouped}
    truth = label_numbers(manifest)[clips]
    return {
        "truth": truth.tolist(),
        "guess": rows.argmax(axis=1).tolist(),
        "likelihood": [round(float(p), 6) for p in rows[np.arange(len(rows)), truth]],
        **grouped,
    }


def _label_sets(table: np.ndarray, rows: np.ndarray, cuts: np.ndarray) -> dict[str, Any]:
    """How right the labels named for each clip are: their F1, 1 for none where none is heard."""
    known, there, named = table >= 0, table > 0.5, rows >= cuts
    named = named & known
    hits, either = (there & named).sum(axis=1), there.sum(axis=1) + named.sum(axis=1)
    chances = np.where(there, rows, 1 - rows).astype(np.float64)
    logs = np.where(known, np.log(np.clip(chances, SMALLEST, 1)), 0).sum(axis=1)
    return {
        "score": "F1 of a clip's labels",
        "truth": [np.flatnonzero(row).tolist() for row in there],
        "guess": [np.flatnonzero(row).tolist() for row in named],
        "right": np.where(either > 0, 2 * hits / np.maximum(either, 1), 1.0).round(6).tolist(),
        # Of a label, in the mean: as the loss of training.
        "likelihood": np.exp(logs / np.maximum(known.sum(axis=1), 1)).round(6).tolist(),
    }


def movements(model: keras.Model, before: Snapshot) -> list[dict[str, Any]]:
    """How far each layer has moved from its start.

    Args:
        model: after training.
        before: its weights before training.

    Returns:
        One row for each layer with weights, from the input up: `layer`, `group` (its
        block), `moved` and `statistics`: the L2 norm of the change of its learnable
        weights, and of those it updates itself, divided by their norm before (by 1 if
        that is 0); None if it has no such weights.
    """
    rows = []
    for group in find_groups(flatten(model)):
        for outer in group.layers:
            for layer in flatten_layers(outer):
                learned, kept = own_weights(layer)
                if learned or kept:
                    row = {"layer": layer.name, "group": group.name}
                    row |= {"moved": _distance(learned, before)}
                    rows.append({**row, "statistics": _distance(kept, before)})
    return rows


def _distance(variables: Sequence[Any], before: Snapshot) -> float | None:
    known = [v for v in variables if id(v) in before]
    if not known:
        return None
    old = [before[id(v)].astype(np.float64) for v in known]
    new = [np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in known]
    change = sum(float(((a - b) ** 2).sum()) for a, b in zip(new, old, strict=True))
    start = sum(float((b**2).sum()) for b in old)
    return float(f"{np.sqrt(change / start if start else change):.4g}")


class _CacheClock(StageCallback):
    """Seconds spent on caches, which the first run fills for all."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._last: float | None = None

    def on_stage_begin(self, plan: Any) -> None:
        self._last = time.perf_counter()

    def on_cache(self, what: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.seconds += now - (now if self._last is None else self._last)
        self._last = now


def prepare(
    train: TrainOptions,
    strategies: Sequence[Strategy],
    progress: NamedProgress,
    check: Callable[[Manifest], None] = lambda manifest: None,
) -> tuple[Material, TrainingData]:
    """Check the strategies, then read the data and make the features.

    Args:
        train: the data and how to read them.
        strategies: those known beforehand.
        progress: called as progress(what, done, total); `what` is "reading", "weights"
            or "features".
        check: called with the clips once they are read, before what takes long.

    Raises:
        UnfreezeError: the data, the weights or a strategy cannot be used.
    """
    backbone = get_backbone(train.backbone, train.slow_down, train.channel)
    for strategy in strategies:
        check_limits(backbone, strategy.schedule, strategy.settings(train)[1])
    inputs = read_inputs(train, backbone, progress)
    check(inputs.data.manifest)
    classes = len(inputs.data.manifest.labels)
    for strategy in strategies:
        taps, augment, class_weight = strategy.settings(train)
        read_augmentation(augment)
        read_class_weights(class_weight, inputs.data.manifest.labels)
        check_head(strategy.schedule, taps)
        graph = flatten(new_model(inputs.backbone, inputs.weights, classes, 0, taps))
        check_stages(graph, strategy.schedule)
    return make_material(inputs, train, progress), inputs.data
