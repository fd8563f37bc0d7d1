"""`unfreeze predict`: the classes of whole recordings, or the events in them.

Events are found in recordings of any length; written results can be resumed.
"""

import json as json_module
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfreeze.audio.cluster import LOCAL, Cluster, chosen_cluster
from unfreeze.cli.arguments import (
    Hop,
    Json,
    MaxFalseAlarms,
    MinScore,
    Precision,
    Smooth,
    Window,
)
from unfreeze.cli.sentences import say_what_is_granted, say_without_background, tell
from unfreeze.errors import UnfreezeError, show
from unfreeze.pipeline.train_options import OPTIONS

if TYPE_CHECKING:
    import numpy as np

    from unfreeze.classifier import SoundClassifier
    from unfreeze.detection.detector import Found
    from unfreeze.detection.events import DetectOptions
    from unfreeze.detection.recordings import Recording


def find(
    run: Path,
    paths: list[Path],
    options: "DetectOptions",
    recursive: bool,
    form: str,
    out: Path | None,
    overwrite: bool,
    cluster: Cluster | None = None,
) -> None:
    """Find the events in recordings and print or write them.

    Args:
        run: a run folder or a model file.
        paths: recordings and folders.
        options: how to find events.
        recursive: search subfolders.
        form: name of the format.
        out: where to write; None prints.
        overwrite: replace what is in `out` instead of resuming it.
        cluster: where to search; None searches on this machine.

    Raises:
        UnfreezeError: the arguments cannot work; raised before anything slow.
        typer.Exit: with code 1, if a recording could not be read.
    """
    from unfreeze.detection import event_files
    from unfreeze.detection.event_files import FORMATS
    from unfreeze.detection.recordings import find_recordings

    if form not in FORMATS:
        raise UnfreezeError(f"There is no format {form!r}: give one of {', '.join(FORMATS)}")
    if overwrite and out is None:
        raise UnfreezeError("--overwrite replaces what is in --out: give --out, too")
    recordings = find_recordings(paths, recursive=recursive)
    if out is None:
        event_files.check_joins(form, recordings)
    elif form == "table":
        raise UnfreezeError("A table is only printed: with --out, give --format csv, jsonl, ...")
    else:
        event_files.check_out(out)
        event_files.result_names(out, recordings, form)
    from unfreeze.classifier import SoundClassifier

    classifier = SoundClassifier.load(run)
    say_without_background(classifier)
    say_what_is_granted(classifier, options)
    if out is None:
        errors = _print(classifier, recordings, options, form, cluster)
    else:
        errors = _write(classifier, run, recordings, options, form, out, overwrite, cluster)
    for error in errors:
        tell(f"error: {error}")
    if errors:
        raise typer.Exit(1)


def _print(
    classifier: "SoundClassifier",
    recordings: "list[Recording]",
    options: "DetectOptions",
    form: str,
    cluster: Cluster | None,
) -> list[Exception]:
    from unfreeze.detection.detector import in_order
    from unfreeze.detection.event_files import FORMATS, source_of

    errors: list[Exception] = []
    typer.echo(FORMATS[form].head, nl=False)
    for path, found in _search(
        classifier, [r.path for r in recordings], options, cluster, in_order
    ):
        if found.error is not None:
            errors.append(found.error)
            continue
        source = source_of(path, classifier.front_end, found.sample_rate)
        typer.echo(FORMATS[form].rows(source, found.events), nl=False)
    return errors


def _write(
    classifier: "SoundClassifier",
    run: Path,
    recordings: "list[Recording]",
    options: "DetectOptions",
    form: str,
    out: Path,
    overwrite: bool,
    cluster: Cluster | None,
) -> list[Exception]:
    from unfreeze.detection import event_files
    from unfreeze.detection.event_files import FORMATS
    from unfreeze.detection.journal import Journal
    from unfreeze.detection.scan import with_neighbours
    from unfreeze.files import make_folder, remove
    from unfreeze.output_folder import lock_held

    place = event_files.journal_of(out)
    make_folder(place.parent)
    held = lock_held(place.with_name(f".{place.name}.lock"), out)
    files = [recording.path for recording in recordings]
    with held, closing(Journal(place, _settings(classifier, run, options), overwrite)) as journal:
        places = (
            event_files.result_names(out, recordings, form) if event_files.is_folder(out) else {}
        )

        event_files.sweep([place, *(places.values() or [out])])

        def write(path: Path) -> None:
            if path in places:
                event_files.write_result(
                    places[path], FORMATS[form], path, journal, classifier.front_end
                )

        def finish(path: Path, found: "Found") -> None:
            if path in places:
                # A file of an earlier search must not pass for this one's if we are killed now.
                remove(places[path])
            journal.add(path, found.events, {"sample_rate": found.sample_rate})
            write(path)

        todo = journal.unfinished(files)
        for path in files:
            if path in journal and path in places and not places[path].exists():
                write(path)
        if len(todo) < len(files):
            done = len(files) - len(todo)
            tell(f"{done} of {len(files)} recordings are finished already")
        # With the neighbours of those that are left, each score is what it would have been.
        searched = with_neighbours(files, set(todo))
        errors = _rest(classifier, todo, searched, options, cluster, finish)
        if not places:
            event_files.write_joined(out, FORMATS[form], files, journal, classifier.front_end)
    typer.echo(f"Written to {show(out)}", err=True)
    return errors


def _rest(
    classifier: "SoundClassifier",
    todo: list[Path],
    searched: list[Path],
    options: "DetectOptions",
    cluster: Cluster | None,
    finish: "Callable[[Path, Found], None]",
) -> list[Exception]:
    """Search the recordings that are not finished, and report the result.

    Args:
        classifier: to search with.
        todo: those that are not finished.
        searched: the same and their neighbours.
        options: how to find events.
        cluster: where to search.
        finish: called with each of `todo` that could be read.

    Returns:
        What was wrong with the others.
    """
    left = set(todo)
    errors: list[Exception] = []
    began, heard, events, done = time.perf_counter(), 0.0, 0, 0
    try:
        for path, found in _search(classifier, searched, options, cluster):
            if path not in left:
                continue
            if found.error is not None:
                errors.append(found.error)
                continue
            finish(path, found)
            heard, events, done = heard + found.seconds, events + len(found.events), done + 1
    except KeyboardInterrupt:
        tell(f"stopped: {len(todo) - done} recordings are left; repeat the command to resume")
        raise typer.Exit(130) from None
    if todo:
        seconds = time.perf_counter() - began
        speed = heard / max(seconds, 1e-3)
        tell(
            f"{done} recording{'' if done == 1 else 's'}, {heard / 3600:.2f} h, searched in "
            f"{seconds:.0f} s ({speed:.0f} times as fast as they play): {events} events"
        )
    return errors


def _search(
    classifier: "SoundClassifier",
    files: list[Path],
    options: "DetectOptions",
    cluster: Cluster | None,
    order: "Callable[[Iterator[Found]], Iterator[Found]]" = iter,
) -> "Iterator[tuple[Path, Found]]":
    """Yield the events of each file, with a progress bar of bytes."""
    total = sum(file.stat().st_size for file in files if file.exists())
    with _bar(len(files), total) as (progress, finish):
        for found in order(
            classifier.detect_files(files, options, cluster=cluster, progress=progress)
        ):
            finish()
            _warn(files[found.number], found.warnings)
            yield files[found.number], found


def _warn(file: Path, warnings: Sequence[str]) -> None:
    for warning in warnings:
        tell(f"warning: {show(file)}: {warning}")


@contextmanager
def _bar(files: int, total: int) -> Iterator[tuple[Callable[[float], None], Callable[[], None]]]:
    """Yield callbacks for bytes done and for a finished recording."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    done = 0
    console = Console(stderr=True, highlight=False)
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with display:
        task = display.add_task(f"Recording 0/{files}", total=max(total, 1))

        def finish() -> None:
            nonlocal done
            done += 1
            display.update(task, description=f"Recording {done}/{files}")

        yield lambda size: display.update(task, completed=size), finish


def _settings(classifier: "SoundClassifier", run: Path, options: "DetectOptions") -> dict[str, Any]:
    """The settings that determine which events are found, as plain values for JSON."""
    from unfreeze.pipeline.light_form import model_digest

    detector = classifier.detector(options)
    levels = [round(float(level), 6) for level in detector.thresholds]
    return {
        "model": model_digest(run)[:16],
        "window": round(detector.window, 6),
        "hop": round(detector.hop_seconds, 6),
        "scores": levels[0]
        if len(set(levels)) == 1
        else dict(zip(detector.labels, levels, strict=True)),
        "smooth": detector.smooth,
        "merge": detector.merge,
        # Only where they are not as in searches from before there were these options.
        **{
            name: value
            for name, value in (
                ("min_duration", detector.min_duration),
                ("max_gap", detector.max_gap),
            )
            if value
        },
    }


TOP = 3
# Seconds from which on a mean over the recording says little of what is heard in it.
_LONG = 60.0
_PANEL = "Events"
_FORMATS = "table, csv, jsonl, audacity, raven"


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="Classes to show.", show_default=str(TOP))
    ] = None,
    json: Json = False,
    events: Annotated[
        bool,
        typer.Option("--events", help="Find when each class is heard.", rich_help_panel=_PANEL),
    ] = False,
    recursive: Annotated[
        bool,
        typer.Option("--recursive", "-r", help="Search subfolders, too.", rich_help_panel=_PANEL),
    ] = False,
    window: Window = None,
    hop: Hop = None,
    min_score: MinScore = None,
    precision: Precision = None,
    max_false_alarms: MaxFalseAlarms = None,
    smooth: Smooth = None,
    merge: Annotated[
        bool | None,
        typer.Option(
            "--merge/--no-merge",
            help="Merge windows that overlap or adjoin into one event, or list each window.",
            show_default="merge",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    min_duration: Annotated[
        float | None,
        typer.Option(
            help="Seconds that an event lasts at least; shorter ones are left out.",
            show_default="0",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(
            help="Seconds: events of a class that are at most so far apart become one.",
            show_default="0",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help=_FORMATS, show_default="table", rich_help_panel=_PANEL),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File for the events (csv or jsonl; any format for one recording), or a folder "
            "with one file per recording. Finished recordings are kept: run again to resume.",
            show_default="standard output",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace what is in --out.", rich_help_panel=_PANEL),
    ] = False,
    engine: Annotated[
        str, typer.Option(help=OPTIONS["engine"].help, rich_help_panel=_PANEL)
    ] = LOCAL,
    address: Annotated[
        str | None, typer.Option(help=OPTIONS["address"].help, rich_help_panel=_PANEL)
    ] = None,
) -> None:
    """Name the classes of recordings, or find when each class is heard in them.

    Prints one line for each whole recording, with the likeliest classes first, and which
    are heard, if the model was trained on clips with several labels. With
    --events, any other option under "Events", or a folder, finds events instead:
    start, end, class and score, in recordings of any length.

    A run with --keep-published names the likeliest of the network's own classes, too.
    A file that cannot be read is reported and the others are processed; the exit
    code is then 1. What else is wrong with a file (a wrong header, channels that cancel)
    is a warning.
    """
    chosen = (
        *(window, hop, min_score, smooth, merge, min_duration, max_gap, form, out),
        *(precision, max_false_alarms),
    )
    cluster = chosen_cluster(engine, address)
    folder = any(path.is_dir() for path in paths) or cluster is not None
    if not (events or recursive or overwrite or folder or any(v is not None for v in chosen)):
        _classes(run, paths, top or TOP, json)
        return
    if top is not None or json:
        given = "--top" if top is not None else "--json"
        raise UnfreezeError(
            f"{given} is for the classes of whole recordings, but an option or a folder asks for "
            f"events: use --format jsonl for programs, or --min-score for fewer events"
        )

    from unfreeze.detection.events import DetectOptions

    options = DetectOptions(
        window=window,
        hop=hop,
        min_score=min_score,
        smooth=DetectOptions.smooth if smooth is None else smooth,
        merge=DetectOptions.merge if merge is None else merge,
        min_duration=DetectOptions.min_duration if min_duration is None else min_duration,
        max_gap=DetectOptions.max_gap if max_gap is None else max_gap,
        precision=precision,
        max_false_alarms=max_false_alarms,
    )
    find(run, paths, options, recursive, form or "table", out, overwrite, cluster)


def _classes(run: Path, files: list[Path], top: int, json: bool) -> None:
    from unfreeze.classifier import SoundClassifier
    from unfreeze.errors import DataError

    classifier = SoundClassifier.load(run)
    found: list[dict[str, Any]] = []
    failed = 0
    for file in files:
        own: dict[str, float] = {}
        try:
            if classifier.published_labels:
                scores, heard = classifier.predict_both(file)
                own = _likeliest(heard, classifier.published_labels, top)
            else:
                scores = classifier.predict(file)
        except DataError as error:
            failed += 1
            found.append({"file": show(file), "error": str(error)})
            if not json:
                tell(f"error: {error}")
            continue
        classes = _likeliest(scores, classifier.labels, top)
        about = classifier.examine(file)
        names = classifier.heard(scores, silent=about.silent)
        row = {"file": show(file), "heard": list(names), "classes": classes}
        row["warnings"] = list(about.warnings)
        found.append({**row, **({classifier.published_key: own} if own else {})})
        if not json:
            _warn(file, about.warnings)
            if about.seconds > _LONG:
                tell(
                    f"note: {show(file)} lasts {about.seconds:.0f} s, and these are its classes "
                    "on average: --events finds when each is heard"
                )
            several = f"{', '.join(names)}  | " if classifier.multilabel else ""
            nothing = "digital silence" if about.silent else "none of the classes"
            shown = several if names else f"{nothing}: "
            heard_as = f"  | {classifier.published_title}: {_row(own)}" if own else ""
            typer.echo(f"{show(file)}: {shown}{_row(classes)}{heard_as}")
    if json:
        typer.echo(json_module.dumps(found, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)


def _likeliest(scores: "np.ndarray", labels: tuple[str, ...], top: int) -> dict[str, float]:
    best = scores.argsort(kind="stable")[::-1][:top]
    return {labels[i]: round(float(scores[i]), 6) for i in best}


def _row(classes: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in classes.items())
