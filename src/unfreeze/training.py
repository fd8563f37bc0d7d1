"""From a folder of recordings to a tested run: the road that `unfreeze train` walks.

Order matters: everything that can be refused is refused before anything slow
(schedule, out folder, files, split, weights), and nothing of the test clips is
looked at before the last stage has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze import run_folder
from unfreeze.audio.clip_model import clip_model, parts_of, patch_model
from unfreeze.audio.manifest import Manifest
from unfreeze.audio.own_classes import own_scores
from unfreeze.audio.patches import PatchView
from unfreeze.audio.pieces import Pieces, cut_quiet
from unfreeze.audio.split import Split
from unfreeze.backbones.registry import Backbone, get_backbone
from unfreeze.backbones.weights import resolve_weights
from unfreeze.calibration import calibrate
from unfreeze.compare.auto import Choice, choose_schedule
from unfreeze.compare.trial import Material
from unfreeze.core.graph import flatten
from unfreeze.core.plan import StagePlan, plan_stage
from unfreeze.core.run import FitResult
from unfreeze.core.schedule import Schedule
from unfreeze.core.select import check
from unfreeze.core.watch import StageCallback
from unfreeze.errors import UnfreezeError
from unfreeze.evaluate import score
from unfreeze.features import build_features, label_numbers
from unfreeze.inference import view_scores
from unfreeze.options import AUTO, TrainOptions, check_schedule, resolve_schedule
from unfreeze.patch_fit import fit_patches
from unfreeze.review.add_to import read_both
from unfreeze.review.change import load_old, measure_change
from unfreeze.review.corrections import Corrections
from unfreeze.run_writing import begin_run, finish_run, record_schedule
from unfreeze.training_data import TrainingData, read_training_data


@dataclass(frozen=True, eq=False)
class Summary:
    """What is about to be trained, on what."""

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
    """Hears of a training run; all methods may be overridden, none must."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Work before training: `what` is "reading", "weights", "features" or "trials"."""

    def on_summary(self, summary: Summary) -> None:
        """Everything is ready; the first epoch comes next."""

    def on_scores(self, metrics: dict[str, Any]) -> None:
        """The run is over and tested."""


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


def train_classifier(options: TrainOptions, listener: TrainListener | None = None) -> Trained:
    """Train, test and write a sound classifier.

    Raises:
        UnfreezeError: anything that the user can mend, as early as it is known.
    """
    listener = listener or TrainListener()
    check_schedule(options)
    backbone = get_backbone(options.backbone)
    if options.keep_audioset and backbone.build_published is None:
        raise UnfreezeError(f"{backbone.name} has no classes of its own to keep")
    if options.out is None:
        return _train(options, backbone, listener)
    run_folder.claim(options.out, options.overwrite, options.resume)
    with run_folder.locked(options.out):
        if options.resume and (options.out / run_folder.CONFIG).is_file():
            # Reading the data may take long: what is plainly another run is said before.
            run_folder.refuse_changes(options.out, {"options": options.as_plain()})
        return _train(options, backbone, listener)


def _train(options: TrainOptions, backbone: Backbone, listener: TrainListener) -> Trained:
    old = None if options.add_to is None else load_old(options.add_to)
    read = read_training_data if options.add_to is None else read_both
    data = read(options, lambda done, total: listener.on_progress("reading", done, total))
    manifest = data.manifest
    weights = resolve_weights(
        backbone.name,
        path=options.weights,
        progress=lambda done, total: listener.on_progress("weights", done, total),
    )
    model = patch_model(backbone.build(weights=weights), len(manifest.labels), options.seed)
    graph = flatten(model)
    if options.schedule != AUTO:
        check(graph, resolve_schedule(options))
    store = build_features(
        manifest,
        backbone.front_end,
        lambda done, total: listener.on_progress("features", done, total),
    )
    views = {name: store.patches(clips) for name, clips in data.parts().items()}
    cut = cut_quiet(manifest, data.split, views, backbone.front_end)
    if options.out is not None:
        begin_run(options, data, weights, backbone)
    material = Material(manifest, store, backbone, weights)
    choice = _choose(options, material, data.split, listener) if options.schedule == AUTO else None
    schedule = resolve_schedule(options) if choice is None else choice.resolve(options.epochs)
    plans = tuple(plan_stage(graph, selection) for selection in check(graph, schedule))
    summary = Summary(
        manifest=manifest,
        split=data.split,
        notes=(*data.notes, *cut.notes),
        plans=plans,
        schedule=schedule,
        weights=weights,
        patches={name: len(view) for name, view in cut.parts.items()},
        corrected=len(data.corrected),
        corrections=data.corrections,
    )
    listener.on_summary(summary)
    if options.out is not None:
        record_schedule(options.out, schedule)
    result = fit_patches(
        model,
        schedule,
        cut.manifest,
        cut.parts,
        options.seed,
        run_dir=None if options.out is None else options.out / run_folder.STAGES,
        callbacks=[listener],
    )
    metrics = _scores(model, cut.manifest, cut.split, cut.parts, options.seed)
    own = _own_classes(model, backbone, weights) if options.keep_audioset else None
    whole = clip_model(model, backbone.front_end, manifest.labels, own)
    if choice is not None:
        metrics["auto"] = choice.as_plain()
    if old is not None:
        metrics |= _change(old, parts_of(whole)[0], options, data, cut)
    if options.out is not None:
        finish_run(options.out, whole, manifest, result, metrics)
    listener.on_scores(metrics)
    return Trained(whole, manifest.labels, metrics, result)


def _choose(
    options: TrainOptions, material: Material, split: Split, listener: TrainListener
) -> Choice:
    """Let trials on the training clips choose the schedule."""
    return choose_schedule(
        material,
        split,
        options.budget,
        options.epochs,
        options.out,
        listener.on_note,
        lambda done, total: listener.on_progress("trials", done, total),
    )


def _own_classes(
    model: keras.Model, backbone: Backbone, weights: Path
) -> tuple[keras.KerasTensor, tuple[str, ...]]:
    assert backbone.build_published is not None
    assert backbone.published_classes is not None
    published = backbone.build_published(weights=weights)
    return own_scores(model, published), backbone.published_classes()


def _change(
    old: tuple[keras.Model, tuple[str, ...]],
    new: keras.Model,
    options: TrainOptions,
    data: TrainingData,
    cut: Pieces,
) -> dict[str, Any]:
    """Scores of the held-out corrected clips, and the change from the run before."""
    assert data.corrections is not None
    view, scores = cut.parts["corrected"], None
    if len(view):
        clips = np.unique(view.clip)
        rows = view_scores(new, view, len(cut.manifest.clips))[0][clips]
        scores = score_clips(cut.manifest, clips, rows, cut.manifest.labels, options.seed)
    change = measure_change(old, new, cut.manifest, cut.parts, options.seed)
    described = {"run": str(options.add_to), "corrections": data.corrections.as_plain()}
    return {"corrected": scores, "change": {**described, **change}}


def _scores(
    model: keras.Model,
    manifest: Manifest,
    split: Split,
    parts: dict[str, PatchView],
    seed: int,
) -> dict[str, Any]:
    """Clip-level scores of the held-out parts; a part without clips is None."""
    found: dict[str, Any] = {}
    held: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray] | None] = {}
    numbers = label_numbers(manifest)
    for name in ("test", "validation"):
        clips = split.parts()[name]
        if not len(clips):
            found[name] = held[name] = None
            continue
        means, peaks = view_scores(model, parts[name], len(manifest.clips))
        found[name] = score_clips(manifest, clips, means[clips], manifest.labels, seed)
        held[name] = numbers[clips], means[clips], peaks[clips]
    return {**found, **calibrate(manifest.labels, held["validation"], held["test"])}


def score_clips(
    manifest: Manifest,
    clips: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Score the probabilities of some clips of a manifest.

    Args:
        manifest: tells truth and groups.
        clips: numbers of the clips.
        probabilities: (clips, classes), in the order of `labels`.
        labels: the model's classes.
        seed: of the bootstrap.
    """
    place = {label: number for number, label in enumerate(labels)}
    chosen = [manifest.clips[int(i)] for i in clips]
    truth = np.array([place[clip.label] for clip in chosen])
    groups = np.array([clip.group for clip in chosen])
    return score(truth, probabilities, labels, groups, seed=seed)
