"""The scores of held-out clips, as `metrics.json` has them."""

from typing import Any

import numpy as np

from unfreeze.audio.background_clips import Pieces
from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.audio.split import Split
from unfreeze.pipeline.calibration import calibrate
from unfreeze.pipeline.evaluation import score_clips
from unfreeze.pipeline.held_counts import HeldScores
from unfreeze.pipeline.label_scoring import label_thresholds
from unfreeze.pipeline.training_data import label_numbers

#: The parts that are scored after training, in the order of `metrics.json`.
HELD = ("test", "validation")


def held_metrics(
    cut: Pieces, views: HeldScores, seed: int, thresholds: dict[str, Any]
) -> dict[str, Any]:
    """Clip-level scores of the held-out parts, as in `metrics.json`.

    Args:
        cut: the data set; its classes are those of the model.
        views: from `score_held`.
        seed: of the bootstrap.
        thresholds: the entries of `threshold_entries`.

    Returns:
        Scores by part, None for one without clips; the thresholds, and what follows from them.
    """
    manifest, split = cut.manifest, cut.split
    if manifest.several:
        return _label_scores(manifest, split, views, seed) | thresholds
    found: dict[str, Any] = {}
    held: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray] | None] = {}
    numbers = label_numbers(manifest)
    for name in HELD:
        clips, scores = split.parts()[name], views.get(name)
        if scores is None:
            found[name] = held[name] = None
            continue
        means, peaks = scores
        found[name] = score_clips(manifest, clips, means[clips], manifest.labels, seed)
        held[name] = numbers[clips], means[clips], peaks[clips]
    cuts = thresholds["thresholds"]
    levels = None if cuts is None else np.array(list(cuts.values()))
    fitted = None if held["validation"] is None else held["validation"][:2]
    return {**found, **thresholds, **calibrate(manifest.labels, fitted, held["test"], levels)}


def _label_scores(
    manifest: Manifest,
    split: Split,
    views: HeldScores,
    seed: int,
) -> dict[str, Any]:
    """The same where clips may have several labels.

    `clip_thresholds` are for the mean score of a clip's patches, fitted on validation clips.
    """
    labels, table = manifest.labels, heard_table(manifest)
    cuts = None
    if "validation" in views:
        clips = split.validation
        cuts = label_thresholds(table[clips], views["validation"][0][clips])
    found: dict[str, Any] = {}
    for name in HELD:
        clips, both = split.parts()[name], views.get(name)
        found[name] = None
        if both is not None:
            found[name] = score_clips(manifest, clips, both[0][clips], labels, seed, cuts)
    named = None if cuts is None else dict(zip(labels, cuts.round(4).tolist(), strict=True))
    return {**found, "calibration": None, "at_thresholds": None, "clip_thresholds": named}
