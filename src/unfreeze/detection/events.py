"""From scores of overlapping patches to events: when which class was heard.

An event begins at a patch whose score reaches the class's threshold and lasts while the
scores stay at or above half of it. Two thresholds keep a sound whose score dips from
falling into pieces, and let no weak score begin one (J. Canny, "A Computational Approach to
Edge Detection", IEEE PAMI 8, 1986, on thresholding with hysteresis, with a ratio of two to
three; for sound events: L. Cances et al., "Evaluation of Post-processing Algorithms for
Polyphonic Sound Event Detection", WASPAA 2019).

A patch already responds to a sound that fills only part of it, so the time from the first
patch's start to the last one's end is too long: by half a second on each side with YAMNet
(docs/detection.md). So a patch stands for its middle half, or for the hop around its middle
if that is longer: with the default hop of half a patch the middles cover the recording
without gap or overlap. The first patch stands for the recording's start too, the last one
for its end.

Scores may be averaged or median-filtered first; only a few patches are kept in memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unfreeze.audio.entries import is_quiet

# The lower threshold as a share of the upper one: Canny's ratio of two.
LOW_SHARE = 0.5
# Seconds that a sum of hops may be off by rounding.
_TOUCH = 1e-6


@dataclass(frozen=True)
class DetectOptions:
    """How to find events.

    Attributes:
        window: seconds that are scored together: one patch, or a multiple of it,
            over whose patches the scores are averaged; None takes one patch.
        hop: seconds from one patch to the next; None takes the front end's.
        min_score: the score that begins an event, for all classes; None takes
            each class's own threshold.
        smooth: first take the median of every three patches (or windows).
        merge: join patches of a class that overlap or adjoin into one event; else
            each patch that reaches its threshold is an event.
    """

    window: float | None = None
    hop: float | None = None
    min_score: float | None = None
    smooth: bool = False
    merge: bool = True


@dataclass(frozen=True, eq=False)
class ScoreBlock:
    """Class scores of some consecutive patches of a recording.

    Attributes:
        starts: (n,) float64, seconds from the start of the recording, ascending.
        scores: (n, classes) float32, probabilities.
        ends: (n,) float64, seconds; never beyond the recording's end.
        silent: (n,) whether a patch holds digital silence alone; None where that is not
            known.
    """

    starts: np.ndarray
    scores: np.ndarray
    ends: np.ndarray
    silent: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, part: slice) -> "ScoreBlock":
        return ScoreBlock(self.starts[part], self.scores[part], self.ends[part])

    def without_silence(self, exempt: np.ndarray) -> "ScoreBlock":
        """The same, but in digital silence nothing is heard.

        What a network makes of it is an accident of its training: "cat", say.

        Args:
            exempt: (classes,) whether a class may be one of silence.
        """
        if self.silent is None or not self.silent.any():
            return self
        scores = np.where(self.silent[:, None] & ~exempt, np.float32(0), self.scores)
        return ScoreBlock(self.starts, scores, self.ends)


def joined(first: ScoreBlock | None, second: ScoreBlock) -> ScoreBlock:
    """Join two consecutive blocks into one."""
    if first is None or not len(first):
        return second
    return ScoreBlock(
        np.concatenate([first.starts, second.starts]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.ends, second.ends]),
    )


class WindowMeans:
    """Averages the scores of the patches within windows longer than a patch.

    Args:
        count: patches in a window, 1 or more.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: ScoreBlock | None = None
        self._begun = False

    def push(self, block: ScoreBlock) -> ScoreBlock:
        """Take patches; return the windows that they complete, one from each patch on."""
        count, held = self._count, joined(self._held, block)
        if count == 1 or len(held) < count:
            self._held = None if count == 1 else held
            return held if count == 1 else held[:0]
        windows = np.lib.stride_tricks.sliding_window_view(held.scores, count, axis=0)
        self._held, self._begun = held[len(held) - count + 1 :], True
        means = windows.mean(axis=-1, dtype=np.float64).astype(np.float32)
        return ScoreBlock(held.starts[: len(means)], means, held.ends[count - 1 :])

    def finish(self) -> ScoreBlock | None:
        """Return what is left: the only window of a recording shorter than a window."""
        held, self._held = self._held, None
        if held is None or self._begun or not len(held):
            return None
        mean = held.scores.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return ScoreBlock(held.starts[:1], mean, held.ends[-1:])


class MedianOfThree:
    """Takes the median of each patch and its two neighbours, class by class.

    A single patch that differs from both neighbours, high or low, takes the
    score of one of them; steps stay where they are, which a mean would blur.
    The first and the last patch of a recording stay as they are.
    """

    def __init__(self) -> None:
        self._held: ScoreBlock | None = None
        self._begun = False

    def push(self, block: ScoreBlock) -> ScoreBlock:
        """Take patches; return those before the last, smoothed."""
        held = joined(self._held, block)
        if not self._begun and len(held):
            # Its own neighbour, so that the median is its own score.
            held, self._begun = joined(held[:1], held), True
        if len(held) < 3:
            self._held = held
            return held[:0]
        scores = held.scores
        middle = np.median(np.stack([scores[:-2], scores[1:-1], scores[2:]]), axis=0)
        self._held = held[len(held) - 2 :]
        return ScoreBlock(held.starts[1:-1], middle, held.ends[1:-1])

    def finish(self) -> ScoreBlock | None:
        """Return the last patch; None if there was none."""
        held, self._held = self._held, None
        return None if held is None or not len(held) else held[len(held) - 1 :]


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
    """Finds events in scores that arrive block by block.

    Args:
        labels: name of each class; a silent one (see `unfreeze.audio.entries`) is
            never an event.
        thresholds: (classes,) the score that begins an event, above 0 to 1.
        window: seconds that a patch lasts.
        hop: seconds from one patch to the next.
        merge: join patches of one class that overlap or adjoin into one event; else
            each patch that reaches its threshold is an event, with its own
            start and end.
        prompt: return each event as soon as its scores have fallen, and let one
            that follows closely begin where it ended; else wait until nothing
            can adjoin it any more, and make one of the two.
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
        # The seconds on each side that a patch does not stand for.
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
        """Return the events that are left; the last patch stands for the end too."""
        left = [
            replace(state.event, end=max(state.event.end, self._end if state.running else 0.0))
            for state in self._classes.values()
            if state.event is not None
        ]
        self._classes = {}
        return sorted_events(left)

    def _middles(self, block: ScoreBlock) -> tuple[np.ndarray, np.ndarray]:
        """Return the time that each patch stands for: starts and ends, (n,) each."""
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
        """Begin an event, or continue one that adjoins; return the one before."""
        before = state.event
        if before is not None and start <= before.end + _TOUCH:
            return []
        state.event = Event(max(start, state.said), start, self._labels[c], 0.0)
        return [] if before is None else [before]

    def _over(self, state: "_Class") -> list[Event]:
        """Return the event, now that its scores have fallen, unless it must wait."""
        if not self._prompt or state.event is None:
            return []
        event, state.event = state.event, None
        state.said = event.end
        return [event]


@dataclass
class _Class:
    """What is known of one class.

    Attributes:
        event: the last one found, not returned yet.
        running: whether it continues with the next patch.
        said: end of the event that was returned last.
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
        smooth: first take the median of every three patches.
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
