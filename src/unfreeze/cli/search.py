"""`unfreeze search`: places in the recordings of an index."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.cli.sentences import tell
from unfreeze.errors import UnfreezeError, show

if TYPE_CHECKING:
    from unfreeze.search.index_folder import Index
    from unfreeze.search.queries import Example, Found

_PART = re.compile(r"(.+)@([\d.:]+)-([\d.:]+)", re.DOTALL)
_FORMATS = "table, csv, jsonl, audacity, raven"
_EXAMPLE = "a recording, a folder of them, or a part: call.wav@12.5-15"


def search(
    folder: Annotated[
        Path, typer.Argument(metavar="INDEX", help="What `unfreeze embed --out` wrote.")
    ],
    like: Annotated[
        list[str] | None, typer.Option("--like", help=f"Sounds like this: {_EXAMPLE}.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--class", help="Sounds that the run takes for this class.")
    ] = None,
    uncertain: Annotated[
        bool, typer.Option("--uncertain", help="Sounds that the run is least certain of.")
    ] = False,
    unlike: Annotated[
        list[str] | None,
        typer.Option(
            "--unlike",
            help="Sounds that resemble none of these, such as the recordings of your training: "
            "recordings, folders or parts.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="The most places.")] = 20,
    approximate: Annotated[
        bool,
        typer.Option("--approximate", help="With --like: use the graph of `embed --approximate`."),
    ] = False,
    form: Annotated[str, typer.Option("--format", help=_FORMATS)] = "table",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File for the places, or a folder with one file per recording.",
            show_default="standard output",
        ),
    ] = None,
) -> None:
    """Find places in recordings by their sound, in an index that `unfreeze embed` made.

    Give one of --like, --class, --uncertain and --unlike; --like and --unlike may be
    repeated. Scores are the likeness to the most similar example (at most 1), the class's
    probability, or the uncertainty. Neighbouring windows are one place.
    """
    from unfreeze.detection.event_files import FORMATS
    from unfreeze.search.index_folder import open_index

    given = [name for name, on in _asked(like, label, uncertain, unlike) if on]
    if len(given) != 1:
        what = " and ".join(given) if given else "nothing"
        raise UnfreezeError(
            f"You asked for {what}: give one of --like, --class, --uncertain and --unlike"
        )
    if approximate and not like:
        raise UnfreezeError("--approximate is for --like: the other searches are exact")
    if form not in FORMATS:
        raise UnfreezeError(f"There is no format {form!r}: give one of {', '.join(FORMATS)}")
    if out is not None and form == "table":
        raise UnfreezeError("A table is only printed: with --out, give --format csv, jsonl, ...")
    if out is not None and out.is_file():
        raise UnfreezeError(f"{show(out)} exists: give another --out")
    index = open_index(folder)
    found = _found(index, like, label, unlike, top, approximate)
    _warn(index, found)
    if form == "table":
        _print_table(found)
    else:
        _write(index, found, given[0].removeprefix("--"), form, out)


def _asked(
    like: list[str] | None, label: str | None, uncertain: bool, unlike: list[str] | None
) -> list[tuple[str, bool]]:
    return [
        ("--like", bool(like)),
        ("--class", label is not None),
        ("--uncertain", uncertain),
        ("--unlike", bool(unlike)),
    ]


def _found(
    index: "Index",
    like: list[str] | None,
    label: str | None,
    unlike: list[str] | None,
    top: int,
    approximate: bool,
) -> "list[Found]":
    from unfreeze.search import queries
    from unfreeze.search.neighbours import open_neighbours

    if label is not None:
        return queries.find_class(index, label, top)
    if like:
        neighbours = open_neighbours(index) if approximate else None
        return queries.find_like(index, _examples(like), top, neighbours, _left_out)
    if unlike:
        return queries.find_unlike(index, _examples(unlike), top, _left_out)
    return queries.find_uncertain(index, top)


def _left_out(error: Exception) -> None:
    tell(f"warning: left out: {error}")


def _examples(texts: list[str]) -> "list[Example]":
    from unfreeze.detection.recordings import find_recordings
    from unfreeze.search.queries import Example

    found = []
    for text in texts:
        part = _PART.fullmatch(text)
        if part is not None and not Path(text).exists():
            start, end = _seconds(part[2], text), _seconds(part[3], text)
            if end <= start:
                raise UnfreezeError(f"{show(text)!r} does not end after it starts")
            find_recordings([Path(part[1])])
            found.append(Example(Path(part[1]), start, end))
            continue
        found += [Example(item.path) for item in find_recordings([Path(text)], recursive=True)]
    return found


def _seconds(text: str, where: str) -> float:
    """Seconds, or minutes:seconds, or hours:minutes:seconds."""
    try:
        total = 0.0
        for part in text.split(":"):
            total = 60 * total + float(part)
    except ValueError:
        raise UnfreezeError(
            f"{show(where)!r}: {text!r} is no time; give seconds or 1:02:03.5"
        ) from None
    return total


def _warn(index: "Index", found: "list[Found]") -> None:
    for recording in dict.fromkeys(index.recording_of(item.row) for item in found):
        change = recording.change()
        if change is not None:
            tell(
                f"warning: {show(recording.path)} {change}; `unfreeze embed` adds it again from "
                "where it is now"
            )


def _print_table(found: "list[Found]") -> None:
    from unfreeze.detection.event_files import clock

    if not found:
        typer.echo("nothing found")
    width = max((len(show(item.label)) for item in found), default=0)
    for item in found:
        label = f"  {show(item.label):<{width}}" if width else ""
        start, end = clock(item.place.start), clock(item.place.end)
        typer.echo(f"{item.score:6.3f}  {start}  {end}{label}  {show(item.place.recording)}")


def _write(index: "Index", found: "list[Found]", query: str, form: str, out: Path | None) -> None:
    """Print or write the places in one of the formats of events."""
    from unfreeze.detection import event_files
    from unfreeze.detection.event_files import FORMATS, Source
    from unfreeze.detection.events import Event
    from unfreeze.detection.recordings import Recording
    from unfreeze.files import write_text
    from unfreeze.output_folder import holds

    def text(items: "list[Found]") -> str:
        rows = []
        for item in items:
            of = index.recording_of(item.row)
            high = min(index.settings.high_hz, of.sample_rate / 2 or index.settings.high_hz)
            source = Source(show(of.path), min(index.settings.low_hz, high), high)
            place = item.place
            rows.append((source, Event(place.start, place.end, item.label or query, item.score)))
        sources = {source for source, _ in rows}
        if len(sources) == 1:
            # All at once, so that a format which numbers its rows does so.
            return FORMATS[form].rows(sources.pop(), [event for _, event in rows])
        return "".join(FORMATS[form].rows(source, [event]) for source, event in rows)

    paths = list(dict.fromkeys(item.place.recording for item in found))
    home = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    recordings = [Recording(path, path.relative_to(home)) for path in paths]
    if out is not None and event_files.is_folder(out):
        holds(out, None, "places")
        for path, place in event_files.result_names(out, recordings, form).items():
            mine = [item for item in found if item.place.recording == path]
            write_text(place, FORMATS[form].head + text(mine), "surrogateescape")
        typer.echo(f"Written to {show(out)}", err=True)
        return
    event_files.check_joins(form, recordings)
    whole = FORMATS[form].head + text(found)
    if out is None:
        typer.echo(whole, nl=False)
    else:
        write_text(out, whole)
        typer.echo(f"Written to {show(out)}", err=True)
