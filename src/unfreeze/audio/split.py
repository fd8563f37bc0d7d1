"""Train, validation and test parts, and folds, that share no group and no content.

Clips that share a group or have the same bytes are one unit, and a unit is never divided.
Units are dealt out (`unfreeze.audio.deal`) so that each part gets its share of each class.
Where units are too few for all parts, training gets the class first, then test, then
validation; folds are alike, and such a class may be in any of them.

Invariant: the result depends on the seed and on the clips' names, groups, labels and
contents, not on their order.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unfreeze.audio.annotations import FEWEST_GROUPS, chains
from unfreeze.audio.deal import deal
from unfreeze.audio.label_sets import heard_in, is_set
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.errors import DataError, show

PARTS = ("train", "validation", "test")
# Classes that a note names.
_LISTED = 10


@dataclass(frozen=True)
class Split:
    """Which clips belong to which part.

    Attributes:
        train: (n,) int64 indices into the manifest's clips, ascending.
        validation: the same; empty when not wanted.
        test: the same; empty when not wanted.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def parts(self) -> dict[str, np.ndarray]:
        """Return the three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_clips(
    manifest: Manifest, *, validation: float = 0.15, test: float = 0.15, seed: int = 0
) -> Split:
    """Divide the clips by group, each class in proportion.

    A split column in the manifest decides: its parts stay as they are. A part that
    it does not name is taken from its training rows. Clips from elsewhere, for which
    the manifest has no part, are divided separately (see `place_new`).

    Args:
        manifest: the clips.
        validation: the share of the clips to validate on, 0 to 1; 0 for none.
        test: the share to test on, 0 to 1; 0 for none.
        seed: another seed gives another split.

    Returns:
        The parts; disjoint and complete, `train` with every class.

    Raises:
        DataError: the fractions leave nothing to train on, there are too few
            groups, a class would be missing in training, or a group is in
            several parts of the manifest's own split.
    """
    wanted = part_shares(validation, test)
    clips = manifest.clips
    named = {clip.split for clip in clips} - {None}
    if named and any(clip.split is None for clip in clips):
        known = {part: wanted[part] if part in {"train", *named} else 0.0 for part in PARTS}
        given = place_new(clips, [clip.split for clip in clips], known, seed)
    else:
        given = np.array([clip.split or "train" for clip in clips], dtype=object)
    if (given != "train").any():
        _check_straddling(clips, given, "the manifest's split column")
    parts = [p for p in PARTS if wanted[p] > 0 and (p == "train" or not (given == p).any())]
    pool = np.flatnonzero(given == "train")
    if len(parts) > 1:
        total = sum(wanted[part] for part in parts)
        shares = [wanted[part] / total for part in parts]
        given[pool] = _divide([clips[i] for i in pool], parts, shares, seed)
    split = Split(*(np.flatnonzero(given == part).astype(np.int64) for part in PARTS))
    check_no_leak(manifest, split)
    check_train_has_all(manifest, split)
    return split


def part_shares(validation: float, test: float) -> dict[str, float]:
    """Return the share of each part.

    Raises:
        DataError: the fractions leave nothing to train on.
    """
    for name, value in (("validation", validation), ("test", test)):
        if not 0 <= value < 1:
            raise DataError(f"The {name} fraction is {value}; it must be from 0 to below 1.")
    if validation + test >= 1:
        raise DataError(
            f"The fractions for validation ({validation}) and test ({test}) leave nothing to "
            f"train on. Their sum must be below 1."
        )
    return {"train": 1 - validation - test, "validation": validation, "test": test}


def place_new(
    clips: Sequence[Clip],
    given: Sequence[str | None] | np.ndarray,
    wanted: Mapping[str, float],
    seed: int,
) -> np.ndarray:
    """Divide the clips that have no part among clips that have one.

    Clips that have a part keep it. A new clip that shares its group or content with
    such a clip joins its part; the others are divided by group. When they have
    fewer groups than there are parts, training comes first, then test.

    Args:
        clips: all of them.
        given: (clips,) the part of each; None where it is still to be chosen.
        wanted: the share of each part, 0 to 1, with the sum 1; 0 for none.
        seed: another seed gives another division.

    Returns:
        (clips,) the part of each.

    Raises:
        DataError: a group of clips that have a part is in several parts.
    """
    parts = np.array(given, dtype=object)
    _check_straddling(clips, parts, "the given split")
    free: list[int] = []
    for unit in clip_units(clips):
        known = [parts[i] for i in unit if parts[i] is not None]
        if not known:
            free += unit
        elif len(set(known)) > 1:
            names = sorted({show(clips[i].path) for i in unit})[:4]
            raise DataError(
                f"Leak: new clips link groups of several parts ({', '.join(sorted(set(known)))}); "
                f"{', '.join(names)} belong together. Remove the clips that link them."
            )
        else:
            parts[unit] = known[0]
    if free:
        pool = [clips[i] for i in free]
        names = [part for part in ("train", "test", "validation") if wanted[part] > 0]
        names = sorted(names[: len(clip_units(pool))], key=PARTS.index)
        total = sum(wanted[part] for part in names)
        shares = [wanted[part] / total for part in names]
        parts[free] = _divide(pool, names, shares, seed) if len(names) > 1 else names[0]
    return parts


def check_no_leak(manifest: Manifest, split: Split) -> None:
    """Check that no clip, group or content is in two parts.

    Args:
        manifest: the clips.
        split: their parts, from any source.

    Raises:
        DataError: one is; the message names the group and its files.
    """
    part_of = np.full(len(manifest.clips), None, dtype=object)
    for name, indices in split.parts().items():
        for index in indices:
            if part_of[index] is not None:
                where = show(manifest.clips[index].path)
                raise DataError(f"Leak: {where} is in {part_of[index]} and in {name}.")
            part_of[index] = name
    _check_straddling(manifest.clips, part_of, "the split")


MAJORITY = 0.8
"""A larger share of one class is warned of."""


def split_notes(manifest: Manifest, split: Split) -> tuple[str, ...]:
    """Say what a user should know about a split before trusting its scores.

    Args:
        manifest: the clips.
        split: their parts.

    Returns:
        One sentence per note: parts with no or one clip of a class, a class above all others.
    """
    notes = []
    recordings = len({clip.path for clip in manifest.clips if clip.start is not None})
    if 0 < recordings < FEWEST_GROUPS and all(clip.start is not None for clip in manifest.clips):
        notes.append(
            f"The sounds are of {recordings} recording{'s' if recordings > 1 else ''} only, so its "
            f"parts are stretches of time: scores say nothing about other recordings."
        )
    counts = Counter(clip.label for clip in manifest.clips)
    (label, most), total = counts.most_common(1)[0], len(manifest.clips)
    if not manifest.several and len(counts) > 1 and most > MAJORITY * total:
        notes.append(
            f"{most / total:.0%} of the clips are of {show(label)}: a model that always says so "
            f"has that accuracy. Judge by balanced accuracy, or record more of the others."
        )
    for name, indices in split.parts().items():
        if not len(indices):
            notes.append(f"There is no {name} part.")
        elif missing := _classes_with(0, manifest, indices):
            notes.append(
                f"The {name} part has no clip of {_some(missing)}: too few groups of that "
                f"class. Record more of it to measure it."
            )
    if single := _classes_with(1, manifest, split.test):
        each = "each of" if single[1:] else "of"
        notes.append(
            f"The test part has one clip {each} {_some(single)}: right or wrong says little of a "
            f"class. Record more of it to measure it."
        )
    return tuple(notes)


def _classes_with(number: int, manifest: Manifest, indices: np.ndarray) -> list[str]:
    """The classes with this number of clips among some, sorted."""
    there = Counter(x for i in indices for x in manifest.classes_of(manifest.clips[i]))
    return sorted(label for label in manifest.labels if there[label] == number)


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return ", ".join(map(show, labels[:_LISTED])) + more


def _counts(clips: Sequence[Clip], units: Sequence[Sequence[int]]) -> list[Counter[int]]:
    """The clips of each class in each unit; a clip with several labels is of each of them."""
    own = {c.label: heard_in(c.label) or ("",) if is_set(c.label) else (c.label,) for c in clips}
    numbers = {x: i for i, x in enumerate(sorted({x for found in own.values() for x in found}))}
    return [Counter(numbers[x] for i in unit for x in own[clips[i].label]) for unit in units]


def _divide(
    clips: Sequence[Clip], parts: Sequence[str], shares: Sequence[float], seed: int
) -> np.ndarray:
    """Return the part of each clip."""
    units = clip_units(clips)
    if len(units) < len(parts):
        raise DataError(
            f"{len(units)} group{'s' if len(units) != 1 else ''} cannot be divided into "
            f"{len(parts)} parts ({', '.join(parts)}). Record more speakers, sites or sessions, "
            f"set a fraction to 0, or group more finely."
        )
    counts = _counts(clips, units)
    result = np.empty(len(clips), dtype=object)
    for unit, part in zip(units, deal(counts, shares, _ranks(parts), seed), strict=True):
        result[unit] = parts[part]
    return result


def _ranks(parts: Sequence[str]) -> list[int]:
    # The order in which parts get the few clips of a rare class.
    claims = [part for part in ("train", "test", "validation") if part in parts]
    return [claims.index(part) for part in parts]


def clip_units(clips: Sequence[Clip]) -> list[list[int]]:
    """Join the clips that share a group or a content.

    Args:
        clips: any.

    Returns:
        For each unit, which a split must not divide, the positions of its clips; in
        the order of names.
    """
    parent = list(range(len(clips)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, clip in enumerate(clips):
        for key in (("group", clip.group), ("content", clip.content)):
            other = first.setdefault(key, index)
            parent[find(index)] = find(other)
    sounds: dict[str, list[tuple[int, tuple[float, float]]]] = defaultdict(list)
    for index, clip in enumerate(clips):
        if clip.start is not None and clip.end is not None:
            recording = clip.content.partition("@")[0]
            sounds[recording].append((index, (clip.start, clip.end)))
    for own in sounds.values():
        for chain in chains([span for _, span in own], clips[own[0][0]].window):
            for position in chain[1:]:
                parent[find(own[position][0])] = find(own[chain[0]][0])
    units: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(clips)), key=lambda i: str(clips[i].path)):
        units[find(index)].append(index)
    return list(units.values())


def _check_straddling(clips: Sequence[Clip], part_of: np.ndarray, source: str) -> None:
    for kind in ("group", "content"):
        members: dict[str, list[int]] = defaultdict(list)
        for index, clip in enumerate(clips):
            if part_of[index] is not None:
                members[getattr(clip, kind)].append(index)
        for key, indices in members.items():
            if len({part_of[index] for index in indices}) == 1:
                continue
            first = {part_of[index]: index for index in reversed(indices)}
            files = [f"{show(clips[i].path)} ({part})" for part, i in sorted(first.items())]
            what = "files with the same bytes" if key == clips[indices[0]].content else None
            what = what or f"the {len(indices)} clips of group {show(key)!r}"
            raise DataError(
                f"Leak: {source} puts {what} into several parts: {', '.join(files)}. "
                f"That would make scores too good: put them into one part."
            )


def check_train_has_all(manifest: Manifest, split: Split) -> None:
    """Refuse a split whose training part lacks a class.

    Raises:
        DataError: naming the classes.
    """
    if missing := _classes_with(0, manifest, split.train):
        raise DataError(
            f"The training part has no clip of {', '.join(repr(show(x)) for x in missing)}. "
            f"Each class needs clips in at least one group of the training part."
        )


def deal_folds(manifest: Manifest, folds: int, seed: int) -> np.ndarray:
    """Divide the clips into folds by group, each class in proportion.

    Args:
        manifest: the clips.
        folds: how many, 2 or more.
        seed: another seed gives another division.

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
            f"{folds} folds need as many groups, but there are {len(units)}: ask for fewer folds"
        )
    parts = deal(_counts(clips, units), [1 / folds] * folds, None, seed)
    found = np.zeros(len(clips), np.int64)
    for unit, part in zip(units, parts, strict=True):
        found[unit] = part
    return found
