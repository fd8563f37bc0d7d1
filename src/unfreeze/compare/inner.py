"""Splits inside the training clips, for choices that must not see the test clips."""

from dataclasses import replace

import numpy as np

from unfreeze.audio.manifest import Manifest
from unfreeze.audio.split import Split, split_clips
from unfreeze.compare.splits import TrialSplit

# Shares of the clips that the outer split trains and validates on.
VALIDATION, TEST = 0.15, 0.25


def inner_split(manifest: Manifest, outer: Split, seed: int) -> TrialSplit:
    """Divide what an outer split trains and validates on, by group, into three parts.

    Args:
        manifest: all clips.
        outer: its test clips are in no part of the result.
        seed: another seed, another division.

    Returns:
        A split in the numbers of `manifest`; `test` is what trials are scored on.

    Raises:
        DataError: too few groups for three parts, or a class of one group alone.
    """
    pool = np.sort(np.concatenate([outer.train, outer.validation]))
    clips = tuple(replace(manifest.clips[int(i)], split=None) for i in pool)
    found = split_clips(replace(manifest, clips=clips), validation=VALIDATION, test=TEST, seed=seed)
    split = Split(*(pool[part] for part in (found.train, found.validation, found.test)))
    return TrialSplit(seed, None, split, np.zeros(0, np.int64))
