"""Train, test and write a sound classifier according to a plan.

Order matters: what can still be refused (schedule, output folder) is refused before
anything slow, and no result on the test clips is computed before the last stage has
ended.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from unfreeze.audio.background_clips import Pieces, cut_quiet
from unfreeze.audio.clip_model import OwnClasses, clip_model, own_scores, parts_of
from unfreeze.audio.entries import is_quiet
from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.audio.patches import PatchView
from unfreeze.audio.segments_file import Corrections
from unfreeze.audio.split import Split
from unfreeze.backbones.registry import Backbone
from unfreeze.core.boundary import StagePlan, check_stages, plan_stage
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import FitResult
from unfreeze.core.graph import flatten
from unfreeze.core.schedule import Schedule
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.calibration import calibrate
from unfreeze.pipeline.depth_profile import depth_profile, why_no_profile
from unfreeze.pipeline.evaluation import score_clips
from unfreeze.pipeline.in_noise import (
    COLUMNS,
    NoisyParts,
    column_weights,
    labels_with_background,
    merged,
    with_noise,
)
from unfreeze.pipeline.inference import view_scores
from unfreeze.pipeline.label_scoring import label_thresholds
from unfreeze.pipeline.patch_training import fit_patches, make_material, new_model, with_caches
from unfreeze.pipeline.run_plan import RunPlan
from unfreeze.pipeline.run_writing import begin_run, finish_run, record_schedule
from unfreeze.pipeline.trackers import trackers
from unfreeze.pipeline.train_options import DEFAULT_TAPS
from unfreeze.pipeline.training_data import label_numbers

if TYPE_CHECKING:
    from unfreeze.pipeline.run_plan import MeasureChange

#: The parts that are scored after training, in the order of `metrics.json`.
HELD = ("test", "validation")


@dataclass(frozen=True, eq=False)
class Summary:
    """What is about to be trained, and on which data."""

    manifest: Manifest
    split: Split
    notes: tuple[str, ...]
    plans: tuple[StagePlan, ...]
    schedule: Schedule
    weights: Path
    patches: dict[str, int]
    corrected: int = 0
    corrections: Corrections | None = None
    background: bool = True


class TrainListener(StageCallback):
    """Notified of the progress of a run; override any of the methods."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Progress of other work than training.

        `what` is "reading", "weights" or "features"; after training, "depths".
        """

    def on_summary(self, summary: Summary) -> None:
        """Everything is ready; the first epoch is next."""

    def on_scores(self, metrics: dict[str, Any]) -> None:
        """The run is finished and tested."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished run.

    Attributes:
        model: the clip model: waveform in, probabilities out.
        labels: name of each class.
        metrics: as in `metrics.json`.
        result: of `unfreeze.fit`.
    """

    model: keras.Model
    labels: tuple[str, ...]
    metrics: dict[str, Any]
    result: FitResult


def train(plan: RunPlan, listener: TrainListener | None = None) -> Trained:
    """Train, test and write a sound classifier.

    Args:
        plan: everything resolved; its output folder is held by the caller.
        listener: notified of progress.

    Raises:
        UnfreezeError: the schedule does not fit the network, a stage failed, or the
            run cannot be written.
    """
    listener = listener or TrainListener()
    options, data, backbone = plan.options, plan.inputs.data, plan.inputs.backbone
    manifest, weights = data.manifest, plan.inputs.weights
    watching = trackers(options)
    measure_change = None if plan.load_earlier is None else plan.load_earlier()
    labels = labels_with_background(manifest, options.in_noise)
    classes = len(manifest.labels)
    if options.in_noise and not manifest.several:
        classes += COLUMNS
    model = new_model(
        *(backbone, weights, classes, options.seed, options.taps, options.augment),
        several=manifest.several,
    )
    graph = flatten(model)
    schedule = with_caches(graph, plan.schedule)
    selections = check_stages(graph, schedule)
    material = make_material(plan.inputs, options, listener.on_progress)
    views = {name: material.store.patches(clips) for name, clips in data.parts().items()}
    cut = cut_quiet(manifest, data.split, views, backbone.front_end)
    noisy = with_noise(cut, backbone.front_end, options.seed) if options.in_noise else None
    given = cut if noisy is None else noisy
    if options.out is not None:
        begin_run(options, plan.inputs)
    listener.on_summary(
        Summary(
            manifest=manifest,
            split=data.split,
            notes=(*data.notes, *cut.notes, *(() if noisy is None else noisy.notes)),
            plans=tuple(plan_stage(graph, selection) for selection in selections),
            schedule=schedule,
            weights=weights,
            patches={name: len(view) for name, view in given.parts.items()},
            corrected=len(data.corrected),
            corrections=data.corrections,
            background=manifest.several or any(map(is_quiet, labels)),
        )
    )
    if options.out is not None:
        record_schedule(options.out, schedule)
    result = fit_patches(
        model,
        schedule,
        given.manifest,
        given.parts,
        options.seed,
        run_dir=None if options.out is None else options.out / run_folder.STAGES,
        callbacks=[listener, *watching],
        class_weight=options.class_weight,
        factors=column_weights(manifest) if options.in_noise else None,
    )
    depths = _depths(plan, cut, listener)
    if noisy is not None and not manifest.several:
        model = merged(model, manifest.labels, labels)
    cut = replace(cut, manifest=replace(cut.manifest, labels=labels))
    metrics = _scores(model, cut.manifest, cut.split, cut.parts, options.seed, noisy) | depths
    own = _own_classes(model, backbone, weights) if options.keep_published else None
    whole = clip_model(model, backbone.front_end, labels, own, backbone.notice)
    if measure_change is not None:
        cuts = metrics.get("clip_thresholds")
        metrics |= _change(measure_change, parts_of(whole)[0], plan, cut, cuts)
    if options.out is not None:
        finish_run(options.out, whole, result, metrics, labels, plan.draw)
    listener.on_scores(metrics)
    return Trained(whole, labels, metrics, result)


def _depths(plan: RunPlan, cut: Pieces, listener: TrainListener) -> dict[str, Any]:
    """What each depth of the network knew before training; empty without the clips for it."""
    options = plan.options
    if cut.manifest.several:
        return {}
    labels = label_numbers(cut.manifest)
    train, held = cut.parts["train"], cut.parts["validation"]
    if options.taps != DEFAULT_TAPS or why_no_profile(labels, train.clip, held.clip):
        return {}
    backbone = plan.inputs.backbone.build(weights=plan.inputs.weights)
    progress = partial(listener.on_progress, "depths")
    profile = depth_profile(backbone, train, held, labels, seed=options.seed, progress=progress)
    return {"depths": profile.as_plain()}


def _own_classes(model: keras.Model, backbone: Backbone, weights: Path) -> OwnClasses:
    assert backbone.build_published is not None
    assert backbone.published_classes is not None
    key, published = backbone.published_key, backbone.build_published(weights=weights)
    scores = own_scores(model, published, f"{key}_")
    return OwnClasses(scores, backbone.published_classes(), key, backbone.published_title)


def _change(
    measure: "MeasureChange",
    model: keras.Model,
    plan: RunPlan,
    cut: Pieces,
    thresholds: dict[str, float] | None,
) -> dict[str, Any]:
    """Scores of the held-out corrected clips, and the change from the run before."""
    data, seed = plan.inputs.data, plan.options.seed
    assert data.corrections is not None
    view, scores = cut.parts["corrected"], None
    if len(view):
        clips = np.unique(view.clip)
        rows = view_scores(model, view, len(cut.manifest.clips))[0][clips]
        levels = None if thresholds is None else np.array(list(thresholds.values()))
        scores = score_clips(cut.manifest, clips, rows, cut.manifest.labels, seed, levels)
    change = measure(model, cut.manifest, cut.parts, seed)
    described = {"run": str(plan.options.add_to), "corrections": data.corrections.as_plain()}
    return {"corrected": scores, "change": {**described, **change}}


def _scores(
    model: keras.Model,
    manifest: Manifest,
    split: Split,
    parts: dict[str, PatchView],
    seed: int,
    noisy: NoisyParts | None = None,
) -> dict[str, Any]:
    """Clip-level scores of the held-out parts; None for a part without clips.

    With `noisy`, thresholds are for its clips in noise, too, and its background.
    """
    views = {
        name: view_scores(model, parts[name], len(manifest.clips)) if len(clips) else None
        for name, clips in split.parts().items()
        if name in HELD
    }
    if manifest.several:
        return _label_scores(manifest, split, views, seed, _peaks(model, noisy))
    found: dict[str, Any] = {}
    held: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray] | None] = {}
    numbers = label_numbers(manifest)
    for name in HELD:
        clips, scores = split.parts()[name], views[name]
        if scores is None:
            found[name] = held[name] = None
            continue
        means, peaks = scores
        found[name] = score_clips(manifest, clips, means[clips], manifest.labels, seed)
        held[name] = numbers[clips], means[clips], peaks[clips]
    heard = _peaks(model, noisy)
    if heard is not None:
        table, peaks = heard
        heard = np.where(table.max(axis=1) > 0, table.argmax(axis=1), -1), peaks
    return {**found, **calibrate(manifest.labels, held["validation"], held["test"], heard)}


def _peaks(model: keras.Model, noisy: NoisyParts | None) -> tuple[np.ndarray, np.ndarray] | None:
    """What is heard in each held-out sound in noise, and its largest patch scores."""
    if noisy is None or noisy.held is None:
        return None
    clips = np.unique(noisy.held.clip)
    peaks = view_scores(model, noisy.held, len(noisy.held_heard))[1]
    return noisy.held_heard[clips], peaks[clips]


def _label_scores(
    manifest: Manifest,
    split: Split,
    views: dict[str, tuple[np.ndarray, np.ndarray] | None],
    seed: int,
    heard: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """The same where clips may have several labels.

    `thresholds` are for the largest score of a clip's patches, as in long recordings, and
    `clip_thresholds` for their mean; both are fitted on validation clips.
    """
    labels, table = manifest.labels, heard_table(manifest)
    cuts: dict[str, np.ndarray | None] = {"clip_thresholds": None, "thresholds": None}
    if views["validation"] is not None:
        clips = split.validation
        for name, scores in zip(cuts, views["validation"], strict=True):
            cuts[name] = label_thresholds(table[clips], scores[clips])
        if heard is not None:
            cuts["thresholds"] = label_thresholds(*heard)
    found: dict[str, Any] = {}
    for name in HELD:
        clips, both = split.parts()[name], views[name]
        found[name] = None
        if both is not None:
            found[name] = score_clips(
                manifest, clips, both[0][clips], labels, seed, cuts["clip_thresholds"]
            )
    named = {
        name: None if values is None else dict(zip(labels, values.round(4).tolist(), strict=True))
        for name, values in cuts.items()
    }
    return {**found, "calibration": None, "at_thresholds": None, **named}
