"""Recordings whose classes are known, to score a trained classifier on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.manifest import Manifest, read_manifest
from unfreeze.errors import DataError
from unfreeze.training import score_clips


def read_known(
    data: str | Path,
    labels: Sequence[str],
    *,
    group_regex: str | None,
    strict: bool,
    max_bad: float,
) -> Manifest:
    """Read recordings of classes that a model knows; not all of them need occur.

    Args:
        data: a folder with a folder for each class, or a CSV manifest.
        labels: the model's classes.
        group_regex: as for training; intervals are over groups.
        strict: any unusable file is an error.
        max_bad: fraction of unusable files above which it is refused.

    Raises:
        DataError: the data cannot be used, or have a class that the model does not know.
    """
    manifest = read_manifest(
        data, group_regex=group_regex, strict=strict, max_bad=max_bad, least_classes=1
    )
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
    predict: Callable[[Path], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a model on all clips of a manifest.

    Args:
        manifest: from `read_known`.
        labels: the model's classes.
        predict: gives (classes,) probabilities of a file.
        progress: called with clips done and in all.

    Returns:
        As `unfreeze.evaluate.score`, and `problems`, the files left out.
    """
    rows = []
    for done, clip in enumerate(manifest.clips, start=1):
        rows.append(predict(clip.path))
        if progress is not None:
            progress(done, len(manifest.clips))
    scores = score_clips(manifest, np.arange(len(manifest.clips)), np.stack(rows), labels)
    problems = [{"path": str(p.path), "cause": p.cause} for p in manifest.problems]
    return {**scores, "problems": problems}
