"""Score a trained classifier on recordings whose classes are known."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.cluster import Cluster
from unfreeze.audio.manifest import SLOW, Manifest, heard_table, read_manifest
from unfreeze.audio.sources import Reading
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, sentence
from unfreeze.files import write_json
from unfreeze.pipeline.inference import view_scores
from unfreeze.pipeline.label_scoring import score_labels
from unfreeze.pipeline.predictions import write_predictions
from unfreeze.pipeline.scoring import score
from unfreeze.pipeline.training_data import build_features
from unfreeze.version import __version__


def read_known(
    data: str | Path,
    labels: Sequence[str],
    *,
    several: bool,
    front_end: FrontEnd,
    how: Reading,
    strict: bool,
    max_bad: float,
    cluster: Cluster | None = None,
) -> Manifest:
    """Read recordings of classes that a model knows; not every class must occur.

    Args:
        data: as for training.
        labels: the model's classes.
        several: whether the model judges each class by itself.
        front_end: of the model; says which channel it hears, and how slowly.
        how: they are read, as for training; intervals are over groups.
        strict: treat any unusable file as an error.
        max_bad: largest fraction of unusable files to leave out.
        cluster: where the recordings are read; None reads them on this machine.

    Raises:
        DataError: the data cannot be used, or have a class that the model does not know.
    """
    how = how.by(front_end)
    if several:
        how = replace(how, columns=replace(how.columns, several=True))
    manifest = read_manifest(
        data, how=how, strict=strict, max_bad=max_bad, least_classes=1, cluster=cluster
    )
    if manifest.several and not several:
        raise DataError(
            f"{data} has clips with several labels or none, and the model was trained on clips "
            "with one. Train with several labels, or leave these clips out."
        )
    unknown = sorted(set(manifest.labels) - set(labels))
    if unknown:
        raise DataError(
            f"{data} has classes that the model does not know: {', '.join(unknown)}. "
            f"It knows {', '.join(labels)}"
        )
    return manifest


def clip_scores(
    manifest: Manifest,
    front_end: FrontEnd,
    patch_model: Any,
    score: Callable[[Sequence[Path]], Iterable[tuple[int, np.ndarray]]],
    *,
    cluster: Cluster | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Probabilities (clips, classes) of all clips of a manifest.

    Args:
        manifest: from `read_known`.
        front_end: of the model.
        patch_model: patches to probabilities.
        score: of whole recordings: the number of each with its (classes,), in any order.
        cluster: where features are computed; None computes them on this machine.
        progress: called as progress(done, total) with counts of clips.
    """
    count = len(manifest.clips)
    if any(clip.start is not None for clip in manifest.clips):
        # Sounds in recordings are heard as in training, with what surrounds them.
        store = build_features(manifest, front_end, progress, cluster)
        return view_scores(patch_model, store.patches(np.arange(count)), count)[0]
    rows: dict[int, np.ndarray] = {}
    for number, row in score([clip.path for clip in manifest.clips]):
        rows[number] = row
        if progress is not None:
            progress(len(rows), count)
    return np.stack([rows[number] for number in range(count)])


def score_recordings(
    manifest: Manifest,
    probabilities: np.ndarray,
    labels: Sequence[str],
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score a model on all clips of a manifest.

    Args:
        manifest: from `read_known`.
        probabilities: (clips, classes), in the order of `labels`.
        labels: the model's classes.
        thresholds: (classes,) as for `score_labels`.

    Returns:
        As `score_clips`, plus `problems`, the files left out.
    """
    everything = np.arange(len(manifest.clips))
    scores = score_clips(manifest, everything, probabilities, labels, thresholds=thresholds)
    slow = [sentence(p.cause) for p in manifest.problems if p.rule == SLOW]
    notes = [note for note in (scores["note"], *slow) if note]
    bad = [problem for problem in manifest.problems if problem.fatal]
    problems = [{"path": str(p.path), "cause": p.cause} for p in bad]
    return {**scores, "note": " ".join(notes) or None, "problems": problems}


#: The scores of an evaluation that is written to a folder.
EVALUATION = "evaluation.json"
#: The part of its clips in `predictions.csv`.
EVALUATED = "evaluated"


def write_evaluation(
    out: Path,
    run: str,
    manifest: Manifest,
    probabilities: np.ndarray,
    scores: dict[str, Any],
    front_end: FrontEnd,
) -> None:
    """Write `predictions.csv` and `evaluation.json` into a folder.

    Args:
        out: the folder, which is held.
        run: what was evaluated, for the report.
        manifest: the clips.
        probabilities: (clips, classes).
        scores: from `score_recordings`.
        front_end: of the model.
    """
    parts = {EVALUATED: (np.arange(len(manifest.clips)), probabilities)}
    cuts = None
    if manifest.several:
        cuts = [row["threshold"] for row in scores["per_class"].values()]
    write_predictions(out, manifest, parts, scores["labels"], cuts)
    found = {
        "format": 1,
        "unfreeze": __version__,
        "run": run,
        "root": str(manifest.root),
        "front_end": front_end.as_plain(),
        "scores": scores,
    }
    # Last: it says that the other is whole.
    write_json(out / EVALUATION, found)


def score_clips(
    manifest: Manifest,
    clips: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    seed: int = 0,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score the probabilities of some clips of a manifest.

    Args:
        manifest: holds the true classes and the groups.
        clips: numbers of the clips.
        probabilities: (clips, classes), in the order of `labels`.
        labels: the model's classes.
        seed: of the bootstrap.
        thresholds: (classes,) as for `score_labels`; for clips with one label, not used.

    Returns:
        As `unfreeze.pipeline.scoring.score`; where clips may have several labels, as
        `unfreeze.pipeline.label_scoring.score_labels`.
    """
    place = {label: number for number, label in enumerate(labels)}
    chosen = [manifest.clips[int(i)] for i in clips]
    groups = np.array([clip.group for clip in chosen])
    if manifest.several:
        known = replace(manifest, clips=tuple(chosen), labels=tuple(labels))
        table = heard_table(known)
        return score_labels(table, probabilities, labels, groups, thresholds, seed=seed)
    truth = np.array([place[clip.label] for clip in chosen])
    return score(truth, probabilities, labels, groups, seed=seed)
