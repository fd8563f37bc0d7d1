"""Train, test and write a sound classifier according to a plan.

Order matters: what can still be refused (schedule, output folder) is refused before
anything slow, and no result on the test clips is computed before the last stage has
ended.
"""

from collections.abc import Sequence
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
from unfreeze.audio.segments_file import Corrections
from unfreeze.audio.split import Split
from unfreeze.backbones.registry import Backbone
from unfreeze.backend import first_line
from unfreeze.core.boundary import StagePlan, check_stages, plan_stage
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import FitResult
from unfreeze.core.graph import flatten
from unfreeze.core.schedule import Schedule
from unfreeze.errors import DataError, RunError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.depth_profile import depth_profile, why_no_profile
from unfreeze.pipeline.evaluation import score_clips
from unfreeze.pipeline.gate import with_gate
from unfreeze.pipeline.held_counts import HeldScores, count_held, score_held, threshold_entries
from unfreeze.pipeline.held_metrics import HELD, held_metrics
from unfreeze.pipeline.in_noise import (
    COLUMNS,
    NoisyParts,
    column_weights,
    labels_with_background,
    merged,
    with_noise,
)
from unfreeze.pipeline.light_form import light_command
from unfreeze.pipeline.paired_change import fallen
from unfreeze.pipeline.patch_training import fit_patches, make_material, new_model, with_caches
from unfreeze.pipeline.run_plan import RunPlan
from unfreeze.pipeline.run_writing import Tested, begin_run, finish_run, record_schedule
from unfreeze.pipeline.trackers import trackers
from unfreeze.pipeline.train_options import DEFAULT_TAPS, TrainOptions
from unfreeze.pipeline.training_data import clip_truth
from unfreeze.pipeline.wish import Wish

if TYPE_CHECKING:
    from unfreeze.pipeline.run_plan import MeasureChange

#: Corrected clips that are held out, where a run adds to another.
CORRECTED = "corrected"


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


class TrainListener(StageCallback):
    """Notified of the progress of a run; override any of the methods."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Progress of other work than training.

        `what` is "reading", "weights" or "features"; after training, "depths" or "gate", and
        at the end "report".
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
    notes = [*data.notes, *cut.notes, *(() if noisy is None else noisy.notes)]
    given = cut if noisy is None else noisy
    _check_wish(options, cut, noisy)
    if options.out is not None:
        begin_run(options, plan.inputs)
    listener.on_summary(
        Summary(
            manifest=manifest,
            split=data.split,
            notes=tuple(notes),
            plans=tuple(plan_stage(graph, selection) for selection in selections),
            schedule=schedule,
            weights=weights,
            patches={name: len(view) for name, view in given.parts.items()},
            corrected=len(data.corrected),
            corrections=data.corrections,
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
        devices=options.devices,
    )
    depths = _depths(plan, cut, listener)
    labels = labels_with_background(manifest, options.in_noise)
    if noisy is not None and not manifest.several:
        model = merged(model, manifest.labels, labels)
    elif noisy is None and options.gate:
        listener.on_progress("gate", 0, 0)
        published = backbone.build(weights=weights)
        gated = with_gate(model, published, cut, backbone.front_end, options.seed)
        model, labels, noisy = gated.model, gated.labels, gated.noisy
        for note in gated.notes:
            listener.on_note(note)
        notes += gated.notes
    cut = replace(cut, manifest=replace(cut.manifest, labels=labels))
    held = score_held(model, cut, (*HELD, CORRECTED))
    counts = count_held(model, cut, held, noisy, backbone.front_end, options.seed)
    wish = options.wish
    if wish.max_false_alarms is not None and counts is not None and not counts.hours:
        listener.on_note(f"Without background, {wish} cannot be chosen for; the best F1 was")
        wish = Wish()
    thresholds = threshold_entries(counts, wish)
    metrics = held_metrics(cut, held, options.seed, thresholds) | depths
    metrics["background"] = manifest.several or any(map(is_quiet, labels))
    own = _own_classes(model, backbone, weights) if options.keep_published else None
    whole = clip_model(model, backbone.front_end, labels, own, backbone.notice)
    if measure_change is not None:
        cuts = metrics.get("clip_thresholds")
        metrics |= _change(measure_change, parts_of(whole)[0], plan, cut, held, cuts)
        _refuse_worse(options, metrics["change"]["test"])
    if options.out is not None:
        tested = _tested(cut, held, metrics, notes)
        finish_run(options.out, whole, result, metrics, labels, tested, plan.draw)
        _write_light(plan, options.out, whole, listener)
        _write_report(plan, options.out, listener)
    listener.on_scores(metrics)
    return Trained(whole, labels, metrics, result)


def _depths(plan: RunPlan, cut: Pieces, listener: TrainListener) -> dict[str, Any]:
    """What each depth of the network knew before training; empty without the clips for it."""
    options = plan.options
    # A run that adds to another trains on nearly the same clips, and is waited for.
    if options.add_to is not None:
        return {}
    labels = clip_truth(cut.manifest)
    train, held = cut.parts["train"], cut.parts["validation"]
    if plan.inputs.backbone.is_frozen or options.taps != DEFAULT_TAPS:
        return {}
    if why_no_profile(labels, train.clip, held.clip):
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
    held: HeldScores,
    thresholds: dict[str, float] | None,
) -> dict[str, Any]:
    """Scores of the held-out corrected clips, and the change from the run before."""
    data, seed = plan.inputs.data, plan.options.seed
    assert data.corrections is not None
    scores = None
    if CORRECTED in held:
        clips = np.unique(cut.parts[CORRECTED].clip)
        rows = held[CORRECTED][0][clips]
        levels = None if thresholds is None else np.array(list(thresholds.values()))
        scores = score_clips(cut.manifest, clips, rows, cut.manifest.labels, seed, levels)
    change = measure(model, cut.manifest, cut.parts, seed)
    described = {"run": str(plan.options.add_to), "corrections": data.corrections.as_plain()}
    return {"corrected": scores, "change": {**described, **change}}


def _tested(cut: Pieces, held: HeldScores, metrics: dict[str, Any], notes: Sequence[str]) -> Tested:
    """The scores of each clip that was held out, and what else is to be said."""
    parts = {}
    for name, (means, _) in held.items():
        clips = np.unique(cut.parts[name].clip)
        parts[name] = clips, means[clips]
    cuts = None
    if cut.manifest.several and parts:
        scores = metrics["test"] or metrics["validation"] or metrics[CORRECTED]
        cuts = [row["threshold"] for row in scores["per_class"].values()]
    return Tested(cut.manifest, parts, cuts, notes)


def _write_light(plan: RunPlan, out: Path, model: keras.Model, listener: TrainListener) -> None:
    """Write the light form; the run is finished, whatever comes of this."""
    try:
        said = plan.light(out, model)
    except Exception as error:
        said = (
            f"The light form could not be written ({first_line(error)}). Try again with "
            f"`{light_command(out)}`"
        )
    if said:
        listener.on_note(said)


def _write_report(plan: RunPlan, out: Path, listener: TrainListener) -> None:
    """Write the report; the run is finished, whatever comes of this."""
    try:
        plan.report(out, partial(listener.on_progress, "report"))
    except Exception as error:
        # Model and scores are saved: no fault of the report may look like one of the run.
        listener.on_note(
            f"The report could not be written ({error}). Try again with `unfreeze report {out}`"
        )


def _refuse_worse(options: TrainOptions, test: dict[str, Any] | None) -> None:
    """Refuse a model that lost what the one before knew.

    Args:
        options: of the run.
        test: of both models on the earlier run's test clips; None without such clips.

    Raises:
        RunError: a score fell by more than chance explains; says how to save the model anyway.
    """
    told = fallen(test)
    if told is None or options.even_if_worse:
        return
    how = "repeat the command with --resume --even-if-worse, which trains nothing again"
    if options.out is None:
        how = "give even_if_worse=True"
    raise RunError(
        f"The new model is worse than {options.add_to} on that run's test clips, by more than "
        f"chance explains: {told}. It is not saved. Check the labels of what you added, and add "
        f"clips of the old classes, too; or, to save it all the same, {how}"
    )


def _check_wish(options: TrainOptions, cut: Pieces, noisy: NoisyParts | None) -> None:
    """Refuse, before training, a wish that nothing held out could be counted for."""
    wish = options.wish
    if not wish.is_given:
        return
    held = cut.parts["validation"]
    if not len(held):
        raise DataError(
            f"{wish} is estimated on validation clips, and there are none: raise --validation"
        )
    labels = cut.manifest.labels
    quiet = [number for number, label in enumerate(labels) if is_quiet(label)]
    table = heard_table(cut.manifest)[np.unique(held.clip)]
    loud = np.delete(table, quiet, axis=1)
    made = (noisy is not None and noisy.held is not None) or (noisy is None and options.gate)
    if wish.max_false_alarms is not None and not (made or (loud == 0).all(axis=1).any()):
        raise DataError(
            "--max-false-alarms is estimated on background, and no validation clip is background: "
            "leave out --no-gate, or give recordings without the classes with --background"
        )
