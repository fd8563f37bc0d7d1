"""`unfreeze predict`: the classes of recordings."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfreeze.cli.train import Json

if TYPE_CHECKING:
    import numpy as np


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    files: Annotated[list[Path], typer.Argument(help="Recordings.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 3,
    json: Json = False,
) -> None:
    """Name the classes of recordings, the likeliest first.

    A run with --keep-audioset names the likeliest AudioSet classes, too.
    A file that cannot be read is reported and the rest is done; the exit code
    is then 1.
    """
    from unfreeze.backend import import_keras

    import_keras()
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
            found.append({"file": str(file), "error": str(error)})
            if not json:
                typer.echo(f"error: {error}", err=True)
            continue
        classes = _likeliest(scores, classifier.labels, top)
        found.append({"file": str(file), "classes": classes, **({"audioset": own} if own else {})})
        if not json:
            none = "none of the classes: " if is_quiet(next(iter(classes))) else ""
            heard_as = f"  | AudioSet: {_row(own)}" if own else ""
            typer.echo(f"{file}: {none}{_row(classes)}{heard_as}")
    if json:
        typer.echo(json_module.dumps(found, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)


def _likeliest(scores: "np.ndarray", labels: tuple[str, ...], top: int) -> dict[str, float]:
    best = scores.argsort(kind="stable")[::-1][:top]
    return {labels[i]: round(float(scores[i]), 6) for i in best}


def _row(classes: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in classes.items())
