"""`unfreeze demo`: the whole road on sounds that we synthesize ourselves."""

from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.arguments import Epochs, Json, Out, Quiet, Schedule, Seed
from unfreeze.cli.train import run
from unfreeze.options import TrainOptions


def demo(
    out: Out = Path("unfreeze-demo"),
    schedule: Schedule = str(TrainOptions.schedule),
    epochs: Epochs = 12,
    clips: Annotated[int, typer.Option(min=6, help="Clips of each of the 20 classes.")] = 20,
    seed: Seed = TrainOptions.seed,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in the folder.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on 20 classes of synthetic sounds, to see everything work.

    The sounds are made by this program, not recorded: the score says that the
    installation works, not how good a classifier of real sounds would be. They
    are kept beside the run, to try the other commands on.
    """
    from unfreeze import run_folder
    from unfreeze.audio.demo_data import write_demo_data
    from unfreeze.cli.bars import bar

    run_folder.claim(out, overwrite)
    sounds = out.with_name(f"{out.name}-sounds")
    shown = not (json or quiet)
    if shown:
        typer.echo(
            f"Making {20 * clips} synthetic sounds of 20 classes (sirens, bells, engines, noise, "
            "...).\nThey are computed, not recorded: a good score shows that everything works,\n"
            "not how good a classifier of real sounds would be.\n"
        )
    with bar("Synthesizing", shown=shown) as progress:
        write_demo_data(sounds, clips_per_class=clips, seed=seed, progress=progress)
    options = TrainOptions(
        data=sounds, out=out, schedule=schedule, epochs=epochs, seed=seed, overwrite=overwrite
    )
    run(options, json, quiet, is_demo=True)
