"""How events are to be found, and one recording's way from scores to events."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.events import Event, EventFinder, sorted_events
from unfreeze.detection.options import DetectOptions
from unfreeze.detection.scores import MedianOfThree, ScoreBlock, WindowMeans
from unfreeze.errors import UnfreezeError


@dataclass(frozen=True, eq=False)
class Detector:
    """Checked settings: makes an `EventStream` for each recording.

    Attributes:
        labels: name of each class.
        thresholds: (classes,) the score that begins an event.
        hop: frames from one patch to the next.
        hop_seconds: the same in seconds.
        window: seconds that are judged together.
        patches: of a window.
        smooth: as in `DetectOptions`.
        merge: as in `DetectOptions`.
    """

    labels: Sequence[str]
    thresholds: np.ndarray
    hop: int
    hop_seconds: float
    window: float
    patches: int
    smooth: bool
    merge: bool

    def stream(self, *, prompt: bool = False) -> "EventStream":
        """Make what finds the events of one recording; `prompt` as for `EventFinder`."""
        return EventStream(self, prompt=prompt)


class EventStream:
    """Finds the events of one recording in patch scores that come block by block.

    Args:
        detector: the settings.
        prompt: as for `EventFinder`.
    """

    def __init__(self, detector: Detector, *, prompt: bool = False) -> None:
        self._stages: list[WindowMeans | MedianOfThree] = []
        if detector.patches > 1:
            self._stages.append(WindowMeans(detector.patches))
        if detector.smooth:
            self._stages.append(MedianOfThree())
        self._finder = EventFinder(
            detector.labels,
            detector.thresholds,
            detector.window,
            detector.hop_seconds,
            merge=detector.merge,
            prompt=prompt,
        )

    def push(self, block: ScoreBlock) -> list[Event]:
        """Take the scores of the next patches; return events that are over, by start."""
        return self._push(block, 0)

    def finish(self) -> list[Event]:
        """Return the events that are left."""
        found: list[Event] = []
        for number, stage in enumerate(self._stages):
            rest = stage.finish()
            if rest is not None:
                found += self._push(rest, number + 1)
        return sorted_events([*found, *self._finder.finish()])

    def _push(self, block: ScoreBlock, first: int) -> list[Event]:
        for stage in self._stages[first:]:
            block = stage.push(block)
        return self._finder.push(block)


def make_detector(
    front_end: FrontEnd, labels: Sequence[str], thresholds: np.ndarray, options: DetectOptions
) -> Detector:
    """Check options and turn them into patches and frames.

    Args:
        front_end: the backbone's settings.
        labels: name of each class.
        thresholds: (classes,) of the classes, where `min_score` is None.
        options: how to find events.

    Raises:
        UnfreezeError: a window, hop or score that cannot be used; says which can.
    """
    frame = front_end.hop / front_end.sample_rate
    hop = hop_frames(front_end, options.hop)
    patch = front_end.patch_frames
    window = patch
    if options.window is not None:
        window = _frames(options.window, frame)
        if window < patch or window % patch:
            raise UnfreezeError(
                f"a window of {options.window:g} s cannot be used: the network takes "
                f"{patch * frame:g} s at once, so give {patch * frame:g} or a multiple of it "
                f"(2 x is {2 * patch * frame:g})"
            )
    score = options.min_score
    if score is not None and not 0 < score <= 1:
        raise UnfreezeError(f"a least score of {score:g}: it must be above 0 and at most 1")
    return Detector(
        labels=labels,
        thresholds=thresholds if score is None else np.full(len(labels), score),
        hop=hop,
        hop_seconds=hop * frame,
        window=window * frame,
        patches=(window - patch) // hop + 1,
        smooth=options.smooth,
        merge=options.merge,
    )


def hop_frames(front_end: FrontEnd, hop: float | None) -> int:
    """Return a hop in frames.

    Args:
        front_end: the backbone's settings.
        hop: seconds from one patch to the next; None takes the front end's.

    Raises:
        UnfreezeError: not a whole number of frames, or more than a patch is long.
    """
    if hop is None:
        return front_end.patch_hop
    frame = front_end.hop / front_end.sample_rate
    frames = _frames(hop, frame)
    if not 1 <= frames <= front_end.patch_frames:
        raise UnfreezeError(
            f"a hop of {hop:g} s cannot be used: give a multiple of {frame:g} s, from {frame:g} "
            f"to {front_end.patch_frames * frame:g} s (a longer one would leave sound between "
            f"the patches unheard)"
        )
    return frames


def all_events(detector: Detector, blocks: Iterable[ScoreBlock]) -> list[Event]:
    """Return all events of a recording, by start, then by label.

    Args:
        detector: the settings.
        blocks: patch scores of the recording, in order.
    """
    stream = detector.stream()
    found = [event for block in blocks for event in stream.push(block)]
    return sorted_events([*found, *stream.finish()])


def _frames(seconds: float, frame: float) -> int:
    """Return whole frames, 0 for what is no whole number of them."""
    frames = round(seconds / frame) if np.isfinite(seconds) else 0
    return frames if abs(frames * frame - seconds) < 1e-6 else 0
