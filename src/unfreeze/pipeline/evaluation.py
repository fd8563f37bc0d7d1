"""Score a trained classifier on recordings whose classes are known."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.manifest import Clip, Manifest, read_manifest
from unfreeze.audio.sources import Reading
from unfreeze.errors import DataError
from unfreeze.pipeline.scoring import score


def read_known(
    data: str | Path,
    labels: Sequence[str],
    *,
    how: Reading,
    strict: bool,
    max_bad: float,
) -> Manifest:
    """Read recordings of classes that a model knows; not every class must occur.

    Args:
        data: as for training.
        labels: the model's classes.
        how: they are read, as for training; intervals are over groups.
        strict: treat any unusable file as an error.
        max_bad: largest fraction of unusable files to leave out.

    Raises:
        DataError: the data cannot be used, or have a class that the model does not know.
    """
    manifest = read_manifest(data, how=how, strict=strict, max_bad=max_bad, least_classes=1)
    unknown = sorted(set(manifest.labels) - set(labels))
    if unknown:
        raise DataError(
            f"{data} has classes that the model does not know: {', '.join(unknown)}. "
            f"It knows {', '.join(labels)}"
        )
    return manifest


def score_recordings(
    manifest: Manifest,
    labels: Sequence[str],
    predict: Callable[[Clip], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a model on all clips of a manifest.

    Args:
        manifest: from `read_known`.
        labels: the model's classes.
        predict: returns (classes,) probabilities of a clip.
        progress: called as progress(done, total) with counts of clips.

    Returns:
        As `unfreeze.pipeline.scoring.score`, plus `problems`, the files left out.
    """
    rows = []
    for done, clip in enumerate(manifest.clips, start=1):
        rows.append(predict(clip))
        if progress is not None:
            progress(done, len(manifest.clips))
    scores = score_clips(manifest, np.arange(len(manifest.clips)), np.stack(rows), labels)
    bad = [problem for problem in manifest.problems if problem.fatal]
    problems = [{"path": str(p.path), "cause": p.cause} for p in bad]
    return {**scores, "problems": problems}


def score_clips(
    manifest: Manifest,
    clips: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Score the probabilities of some clips of a manifest.

    Args:
        manifest: holds the true classes and the groups.
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
