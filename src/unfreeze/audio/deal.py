"""Dealing out units of clips to parts so that each part gets its share.

Pure arithmetic on counts. The cost of an assignment is the sum over classes and
parts of the squared distance between the part of the class that is there and
the share that should be, all clips together counting as much as all classes;
and a penalty for each class that a part lacks though the class has enough
units. Units are placed greedily, largest first, as scikit-learn's
StratifiedGroupKFold does; then single units move, and pairs swap when there are
few, while the cost falls.
"""

from collections.abc import Mapping, Sequence

import numpy as np

# Passes over all units; each lowers the cost, two or three are usual.
_PASSES = 20
# Up to so many units all pairs are tried as swaps.
_FEW = 40
# A class missing in the part of the first rank, or an empty part, is worse than
# anything else. Missing in another part it costs as much as that part being off
# by half of the class; a little less with each rank. So three clips go to three
# parts, and a speaker with half of the classes does not turn the shares round.
_NEVER = 1e6
_MISSING, _LESS = 0.25, 0.05
_LEAST_GAIN = 1e-9


def deal(
    units: Sequence[Mapping[int, int]], shares: Sequence[float], ranks: Sequence[int], seed: int
) -> np.ndarray:
    """Assign units to parts.

    Args:
        units: clips of each class, by the class's number, in each unit; at
            least as many units as parts.
        shares: of each part, above 0, with the sum 1.
        ranks: of each part, which comes first where a class has fewer units
            than there are parts; 0 is first.
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
    for _ in range(_PASSES):
        moved = [table.move_if_better(unit) for unit in order]
        swapped = len(order) <= _FEW and table.swap_if_better(order)
        if not any(moved) and not swapped:
            break
    return table.part_of


class _Table:
    """The clips of each class in each part, kept while units move.

    The last column counts all clips, whatever their class.
    """

    def __init__(
        self, units: Sequence[Mapping[int, int]], shares: Sequence[float], ranks: Sequence[int]
    ) -> None:
        everything = 1 + max(max(unit) for unit in units)
        self.classes = [np.array([*unit, everything]) for unit in units]
        self.clips = [np.array([*unit.values(), sum(unit.values())], dtype=float) for unit in units]
        totals, holders = np.zeros(everything + 1), np.zeros(everything + 1)
        for classes, clips in zip(self.classes, self.clips, strict=True):
            totals[classes] += clips
            holders[classes] += 1
        self.weights = 1 / np.maximum(totals, 1) ** 2
        self.weights[-1] *= everything
        self.targets = np.outer(shares, totals)
        # A class with k units can be in k parts: those of the first ranks.
        rank = np.asarray(ranks, dtype=float)[:, np.newaxis]
        penalties = np.where(rank == 0, _NEVER, _MISSING - _LESS * (rank - 1))
        self.penalties = penalties * (rank < holders)
        self.penalties[:, -1] = _NEVER * (1 + everything)
        self.have = np.zeros_like(self.targets)
        self.part_of = np.full(len(units), -1, dtype=np.int64)

    def place(self, unit: int) -> None:
        """Put a unit that is nowhere into the part where it costs least."""
        self._put(unit, int(np.argmin(self._changes(unit, +1))))

    def move_if_better(self, unit: int) -> bool:
        """Move a unit to the part where it costs least; tell if it moved."""
        here = int(self.part_of[unit])
        saved = -self._changes(unit, -1)[here]
        costs = self._changes(unit, +1)
        costs[here] = saved
        best = int(np.argmin(costs))
        if costs[best] >= saved - _LEAST_GAIN:
            return False
        self._put(unit, best)
        return True

    def swap_if_better(self, order: np.ndarray) -> bool:
        """Swap pairs of units where that lowers the cost; tell if any did."""
        swapped = False
        for i, one in enumerate(order):
            for other in order[i + 1 :]:
                a, b = int(self.part_of[one]), int(self.part_of[other])
                if a == b:
                    continue
                before = self._cost(a) + self._cost(b)
                self._put(one, b)
                self._put(other, a)
                if self._cost(a) + self._cost(b) < before - _LEAST_GAIN:
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
        return float(distance + self.penalties[part] @ (have == 0))

    def _changes(self, unit: int, sign: int) -> np.ndarray:
        """Return each part's change of cost if the unit joins (+1) or leaves (-1)."""
        classes, clips = self.classes[unit], sign * self.clips[unit]
        have = self.have[:, classes]
        # (have + clips - target)^2 - (have - target)^2
        square = clips * (2 * (have - self.targets[:, classes]) + clips)
        missing = (have + clips == 0).astype(float) - (have == 0)
        changes: np.ndarray = (self.penalties[:, classes] * missing).sum(axis=1)
        changes += square @ self.weights[classes]
        return changes
