"""Events as text: tables for people and for other programs.

Layouts: Audacity's label track is described in its manual, "Importing and
Exporting Labels" (start, end and label, separated by tabs, in seconds); Raven's
selection table in the "Raven Pro User's Manual" of the Cornell Lab of
Ornithology (tab-separated, named columns, one row a selection; columns of other
names are kept as annotations).
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unfreeze.detection.events import Event

RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin File",
    "Class",
    "Score",
)
CSV_COLUMNS = ("file", "start", "end", "label", "score")


@dataclass(frozen=True)
class Source:
    """The recording that events are of.

    Attributes:
        file: its name as it is to be shown.
        low_hz: lower edge of what the network hears.
        high_hz: upper edge, at most half the recording's sample rate.
    """

    file: str
    low_hz: float
    high_hz: float


@dataclass(frozen=True)
class Format:
    """One way to write events.

    Attributes:
        head: text before the first event.
        rows: the text of one recording's events.
        ending: of a file of results, after the recording's name.
        joins: whether one file may hold the events of several recordings.
    """

    head: str
    rows: Callable[[Source, Sequence[Event]], str]
    ending: str
    joins: bool


def _table(source: Source, events: Sequence[Event]) -> str:
    count = f"{len(events)} event{'' if len(events) == 1 else 's'}" if events else "nothing heard"
    width = max((len(event.label) for event in events), default=0)
    lines = [
        f"  {clock(event.start)}  {clock(event.end)}  {event.label:<{width}}  {event.score:.3f}\n"
        for event in events
    ]
    return f"{source.file}: {count}\n{''.join(lines)}"


def _csv(source: Source, events: Sequence[Event]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        (source.file, f"{e.start:.3f}", f"{e.end:.3f}", e.label, f"{e.score:.4f}") for e in events
    )
    return text.getvalue()


def _jsonl(source: Source, events: Sequence[Event]) -> str:
    return "".join(
        json.dumps({"file": source.file, **as_plain(event)}, ensure_ascii=False) + "\n"
        for event in events
    )


def _audacity(_: Source, events: Sequence[Event]) -> str:
    return "".join(f"{e.start:.6f}\t{e.end:.6f}\t{_cell(e.label)}\n" for e in events)


def _raven(source: Source, events: Sequence[Event]) -> str:
    name = _cell(source.file.rsplit("/", 1)[-1])
    rows = (
        (
            *(number, "Spectrogram 1", 1, f"{e.start:.6f}", f"{e.end:.6f}"),
            *(f"{source.low_hz:.1f}", f"{source.high_hz:.1f}"),
            *(name, _cell(e.label), f"{e.score:.4f}"),
        )
        for number, e in enumerate(events, start=1)
    )
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


FORMATS = {
    "table": Format("", _table, ".txt", True),
    "csv": Format(",".join(CSV_COLUMNS) + "\n", _csv, ".csv", True),
    "jsonl": Format("", _jsonl, ".jsonl", True),
    "audacity": Format("", _audacity, ".labels.txt", False),
    "raven": Format("\t".join(RAVEN_COLUMNS) + "\n", _raven, ".selections.txt", False),
}


def as_plain(event: Event) -> dict[str, Any]:
    """Return an event as JSON can hold it, times to the millisecond."""
    return {
        "start": round(event.start, 3),
        "end": round(event.end, 3),
        "label": event.label,
        "score": round(event.score, 4),
    }


def clock(seconds: float) -> str:
    """Return a time as hours:minutes:seconds, to the hundredth.

    Example:
        >>> clock(3723.456)
        '1:02:03.46'
    """
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 100:02}.{rest % 100:02}"


def _cell(text: str) -> str:
    # A tab or a line's end would make another column or row.
    return " ".join(text.split())
