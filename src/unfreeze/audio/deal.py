"""Deals units of clips out to parts, so that each part gets its share of each class.

The cost of a deal is the sum over classes and parts of the squared distance between the actual
and the wanted share, all clips together counting as much as all classes, plus a penalty for each
class that a part lacks although there are enough units. Units are placed greedily, largest first,
as in scikit-learn's StratifiedGroupKFold; then single units move, and pairs swap where there are
few, as long as the cost falls. Where units are too few for all parts, the parts of the first
ranks get the class; without ranks, such a class may be in any of them.

Rare classes do not take the room of common ones. A class that is alone in its units wants
one unit at least in each part that it can be in, however small the part; and a part wants
as many clips as its classes want together. If a class is still off by more than one of its
units, a second search goes on from there, in which such distances come before other costs.
They count for classes alone in their units, and for classes whose share of each part is a
unit or more, but not for a rare class that shares its units with others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

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
