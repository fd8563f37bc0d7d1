"""`unfreeze evaluate`: score a trained classifier on other recordings."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.arguments import Json, takes
from unfreeze.pipeline.train_options import TrainOptions


@takes(
    *("data", "group_regex", "path_column", "label_column", "audio_folder", "label_map"),
    *("annotated", "strict", "max_bad"),
)
def evaluate(
    options: TrainOptions,
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    json: Json = False,
) -> None:
    """Score a trained classifier on recordings with known classes."""
    from unfreeze.backend import import_keras

    import_keras()
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
            progress=progress,
        )
    if json:
        typer.echo(json_module.dumps(scores, indent=2))
        return
    console = Console(highlight=False)
    console.print(metrics_table(scores, f"{run} on {options.data}"))
    console.print(class_table(scores))
    for problem in scores["problems"]:
        console.print(f"left out: {problem['path']}: {problem['cause']}", markup=False, style="dim")
