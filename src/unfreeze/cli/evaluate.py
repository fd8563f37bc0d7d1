"""`unfreeze evaluate`: score a trained classifier on other recordings."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.arguments import Json, MaxBad, Regex, Strict
from unfreeze.options import TrainOptions


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    data: Annotated[Path, typer.Argument(help="A folder a class, or a CSV manifest.")],
    group_regex: Regex = TrainOptions.group_regex,
    strict: Strict = TrainOptions.strict,
    max_bad: MaxBad = TrainOptions.max_bad,
    json: Json = False,
) -> None:
    """Score a trained classifier on recordings with known classes."""
    from unfreeze.backend import import_keras

    import_keras()
    from rich.console import Console

    from unfreeze.classifier import SoundClassifier
    from unfreeze.cli.bars import bar
    from unfreeze.report.tables import class_table, metrics_table

    classifier = SoundClassifier.load(run)
    with bar("Evaluating", shown=not json) as progress:
        scores = classifier.evaluate(
            data, group_regex=group_regex, strict=strict, max_bad=max_bad, progress=progress
        )
    if json:
        typer.echo(json_module.dumps(scores, indent=2))
        return
    console = Console(highlight=False)
    console.print(metrics_table(scores, f"{run} on {data}"))
    console.print(class_table(scores))
    for problem in scores["problems"]:
        console.print(f"left out: {problem['path']}: {problem['cause']}", markup=False, style="dim")
