"""From scores of overlapping patches to events: when which class was heard.

An event begins at a patch whose score reaches the class's threshold and goes
on while the scores stay at or above half of it. Two thresholds keep a sound
whose score dips from falling into pieces, without letting weak scores begin
one (J. Canny, "A Computational Approach to Edge Detection", IEEE PAMI 8, 1986,
on thresholding with hysteresis, with a ratio of two to three; for sound
events: L. Cances et al., "Evaluation of Post-processing Algorithms for
Polyphonic Sound Event Detection", WASPAA 2019).

What a run of patches says about time: a patch hears a sound that fills only a
part of it, so from the first patch's start to the last one's end is too long,
by half a second at either side with YAMNet (docs/detection.md). Here a patch
speaks for its middle half, or for the hop around its middle if that is longer.
With the default hop of half a patch the middles cover the recording without
gap or overlap. The first patch speaks from the recording's start on, the last
one to its end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unfreeze.audio.quiet import is_quiet
from unfreeze.detection.scores import MedianOfThree, ScoreBlock

# The lower threshold as a share of the upper one: Canny's ratio of two.
LOW_SHARE = 0.5
# Seconds that a sum of hops may be off by rounding.
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
        thresholds: (classes,) the score that begins an event, above 0 to 1.
        window: seconds that a patch lasts.
        hop: seconds from one patch to the next.
        merge: patches of one class that overlap or adjoin are one event; else
            each patch that reaches its threshold is an event, with its own
            start and end.
        prompt: give each event as soon as its scores have fallen, and let one
            that follows closely begin where it ended; else wait until nothing
            can adjoin any more, and make one of the two.
    """

    def __init__(
        self,
        labels: Sequence[str],
        thresholds: np.ndarray | float,
        window: float,
        hop: float,
        *,
        merge: bool = True,
        prompt: bool = False,
    ) -> None:
        self._labels, self._merge, self._prompt = labels, merge, prompt
        self._window, self._hop = window, hop
        high = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (len(labels),))
        self._high = np.where([is_quiet(label) for label in labels], np.inf, high)
        # What a patch does not speak for at either side.
        self._margin = max(window - max(hop, window / 2), 0.0) / 2
        self._classes: dict[int, _Class] = {}
        self._begun, self._end = False, 0.0

    def push(self, block: ScoreBlock) -> list[Event]:
        """Take scores; return the events that are known to be over, by start.

        Args:
            block: the patches after those of the block before.
        """
        if not len(block):
            return []
        high = block.scores >= self._high
        if not self._merge:
            return self._single(block, high)
        starts, ends = self._middles(block)
        following = float(block.starts[-1]) + self._hop + self._margin
        found: list[Event] = []
        for c in sorted({*np.flatnonzero(high.any(axis=0)).tolist(), *self._classes}):
            state = self._classes.setdefault(c, _Class())
            found += self._runs(c, block.scores[:, c], high[:, c], starts, ends)
            event = state.event
            if event is not None and not state.running and event.end < following - _TOUCH:
                found.append(event)
                state.event = None
            if state.event is None and state.said <= following:
                del self._classes[c]
        return sorted_events(found)

    def finish(self) -> list[Event]:
        """Return the events that are left; the last patch speaks to the end."""
        left = [
            replace(state.event, end=max(state.event.end, self._end if state.running else 0.0))
            for state in self._classes.values()
            if state.event is not None
        ]
        self._classes = {}
        return sorted_events(left)

    def _middles(self, block: ScoreBlock) -> tuple[np.ndarray, np.ndarray]:
        """Return what each patch speaks for: starts and ends, (n,) each."""
        starts = block.starts + self._margin
        starts = np.where(starts < block.ends, starts, block.starts)
        if not self._begun:
            starts[0], self._begun = block.starts[0], True
        self._end = float(block.ends[-1])
        return starts, np.minimum(block.starts + self._window - self._margin, block.ends)

    def _single(self, block: ScoreBlock, high: np.ndarray) -> list[Event]:
        starts, ends = block.starts.tolist(), block.ends.tolist()
        return sorted_events(
            Event(starts[i], ends[i], self._labels[c], float(block.scores[i, c]))
            for i, c in np.argwhere(high).tolist()
        )

    def _runs(
        self, c: int, scores: np.ndarray, high: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> list[Event]:
        """Take one class' scores; return its events that nothing can be added to."""
        state = self._classes[c]
        found: list[Event] = []
        was_running, state.running = state.running, False
        runs = _runs(scores >= LOW_SHARE * self._high[c])
        if was_running and (not runs or runs[0][0] > 0):
            found += self._over(state)
        for first, end in runs:
            if first > 0 or not was_running:
                reached = np.flatnonzero(high[first:end])
                if not len(reached):
                    continue
                first += int(reached[0])
                found += self._begin(state, c, float(starts[first]))
            assert state.event is not None
            best = max(state.event.score, float(scores[first:end].max()))
            state.event = replace(state.event, end=float(ends[end - 1]), score=best)
            state.running = end == len(scores)
            if not state.running:
                found += self._over(state)
        return found

    def _begin(self, state: "_Class", c: int, start: float) -> list[Event]:
        """Begin an event, or go on with one that adjoins; return the one before."""
        before = state.event
        if before is not None and start <= before.end + _TOUCH:
            return []
        state.event = Event(max(start, state.said), start, self._labels[c], 0.0)
        return [] if before is None else [before]

    def _over(self, state: "_Class") -> list[Event]:
        """The scores have fallen: return the event if it is not to wait."""
        if not self._prompt or state.event is None:
            return []
        event, state.event = state.event, None
        state.said = event.end
        return [event]


@dataclass
class _Class:
    """What is known of one class.

    Attributes:
        event: heard last and not given yet.
        running: whether it goes on with the next patch.
        said: end of the event given last.
    """

    event: Event | None = None
    running: bool = False
    said: float = 0.0


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
        starts: (n,) seconds, ascending in even steps.
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
        >>> find_events(scores, np.arange(4) * 0.5, 1.0, ["dog"], 0.5)
        [Event(start=0.75, end=1.75, label='dog', score=0.9)]
    """
    begins = np.asarray(starts, dtype=np.float64)
    hop = float(np.median(np.diff(begins))) if len(begins) > 1 else window
    ends = np.minimum(begins + window, np.inf if duration is None else duration)
    finder = EventFinder(labels, thresholds, window, hop, merge=merge)
    blocks = [ScoreBlock(begins, np.asarray(scores), ends)]
    if smooth:
        median = MedianOfThree()
        blocks = [median.push(blocks[0]), *([] if (rest := median.finish()) is None else [rest])]
    found = [event for block in blocks for event in finder.push(block)]
    return sorted_events([*found, *finder.finish()])


def sorted_events(events: Iterable[Event]) -> list[Event]:
    """Return events by start, then by label."""
    return sorted(events, key=lambda event: (event.start, event.label, event.end))


def _runs(low: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, end) of each run of patches that are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], low, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
