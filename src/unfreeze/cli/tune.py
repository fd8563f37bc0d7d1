"""`unfreeze tune`: search for the best schedule for the data."""

import json as json_module
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.arguments import Budget, Json, Quiet, takes
from unfreeze.cli.renew import OPTION, budget_left, kept_run_by_run, runs_a_process
from unfreeze.core.presets import DEFAULT
from unfreeze.errors import DataError, UnfreezeError
from unfreeze.pipeline.train_options import SHARED, TrainOptions


@takes(
    *SHARED,
    "seed",
    helps={"test": "Share of clips that the search never uses."},
)
def tune(
    train: TrainOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the search.")],
    trials: Annotated[int, typer.Option(min=1, help="Number of schedules to try.")] = 30,
    splits: Annotated[int, typer.Option(min=1, help="Inner splits to try each on.")] = 2,
    budget: Budget = None,
    json: Json = False,
    quiet: Quiet = False,
    renewed: Annotated[str | None, typer.Option(OPTION, hidden=True)] = None,
) -> None:
    """Search for learning rates, depth and BatchNorm policy on the training clips."""
    if not train.data.exists():
        raise DataError(f"{train.data} does not exist: give a folder or a CSV manifest")
    if find_spec("optuna") is None:
        raise UnfreezeError(
            "The search needs Optuna. Install it with: pip install 'unfreeze[tune]'"
        )
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.cli.sentences import say
    from unfreeze.cli.terminal import Asked, named_bars, signals_to
    from unfreeze.compare.tuning import BEST, TuneOptions, read_rows
    from unfreeze.compare.tuning import tune as run

    seconds = budget_left(budget, renewed)
    options = TuneOptions(train, out, trials, splits, seconds)
    shown = not (quiet or json)
    # A renewed process repeats its first proposals, which were shown before.
    again = len(read_rows(out)) if renewed is not None else 0
    # SIGTERM acts like Ctrl-C; the interrupted run resumes from its last epoch.
    with kept_run_by_run(out, seconds), signals_to(Asked()), named_bars(shown) as (bar, console):

        def note(text: str) -> None:
            nonlocal again
            again -= 1
            if shown and again < 0:
                say(console, text)

        found = run(options, note, bar, runs_a_process())
    if json:
        typer.echo(json_module.dumps({"trials": found.rows, "best": str(out / BEST)}, indent=2))
        return
    typer.echo(
        f"best of {len(found.rows)}: {found.accuracy:.3f} on clips that the trials did not train "
        f"on (its start, two_stage: {found.start:.3f}; the best of many looks better than it is)"
    )
    typer.echo(
        f"The search knows two-stage schedules. Compare with the default: unfreeze compare "
        f"{shlex.quote(str(train.data))} --strategies {DEFAULT},{shlex.quote(str(out / BEST))} "
        "--out COMPARISON"
    )
    typer.echo(
        f"Train and test it: unfreeze train {shlex.quote(str(train.data))} --schedule "
        f"{shlex.quote(str(out / BEST))} --seed {train.seed} --out RUN"
    )
