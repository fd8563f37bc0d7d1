"""Splits inside the training clips, for choices that must not see the test clips."""

from dataclasses import replace
from functools import partial

import numpy as np

from unfreeze.audio.folds import deal_folds
from unfreeze.audio.manifest import Manifest
from unfreeze.audio.split import Split, clip_units, split_clips
from unfreeze.compare.splits import TrialSplit, with_test
from unfreeze.errors import DataError

# Of the clips that the outer split trains and validates on, one of four folds is
# tested, and this share of all validated on.
FOLDS, VALIDATION = 4, 0.15


def inner_split(manifest: Manifest, outer: Split, number: int) -> TrialSplit:
    """Divide what an outer split trains and validates on, by group, into three parts.

    Four splits in a row test each group once. Drawn anew each time, few groups of
    unlike sizes would fit the shares in one way only, and the same be tested always.

    Args:
        manifest: all clips.
        outer: its test clips are in no part of the result.
        number: of the split, from 0.

    Returns:
        A split in the numbers of `manifest`; `test` is what trials are scored on.

    Raises:
        DataError: too few groups for three parts, or a class of one group alone.
    """
    pool = np.sort(np.concatenate([outer.train, outer.validation]))
    clips = tuple(replace(manifest.clips[int(i)], split=None) for i in pool)
    found = _divide(replace(manifest, clips=clips), number)
    split = Split(*(pool[part] for part in (found.train, found.validation, found.test)))
    return TrialSplit(number, None, split, np.zeros(0, np.int64))


def _divide(inner: Manifest, number: int) -> Split:
    divide = partial(split_clips, validation=VALIDATION, test=1 / FOLDS, seed=number)
    folds = min(FOLDS, len(clip_units(inner.clips)))
    if folds >= 3:
        seed, fold = divmod(number, FOLDS)
        tested = deal_folds(inner, folds, seed) == fold % folds
        try:
            return divide(with_test(inner, tested))
        except DataError:
            # A class of which this fold has all groups but one: keep it for training.
            pass
    return divide(inner)
