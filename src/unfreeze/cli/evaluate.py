"""`unfreeze evaluate`: score a trained classifier on other recordings, as clips or as a detector.

With `--annotations` the events found in recordings are compared with those in tables.
"""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from unfreeze.cli.arguments import (
    Hop,
    Json,
    MaxFalseAlarms,
    MinScore,
    Precision,
    Smooth,
    Window,
    takes,
)
from unfreeze.errors import UnfreezeError, show
from unfreeze.pipeline.train_options import FULLY, TrainOptions

if TYPE_CHECKING:
    from unfreeze.detection.event_scoring import Rules
    from unfreeze.detection.events import DetectOptions

_PANEL = "Events"
# Notes on the terminal.
_SHOWN = 12
SCORES, CURVES, ALARMS = "event_scores.json", "precision_recall.png", "false_alarms.png"


@takes(
    *("data", "group_regex", "path_column", "label_column", "audio_folder", "label_map"),
    *("strict", "max_bad", "engine", "address"),
    helps={
        "data": "Folder with one subfolder per class, or a CSV manifest; with --annotations, a "
        "recording or a folder of recordings."
    },
)
def evaluate(
    options: TrainOptions,
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    annotated: Annotated[
        str | None,
        typer.Option(
            help="Whether the tables of annotated recordings name every sound of the classes "
            "(fully: the rest is background, and what is found there a false alarm), or not "
            "(partly).",
            show_default="partly; with --annotations, fully",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Table of the true sounds, or a folder of tables named like the recordings: "
            "Raven, Audacity, CSV. Scores the events that are found.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    window: Window = None,
    hop: Hop = None,
    min_score: MinScore = None,
    precision: Precision = None,
    max_false_alarms: MaxFalseAlarms = None,
    smooth: Smooth = None,
    share: Annotated[
        float | None,
        typer.Option(
            help="By overlap, the part of an event that must be filled, 0 to 1.",
            show_default="0.1",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            help="By IoU, the part of what two events cover that both must cover.",
            show_default="0.5",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    collar: Annotated[
        float | None,
        typer.Option(
            help="By onset, the most seconds between two starts.",
            show_default="0.5",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    segment: Annotated[
        float | None,
        typer.Option(help="Seconds of a segment.", show_default="1", rich_help_panel=_PANEL),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="New folder for the scores and report.html; of clips also predictions.csv, of "
            "events pictures of the curves.",
            show_default="none",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Score a trained classifier on recordings with known classes.

    With --annotations it is scored as a detector: events are found in the recordings, as by
    predict --events, and compared with the true ones in the tables.
    """
    rules = {"share": share, "iou": iou, "collar": collar, "segment": segment}
    how: dict[str, Any] = {"window": window, "hop": hop, "min_score": min_score}
    how |= {"precision": precision, "max_false_alarms": max_false_alarms, "smooth": smooth}
    asked = {**how, **rules}
    given = [name for name, value in asked.items() if value is not None]
    if annotated is not None:
        options = attrs.evolve(options, annotated=annotated)
    if annotations is None:
        if given:
            raise UnfreezeError(
                f"--{given[0].replace('_', '-')} is for events: give the tables of the true ones "
                "with --annotations, or leave it out"
            )
        _clips(run, options, out, json)
        return
    if options.group_regex is not None:
        raise UnfreezeError("--group-regex is for whole clips: with --annotations, leave it out")
    if annotated is None:
        options = attrs.evolve(options, annotated=FULLY)
    from unfreeze.detection.event_scoring import Rules
    from unfreeze.detection.events import DetectOptions

    if out is not None:
        from unfreeze.backend import need_for_pictures
        from unfreeze.output_folder import holds

        need_for_pictures()
        holds(out, None, "scores")
    search = DetectOptions(**{**how, "smooth": bool(smooth)})
    judged = Rules(**{name: value for name, value in rules.items() if value is not None})
    _events(run, options, annotations, search, judged, out, json)


def _clips(run: Path, options: TrainOptions, out: Path | None, json: bool) -> None:
    from rich.console import Console

    from unfreeze.classifier import SoundClassifier
    from unfreeze.cli.terminal import bar
    from unfreeze.pipeline.training_data import reading_of
    from unfreeze.report.tables import class_table, metrics_table

    classifier = SoundClassifier.load(run)
    with bar("Evaluating", shown=not json) as progress:
        scores = classifier.evaluate(
            options.data,
            how=reading_of(options),
            strict=options.strict,
            max_bad=options.max_bad,
            out=out,
            cluster=options.cluster,
            progress=progress,
        )
    if json:
        typer.echo(json_module.dumps(scores, indent=2))
        return
    console = Console(highlight=False)
    console.print(metrics_table(scores, f"{run} on {options.data}"))
    console.print(class_table(scores))
    _left_out(console, scores)
    if out is not None:
        _say_where(console, out)


def _events(
    run: Path,
    options: TrainOptions,
    tables: Path,
    search: "DetectOptions",
    rules: "Rules",
    out: Path | None,
    json: bool,
) -> None:
    from rich.console import Console

    from unfreeze.classifier import SoundClassifier
    from unfreeze.cli.sentences import say, say_what_is_granted
    from unfreeze.cli.terminal import bar
    from unfreeze.pipeline.training_data import reading_of
    from unfreeze.report.event_scores import event_tables

    classifier = SoundClassifier.load(run)
    say_what_is_granted(classifier, search)
    with bar("Finding events", shown=not json, share=True) as progress:
        scores = classifier.evaluate_events(
            options.data,
            tables,
            search,
            rules=rules,
            how=reading_of(options),
            strict=options.strict,
            max_bad=options.max_bad,
            cluster=options.cluster,
            progress=progress,
        )
    if out is not None:
        _write(out, scores)
    if json:
        typer.echo(json_module.dumps(scores, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(event_tables(scores, f"{run} on {options.data}"))
    for note in scores["notes"][:_SHOWN]:
        say(console, f"note: {note}", "yellow")
    if len(scores["notes"]) > _SHOWN:
        console.print(f"and {len(scores['notes']) - _SHOWN} more notes: --json has all")
    _left_out(console, scores)
    if out is not None:
        _say_where(console, out)


def _say_where(console: Any, out: Path) -> None:
    console.print(f"Written to {show(out)}", markup=False, soft_wrap=True)
    console.print(f"Look at it: {show(out / 'report.html')}", markup=False, soft_wrap=True)


def _write(out: Path, scores: dict[str, Any]) -> None:
    from unfreeze.files import write_json
    from unfreeze.output_folder import locked
    from unfreeze.report.evaluation_report import write_evaluation_report
    from unfreeze.report.event_plots import plot_false_alarms, plot_precision_recall

    with locked(out):
        plot_precision_recall(scores, out / CURVES)
        if scores["false_alarms"]["per_hour"] is not None:
            plot_false_alarms(scores, out / ALARMS)
        # Last: it says that the others are whole.
        write_json(out / SCORES, scores)
        write_evaluation_report(out)


def _left_out(console: Any, scores: dict[str, Any]) -> None:
    for problem in scores["problems"]:
        console.print(
            f"left out: {problem['path']}: {problem['cause']}",
            markup=False,
            style="dim",
            soft_wrap=True,
        )
