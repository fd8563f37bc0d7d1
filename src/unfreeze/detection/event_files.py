"""Writes events as text: into one file, or into one file for each recording.

Beside the results lies a journal (`unfreeze.detection.journal`), so that an interrupted
search resumes and another format needs no new search. Layouts: Audacity's label track is
described in its manual, "Importing and Exporting Labels" (start, end and label, separated
by tabs, in seconds); Raven's selection table in the "Raven Pro User's Manual" of the
Cornell Lab of Ornithology (tab-separated, named columns, one row per selection; columns of
other names are kept as annotations).
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.events import Event, EventStart
from unfreeze.detection.journal import Journal
from unfreeze.detection.recordings import Recording
from unfreeze.errors import DataError, RunError, show
from unfreeze.files import atomic_path, remove_partials, write_text

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

JOURNAL = "unfreeze-events.jsonl"


@dataclass(frozen=True)
class Source:
    """The recording that events are of.

    Attributes:
        file: its name, as shown in the results.
        low_hz: lowest frequency that the network hears.
        high_hz: highest one, at most half the recording's sample rate.
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
        ending: extension of a result file, after the recording's name.
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


def as_plain(event: Event | EventStart) -> dict[str, Any]:
    """Return an event as JSON can hold it, times to the millisecond."""
    end = {"end": round(event.end, 3)} if isinstance(event, Event) else {}
    return {
        "start": round(event.start, 3),
        **end,
        "label": event.label,
        "score": round(event.score, 4),
    }


def clock(seconds: float) -> str:
    """Return a time as hours:minutes:seconds, to the hundredth.

    Examples:
        >>> clock(3723.456)
        '1:02:03.46'
    """
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 100:02}.{rest % 100:02}"


def _cell(text: str) -> str:
    # A tab or a newline would make another column or row.
    return " ".join(text.split())


def source_of(file: Path, front_end: FrontEnd, sample_rate: int) -> Source:
    """Describe a recording for the formats."""
    high = min(front_end.high_hz, sample_rate / 2) if sample_rate else front_end.high_hz
    return Source(show(file), min(front_end.low_hz, high), high)


def is_folder(out: Path) -> bool:
    """Say whether results go into a folder, with one file for each recording.

    That is so for an existing folder and for a name without an extension.
    """
    return out.is_dir() or (not out.exists() and not out.suffix)


def journal_of(out: Path) -> Path:
    """Name of the journal that belongs to results."""
    return out / JOURNAL if is_folder(out) else out.with_name(f"{out.name}.{JOURNAL}")


def result_names(out: Path, recordings: Sequence[Recording], form: str) -> dict[Path, Path]:
    """Name the result file of each recording.

    Args:
        out: a folder, or a file.
        recordings: all of the search.
        form: name of the format.

    Returns:
        The result file by recording; the same for all where `out` is not a folder.

    Raises:
        DataError: two recordings would have the same result file, or one file
            cannot hold several recordings.
    """
    if not is_folder(out):
        check_joins(form, recordings)
        return {recording.path: out for recording in recordings}
    places: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for recording in recordings:
        place = out / recording.name.with_name(recording.name.name + FORMATS[form].ending)
        if place in taken:
            raise DataError(
                f"{show(taken[place])} and {show(recording.path)} would both have their events "
                f"in {show(place)}: search them separately, with an --out for each"
            )
        taken[place] = recording.path
        places[recording.path] = place
    return places


def check_joins(form: str, recordings: Sequence[Recording]) -> None:
    """Refuse several recordings for a format that holds the events of one.

    Raises:
        DataError: there are several.
    """
    if len(recordings) > 1 and not FORMATS[form].joins:
        raise DataError(
            f"the {form} format holds the events of one recording, and there are "
            f"{len(recordings)}: give a folder with --out"
        )


def write_result(
    place: Path, form: Format, file: Path, journal: Journal, front_end: FrontEnd
) -> None:
    """Write the result file of one finished recording."""
    write_text(place, form.head + _rows(form, file, journal, front_end))


def write_joined(
    place: Path, form: Format, files: Sequence[Path], journal: Journal, front_end: FrontEnd
) -> None:
    """Write the events of all finished recordings into one file, in their order."""
    with atomic_path(place) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(form.head)
        for path in files:
            if path in journal:
                file.write(_rows(form, path, journal, front_end))


def sweep(places: Iterable[Path]) -> None:
    """Remove half-written versions of these files that a killed search left."""
    names: dict[Path, set[str]] = {}
    for place in places:
        names.setdefault(place.parent, set()).add(place.name)
    for folder, own in names.items():
        remove_partials(folder, own)


def check_out(out: Path) -> None:
    """Refuse an `--out` that holds something else.

    Raises:
        RunError: a file that no search wrote would be replaced.
    """
    if out.is_file() and not journal_of(out).exists():
        raise RunError(f"{show(out)} exists and was not written by a search: give another --out")


def _rows(form: Format, file: Path, journal: Journal, front_end: FrontEnd) -> str:
    events, about = journal.events(file)
    return form.rows(source_of(file, front_end, about["sample_rate"]), events)
