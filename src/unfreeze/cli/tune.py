"""`unfreeze tune`: search for the schedule that suits the data."""

import json as json_module
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from unfreeze.cli.arguments import (
    Backbone,
    Background,
    Data,
    Epochs,
    Json,
    MaxBad,
    Negative,
    Quiet,
    Regex,
    Seed,
    Strict,
    Validation,
    Weights,
)
from unfreeze.cli.renew import OPTION, budget_left, kept_run_by_run, runs_a_process
from unfreeze.cli.times import read_seconds
from unfreeze.errors import DataError, UnfreezeError
from unfreeze.options import TrainOptions


def tune(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the search.")],
    trials: Annotated[int, typer.Option(min=1, help="Schedules to try.")] = 30,
    splits: Annotated[int, typer.Option(min=1, help="Inner splits to try each on.")] = 2,
    budget: Annotated[
        str | None, typer.Option(help="Begin no trial after this time: 90s, 30m, 2h.")
    ] = None,
    epochs: Epochs = None,
    seed: Seed = TrainOptions.seed,
    backbone: Backbone = TrainOptions.backbone,
    weights: Weights = None,
    group_regex: Regex = None,
    validation: Validation = TrainOptions.validation,
    test: Annotated[
        float, typer.Option(help="Share of clips that the search does not see.")
    ] = TrainOptions.test,
    strict: Strict = TrainOptions.strict,
    max_bad: MaxBad = TrainOptions.max_bad,
    background: Background = None,
    negative: Negative = None,
    json: Json = False,
    quiet: Quiet = False,
    renewed: Annotated[str | None, typer.Option(OPTION, hidden=True)] = None,
) -> None:
    """Search for learning rates, depth and BatchNorm policy on the training clips."""
    if not data.exists():
        raise DataError(f"{data} does not exist: give a folder or a CSV manifest")
    if find_spec("optuna") is None:
        raise UnfreezeError(
            "The search needs Optuna. Install it with: pip install 'unfreeze[tune]'"
        )
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.cli.bars import WORK, bars
    from unfreeze.cli.stopping import Asked, signals_to
    from unfreeze.compare.tune import BEST, TuneOptions, read_rows
    from unfreeze.compare.tune import tune as run

    train = TrainOptions(
        data=data,
        epochs=epochs,
        seed=seed,
        backbone=backbone,
        weights=weights,
        group_regex=group_regex,
        validation=validation,
        test=test,
        strict=strict,
        max_bad=max_bad,
        background=background,
        negative=negative,
    )
    seconds = budget_left(None if budget is None else read_seconds(budget), renewed)
    options = TuneOptions(train, out, trials, splits, seconds)
    shown = not (quiet or json)
    # A renewed process plays its first proposals again, which were shown before.
    again = len(read_rows(out)) if renewed is not None else 0
    # SIGTERM as Ctrl-C; the run under way goes on from its last epoch.
    with kept_run_by_run(out, seconds), signals_to(Asked()), bars(shown) as display:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    display.update(task, visible=False)
                tasks[what] = display.add_task(WORK[what], total=None)
            display.update(tasks[what], completed=done, total=total or None)

        def tell(text: str) -> None:
            nonlocal again
            again -= 1
            if shown and again < 0:
                display.console.print(text, markup=False, soft_wrap=True)

        found = run(options, tell, progress, runs_a_process())
    if json:
        typer.echo(json_module.dumps({"trials": found.rows, "best": str(out / BEST)}, indent=2))
        return
    typer.echo(
        f"best of {len(found.rows)}: {found.accuracy:.3f} on clips that the trials did not train "
        f"on (the default: {found.start:.3f}; the best of many is flattered by the choice)"
    )
    typer.echo(
        f"Train and test it: unfreeze train {shlex.quote(str(data))} --schedule "
        f"{shlex.quote(str(out / BEST))} --seed {seed} --out RUN"
    )
