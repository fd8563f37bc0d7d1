"""The scores from which classes count as heard in long recordings, chosen for a wish.

A wish is a precision, or a number of false alarms an hour; without one, each threshold is
that with the best F1 among those with a precision of at least `FLOOR`. What each threshold
does is counted once, after training, on sounds that were not trained on: validation clips
and, with a gate or `--in-noise`, the same in noise and half an hour of background. The counts
are kept in `metrics.json` as `threshold_counts`, so that another wish needs no new training.

A sound counts by its largest patch score, which is what a detector compares with the
threshold. How precise a detector is in the field depends on how often the sounds occur there;
here they are as frequent as in the counted sounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unfreeze.audio.entries import is_quiet
from unfreeze.errors import RunError, UnfreezeError
from unfreeze.pipeline.bootstrap import LEVEL, wilson
from unfreeze.pipeline.calibration import DEFAULT_THRESHOLD
from unfreeze.pipeline.wish import FLOOR, Wish

Floats = NDArray[np.float64]

#: The thresholds to choose from, 0.047 to 0.9999, evenly spaced in log-odds.
LEVELS = 1 / (1 + np.exp(-np.arange(-12, 38) / 4))
COUNTS = "threshold_counts"


@dataclass(frozen=True, eq=False)
class Counts:
    """What each threshold does with sounds that were not trained on.

    Attributes:
        labels: name of each class.
        there: (classes,) sounds of the class.
        found: (classes, levels) of these, those that reach the threshold.
        wrong: (classes, levels) other sounds that reach it.
        alarms: (classes, levels) of these, those of background.
        hours: of background.
        independent: the share of the sounds that are clips of their own; the others are the
            same clips in noise.
    """

    labels: tuple[str, ...]
    there: np.ndarray
    found: np.ndarray
    wrong: np.ndarray
    alarms: np.ndarray
    hours: float
    independent: float

    def as_plain(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return {
            "levels": LEVELS.round(6).tolist(),
            "hours_of_background": self.hours,
            "independent": self.independent,
            "classes": {
                label: {
                    "there": int(self.there[number]),
                    "found": self.found[number].tolist(),
                    "wrong": self.wrong[number].tolist(),
                    "alarms": self.alarms[number].tolist(),
                }
                for number, label in enumerate(self.labels)
            },
        }


@dataclass(frozen=True)
class Choice:
    """A threshold, and what it did with the counted sounds; each with its 95 % interval.

    Attributes:
        threshold: 0 to 1.
        recall: of the class's sounds; None without any.
        recall_interval: (low, high).
        precision: None where nothing was found.
        precision_interval: (low, high).
        false_alarms: of this class in an hour of background; None without background.
        false_alarms_interval: (low, high).
        granted: whether the wish is met.
    """

    threshold: float
    recall: float | None
    recall_interval: tuple[float, float] | None
    precision: float | None
    precision_interval: tuple[float, float] | None
    false_alarms: float | None
    false_alarms_interval: tuple[float, float] | None
    granted: bool

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }


def count(
    labels: Sequence[str],
    table: np.ndarray,
    peaks: np.ndarray,
    seconds: np.ndarray,
    own: int,
) -> Counts:
    """Count what each threshold does.

    Args:
        labels: name of each class.
        table: (sounds, classes) what is heard in each: above 0.5 heard, 0 not, below 0 unknown.
        peaks: (sounds, classes) its largest patch scores, 0 to 1.
        seconds: (sounds,) how long each is.
        own: how many of the sounds that are not background are clips of their own.

    Returns:
        The counts. A sound that is unknown for a class does not count for it; background is
        where no class is heard but silent ones, and none unknown.
    """
    loud = np.array([not is_quiet(label) for label in labels])
    nothing = (table[:, loud] == 0).all(axis=1)
    shape = len(labels), len(LEVELS)
    found, wrong, alarms = (np.zeros(shape, np.int64) for _ in range(3))
    there = (table > 0.5).sum(axis=0)
    for number in range(len(labels)):
        reaches = peaks[:, number, None] >= LEVELS
        found[number] = reaches[table[:, number] > 0.5].sum(axis=0)
        wrong[number] = reaches[table[:, number] == 0].sum(axis=0)
        if loud[number]:
            alarms[number] = reaches[nothing].sum(axis=0)
    hours = float(seconds[nothing].sum() / 3600)
    sounds = int((~nothing).sum())
    return Counts(
        tuple(labels), there, found, wrong, alarms, hours, own / sounds if sounds else 1.0
    )


def counts_of(metrics: Mapping[str, Any] | None, labels: Sequence[str]) -> Counts | None:
    """The counts of a run; None if it has none (no validation clips, or an older version).

    Args:
        metrics: of the run, or None.
        labels: names of the classes.

    Raises:
        RunError: they are damaged.
    """
    plain = (metrics or {}).get(COUNTS)
    if not plain:
        return None
    try:
        if not np.allclose(plain["levels"], LEVELS, atol=1e-5):
            raise ValueError("other levels")
        rows = [plain["classes"][label] for label in labels]
        found, wrong, alarms = (
            np.array([row[name] for row in rows], np.int64).reshape(len(rows), len(LEVELS))
            for name in ("found", "wrong", "alarms")
        )
        there = np.array([row["there"] for row in rows], np.int64)
        hours, independent = float(plain["hours_of_background"]), float(plain["independent"])
    except (KeyError, TypeError, ValueError):
        raise RunError(f"The run's `{COUNTS}` in metrics.json are damaged: train again") from None
    return Counts(tuple(labels), there, found, wrong, alarms, hours, independent)


def choose(counts: Counts, wish: Wish) -> list[Choice]:
    """Choose a threshold for each class.

    Args:
        counts: of the run.
        wish: what for. Where no threshold of a class has the wished precision, it gets the
            most precise one, and its `granted` is False.

    Raises:
        UnfreezeError: false alarms are wished to be few, and there was no background.
    """
    if wish.max_false_alarms is None:
        places = [_best(counts, number, wish.precision) for number in range(len(counts.labels))]
    else:
        if not counts.hours:
            raise UnfreezeError(
                "How many false alarms an hour a threshold gives is not known: the run was "
                "trained without background. Train it without --no-gate, or with --background"
            )
        places = _few_alarms(counts, wish.max_false_alarms)
    return [_choice(counts, n, place, wish) for n, place in enumerate(places)]


def false_alarms(counts: Counts, choices: Sequence[Choice]) -> tuple[float, tuple[float, float]]:
    """Events in an hour of background, of all classes together, and the 95 % interval.

    Args:
        counts: with background.
        choices: of all classes.
    """
    total = sum(round((one.false_alarms or 0.0) * counts.hours) for one in choices)
    return total / counts.hours, rate_interval(total, counts.hours)


def rate_interval(events: int, hours: float) -> tuple[float, float]:
    """The exact 95 % interval of a Poisson rate (Garwood 1936, Biometrika 28 (3/4)).

    Args:
        events: that were counted, 0 or more.
        hours: in which they were; above 0.
    """
    from scipy.special import gammaincinv

    tail = (1 - LEVEL) / 2
    low = gammaincinv(events, tail) if events else 0.0
    return float(low / hours), float(gammaincinv(events + 1, 1 - tail) / hours)


def _best(counts: Counts, number: int, precision: float | None) -> float:
    """The threshold of one class for a precision, or for the best F1 above the floor."""
    there, found, wrong = counts.there[number], counts.found[number], counts.wrong[number]
    if not there:
        return DEFAULT_THRESHOLD
    taken = found + wrong
    right = np.where(taken > 0, found / np.maximum(taken, 1), -1.0)
    able = found > 0
    if not able.any():
        return DEFAULT_THRESHOLD
    wanted = FLOOR if precision is None else precision
    enough = able & (right >= wanted - 1e-12)
    if precision is not None:
        # The most that can be found with this precision, or else the most precise.
        goal = found if enough.any() else right
    else:
        goal = 2 * found / (taken + there)
    return _middle(np.where(enough if enough.any() else able, goal, -1.0))


def _middle(goal: np.ndarray) -> float:
    """The level nearest to the middle of the first run at which something is largest."""
    best = goal >= goal.max() - 1e-12
    first = int(np.argmax(best))
    last = first + int(np.argmin(np.append(best[first:], False))) - 1
    middle = (LEVELS[first] + LEVELS[last]) / 2
    return float(LEVELS[first + np.argmin(np.abs(LEVELS[first : last + 1] - middle))])


def _few_alarms(counts: Counts, rate: float) -> list[float]:
    """Raise the thresholds of the best F1 until all classes together alarm seldom enough.

    Each step raises one by as much as it takes to lose an alarm: the one that loses the
    fewest of the class's sounds for each alarm less.
    """
    budget = rate * counts.hours
    chosen = [_best(counts, number, None) for number in range(len(counts.labels))]
    level = [int(np.searchsorted(LEVELS, value - 1e-9)) for value in chosen]
    raised = set[int]()
    last = len(LEVELS) - 1

    def lost(number: int, to: int) -> float:
        there = max(int(counts.there[number]), 1)
        return float(counts.found[number][level[number]] - counts.found[number][to]) / there

    while sum(int(counts.alarms[n][at]) for n, at in enumerate(level)) > budget:
        steps = []
        for number, at in enumerate(level):
            alarms = counts.alarms[number]
            fewer = np.flatnonzero(alarms[at:] < alarms[at])
            if len(fewer):
                to = at + int(fewer[0])
                steps.append((lost(number, to) / int(alarms[at] - alarms[to]), number, to))
        if not steps:
            # Even the highest thresholds alarm too often.
            break
        _, number, to = min(steps)
        level[number] = min(to, last)
        raised.add(number)
    return [float(LEVELS[level[n]]) if n in raised else value for n, value in enumerate(chosen)]


def at_thresholds(counts: Counts, thresholds: Sequence[float]) -> list[Choice]:
    """What given thresholds did with the counted sounds.

    Args:
        counts: of the run.
        thresholds: of each class; the counts are those of the next level above.
    """
    return [_choice(counts, n, float(value), Wish()) for n, value in enumerate(thresholds)]


def _choice(counts: Counts, number: int, threshold: float, wish: Wish) -> Choice:
    at = min(int(np.searchsorted(LEVELS, threshold - 1e-9)), len(LEVELS) - 1)
    there, found = int(counts.there[number]), int(counts.found[number][at])
    taken, alarms = found + int(counts.wrong[number][at]), int(counts.alarms[number][at])
    quiet, known = is_quiet(counts.labels[number]), counts.hours > 0
    precision = found / taken if taken else None
    granted = True
    if wish.precision is not None:
        granted = precision is not None and precision >= wish.precision - 1e-12
    rate = alarms / counts.hours if known and not quiet else None
    return Choice(
        threshold=round(threshold, 6),
        recall=found / there if there else None,
        recall_interval=_share(found, there, counts.independent),
        precision=precision,
        precision_interval=_share(found, taken, counts.independent),
        false_alarms=rate,
        false_alarms_interval=None if rate is None else rate_interval(alarms, counts.hours),
        granted=granted,
    )


def _share(part: int, whole: int, independent: float) -> tuple[float, float] | None:
    """Wilson's interval; copies of a clip in noise do not make it narrower."""
    if not whole:
        return None
    return wilson(part / whole, max(1, round(whole * independent)))
