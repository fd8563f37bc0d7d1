"""Finds the events of one recording or of many, on all cores.

`make_detector` checks the settings; `ScoreStream` prepares the scores of one recording, and
`EventStream` turns them into events; `detect_files` does so for many recordings at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.entries import is_of_silence
from unfreeze.audio.sound_file import file_size
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.events import (
    DetectOptions,
    Event,
    EventFinder,
    EventStart,
    sorted_events,
)
from unfreeze.detection.scan import Begun, Ended, Read, Scan, scan_files
from unfreeze.detection.score_blocks import MedianOfThree, ScoreBlock, WindowMeans
from unfreeze.errors import UnfreezeError, did_you_mean, show

# Called with bytes of sound files done.
Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Detector:
    """Checked settings: makes an `EventStream` for each recording.

    Attributes:
        labels: name of each class.
        thresholds: (classes,) the score that begins an event.
        hop: steps of the front end from one patch to the next.
        hop_seconds: the same in seconds.
        window: seconds that are scored together.
        patches: the number of patches in a window.
        smooth: as in `DetectOptions`; so are the others.
    """

    labels: Sequence[str]
    thresholds: np.ndarray
    hop: int
    hop_seconds: float
    window: float
    patches: int
    smooth: bool
    merge: bool
    min_duration: float
    max_gap: float

    def stream(self) -> "EventStream":
        """Make an `EventStream` for one recording."""
        return EventStream(self)

    def finder(self, thresholds: np.ndarray | float) -> EventFinder:
        """Make an `EventFinder` with these thresholds; its scores are those of a `ScoreStream`."""
        return EventFinder(
            self.labels,
            thresholds,
            self.window,
            self.hop_seconds,
            patch=self.window - (self.patches - 1) * self.hop_seconds,
            merge=self.merge,
            min_duration=self.min_duration,
            max_gap=self.max_gap,
        )


class ScoreStream:
    """Prepares the patch scores of one recording, block by block: silence, windows, medians.

    Args:
        detector: the settings.
    """

    def __init__(self, detector: Detector) -> None:
        self._exempt = np.array([is_of_silence(label) for label in detector.labels])
        self._stages: list[WindowMeans | MedianOfThree] = []
        if detector.patches > 1:
            self._stages.append(WindowMeans(detector.patches))
        if detector.smooth:
            self._stages.append(MedianOfThree())

    def push(self, block: ScoreBlock) -> ScoreBlock:
        """Take the scores of the next patches; return those that are ready."""
        return self._push(block.without_silence(self._exempt), 0)

    def finish(self) -> list[ScoreBlock]:
        """Return the scores that are left."""
        left = list[ScoreBlock]()
        for number, stage in enumerate(self._stages):
            rest = stage.finish()
            if rest is not None:
                left.append(self._push(rest, number + 1))
        return left

    def _push(self, block: ScoreBlock, first: int) -> ScoreBlock:
        for stage in self._stages[first:]:
            block = stage.push(block)
        return block


class EventStream:
    """Finds the events of one recording in patch scores that arrive block by block.

    Args:
        detector: the settings.
    """

    def __init__(self, detector: Detector) -> None:
        self._scores = ScoreStream(detector)
        self._finder = detector.finder(detector.thresholds)

    def push(self, block: ScoreBlock) -> list[Event]:
        """Take the scores of the next patches; return events that are over, by start."""
        return self._finder.push(self._scores.push(block))

    def take_starts(self) -> list[EventStart]:
        """Return the events that have begun since this was asked last."""
        return self._finder.take_starts()

    def finish(self) -> list[Event]:
        """Return the events that are left."""
        found = [event for rest in self._scores.finish() for event in self._finder.push(rest)]
        return sorted_events([*found, *self._finder.finish()])


def make_detector(
    front_end: FrontEnd, labels: Sequence[str], thresholds: np.ndarray, options: DetectOptions
) -> Detector:
    """Check options and turn them into patches and frames.

    Args:
        front_end: the backbone's settings.
        labels: name of each class.
        thresholds: (classes,) that of each class; used where `min_score` is None.
        options: how to find events.

    Raises:
        UnfreezeError: a window, hop or score cannot be used; the message says which can.
    """
    frame = front_end.step / front_end.sample_rate
    hop = hop_steps(front_end, options.hop)
    patch = front_end.patch_samples // front_end.step
    window = patch
    if options.window is not None:
        window = _frames(options.window, frame)
        if window < patch or window % patch:
            raise UnfreezeError(
                f"a window of {options.window:g} s cannot be used: the network takes "
                f"{patch * frame:g} s at once, so give {patch * frame:g} or a multiple of it "
                f"(2 x is {2 * patch * frame:g})"
            )
    levels = with_scores(labels, thresholds, options.min_score)
    return Detector(
        labels=labels,
        thresholds=levels,
        hop=hop,
        hop_seconds=hop * frame,
        window=window * frame,
        patches=(window - patch) // hop + 1,
        smooth=options.smooth,
        merge=options.merge,
        min_duration=options.min_duration,
        max_gap=options.max_gap,
    )


def with_scores(
    labels: Sequence[str], thresholds: np.ndarray, wanted: float | Mapping[str, float] | None
) -> np.ndarray:
    """The thresholds, changed as wanted.

    Args:
        labels: name of each class.
        thresholds: (classes,) that of each.
        wanted: one for all classes, some by class, or None for no change.

    Raises:
        UnfreezeError: a score out of range, or of a class that the model does not know.
    """
    chosen = dict(zip(labels, thresholds.tolist(), strict=True))
    given = wanted if isinstance(wanted, Mapping) else dict.fromkeys(labels, wanted)
    for label, score in given.items():
        if score is None:
            continue
        if label not in chosen:
            raise UnfreezeError(
                f"a score is given for {show(label)!r}, which the model does not know."
                f"{did_you_mean(label, labels)}"
            )
        if not 0 < score <= 1:
            raise UnfreezeError(
                f"a minimum score of {score:g} cannot be used: give one above 0 and at most 1"
            )
        chosen[label] = score
    return np.array([float(chosen[label]) for label in labels])


def hop_steps(front_end: FrontEnd, hop: float | None) -> int:
    """Return a hop in steps of the front end.

    Args:
        front_end: the backbone's settings.
        hop: seconds from one patch to the next; None takes the front end's.

    Raises:
        UnfreezeError: it is not a whole number of steps, or longer than a patch.
    """
    if hop is None:
        return front_end.steps
    frame = front_end.step / front_end.sample_rate
    frames = _frames(hop, frame)
    if not 1 <= frames <= front_end.patch_samples // front_end.step:
        raise UnfreezeError(
            f"a hop of {hop:g} s cannot be used: give a multiple of {frame:g} s, from {frame:g} "
            f"to {front_end.patch_seconds:g} s (a longer one would skip sound between "
            f"the patches)"
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
    """Return the number of frames, or 0 if it is not a whole number."""
    frames = round(seconds / frame) if np.isfinite(seconds) else 0
    return frames if abs(frames * frame - seconds) < 1e-6 else 0


@dataclass(frozen=True, eq=False)
class Found:
    """The result for one recording.

    Attributes:
        number: the recording's place in the order they were given.
        events: by start; for a damaged file, those before the damage.
        sample_rate: of the file in hertz; 0 where it could not be opened.
        seconds: of sound that were searched.
        error: why it could not be read to its end, or None.
        warnings: what else is wrong with the file, a clause each.
    """

    number: int
    events: list[Event]
    sample_rate: int
    seconds: float
    error: Exception | None
    warnings: tuple[str, ...] = ()


def detect_files(
    model: Any,
    front_end: FrontEnd,
    paths: Sequence[Path],
    detector: Detector,
    progress: Progress | None = None,
    decoders: Decoders | None = None,
    scan: Scan | None = None,
) -> Iterator[Found]:
    """Find the events of many recordings, several at once.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        paths: the recordings.
        detector: how to find events.
        progress: called as the work proceeds.
        decoders: to read with; None starts some for this call.
        scan: as for `scan_files`.

    Yields:
        Each recording when it is finished: mostly, but not always, in order.
    """
    begun: dict[int, Begun] = {}
    streams: dict[int, tuple[EventStream, list[Event]]] = {}
    done, partly, told = 0.0, dict[int, float](), 0.0
    heard: dict[int, float] = {}
    warnings: dict[int, tuple[str, ...]] = {}
    for number, item in scan_files(
        model, front_end, paths, detector.hop, decoders=decoders, scan=scan
    ):
        if isinstance(item, Begun):
            begun[number] = item
            continue
        if isinstance(item, Read):
            warnings[number] = item.warnings
            continue
        stream, events = streams.setdefault(number, (detector.stream(), []))
        if isinstance(item, Ended):
            del streams[number]
            partly.pop(number, None)
            start = begun.pop(number, None)
            done += file_size(paths[number])
            # A long one may be over after those that began during it.
            events = sorted_events([*events, *stream.finish()])
            rate = 0 if start is None else start.sample_rate
            told_of = warnings.pop(number, ())
            yield Found(number, events, rate, heard.pop(number, 0.0), item.error, told_of)
        else:
            events += stream.push(item)
            heard[number] = float(item.ends[-1])
            part = min(heard[number] / max(begun[number].seconds, 1e-3), 1.0)
            partly[number] = part * file_size(paths[number])
        if progress is not None:
            # The order of a sum changes its last digit; progress never goes back.
            told = max(told, done + sum(partly.values()))
            progress(told)


def in_order(found: Iterator[Found]) -> Iterator[Found]:
    """Yield the recordings in their order; one that is finished early waits."""
    waiting: dict[int, Found] = {}
    following = 0
    for one in found:
        waiting[one.number] = one
        while following in waiting:
            yield waiting.pop(following)
            following += 1
