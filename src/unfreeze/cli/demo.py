"""`unfreeze demo`: the whole pipeline on synthetic sounds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unfreeze.cli.arguments import Json, Quiet, takes
from unfreeze.cli.train import run
from unfreeze.pipeline.train_options import TrainOptions


def _on_synthetic_sounds(out: Path, **given: Any) -> TrainOptions:
    return TrainOptions(data=out.with_name(f"{out.name}-sounds"), out=out, **given)


@takes(
    "out",
    "schedule",
    "epochs",
    "seed",
    "overwrite",
    make=_on_synthetic_sounds,
    out=Path("unfreeze-demo"),
    epochs=12,
)
def demo(
    options: TrainOptions,
    clips: Annotated[int, typer.Option(min=6, help="Clips for each of the 20 classes.")] = 20,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on 20 classes of synthetic sounds, to see that everything works.

    The sounds are computed, not recorded: the score shows that the installation
    works, not how good a classifier of real sounds would be. They are kept beside
    the run, so that you can try the other commands on them.
    """
    from unfreeze.audio.demo_sounds import write_demo_data
    from unfreeze.backend import check_backend
    from unfreeze.cli.terminal import bar

    check_backend()
    shown = not (json or quiet)
    if shown:
        typer.echo(
            f"Making {20 * clips} synthetic sounds of 20 classes (sirens, bells, engines, noise, "
            "...).\nThey are computed, not recorded: a good score shows that everything works,\n"
            "not how good a classifier of real sounds would be.\n"
        )

    def make_sounds() -> None:
        with bar("Synthesizing", shown=shown) as progress:
            write_demo_data(
                options.data, clips_per_class=clips, seed=options.seed, progress=progress
            )

    run(options, json, quiet, make_data=make_sounds)
