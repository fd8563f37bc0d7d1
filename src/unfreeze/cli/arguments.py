"""Arguments and options that several commands share, with their help."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Argument(help="A folder a class, or a CSV manifest.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the run.")]
Schedule = Annotated[
    str,
    typer.Option(
        help="auto, two_stage, gradual, head_only, full, classic, surgical:last, or YAML."
    ),
]
Epochs = Annotated[int | None, typer.Option(min=0, help="Epochs of each stage, at most.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Patches a step.")]
Rate = Annotated[
    float | None,
    typer.Option(help="Learning rate of the first stage; later ones keep their ratio to it."),
]
Seed = Annotated[int, typer.Option(help="Of the split, first weights, order and dropout.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
Regex = Annotated[
    str | None,
    typer.Option(help="Its first group, found in the file name, is the clip's group."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Any unusable file is an error.")]
MaxBad = Annotated[float, typer.Option(help="Share of unusable files that is let pass.")]
Backbone = Annotated[str, typer.Option(help="Pretrained network.")]
Weights = Annotated[Path | None, typer.Option(help="Its weights; looked for when not given.")]
Validation = Annotated[float, typer.Option(help="Share of clips that choose epochs.")]
Background = Annotated[
    Path | None, typer.Option(help="A folder of recordings without any of the sounds.")
]
Negative = Annotated[
    Path | None, typer.Option(help="A folder of sounds that look like a class but are not.")
]
