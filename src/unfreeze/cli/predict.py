"""`unfreeze predict`: the classes of recordings."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from unfreeze.cli.train import Json


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    files: Annotated[list[Path], typer.Argument(help="Recordings.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 3,
    json: Json = False,
) -> None:
    """Name the classes of recordings, the likeliest first.

    A file that cannot be read is reported and the rest is done; the exit code
    is then 1.
    """
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.classifier import SoundClassifier
    from unfreeze.errors import DataError

    classifier = SoundClassifier.load(run)
    found: list[dict[str, Any]] = []
    failed = 0
    for file in files:
        try:
            scores = classifier.predict(file)
        except DataError as error:
            failed += 1
            found.append({"file": str(file), "error": str(error)})
            if not json:
                typer.echo(f"error: {error}", err=True)
            continue
        best = scores.argsort(kind="stable")[::-1][:top]
        classes = {classifier.labels[i]: round(float(scores[i]), 6) for i in best}
        found.append({"file": str(file), "classes": classes})
        if not json:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in classes.items())
            typer.echo(f"{file}: {shown}")
    if json:
        typer.echo(json_module.dumps(found, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)
