"""Folds that share no group and no content, for cross-validation."""

from collections import Counter

import numpy as np

from unfreeze.audio.deal import deal
from unfreeze.audio.manifest import Manifest
from unfreeze.audio.split import clip_units
from unfreeze.errors import DataError


def deal_folds(manifest: Manifest, folds: int, seed: int) -> np.ndarray:
    """Divide the clips into folds by group, each class in proportion.

    Args:
        manifest: the clips.
        folds: how many, 2 or more.
        seed: another seed, another division.

    Returns:
        (clips,) int64, each clip's fold, from 0.

    Raises:
        DataError: fewer than two folds, or fewer groups than folds.
    """
    if folds < 2:
        raise DataError(f"{folds} folds: at least 2 are needed, so that one can test the others")
    clips = manifest.clips
    units = clip_units(clips)
    if len(units) < folds:
        raise DataError(
            f"{folds} folds need as many groups, and there are {len(units)}: ask for fewer folds"
        )
    numbers = {label: number for number, label in enumerate(manifest.labels)}
    counts = [Counter(numbers[clips[index].label] for index in unit) for unit in units]
    parts = deal(counts, [1 / folds] * folds, list(range(folds)), seed)
    found = np.zeros(len(clips), np.int64)
    for unit, part in zip(units, parts, strict=True):
        found[unit] = part
    return found
