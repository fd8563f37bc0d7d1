"""From a folder of recordings to a tested run: the road that `unfreeze train` walks.

Order matters: everything that can be refused is refused before anything slow
(schedule, out folder, files, split, weights), and nothing of the test clips is
looked at before the last stage has ended.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze import run_folder
from unfreeze.audio.clip_model import clip_model, patch_model
from unfreeze.audio.manifest import Manifest, read_manifest
from unfreeze.audio.patches import PatchView, repeat_by_clip
from unfreeze.audio.split import Split, split_clips, split_notes
from unfreeze.audio.store import PatchStore, build_store
from unfreeze.backbones.registry import Backbone, get_backbone
from unfreeze.backbones.weights import cache_folder, resolve_weights
from unfreeze.calibration import calibrate
from unfreeze.core.graph import flatten
from unfreeze.core.plan import StagePlan, plan_stage
from unfreeze.core.run import FitResult, fit
from unfreeze.core.schedule import Schedule
from unfreeze.core.schedule_yaml import write_schedule
from unfreeze.core.select import check
from unfreeze.core.watch import StageCallback
from unfreeze.evaluate import score
from unfreeze.files import atomic_path, write_json
from unfreeze.inference import view_scores
from unfreeze.options import TrainOptions, resolve_schedule
from unfreeze.report.plots import plot_confusion, plot_curves, plot_moved
from unfreeze.version import __version__

DEFAULT_BATCH = 32
# Both caches are shared by runs, so that a second run on the same recordings
# starts at once; the oldest entries go when they grow beyond this.
CACHE_LIMIT = 20 * 10**9


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


class TrainListener(StageCallback):
    """Hears of a training run; all methods may be overridden, none must."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Work before training: `what` is "reading", "weights" or "features"."""

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
    schedule = resolve_schedule(options)
    backbone = get_backbone(options.backbone)
    if options.out is not None:
        run_folder.claim(options.out, options.overwrite)
    manifest = read_manifest(
        options.data,
        group_regex=options.group_regex,
        strict=options.strict,
        max_bad=options.max_bad,
        progress=lambda done, total: listener.on_progress("reading", done, total),
    )
    split = split_clips(
        manifest, validation=options.validation, test=options.test, seed=options.seed
    )
    weights = resolve_weights(
        backbone.name,
        path=options.weights,
        progress=lambda done, total: listener.on_progress("weights", done, total),
    )
    model = patch_model(backbone.build(weights=weights), len(manifest.labels), options.seed)
    graph = flatten(model)
    plans = tuple(plan_stage(graph, selection) for selection in check(graph, schedule))
    store = _features(manifest, backbone, listener)
    parts = {name: store.patches(clips) for name, clips in split.parts().items()}
    summary = Summary(
        manifest=manifest,
        split=split,
        notes=split_notes(manifest, split),
        plans=plans,
        schedule=schedule,
        weights=weights,
        patches={name: len(view) for name, view in parts.items()},
    )
    listener.on_summary(summary)
    if options.out is not None:
        _begin(options, summary, backbone)
    result = _fit(options, schedule, model, manifest, parts, listener)
    metrics = _scores(model, manifest, split, parts, options.seed)
    whole = clip_model(model, backbone.front_end, manifest.labels)
    if options.out is not None:
        _finish(options.out, whole, manifest, result, metrics)
    listener.on_scores(metrics)
    return Trained(whole, manifest.labels, metrics, result)


def _features(manifest: Manifest, backbone: Backbone, listener: TrainListener) -> PatchStore:
    home = cache_folder() / "features"
    _prune(home, keep=manifest.fingerprint[:32])
    return build_store(
        manifest,
        backbone.front_end,
        home / manifest.fingerprint[:32],
        progress=lambda done, total: listener.on_progress("features", done, total),
    )


def _fit(
    options: TrainOptions,
    schedule: Schedule,
    model: keras.Model,
    manifest: Manifest,
    parts: dict[str, PatchView],
    listener: TrainListener,
) -> FitResult:
    labels = _label_numbers(manifest)
    train, held = parts["train"], parts["validation"]
    return fit(
        model,
        schedule,
        (train, repeat_by_clip(labels, train.clip)),
        validation_data=(held, repeat_by_clip(labels, held.clip)) if len(held) else None,
        batch_size=DEFAULT_BATCH,
        callbacks=[listener],
        run_dir=None if options.out is None else options.out / run_folder.STAGES,
        seed=options.seed,
        verbose=0,
        cache_dir=cache_folder() / "prefixes",
        cache_limit=CACHE_LIMIT,
    )


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
    numbers = _label_numbers(manifest)
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


def _label_numbers(manifest: Manifest) -> np.ndarray:
    place = {label: number for number, label in enumerate(manifest.labels)}
    return np.array([place[clip.label] for clip in manifest.clips], dtype=np.int32)


def _begin(options: TrainOptions, summary: Summary, backbone: Backbone) -> None:
    """Write what is known before training, so that a broken run is known as such."""
    out = options.out
    assert out is not None
    run_folder.clear(out)
    manifest = summary.manifest
    config = {
        "unfreeze": __version__,
        "command": _command(options),
        "options": options.as_plain(),
        "labels": list(manifest.labels),
        "data": {"fingerprint": manifest.fingerprint, "clips": len(manifest.clips)},
        "weights": {"file": str(summary.weights), "sha256": backbone.weights.sha256},
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    run_folder.write_config(out, config)
    write_schedule(summary.schedule, out / run_folder.SCHEDULE)
    part_of = {int(i): name for name, clips in summary.split.parts().items() for i in clips}
    rows = [
        {
            "path": clip.path.relative_to(manifest.root).as_posix(),
            "label": clip.label,
            "group": clip.group,
            "split": part_of[number],
        }
        for number, clip in enumerate(manifest.clips)
    ]
    run_folder.write_table(out / run_folder.SPLITS, rows)


def _finish(
    out: Path, model: keras.Model, manifest: Manifest, result: FitResult, metrics: dict[str, Any]
) -> None:
    with atomic_path(out / run_folder.MODEL) as partial:
        model.save(partial)
    run_folder.write_table(out / run_folder.HISTORY, result.history)
    write_json(out / run_folder.AUDIT, {"format": 1, "stages": result.audit.as_list()})
    plot_curves(result.history, out / "curves.png")
    plot_moved(result.audit.as_list(), out / "moved.png")
    shown = metrics["test"] or metrics["validation"]
    if shown is not None:
        plot_confusion(shown["confusion"], manifest.labels, out / "confusion.png")
    run_folder.write_scores(out, metrics)
    shutil.rmtree(out / run_folder.STAGES, ignore_errors=True)


def _command(options: TrainOptions) -> str:
    """The command line that repeats a run."""
    import shlex

    default = TrainOptions(options.data)
    words = ["unfreeze", "train", str(options.data), "--out", str(options.out)]
    words += ["--schedule", options.schedule_name]
    names = ("backbone", "weights", "epochs", "batch_size", "learning_rate", "group_regex")
    for name in (*names, "validation", "test", "max_bad"):
        value = getattr(options, name)
        if value != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--seed", str(options.seed), *(["--strict"] if options.strict else [])]
    return shlex.join(words)


def _prune(home: Path, keep: str) -> None:
    """Remove the feature stores used longest ago beyond the limit."""
    if not home.is_dir():
        return
    stores = [place for place in home.iterdir() if place.is_dir()]
    sizes = {p: sum(f.stat().st_size for f in p.iterdir() if f.is_file()) for p in stores}
    total = sum(sizes.values())
    for place in sorted(stores, key=lambda place: place.stat().st_mtime):
        if total > CACHE_LIMIT and place.name != keep:
            shutil.rmtree(place, ignore_errors=True)
            total -= sizes[place]
