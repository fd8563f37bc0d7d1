"""Events of many recordings, found on all cores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.audio.decoders import Decoders
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.ahead import Ended
from unfreeze.detection.detector import Detector, EventStream
from unfreeze.detection.events import Event
from unfreeze.detection.scan import Begun, scan_files

# Called with bytes of sound files done.
Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Found:
    """What came of one recording.

    Attributes:
        number: of the recording, in the order they were given.
        events: by start; of an unreadable file those before the damage.
        sample_rate: of the file in hertz; 0 where it could not be opened.
        seconds: of sound that were searched.
        error: why it could not be read to its end, or None.
    """

    number: int
    events: list[Event]
    sample_rate: int
    seconds: float
    error: Exception | None


def detect_files(
    model: Any,
    front_end: FrontEnd,
    paths: Sequence[Path],
    detector: Detector,
    progress: Progress | None = None,
    decoders: Decoders | None = None,
) -> Iterator[Found]:
    """Find the events of many recordings, several at once.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        paths: the recordings.
        detector: how to find events.
        progress: called as work goes on.
        decoders: to read with; None starts some for this call.

    Yields:
        Each recording as it is finished: nearly, not always, in order.
    """
    begun: dict[int, Begun] = {}
    streams: dict[int, tuple[EventStream, list[Event]]] = {}
    done, partly = 0.0, dict[int, float]()
    heard: dict[int, float] = {}
    for number, item in scan_files(model, front_end, paths, detector.hop, decoders=decoders):
        if isinstance(item, Begun):
            begun[number] = item
            continue
        stream, events = streams.setdefault(number, (detector.stream(), []))
        if isinstance(item, Ended):
            del streams[number]
            partly.pop(number, None)
            start = begun.pop(number, None)
            done += _size(paths[number])
            events += stream.finish()
            rate = 0 if start is None else start.sample_rate
            yield Found(number, events, rate, heard.pop(number, 0.0), item.error)
        else:
            events += stream.push(item)
            heard[number] = float(item.ends[-1])
            part = min(heard[number] / max(begun[number].seconds, 1e-3), 1.0)
            partly[number] = part * _size(paths[number])
        if progress is not None:
            progress(done + sum(partly.values()))


def in_order(found: Iterator[Found]) -> Iterator[Found]:
    """Yield each recording after those before it; the others wait."""
    waiting: dict[int, Found] = {}
    following = 0
    for one in found:
        waiting[one.number] = one
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
