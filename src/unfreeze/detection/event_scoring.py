"""How well the events found in recordings agree with the true ones.

Four rules, each for one class of one recording at a time:

- `overlap`: a found event is right if true sounds of its class fill at least `share` of it;
  a true one is found if right events fill at least `share` of it. Several found events may
  share a true one. This is the intersection criterion of C. Bilen et al., "A Framework for
  the Robust Evaluation of Sound Event Detection", ICASSP 2020 (DTC and GTC, both `share`).
- `iou`: pairs of a true and a found event that have at least `iou` of what they cover
  together in common (intersection over union).
- `onset`: pairs whose starts are at most `collar` apart: the event-based scores of
  A. Mesaros et al., "Metrics for Polyphonic Sound Event Detection", Applied Sciences 6:162,
  2016, with ends left out, as their starts are surer than their ends.
- `segments`: the recording is cut into segments of `segment` seconds, and in each a class is
  heard or not: the segment-based scores of Mesaros et al.

By `iou` and `onset` an event is in one pair at most, and there are as many pairs as
possible. What nobody knows (an annotation that is not complete, a label `dog?`) makes a
found event neither right nor wrong. Counts add up over recordings and classes; scores are
computed of the sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unfreeze.errors import UnfreezeError

#: The rules, from mild to strict, and the one that ignores events.
RULES = ("overlap", "iou", "onset", "segments")
# Seconds, and shares: what rounding may add.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Rules:
    """The numbers in the rules.

    Attributes:
        share: by `overlap`, the part of an event that must be filled, 0 to 1; 0 asks for any
            overlap. The default is that of scenario 2 of DCASE 2021, task 4.
        iou: above 0 to 1.
        collar: seconds. Mesaros et al. have 0.2 s, too short for windows every 0.48 s.
        segment: seconds.

    Raises:
        UnfreezeError: a number out of its range.
    """

    share: float = 0.1
    iou: float = 0.5
    collar: float = 0.5
    segment: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "share": (0 <= self.share <= 1, "from 0 to 1"),
            "iou": (0 < self.iou <= 1, "above 0 and at most 1"),
            "collar": (0 <= self.collar < np.inf, "of 0 seconds or more"),
            "segment": (0 < self.segment < np.inf, "of more than 0 seconds"),
        }
        for name, (fits, allowed) in ranges.items():
            if not fits:
                raise UnfreezeError(f"{name} is {getattr(self, name):g}: give one {allowed}")

    def in_words(self) -> dict[str, str]:
        """Each rule as a sentence."""
        least = f"at least {self.share:.0%} of it" if self.share else "any part of it"
        return {
            "overlap": f"a found event is right if true sounds of its class fill {least}; a true "
            "one is found if right events do",
            "iou": f"one to one, at least {self.iou:.0%} of what both cover in common",
            "onset": f"one to one, starts at most {self.collar:g} s apart; ends do not count",
            "segments": f"in each {self.segment:g} s a class is heard or not",
        }


def _nothing() -> np.ndarray:
    return np.zeros((0, 2))


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one class in one recording; all stretches are (n, 2), in seconds.

    Attributes:
        sounds: start and end of each true sound.
        others: stretches with sounds of other classes.
        unsure: stretches in which nobody knows whether the class is heard.
        known: the stretches that are annotated; None where all is.
    """

    sounds: np.ndarray
    others: np.ndarray = field(default_factory=_nothing)
    unsure: np.ndarray = field(default_factory=_nothing)
    known: np.ndarray | None = None


def as_spans(stretches: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return stretches as an array, (n, 2) float64, by start."""
    spans = np.array(stretches, dtype=np.float64).reshape(-1, 2)
    return spans[np.lexsort((spans[:, 1], spans[:, 0]))]


def union(spans: np.ndarray) -> np.ndarray:
    """Join stretches that overlap or touch.

    Args:
        spans: (n, 2) seconds, by start.

    Returns:
        (m, 2) seconds, apart from one another, by start.

    Examples:
        >>> union(as_spans([(0, 2), (1, 3), (5, 6)])).tolist()
        [[0.0, 3.0], [5.0, 6.0]]
    """
    if not len(spans):
        return spans
    latest = np.maximum.accumulate(spans[:, 1])
    new = np.concatenate([[True], spans[1:, 0] > latest[:-1]])
    first = np.flatnonzero(new)
    return np.stack([spans[first, 0], latest[np.append(first[1:], len(spans)) - 1]], axis=1)


def covered(spans: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return how much of each stretch others fill.

    Args:
        spans: (n, 2) seconds.
        by: (m, 2) seconds, from `union`.

    Returns:
        (n,) seconds.

    Examples:
        >>> covered(as_spans([(0, 4), (5, 6)]), by=as_spans([(1, 2), (3, 9)])).tolist()
        [2.0, 1.0]
    """
    if not len(by) or not len(spans):
        return np.zeros(len(spans))
    edges = by.ravel()
    # How much is filled up to each edge: it grows within the others, not between them.
    until = np.concatenate(
        [[0.0], np.cumsum(np.diff(edges) * (np.arange(len(edges) - 1) % 2 == 0))]
    )
    return np.asarray(np.interp(spans[:, 1], edges, until) - np.interp(spans[:, 0], edges, until))


def count(truth: Truth, found: np.ndarray, seconds: float, rules: Rules) -> np.ndarray:
    """Count what was found of one class in one recording, by each rule.

    Args:
        truth: of the class.
        found: (n, 2) start and end of each found event in seconds, by start.
        seconds: of the recording.
        rules: their numbers.

    Returns:
        (rules, 4) int64, in the order of `RULES` and of `TRUE`, `FOUND`, `HIT`, `RIGHT`.
        Found events of which nobody knows whether they are right are not counted.
    """
    sounds = truth.sounds
    judged = _judged(truth, found)
    hits, rights = _by_overlap(sounds, found, rules.share)
    near = _pairs(sounds, found, rules.collar)
    common = np.minimum(sounds[near[0], 1], found[near[1], 1]) - np.maximum(
        sounds[near[0], 0], found[near[1], 0]
    )
    both = np.maximum(sounds[near[0], 1], found[near[1], 1]) - np.minimum(
        sounds[near[0], 0], found[near[1], 0]
    )
    apart = np.abs(sounds[near[0], 0] - found[near[1], 0])
    rows = [(hits, rights)]
    for fits in (common >= rules.iou * both - _ROUNDING, apart <= rules.collar + _ROUNDING):
        rows.append(_matched(len(sounds), len(found), near[:, fits]))
    counts = [
        [len(sounds), int((right | judged).sum()), int(hit.sum()), int(right.sum())]
        for hit, right in rows
    ]
    return np.array([*counts, _segments(truth, found, seconds, rules.segment)], dtype=np.int64)


def alarms_on_others(truth: Truth, found: np.ndarray, share: float) -> int:
    """Count the found events that are wrong by `overlap` and lie on sounds of other classes.

    Args:
        truth: of the class.
        found: (n, 2) seconds, by start.
        share: the part of an event that these must fill, as in `Rules`.
    """
    wrong = found[_judged(truth, found) & ~_by_overlap(truth.sounds, found, share)[1]]
    return int(_filled(wrong, union(truth.others), share).sum())


def _filled(spans: np.ndarray, by: np.ndarray, share: float) -> np.ndarray:
    filled = covered(spans, by)
    lengths = spans[:, 1] - spans[:, 0]
    return np.asarray((filled > _ROUNDING) & (filled >= share * lengths - _ROUNDING))


def _judged(truth: Truth, found: np.ndarray) -> np.ndarray:
    """Whether a found event that is not right is wrong: nobody knows of the others."""
    sure = covered(found, union(truth.unsure)) <= _ROUNDING
    if truth.known is None:
        return sure
    half = (found[:, 1] - found[:, 0]) / 2
    return np.asarray(sure & (covered(found, union(truth.known)) >= half - _ROUNDING))


def _by_overlap(
    sounds: np.ndarray, found: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which true sounds are found, and which found events are right."""
    right = _filled(found, union(sounds), share)
    return _filled(sounds, union(found[right]), share), right


def _pairs(sounds: np.ndarray, found: np.ndarray, collar: float) -> np.ndarray:
    """Pairs of a true and a found event that overlap or start about together: (2, pairs)."""
    if not len(sounds) or not len(found):
        return np.zeros((2, 0), dtype=np.int64)
    starts = found[:, 0]
    latest = np.maximum.accumulate(found[:, 1])
    reach = collar + 2 * _ROUNDING
    first = np.minimum(
        np.searchsorted(latest, sounds[:, 0]), np.searchsorted(starts, sounds[:, 0] - reach)
    )
    end = np.maximum(
        np.searchsorted(starts, sounds[:, 1]), np.searchsorted(starts, sounds[:, 0] + reach)
    )
    number = np.maximum(end - first, 0)
    rows = np.repeat(np.arange(len(sounds)), number)
    before = np.cumsum(number) - number
    return np.stack([rows, np.arange(number.sum()) - before[rows] + first[rows]])


def _matched(true: int, found: int, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which events are in a pair, in a choice with as many pairs as possible."""
    hit, right = np.zeros(true, dtype=bool), np.zeros(found, dtype=bool)
    if pairs.shape[1]:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_bipartite_matching

        table = csr_array((np.ones(pairs.shape[1], dtype=bool), pairs), shape=(true, found))
        partner = maximum_bipartite_matching(table, perm_type="column")
        hit = partner >= 0
        right[partner[hit]] = True
    return hit, right


def _segments(truth: Truth, found: np.ndarray, seconds: float, length: float) -> list[int]:
    number = max(int(np.ceil(seconds / length - _ROUNDING)), 1)
    heard, said = _heard(truth.sounds, number, length), _heard(found, number, length)
    edges = np.arange(number) * length
    # A segment that is only partly annotated tells nothing of what is found in it.
    judged = _judged(truth, np.stack([edges, np.minimum(edges + length, seconds)], axis=1))
    both = int((heard & said).sum())
    return [int(heard.sum()), int((said & (heard | judged)).sum()), both, both]


def _heard(spans: np.ndarray, number: int, length: float) -> np.ndarray:
    """Whether any part of a segment is filled, (number,)."""
    first = np.floor(spans[:, 0] / length + _ROUNDING).astype(np.int64).clip(0, number)
    end = np.ceil(spans[:, 1] / length - _ROUNDING).astype(np.int64).clip(0, number)
    steps = np.zeros(number + 1, dtype=np.int64)
    np.add.at(steps, first, 1)
    np.add.at(steps, np.maximum(first, end), -1)
    return np.asarray(np.cumsum(steps[:-1]) > 0)
