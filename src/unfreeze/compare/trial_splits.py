"""The splits of comparisons and trials: trained groups, unseen groups, unseen clips.

A score on groups that were not trained on (speakers, sites, recordings) predicts how a
model does in new places; a score on held-out clips of the trained groups, how it does
where it was trained. Most users need the first, which is usually lower. Inner splits
divide the training clips, for choices that must not use the test clips.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from unfreeze.audio.manifest import Manifest
from unfreeze.audio.split import Split, clip_units, deal_folds, split_clips
from unfreeze.compare.strategies import CompareOptions
from unfreeze.errors import DataError


@dataclass(frozen=True, eq=False)
class TrialSplit:
    """The parts of the clips in the runs of one seed (and fold).

    Attributes:
        seed: of the split, the head's initial weights, and the order.
        fold: the part that is tested, from 0; None without folds.
        split: `test` holds the clips of unseen groups or, if the data have no
            groups, the held-out clips.
        seen: held-out clips of groups that are trained on; empty without groups.
    """

    seed: int
    fold: int | None
    split: Split
    seen: np.ndarray

    @property
    def name(self) -> str:
        """Name for files and the log."""
        return f"seed{self.seed}" + ("" if self.fold is None else f"-fold{self.fold}")


def has_groups(manifest: Manifest) -> bool:
    """Whether any group has clips of different content."""
    return len({clip.group for clip in manifest.clips}) < len({c.content for c in manifest.clips})


def trial_splits(manifest: Manifest, options: CompareOptions) -> list[TrialSplit]:
    """The splits of all runs, seed by seed.

    Raises:
        DataError: there are too few groups, a held-out group does not exist, or folds
            were requested for data with a test part of their own.
    """
    return [
        _trial_split(manifest, options, seed, fold)
        for seed in range(options.seeds)
        for fold in (range(options.folds) if options.folds is not None else [None])
    ]


def _trial_split(
    manifest: Manifest, options: CompareOptions, seed: int, fold: int | None
) -> TrialSplit:
    named = manifest
    if fold is not None:
        assert options.folds is not None
        if any(clip.split is not None for clip in manifest.clips):
            raise DataError(
                "The manifest already says which clips are for testing: leave out --folds, or "
                "remove its split column."
            )
        folds = deal_folds(manifest, options.folds, seed)
        named = with_test(manifest, folds == fold)
    elif options.holdout:
        groups = {clip.group for clip in manifest.clips}
        missing = sorted(set(options.holdout) - groups)
        if missing and not has_groups(manifest):
            raise DataError(
                "The data have no groups to hold out: add a `group` column, or use --group-regex."
            )
        if missing:
            raise DataError(
                f"No clip is of group {', '.join(missing)}. The groups are "
                f"{', '.join(sorted(groups)[:8])}{' and more' if len(groups) > 8 else ''}."
            )
        named = with_test(manifest, np.array([c.group in options.holdout for c in manifest.clips]))
    train = options.train
    split = split_clips(named, validation=train.validation, test=train.test, seed=seed)
    if not len(split.test) or not len(split.validation):
        raise DataError(
            "A comparison needs clips to choose epochs by and clips to test on: set "
            "--validation and --test above 0."
        )
    seen = np.zeros(0, np.int64)
    if has_groups(manifest):
        seen = _hold_out_seen(manifest, split.train, train.validation, seed)
        split = replace(split, train=np.setdiff1d(split.train, seen))
    return TrialSplit(seed, fold, split, seen)


def with_test(manifest: Manifest, test: np.ndarray) -> Manifest:
    """Mark in the manifest the clips of the test part: `test` is one boolean per clip."""
    clips = [
        replace(clip, split="test" if chosen else "train")
        for clip, chosen in zip(manifest.clips, test, strict=True)
    ]
    return replace(manifest, clips=tuple(clips))


def _hold_out_seen(manifest: Manifest, train: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Some clips of each class whose groups stay in training. Equal clips stay together."""
    clips = manifest.clips
    members: dict[str, list[int]] = {}
    for index in train:
        members.setdefault(clips[index].content, []).append(int(index))
    left_of_group = Counter(clips[i].group for i in train)
    left_of_class = Counter(clips[i].label for i in train)
    wanted = {label: round(share * count) for label, count in left_of_class.items()}
    taken: list[int] = []
    order = np.random.default_rng(seed).permutation(len(members))
    contents = sorted(members, key=lambda content: min(members[content]))
    for unit in (members[contents[place]] for place in order):
        groups = Counter(clips[i].group for i in unit)
        labels = Counter(clips[i].label for i in unit)
        keeps_groups = all(left_of_group[group] > count for group, count in groups.items())
        is_wanted = all(
            wanted[label] >= count and left_of_class[label] > count
            for label, count in labels.items()
        )
        if keeps_groups and is_wanted:
            taken += unit
            left_of_group -= groups
            left_of_class -= labels
            wanted = {label: count - labels[label] for label, count in wanted.items()}
    return np.array(sorted(taken), np.int64)


# The clips that the outer split trains and validates on form four folds: one is
# tested on, and this share of all of them is validated on.
FOLDS, VALIDATION = 4, 0.15


def inner_split(manifest: Manifest, outer: Split, number: int) -> TrialSplit:
    """Divide the clips that an outer split trains and validates on, by group, into three parts.

    Four consecutive splits test each group once. If each split were drawn by itself, few
    groups of different sizes would fit the shares in one way only, and the same groups
    would always be tested.

    Args:
        manifest: all clips.
        outer: the outer split; its test clips are in no part of the result.
        number: of the split, from 0.

    Returns:
        A split in the clip numbers of `manifest`; trials are scored on `test`.

    Raises:
        DataError: too few groups for three parts, or a class with only one group.
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
            # This fold has all groups of a class but one: draw a split without folds instead.
            pass
    return divide(inner)
