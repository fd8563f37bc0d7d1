"""From scores of overlapping patches to events: when which class was heard.

An event begins at a patch whose score reaches the class's threshold and lasts while the
scores stay at or above half of it. Two thresholds keep a sound whose score dips from
falling into pieces, and let no weak score begin one (J. Canny, "A Computational Approach to
Edge Detection", IEEE PAMI 8, 1986, on thresholding with hysteresis, with a ratio of two to
three; for sound events: L. Cances et al., "Evaluation of Post-processing Algorithms for
Polyphonic Sound Event Detection", WASPAA 2019).

How much of a patch a sound must fill until its class scores high differs from sound to
sound, so these patches say that there is an event, and roughly where. Its start and end are
sought in the patches around them: the sound begins where the first patch ends in which
anything is heard, and ends where the last such patch begins. Anything is heard where the
classes that are not background have half of the scores; without such a class, where the
event's own class has a fiftieth of its threshold. If something is heard all the time within a
window's length, it is another sound, and the middle of the patch whose score crosses the
threshold takes its place. So a start is final with the first patch that reaches the
threshold.

Patches of a class belong to one event where their middle halves overlap or adjoin: with the
default hop of half a patch the middles cover the recording. The first patch stands for the
recording's start too, the last one for its end. Events do not depend on how the scores are
cut into blocks; the patches of a window's length are kept in memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.detection.score_blocks import MedianOfThree, ScoreBlock
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline.wish import Wish

# The lower threshold as a share of the upper one: Canny's ratio of two.
LOW_SHARE = 0.5
# The share of the scores at which something is heard, and how much of a patch it then fills.
_HEARD, _FILL = 0.5, 0.05
# The same where there is no class of background: as a share of the class's threshold.
_TRACE, _TRACE_FILL = 0.02, 0.1
# The shortest event, as a share of a window.
_SHORTEST = 0.1
# Seconds that a sum of hops may be off by rounding.
_TOUCH = 1e-6


@dataclass(frozen=True)
class DetectOptions:
    """How to find events.

    Attributes:
        window: seconds that are scored together: one patch, or a multiple of it,
            over whose patches the scores are averaged; None takes one patch.
        hop: seconds from one patch to the next; None takes the front end's.
        min_score: the score that begins an event: one for all classes, or by class; None, and
            a class that is not named, take each class's own threshold.
        smooth: first take the median of every three patches (or windows).
        merge: join patches of a class that overlap or adjoin into one event; else
            each patch that reaches its threshold is an event.
        min_duration: seconds; events that are shorter, once they are merged, are left out.
        max_gap: seconds; events of a class that are at most so far apart are one.
        precision: choose the thresholds for this share of right events, as estimated when
            the model was trained.
        max_false_alarms: choose them for so many false alarms in an hour, likewise.

    Raises:
        UnfreezeError: a time below 0, or one where events are not merged; a wish that cannot
            be granted, or one beside `min_score`.
    """

    window: float | None = None
    hop: float | None = None
    min_score: float | Mapping[str, float] | None = None
    smooth: bool = False
    merge: bool = True
    min_duration: float = 0.0
    max_gap: float = 0.0
    precision: float | None = None
    max_false_alarms: float | None = None

    def __post_init__(self) -> None:
        """Check what needs no model before anything slow."""
        if self.wish.is_given and self.min_score is not None:
            raise UnfreezeError(
                f"A minimum score and {self.wish} are both wished for: leave out one"
            )
        times = {"minimum duration": self.min_duration, "maximum gap": self.max_gap}
        for name, seconds in times.items():
            if not (np.isfinite(seconds) and seconds >= 0):
                raise UnfreezeError(
                    f"a {name} of {seconds:g} s cannot be used: give a number of seconds, 0 or more"
                )
            if seconds and not self.merge:
                raise UnfreezeError(
                    f"a {name} is for merged events, and --no-merge (merge=False) lists each "
                    "window by itself: leave out one of them"
                )

    @property
    def wish(self) -> Wish:
        """What the thresholds are chosen for."""
        return Wish(self.precision, self.max_false_alarms)


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


@dataclass(frozen=True)
class EventStart:
    """The start of an event that is not over yet.

    Attributes:
        start: seconds from the start of the recording; that of the `Event` to come.
        label: the class.
        score: the largest patch probability so far, 0 to 1.
    """

    start: float
    label: str
    score: float


class EventFinder:
    """Finds events in scores that arrive block by block.

    Args:
        labels: name of each class; a silent one (see `unfreeze.audio.entries`) is
            never an event.
        thresholds: (classes,) the score that begins an event, above 0 to 1.
        window: seconds that are scored together.
        hop: seconds from one window to the next.
        patch: seconds that the network takes at once; None where that is the window.
        merge: join patches of one class that overlap or adjoin into one event; else
            each patch that reaches its threshold is an event, with its own
            start and end.
        min_duration: as in `DetectOptions`.
        max_gap: likewise.
    """

    def __init__(
        self,
        labels: Sequence[str],
        thresholds: np.ndarray | float,
        window: float,
        hop: float,
        *,
        patch: float | None = None,
        merge: bool = True,
        min_duration: float = 0.0,
        max_gap: float = 0.0,
    ) -> None:
        self._labels, self._merge = labels, merge
        self._window, self._hop = window, hop
        self._min_duration, self._max_gap = min_duration, max_gap
        high = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (len(labels),))
        quiet = np.array([is_quiet(label) for label in labels], dtype=bool)
        self._high = np.where(quiet, np.inf, high)
        self._sounds = ~quiet if quiet.any() else None
        # The seconds on each side that a patch does not stand for.
        self._margin = max(window - max(hop, window / 2), 0.0) / 2
        # The seconds of a sound in a window in which it is just heard: for half of a mean over
        # patches, half of them must hear it; for a trace, one.
        patch = window if patch is None else patch
        half = (window - patch) / 2 + _FILL * patch
        self._filled = _TRACE_FILL * patch if self._sounds is None else half
        self._reach = max(round(window / hop), 1)
        self._tracks: dict[int, _Track] = {}
        self._view: _View | None = None
        self._begun: list[EventStart] = []

    def push(self, block: ScoreBlock) -> list[Event]:
        """Take scores; return the events that are known to be over, by start.

        Args:
            block: the patches after those of the block before.
        """
        if not len(block):
            return []
        if not self._merge:
            return self._single(block)
        view = self._view = self._extended(block)
        high = np.flatnonzero((block.scores >= self._high).any(axis=0)).tolist()
        found: list[Event] = []
        for c in sorted({*high, *self._tracks}):
            track = self._tracks.setdefault(c, _Track())
            found += self._grow(c, track, view)
            if track.sound is not None and self._is_over(c, track.sound, view):
                found += self._give(c, track)
            if track.sound is None and track.last < view.newest - self._reach - 2:
                del self._tracks[c]
        return sorted_events(found)

    def take_starts(self) -> list[EventStart]:
        """Return the events that have begun since this was asked last.

        An event is among them before it is returned, and as soon as its start is known and it
        is sure to last `min_duration`.
        """
        begun, self._begun = self._begun, []
        return begun

    def finish(self) -> list[Event]:
        """Return the events that are left; the last patch stands for the end too."""
        left: list[Event] = []
        for c, track in self._tracks.items():
            if track.sound is not None and self._view is not None:
                if track.sound.end is None:
                    track.sound.end = self._end(c, track.sound, self._view, self._view.newest + 1)
                left += self._give(c, track)
        self._tracks = {}
        return sorted_events(left)

    def _single(self, block: ScoreBlock) -> list[Event]:
        starts, ends = block.starts.tolist(), block.ends.tolist()
        return sorted_events(
            Event(starts[i], ends[i], self._labels[c], float(block.scores[i, c]))
            for i, c in np.argwhere(block.scores >= self._high).tolist()
        )

    def _extended(self, block: ScoreBlock) -> "_View":
        """The new patches, behind as many old ones as a start or end may be sought in."""
        scores, old = block.scores.astype(np.float64), self._view
        if old is None:
            return _View(block.starts, block.ends, scores, 0, 0)
        kept = min(len(old.starts), self._reach + 3)
        return _View(
            np.concatenate([old.starts[-kept:], block.starts]),
            np.concatenate([old.ends[-kept:], block.ends]),
            np.concatenate([old.scores[-kept:], scores]),
            kept,
            old.newest + 1 - kept,
        )

    def _grow(self, c: int, track: "_Track", view: "_View") -> list[Event]:
        """Take one class' new scores; return the event that others have followed."""
        found: list[Event] = []
        scores, new = view.scores[:, c], view.new
        low = scores[new:] >= LOW_SHARE * self._high[c]
        runs = [(first + new, end + new) for first, end in _runs(low)]
        continued = track.sound is not None and track.sound.running
        if track.sound is not None:
            track.sound.running = False
        for first, end in runs:
            if first > new or not continued:
                reached = np.flatnonzero(scores[first:end] >= self._high[c])
                if not len(reached):
                    continue
                first += int(reached[0])
                found += self._begin(c, track, view, first)
            sound = track.sound
            assert sound is not None
            sound.score = max(sound.score, float(scores[first:end].max()))
            sound.last, sound.running = view.number + end - 1, end == len(scores)
            middle = view.starts[end - 1] + self._window - self._margin
            sound.middle = min(float(middle), float(view.ends[end - 1]))
            sound.end = None
            # It ends after the start of its last patch, wherever the recording ends.
            self._tell(c, sound, float(view.starts[end - 1]))
        return found

    def _begin(self, c: int, track: "_Track", view: "_View", first: int) -> list[Event]:
        """Begin an event, or continue one that is near; return the one before."""
        before = track.sound
        start = self._start(c, track, view, first)
        found: list[Event] = []
        if before is not None:
            if before.end is None:
                before.end = self._end(c, before, view, view.number + first)
            middle = float(min(view.starts[first] + self._margin, view.ends[first]))
            start = max(start, before.end)
            near = bool(self._max_gap) and start <= before.end + self._max_gap + _TOUCH
            if near or middle <= before.middle + _TOUCH:
                before.least = start + _SHORTEST * self._window
                return []
            found = self._give(c, track)
        start = max(start, track.said)
        track.sound = _Sound(start, view.number + first, start + _SHORTEST * self._window)
        return found

    def _start(self, c: int, track: "_Track", view: "_View", first: int) -> float:
        """Where the sound begins that reaches its threshold in a patch."""
        starts, scores = view.starts, view.scores[:, c]
        heard, level = self._heard(c, view)
        after = (track.last if track.sound is None else track.sound.last) - view.number
        begin = max(first - self._reach - 1, 0)
        unheard = np.flatnonzero(heard[begin:first] < level)
        place = begin + int(unheard[-1]) if len(unheard) else -1
        whole = self._window - self._filled
        if view.number + begin == 0 and not len(unheard) and after < 0:
            return float(starts[0])
        if heard[first] < level:
            start = starts[first] + whole
        elif len(unheard) and place >= after:
            start = self._crossing(starts, heard, place, level) + whole
        else:
            start = self._crossing(starts, scores, first - 1, self._high[c]) + self._window / 2
        if start >= view.ends[first] - _TOUCH:
            # Of the last patches, a part is filled up with silence.
            start = max(float(starts[first]), float(view.ends[first]) - self._hop)
        return float(start)

    def _end(self, c: int, sound: "_Sound", view: "_View", limit: int) -> float:
        """Where a sound ends, whose next one begins with the patch numbered `limit`."""
        starts, scores = view.starts, view.scores[:, c]
        last = sound.last - view.number
        if sound.running:
            return float(view.ends[-1])
        heard, level = self._heard(c, view)
        stop = min(limit - view.number, last + self._reach + 2)
        unheard = np.flatnonzero(heard[last + 1 : stop] < level)
        place = last + int(unheard[0]) if len(unheard) else last
        if heard[last] < level:
            end = starts[last] + self._filled
        elif len(unheard):
            end = self._crossing(starts, heard, place, level) + self._filled
        else:
            low = LOW_SHARE * self._high[c]
            end = self._crossing(starts, scores, last, low) + self._window / 2
        return float(min(max(end, sound.least), view.ends[place + 1]))

    def _heard(self, c: int, view: "_View") -> tuple[np.ndarray, float]:
        """How much is heard in each patch, (n,), and from which level on it is something."""
        if self._sounds is None:
            trace = _TRACE * self._high[c]
            # In logarithms: between two windows it is crossed nearer to the low score.
            return np.log(np.maximum(view.scores[:, c], trace / 10)), float(np.log(trace))
        if view.heard is None:
            view.heard = view.scores[:, self._sounds].sum(axis=1)
        return view.heard, _HEARD

    def _crossing(self, starts: np.ndarray, values: np.ndarray, i: int, level: float) -> float:
        """The time between the starts of patches i and i + 1 where values cross a level."""
        share = (level - values[i]) / (values[i + 1] - values[i])
        return float(starts[i] + share * (starts[i + 1] - starts[i]))

    def _is_over(self, c: int, sound: "_Sound", view: "_View") -> bool:
        """Whether the end of an event is known, and nothing can be added to it any more."""
        if sound.running:
            return False
        if sound.end is None:
            heard, level = self._heard(c, view)
            known = heard[sound.last - view.number :] < level
            if not known.any() and view.newest <= sound.last + self._reach:
                return False
            sound.end = self._end(c, sound, view, view.newest + 1)
        following = float(view.starts[-1]) + self._hop
        if following + self._margin <= sound.middle + _TOUCH:
            return False
        if not self._max_gap:
            return True
        # The next event begins after the last patch in which nothing is heard.
        heard, level = self._heard(c, view)
        near = heard[-self._reach - 1 :]
        unheard = np.flatnonzero(near < level)
        place = int(unheard[-1]) - len(near) if len(unheard) else -1
        earliest = min(float(view.starts[place]) + self._window / 2, following)
        return sound.end + self._max_gap < earliest - _TOUCH

    def _tell(self, c: int, sound: "_Sound", end: float) -> None:
        """Tell that an event has begun, once it is sure to last until `end`."""
        lasts = not self._min_duration or end - sound.start >= self._min_duration
        if lasts and not sound.told:
            sound.told = True
            self._begun.append(EventStart(sound.start, self._labels[c], sound.score))

    def _give(self, c: int, track: "_Track") -> list[Event]:
        """Return an event whose end is known, unless it is too short."""
        sound, track.sound = track.sound, None
        assert sound is not None
        assert sound.end is not None
        track.said, track.last = sound.end, sound.last
        if sound.end - sound.start < self._min_duration - _TOUCH:
            return []
        if not sound.told:
            self._begun.append(EventStart(sound.start, self._labels[c], sound.score))
        return [Event(sound.start, sound.end, self._labels[c], sound.score)]


@dataclass
class _View:
    """The new patches and those before them.

    Attributes:
        starts: (n,) seconds.
        ends: (n,) seconds.
        scores: (n, classes).
        new: place of the first new patch.
        number: how many patches came before these.
        heard: (n,) sum of the scores that are not background, where it was asked for.
    """

    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray
    new: int
    number: int
    heard: np.ndarray | None = None

    @property
    def newest(self) -> int:
        """The number of the last patch."""
        return self.number + len(self.starts) - 1


@dataclass
class _Sound:
    """An event that has not been returned yet.

    Attributes:
        start: seconds.
        last: number of its last patch.
        least: seconds; it does not end before.
        score: the largest so far.
        running: whether it continues with the next patch.
        middle: end of the time that its patches stand for; what begins before is part of it.
        end: seconds; None while it is not known.
        told: whether its start was given.
    """

    start: float
    last: int
    least: float
    score: float = 0.0
    running: bool = False
    middle: float = 0.0
    end: float | None = None
    told: bool = False


@dataclass
class _Track:
    """What is known of one class.

    Attributes:
        sound: the last event, not returned yet.
        said: end of the event that was returned last.
        last: number of that event's last patch.
    """

    sound: _Sound | None = None
    said: float = 0.0
    last: int = -1


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
    min_duration: float = 0.0,
    max_gap: float = 0.0,
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
        min_duration: as in `DetectOptions`.
        max_gap: likewise.

    Returns:
        Events by start, then by label.

    Examples:
        >>> scores = np.array([[0.0], [0.9], [0.3], [0.0]])
        >>> (event,) = find_events(scores, np.arange(4) * 0.5, 1.0, ["dog"], 0.5)
        >>> event.label, round(event.start, 2), round(event.end, 2)
        ('dog', 1.07, 1.4)
    """
    begins = np.asarray(starts, dtype=np.float64)
    hop = float(np.median(np.diff(begins))) if len(begins) > 1 else window
    ends = np.minimum(begins + window, np.inf if duration is None else duration)
    times = {"min_duration": min_duration, "max_gap": max_gap}
    finder = EventFinder(labels, thresholds, window, hop, merge=merge, **times)
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
