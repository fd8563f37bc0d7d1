"""`unfreeze head`: a classifier from labelled places of an index."""

import json as json_module
import shlex
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.arguments import Json
from unfreeze.cli.sentences import tell
from unfreeze.errors import show

# How many are printed.
_NOTES = 10


def head(
    folder: Annotated[
        Path, typer.Argument(metavar="INDEX", help="What `unfreeze embed --out` wrote.")
    ],
    tables: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="A table of places (path, start, end, label), as for training, or a folder of "
            "tables.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the places to validate on.")
    ] = 0.15,
    test: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the places to test on.")
    ] = 0.15,
    seed: Annotated[int, typer.Option(help="Of the split and of the background.")] = 0,
    multilabel: Annotated[
        bool,
        typer.Option(
            "--multilabel",
            help="A place may have several labels, or none: each class is judged by itself. Found "
            "without this option where a label names several, such as cat;dog.",
        ),
    ] = False,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate/--no-gate", help="Learn to name nothing where only background is heard."
        ),
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a head on labelled places of an index, in seconds: no recording is read.

    The run is the index's network, frozen, with the new head: use it with `predict` and
    all others that take a run. Places of one recording are in one part. `unfreeze train`
    takes longer and hears more: all depths of the network, augmented sounds, sounds in noise.
    """
    from unfreeze.search.index_folder import open_index

    index = open_index(folder)
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.search.head_from_index import train_head

    metrics = train_head(
        index,
        tables,
        out,
        validation=validation,
        test=test,
        seed=seed,
        multilabel=multilabel,
        gate=gate,
        overwrite=overwrite,
    )
    from unfreeze.pipeline.run_folder import NOTES, read_json

    notes = read_json(out / NOTES, "train the head again")["notes"]
    for note in notes[:_NOTES]:
        tell(f"note: {note}")
    if notes[_NOTES:]:
        tell(f"note: {len(notes) - _NOTES} more are in {show(out / NOTES)}")
    if json:
        typer.echo(json_module.dumps(metrics, indent=2, ensure_ascii=False))
        return
    for name in ("validation", "test"):
        scores = metrics[name]
        if scores is None:
            continue
        kind = "mean_average_precision" if scores.get("multilabel") else "accuracy"
        if scores[kind] is None:
            continue
        low, high = scores["intervals"][kind] or (None, None)
        between = "" if low is None else f" (95 % interval {low:.2f} to {high:.2f})"
        typer.echo(
            f"{name}: {kind.replace('_', ' ')} {scores[kind]:.2f}{between} on "
            f"{scores['clips']} places in {scores['groups']} groups"
        )
    typer.echo(f"Try it: unfreeze predict {shlex.quote(str(out))} RECORDINGS --events")
