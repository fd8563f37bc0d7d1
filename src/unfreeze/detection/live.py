"""Finds events in live sound, and reports each as soon as it begins and as soon as it is over.

Patches follow each other by an eighth of their length, and are judged one by one: what is
reported, and in which order, does not depend on how the sound arrives.

When the network falls behind, all waiting sound is scored at once, in larger
batches, which is several times as fast: so it catches up after a short stall. If
more than `LIMIT` seconds from a microphone still wait, the oldest are dropped; a
pipe waits instead. The user is warned of a lag above `BEHIND` seconds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.detector import Detector
from unfreeze.detection.events import Event, EventStart
from unfreeze.detection.live_sources import Inbox
from unfreeze.detection.scan import PatchBlock, PatchStream
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.pipeline.inference import batch_sizes, patch_scores

# Seconds of sound that may wait.
LIMIT = 10.0
# Seconds of lag from which the user is warned.
BEHIND = 1.0
# Seconds after which a wait for sound is checked.
_LOOK = 0.25


def live_hop(front_end: FrontEnd) -> float:
    """Seconds from one patch to the next in live sound: an eighth of a patch."""
    steps = max(front_end.patch_samples // front_end.step // 8, 1)
    return steps * front_end.step / front_end.sample_rate


class LiveDetector:
    """Finds events in samples that arrive piece by piece.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        detector: how to find events; its hop should be `live_hop`.
    """

    def __init__(self, model: Any, front_end: FrontEnd, detector: Detector) -> None:
        self._model, self._front_end, self._detector = model, front_end, detector
        self._offset = 0.0
        self._begin()

    @property
    def seconds(self) -> float:
        """Seconds of sound so far, including what was dropped."""
        return self._offset + self._patches.seconds

    def warm_up(self) -> None:
        """Let the network compile for all its batch sizes, before sound arrives."""
        shape = self._front_end.patch_shape
        for size in batch_sizes(shape):
            patch_scores(self._model, np.zeros((size, *shape), np.float32))

    def push(self, samples: np.ndarray) -> list[EventStart | Event]:
        """Take samples (n,) at the model's rate; return what has begun and what is over.

        Each event is given twice: its start as soon as that is known, and the whole event
        once it is over. The start of an event is always given before the event.
        """
        return [e for block in self._patches.push(samples) for e in self._score(block)]

    def skip(self, samples: int) -> list[EventStart | Event]:
        """Skip samples that were dropped; an event ends where they begin."""
        found = self.finish()
        self._offset = self.seconds + samples / self._front_end.sample_rate
        self._begin()
        return found

    def finish(self) -> list[EventStart | Event]:
        """Return the events that last until the end of the sound."""
        found = [e for block in self._patches.finish() for e in self._score(block)]
        return [*found, *self._shifted(self._events.finish())]

    def _begin(self) -> None:
        self._patches = PatchStream(self._front_end, self._detector.hop)
        self._events = self._detector.stream()

    def _score(self, block: PatchBlock) -> list[EventStart | Event]:
        scores = patch_scores(self._model, block.patches)
        scored = ScoreBlock(block.starts, scores, block.ends, block.silent(self._front_end))
        one_by_one = (scored[i : i + 1] for i in range(len(scored)))
        return [e for patch in one_by_one for e in self._shifted(self._events.push(patch))]

    def _shifted(self, events: list[Event]) -> list[EventStart | Event]:
        """What is known now, in seconds of all sound so far.

        Ends before starts, so that at most one event of a class is open; but each event's own
        start before it.
        """
        by = self._offset
        starts = [replace(s, start=s.start + by) for s in self._events.take_starts()]
        ends = [replace(e, start=e.start + by, end=e.end + by) for e in events]
        over = {(e.label, e.start) for e in ends}
        own = [s for s in starts if (s.label, s.start) in over]
        return [*own, *ends, *(s for s in starts if (s.label, s.start) not in over)]


@dataclass
class Summary:
    """Totals of a listening session.

    Attributes:
        seconds: of sound heard.
        events: found.
        dropped: seconds of sound that were dropped.
        worst: the largest lag of the network, in seconds.
    """

    seconds: float = 0.0
    events: int = 0
    dropped: float = 0.0
    worst: float = 0.0


def listen(
    detector: LiveDetector,
    inbox: Inbox,
    sample_rate: int,
    on_event: Callable[[EventStart | Event], None],
    on_lag: Callable[[float, float], None],
) -> Summary:
    """Find events in the sound of an inbox, until it is closed or Ctrl-C.

    Args:
        detector: a new one, without any sound yet.
        inbox: another thread fills it.
        sample_rate: hertz of its samples.
        on_event: called with the start of each event, and with the event once it is over.
        on_lag: called with the seconds of lag and the seconds dropped, when
            either begins; with zeros when the network has caught up.

    Returns:
        The totals of the session.
    """
    total, began, told = Summary(), None, False

    def give(found: list[EventStart | Event]) -> None:
        for one in found:
            total.events += isinstance(one, Event)
            on_event(one)

    try:
        while True:
            taken = inbox.take(_LOOK)
            if taken.over:
                break
            now = time.monotonic()
            began = began or now - len(taken.samples) / sample_rate
            if taken.dropped:
                give(detector.skip(taken.dropped))
                total.dropped += taken.dropped / sample_rate
            give(detector.push(taken.samples))
            # A pipe may give sound faster than real time: only sound that also lags
            # behind the clock is late.
            late = time.monotonic() - began - detector.seconds
            lag = min(inbox.waiting / sample_rate, late)
            total.worst = max(total.worst, lag)
            if taken.dropped or (lag > BEHIND and not told):
                on_lag(lag, taken.dropped / sample_rate)
                told = True
            elif told and lag < BEHIND / 2:
                on_lag(0.0, 0.0)
                told = False
    except KeyboardInterrupt:
        pass
    finally:
        inbox.close()
    give(detector.finish())
    total.seconds = detector.seconds
    return total
