"""`unfreeze predict`: the classes of recordings, or the events within them."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfreeze.cli.arguments import Json
from unfreeze.detection.options import DetectOptions
from unfreeze.errors import UnfreezeError

TOP = 3
_PANEL = "Events"
_FORMATS = "table, csv, jsonl, audacity, raven"

if TYPE_CHECKING:
    import numpy as np


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="Classes to show.", show_default=str(TOP))
    ] = None,
    json: Json = False,
    events: Annotated[
        bool,
        typer.Option("--events", help="Find when which class is heard.", rich_help_panel=_PANEL),
    ] = False,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive", "-r", help="Folders within folders too.", rich_help_panel=_PANEL
        ),
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            help="Seconds judged together: what the network takes, or a multiple of it.",
            show_default="0.96",
            rich_help_panel=_PANEL,
        ),
    ] = DetectOptions.window,
    hop: Annotated[
        float | None,
        typer.Option(
            help="Seconds from one window to the next.",
            show_default="0.48",
            rich_help_panel=_PANEL,
        ),
    ] = DetectOptions.hop,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Score that begins an event.",
            show_default="each class's own from the run, or 0.5",
            rich_help_panel=_PANEL,
        ),
    ] = DetectOptions.min_score,
    smooth: Annotated[
        bool | None,
        typer.Option(
            "--smooth", help="Take the median of each three windows.", rich_help_panel=_PANEL
        ),
    ] = None,
    merge: Annotated[
        bool | None,
        typer.Option(
            "--merge/--no-merge",
            help="Windows that overlap or adjoin are one event, or each is a row of its own.",
            show_default="merge",
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
            help="File for the events (csv, jsonl; any, of one recording), or a folder for a "
            "file a recording. What is finished is remembered: run again to go on.",
            show_default="standard output",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Begin anew what is in --out.", rich_help_panel=_PANEL),
    ] = False,
) -> None:
    """Name the classes of recordings, or find when which class is heard in them.

    Each recording gets one answer for all of its length, the likeliest classes
    first. With --events, with any other option under "Events", or when a folder
    is given, events are found instead: start, end, class and score, in
    recordings of any length.

    A run with --keep-audioset names the likeliest AudioSet classes, too.
    A file that cannot be read is reported and the rest is done; the exit code
    is then 1.
    """
    chosen = (window, hop, min_score, smooth, merge, form, out)
    folder = any(path.is_dir() for path in paths)
    if not (events or recursive or overwrite or folder or any(v is not None for v in chosen)):
        _classes(run, paths, top or TOP, json)
        return
    if top is not None or json:
        given = "--top" if top is not None else "--json"
        raise UnfreezeError(
            f"{given} is for the classes of whole recordings, and here events are asked for "
            f"(by an option or a folder): use --format jsonl for programs, --min-score for fewer"
        )
    from unfreeze.cli.events import find

    options = DetectOptions(
        window=window,
        hop=hop,
        min_score=min_score,
        smooth=DetectOptions.smooth if smooth is None else smooth,
        merge=DetectOptions.merge if merge is None else merge,
    )
    find(run, paths, options, recursive, form or "table", out, overwrite)


def _classes(run: Path, files: list[Path], top: int, json: bool) -> None:
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.audio.names import show
    from unfreeze.audio.quiet import is_quiet
    from unfreeze.classifier import SoundClassifier
    from unfreeze.errors import DataError

    classifier = SoundClassifier.load(run)
    found: list[dict[str, Any]] = []
    failed = 0
    for file in files:
        own: dict[str, float] = {}
        try:
            if classifier.audioset_labels:
                scores, heard = classifier.predict_both(file)
                own = _likeliest(heard, classifier.audioset_labels, top)
            else:
                scores = classifier.predict(file)
        except DataError as error:
            failed += 1
            found.append({"file": show(file), "error": str(error)})
            if not json:
                typer.echo(f"error: {error}", err=True)
            continue
        classes = _likeliest(scores, classifier.labels, top)
        found.append({"file": show(file), "classes": classes, **({"audioset": own} if own else {})})
        if not json:
            none = "none of the classes: " if is_quiet(next(iter(classes))) else ""
            heard_as = f"  | AudioSet: {_row(own)}" if own else ""
            typer.echo(f"{show(file)}: {none}{_row(classes)}{heard_as}")
    if json:
        typer.echo(json_module.dumps(found, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)


def _likeliest(scores: "np.ndarray", labels: tuple[str, ...], top: int) -> dict[str, float]:
    best = scores.argsort(kind="stable")[::-1][:top]
    return {labels[i]: round(float(scores[i]), 6) for i in best}


def _row(classes: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in classes.items())
