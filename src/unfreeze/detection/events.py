"""From scores of overlapping patches to events: when which class was heard.

An event begins at a patch whose score reaches the class's threshold and goes
on while the scores stay at or above half of it. Two thresholds keep a sound
whose score dips from falling into pieces, without letting weak scores begin
one (J. Canny, "A Computational Approach to Edge Detection", IEEE PAMI 8, 1986,
section on thresholding with hysteresis, with a ratio of two to three; for
sound events: L. Cances et al., "Evaluation of Post-processing Algorithms for
Polyphonic Sound Event Detection", WASPAA 2019).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unfreeze.audio.quiet import is_quiet
from unfreeze.detection.scores import ScoreBlock, smoothed

# The lower threshold as a share of the upper one: Canny's ratio of two.
LOW_SHARE = 0.5
# Patches that leave less than this between them adjoin: rounding of seconds.
_TOUCH = 1e-6


@dataclass(frozen=True)
class Event:
    """A stretch of a recording in which a class was heard.

    Attributes:
        start: seconds from the start of the recording.
        end: seconds, after `start`, never beyond the recording's end.
        label: the class.
        score: the largest patch probability within, 0 to 1.
    """

    start: float
    end: float
    label: str
    score: float


class EventFinder:
    """Finds events in scores that come block by block.

    Args:
        labels: name of each class; a silent one (see `unfreeze.audio.quiet`) is
            never an event.
        thresholds: (classes,) the score that begins an event, 0 to 1.
        merge: patches of one class that overlap or adjoin are one event; else
            each patch that reaches its threshold is an event of its own.
    """

    def __init__(self, labels: Sequence[str], thresholds: np.ndarray, *, merge: bool = True):
        self._labels, self._merge = labels, merge
        high = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (len(labels),))
        self._high = np.where([is_quiet(label) for label in labels], np.inf, high)
        self._open: dict[int, Event] = {}
        self._last_end = -np.inf

    def push(self, block: ScoreBlock) -> list[Event]:
        """Take scores; return the events that are known to be over, by start.

        Args:
            block: the patches after those of the block before.
        """
        if not len(block.starts):
            return []
        high = block.scores >= self._high
        starts, ends = block.starts.tolist(), block.ends.tolist()
        if not self._merge:
            return sorted_events(
                Event(starts[i], ends[i], self._labels[c], float(block.scores[i, c]))
                for i, c in np.argwhere(high).tolist()
            )
        ends_before = np.concatenate([[self._last_end], block.ends[:-1]])
        apart = block.starts > ends_before + _TOUCH
        self._last_end = float(block.ends[-1])
        found: list[Event] = []
        for c in sorted({*np.flatnonzero(high.any(axis=0)).tolist(), *self._open}):
            found += self._push_class(c, block, high[:, c], apart)
        return sorted_events(found)

    def finish(self) -> list[Event]:
        """Return the events that last to the end of the recording."""
        found, self._open = sorted_events(self._open.values()), {}
        return found

    def _push_class(
        self, c: int, block: ScoreBlock, high: np.ndarray, apart: np.ndarray
    ) -> list[Event]:
        scores = block.scores[:, c]
        low = scores >= LOW_SHARE * self._high[c]
        found: list[Event] = []
        before = self._open.pop(c, None)
        if before is not None and (apart[0] or not low[0]):
            found.append(before)
            before = None
        for first, end in _runs(low, apart):
            # The run that goes on from the block before has begun already.
            event = before if first == 0 else None
            if event is None:
                reached = np.flatnonzero(high[first:end])
                if not len(reached):
                    continue
                first += int(reached[0])
                event = Event(float(block.starts[first]), 0.0, self._labels[c], 0.0)
            best = max(event.score, float(scores[first:end].max()))
            event = replace(event, end=float(block.ends[end - 1]), score=best)
            if end == len(low):
                self._open[c] = event
            else:
                found.append(event)
        return found


def find_events(
    scores: np.ndarray,
    starts: np.ndarray,
    window: float,
    labels: Sequence[str],
    thresholds: np.ndarray | float,
    *,
    merge: bool = True,
    smooth: bool = False,
    duration: float | None = None,
) -> list[Event]:
    """Find the events in the scores of a whole recording.

    Args:
        scores: (n, classes) probabilities of each patch.
        starts: (n,) seconds, ascending.
        window: seconds that a patch lasts.
        labels: name of each class.
        thresholds: (classes,) or one for all: the score that begins an event.
        merge: as for `EventFinder`.
        smooth: take the median of each three patches first.
        duration: of the recording in seconds; no event ends later.

    Returns:
        Events by start, then by label.

    Example:
        >>> scores = np.array([[0.1], [0.9], [0.3], [0.1]])
        >>> find_events(scores, np.arange(4) * 0.48, 0.96, ["dog"], 0.5)
        [Event(start=0.48, end=1.92, label='dog', score=0.9)]
    """
    begins = np.asarray(starts, dtype=np.float64)
    ends = np.minimum(begins + window, np.inf if duration is None else duration)
    whole = ScoreBlock(begins, np.asarray(scores), ends)
    finder = EventFinder(labels, np.asarray(thresholds), merge=merge)
    found = [e for block in (smoothed([whole]) if smooth else [whole]) for e in finder.push(block)]
    return sorted_events([*found, *finder.finish()])


def sorted_events(events: Iterable[Event]) -> list[Event]:
    """Return events by start, then by label."""
    return sorted(events, key=lambda event: (event.start, event.label, event.end))


def _runs(low: np.ndarray, apart: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, end) of each run of patches that are low or more and touch."""
    before = np.concatenate([[False], low[:-1]])
    after = np.concatenate([low[1:] & ~apart[1:], [False]])
    firsts = np.flatnonzero(low & ~(before & ~apart))
    ends = np.flatnonzero(low & ~after) + 1
    return list(zip(firsts.tolist(), ends.tolist(), strict=True))
