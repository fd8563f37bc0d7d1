"""Train, validation and test parts, and folds, that share no group and no content.

Clips that share a group or have the same bytes are one unit, and a unit is never divided.
Units are dealt out so that each part gets its share of each class. The cost of a deal is
the sum over classes and parts of the squared distance between the actual and the wanted
share, all clips together counting as much as all classes, plus a penalty for each class
that a part lacks although there are enough units. Units are placed greedily, largest first,
as in scikit-learn's StratifiedGroupKFold; then single units move, and pairs swap where
there are few, as long as the cost falls. Where units are too few for all parts, training
gets the class first, then test, then validation; folds are alike, and such a class may be
in any of them.

Rare classes do not take the room of common ones. A class that is alone in its units wants
one unit at least in each part that it can be in, however small the part; and a part wants
as many clips as its classes want together. If a class is still off by more than one of its
units, a second search goes on from there, in which such distances come before other costs.
They count for classes alone in their units, and for classes whose share of each part is a
unit or more, but not for a rare class that shares its units with others.

Invariant: the result depends on the seed and on the clips' names, groups, labels and
contents, not on their order.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unfreeze.audio.annotations import FEWEST_GROUPS, chains
from unfreeze.audio.label_sets import heard_in, is_set
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.errors import DataError, show

# Passes over all units; each lowers the cost, two or three are usual.
_PASSES = 20
# Up to this number of units, all pairs are tried as swaps.
_FEW = 40
# A class missing in the part of the first rank, or an empty part, is worse than
# anything else. Missing in another part it costs as much as that part being off
# by half of the class; a little less with each rank. So three clips go to three
# parts, and a speaker with half of the classes does not reverse the shares.
_NEVER = 1e6
_MISSING, _LESS = 0.25, 0.05
# The cost of each further unit that a class is off in the second search: neither rare
# classes nor the sum of all clips can outweigh it, but "never" does.
_OFF = 100.0
_LEAST_GAIN = 1e-9

PARTS = ("train", "validation", "test")


def deal(
    units: Sequence[Mapping[int, int]],
    shares: Sequence[float],
    ranks: Sequence[int] | None,
    seed: int,
) -> np.ndarray:
    """Assign units to parts.

    Args:
        units: clips of each class, by the class's number, in each unit; at
            least as many units as parts.
        shares: of each part, above 0, with the sum 1.
        ranks: the rank of each part, from 0: where a class has fewer units than
            there are parts, rank 0 comes first. None if such a class may be in
            any parts.
        seed: of the order among units of one size.

    Returns:
        (units,) int64, the number of a part; every part has a unit.
    """
    table = _Table(units, shares, ranks)
    order = np.random.default_rng(seed).permutation(len(units))
    sizes = np.array([sum(unit.values()) for unit in units])
    order = order[np.argsort(-sizes[order], kind="stable")]
    for unit in order:
        table.place(unit)
    table.improve(order)
    if table.is_out_of_bounds():
        table.put_bounds_first()
        table.improve(order)
    return table.part_of


class _Table:
    """The clips of each class in each part, kept while units move.

    The last column counts all clips, whatever their class.
    """

    def __init__(
        self,
        units: Sequence[Mapping[int, int]],
        shares: Sequence[float],
        ranks: Sequence[int] | None,
    ) -> None:
        everything = 1 + max(max(unit) for unit in units)
        self.classes = [np.array([*unit, everything]) for unit in units]
        self.clips = [np.array([*unit.values(), sum(unit.values())], dtype=float) for unit in units]
        totals, holders = np.zeros(everything + 1), np.zeros(everything + 1)
        smallest, largest = np.full(everything + 1, np.inf), np.zeros(everything + 1)
        alone = np.ones(everything + 1, dtype=bool)
        for unit, classes, clips in zip(units, self.classes, self.clips, strict=True):
            totals[classes] += clips
            holders[classes] += 1
            smallest[classes] = np.minimum(smallest[classes], clips)
            largest[classes] = np.maximum(largest[classes], clips)
            alone[classes] &= len(unit) == 1
        alone[-1] = False
        self.alone = alone
        self.weights = 1 / np.maximum(totals, 1) ** 2
        self.weights[-1] *= everything
        rank = np.arange(len(shares)) if ranks is None else np.asarray(ranks)
        rank = rank[:, np.newaxis]
        # A class with k units can be in k parts: those of the first ranks, or any.
        claims = rank < holders
        if ranks is None:
            claims &= holders >= len(shares)
        less = np.maximum(_MISSING - _LESS * (rank - 1), _LESS)
        self.penalties = np.where(rank == 0, _NEVER, less) * claims
        self.penalties[:, -1] = _NEVER * (1 + everything)
        self.targets = np.outer(shares, totals)
        for one in np.flatnonzero(alone):
            wanted = _wanted(np.asarray(shares), totals[one], smallest[one], claims[:, one])
            self.targets[:, -1] += wanted - self.targets[:, one]
            self.targets[:, one] = wanted
        self.common = min(shares) * holders >= 1 - _LEAST_GAIN
        self.common[-1] = False
        # How far off a class may be: its mean unit or, where units that it shares with
        # others are placed for the sake of those, too, its largest.
        size = np.where(alone, totals / np.maximum(holders, 1), largest)
        # Whole numbers, as clips are: so no distance from the bounds is too small to count.
        self.low = np.ceil(self.targets - size - _LEAST_GAIN)
        self.high = np.floor(self.targets + size + _LEAST_GAIN)
        self.off_weights = np.where(alone | self.common, _OFF / np.maximum(size, 1), 0)
        self.bounds_first = False
        self.have = np.zeros_like(self.targets)
        self.part_of = np.full(len(units), -1, dtype=np.int64)

    def place(self, unit: int) -> None:
        """Put a unit that has no part into the part where it costs least."""
        self._put(unit, int(np.argmin(self._changes(unit, +1))))

    def move_if_better(self, unit: int) -> bool:
        """Move a unit to the part where it costs least; return whether it moved."""
        here = int(self.part_of[unit])
        saved = -self._changes(unit, -1)[here]
        costs = self._changes(unit, +1)
        costs[here] = saved
        best = int(np.argmin(costs))
        if costs[best] >= saved - _LEAST_GAIN:
            return False
        self._put(unit, best)
        return True

    def improve(self, order: np.ndarray) -> None:
        """Move units, and swap pairs if there are few, as long as the cost falls."""
        sets = [order] if len(order) <= _FEW else self.few_of_one_class(order)
        for _ in range(_PASSES):
            moved = [self.move_if_better(unit) for unit in order]
            swapped = [self.swap_if_better(few) for few in sets]
            if not any(moved) and not any(swapped):
                break

    def few_of_one_class(self, order: np.ndarray) -> list[np.ndarray]:
        """Return the units of each class that has few, and one too large for some part."""
        units_of: dict[int, list[int]] = defaultdict(list)
        for unit in order:
            units_of[int(self.classes[unit][0])].append(unit)
        return [
            np.array(units)
            for one, units in units_of.items()
            if self.alone[one]
            and len(units) <= _FEW
            and max(self.clips[unit][0] for unit in units) > self.targets[:, one].min()
        ]

    def is_out_of_bounds(self) -> bool:
        """Whether a class that is held to its bounds is off by more than a unit."""
        off = _outside(self.have, self.low, self.high) @ self.off_weights
        return bool(off.any())

    def put_bounds_first(self) -> None:
        """Let the distances from the bounds come before other costs."""
        self.bounds_first = True
        # A part that lacks a common class is as bad as one that is off by a unit.
        lacks = (self.penalties > 0) & self.common
        self.penalties = np.where(lacks, np.maximum(self.penalties, _OFF), self.penalties)

    def swap_if_better(self, order: np.ndarray) -> bool:
        """Swap pairs of units where that lowers the cost; return whether any did."""
        swapped = False
        costs = [self._cost(part) for part in range(len(self.have))]
        for i, one in enumerate(order):
            for other in order[i + 1 :]:
                a, b = int(self.part_of[one]), int(self.part_of[other])
                if a == b:
                    continue
                self._put(one, b)
                self._put(other, a)
                new = self._cost(a), self._cost(b)
                if sum(new) < costs[a] + costs[b] - _LEAST_GAIN:
                    costs[a], costs[b] = new
                    swapped = True
                else:
                    self._put(one, a)
                    self._put(other, b)
        return swapped

    def _put(self, unit: int, part: int) -> None:
        classes, clips = self.classes[unit], self.clips[unit]
        if self.part_of[unit] >= 0:
            self.have[self.part_of[unit], classes] -= clips
        self.have[part, classes] += clips
        self.part_of[unit] = part

    def _cost(self, part: int) -> float:
        have = self.have[part]
        distance = (have - self.targets[part]) ** 2 @ self.weights
        cost = float(distance + self.penalties[part] @ (have == 0))
        if self.bounds_first:
            cost += float(_outside(have, self.low[part], self.high[part]) @ self.off_weights)
        return cost

    def _changes(self, unit: int, sign: int) -> np.ndarray:
        """Return each part's change of cost if the unit joins (+1) or leaves (-1)."""
        classes, clips = self.classes[unit], sign * self.clips[unit]
        have = self.have[:, classes]
        # (have + clips - target)^2 - (have - target)^2
        square = clips * (2 * (have - self.targets[:, classes]) + clips)
        missing = (have + clips == 0).astype(float) - (have == 0)
        changes: np.ndarray = (self.penalties[:, classes] * missing).sum(axis=1)
        changes += square @ self.weights[classes]
        if self.bounds_first:
            low, high = self.low[:, classes], self.high[:, classes]
            farther = _outside(have + clips, low, high) - _outside(have, low, high)
            changes += farther @ self.off_weights[classes]
        return changes


def _outside(have: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    outside: np.ndarray = np.maximum(0, np.maximum(low - have, have - high))
    return outside


def _wanted(shares: np.ndarray, total: float, least: float, claims: np.ndarray) -> np.ndarray:
    """Return how many clips of a class each part should have.

    Args:
        shares: of each part, with the sum 1.
        total: the clips of the class.
        least: the clips in its smallest unit.
        claims: whether each part should have the class at all; False for all parts
            where that does not matter.

    Returns:
        The shares of the clips; but `least` at the least in the parts that claim the
        class, and none in the others if any does.
    """
    wanted: np.ndarray = shares * total
    if not claims.any() or (claims.all() and wanted.min() >= least):
        return wanted
    wanted = np.where(claims, least, 0.0)
    free = claims.copy()
    while free.any():
        fair = shares * (total - wanted[~free].sum()) / shares[free].sum()
        low = free & (fair < least)
        if not low.any():
            wanted[free] = fair[free]
            break
        # What these parts get more, the others get less, so that they may be low next.
        free &= ~low
    return wanted


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
        One sentence per note: parts without a class, a class that outweighs all others.
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
            continue
        if missing := _missing(manifest, indices):
            notes.append(
                f"The {name} part has no clip of {', '.join(map(show, missing))}: too few groups "
                f"of that class. Record more of it to measure it."
            )
    return tuple(notes)


def _missing(manifest: Manifest, indices: np.ndarray) -> list[str]:
    """The classes that some clips lack, sorted."""
    there = (manifest.classes_of(manifest.clips[i]) for i in indices)
    return sorted(set(manifest.labels).difference(*there))


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
    if missing := _missing(manifest, split.train):
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
