"""The split of one run of a comparison: trained groups, unseen groups, and unseen clips.

A score on groups that no training saw (speakers, sites, recordings) tells what a
model does out there; one on held-out clips of the trained groups tells what it
does where it was trained. The first is what most users need, and usually lower.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from unfreeze.audio.folds import deal_folds
from unfreeze.audio.manifest import Manifest
from unfreeze.audio.split import Split, split_clips
from unfreeze.compare.options import CompareOptions
from unfreeze.errors import DataError


@dataclass(frozen=True, eq=False)
class TrialSplit:
    """Which clips do what in the runs of one seed (and fold).

    Attributes:
        seed: of the split, the head's first weights, and the order.
        fold: which part is tested, from 0; None without folds.
        split: `test` holds the clips of unseen groups or, where the data have no
            groups, the held-out clips.
        seen: held-out clips of groups that are trained on; empty without groups.
    """

    seed: int
    fold: int | None
    split: Split
    seen: np.ndarray

    @property
    def name(self) -> str:
        """For files and the log."""
        return f"seed{self.seed}" + ("" if self.fold is None else f"-fold{self.fold}")


def has_groups(manifest: Manifest) -> bool:
    """Whether any group joins clips of different content."""
    return len({clip.group for clip in manifest.clips}) < len({c.content for c in manifest.clips})


def trial_splits(manifest: Manifest, options: CompareOptions) -> list[TrialSplit]:
    """The splits of all runs, seed by seed.

    Raises:
        DataError: too few groups, a held-out group that is not there, or folds of
            data that bring their own test part.
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
                "The manifest says itself which clips are for testing: leave out the folds, or "
                "its split column."
            )
        folds = deal_folds(manifest, options.folds, seed)
        named = with_test(manifest, folds == fold)
    elif options.holdout:
        groups = {clip.group for clip in manifest.clips}
        missing = sorted(set(options.holdout) - groups)
        if missing and not has_groups(manifest):
            raise DataError(
                "The data have no groups to hold out: give them a `group` column, or --group-regex."
            )
        if missing:
            raise DataError(
                f"No clip is of group {', '.join(missing)}. There are "
                f"{', '.join(sorted(groups)[:8])}{' and more' if len(groups) > 8 else ''}."
            )
        named = with_test(manifest, np.array([c.group in options.holdout for c in manifest.clips]))
    train = options.train
    split = split_clips(named, validation=train.validation, test=train.test, seed=seed)
    if not len(split.test) or not len(split.validation):
        raise DataError(
            "A comparison needs clips to choose epochs by and clips to test on: give shares "
            "above 0 for both."
        )
    seen = np.zeros(0, np.int64)
    if has_groups(manifest):
        seen = _hold_out_seen(manifest, split.train, train.validation, seed)
        split = replace(split, train=np.setdiff1d(split.train, seen))
    return TrialSplit(seed, fold, split, seen)


def with_test(manifest: Manifest, test: np.ndarray) -> Manifest:
    """Say in the manifest which clips (a boolean each) are the test part."""
    clips = [
        replace(clip, split="test" if chosen else "train")
        for clip, chosen in zip(manifest.clips, test, strict=True)
    ]
    return replace(manifest, clips=tuple(clips))


def _hold_out_seen(manifest: Manifest, train: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Some clips of each class, whose groups stay in training. Equal clips stay together."""
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
