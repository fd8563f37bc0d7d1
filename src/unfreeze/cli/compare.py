"""`unfreeze compare`: which strategy is best on these data."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.arguments import Budget, Json, Quiet, takes
from unfreeze.cli.renew import OPTION, budget_left, kept_run_by_run, runs_a_process
from unfreeze.compare.strategies import STRATEGIES, CompareOptions, read_strategy
from unfreeze.errors import DataError, UnfreezeError
from unfreeze.pipeline.train_options import SHARED, TrainOptions


@takes(
    *SHARED,
    helps={"test": "Share of clips to test on; their groups are never trained on."},
)
def compare(
    train: TrainOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the comparison.")],
    strategies: Annotated[
        str,
        typer.Option(
            help="Presets, surgical:first or YAML files, separated by commas; each may have "
            "changes, such as two_stage+rate=3e-4."
        ),
    ] = ",".join(STRATEGIES),
    seeds: Annotated[int, typer.Option(min=1, help="Number of splits and initial weights.")] = (
        CompareOptions.seeds
    ),
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Test every group once per seed, in this many parts."),
    ] = CompareOptions.folds,
    holdout: Annotated[
        str | None, typer.Option(help="Groups to test in every run, separated by commas.")
    ] = None,
    detect: Annotated[
        Path | None,
        typer.Option(
            help="A recording or a folder of them, annotated in the tables of --annotations: the "
            "trained models search them, and schedules are ranked as detectors.",
            show_default="none",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Table of all true sounds in the recordings of --detect, or a folder of tables "
            "named like them: Raven, Audacity, CSV.",
            show_default="none",
        ),
    ] = None,
    budget: Budget = None,
    json: Json = False,
    quiet: Quiet = False,
    renewed: Annotated[str | None, typer.Option(OPTION, hidden=True)] = None,
) -> None:
    """Compare training schedules on the same splits: means, paired differences, a verdict."""
    options = CompareOptions(
        train=train,
        out=out,
        strategies=tuple(_listed(strategies)),
        seeds=seeds,
        folds=folds,
        holdout=tuple(_listed(holdout or "")),
        budget=budget_left(budget, renewed),
    )
    if not train.data.exists():
        raise DataError(f"{train.data} does not exist: give a folder or a CSV manifest")
    for name in options.strategies:
        read_strategy(name, train.epochs)
    if (detect is None) != (annotations is None):
        raise UnfreezeError(
            "--detect names recordings and --annotations the tables of their sounds: give both"
        )
    judge = None
    if detect is not None and annotations is not None:
        from unfreeze.planning import event_judge

        judge = event_judge(train, detect, annotations)
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.cli.compare_display import CompareDisplay
    from unfreeze.cli.terminal import signals_to
    from unfreeze.compare.comparison import compare as run

    display = CompareDisplay(not (quiet or json), renewed is not None)
    with kept_run_by_run(out, options.budget), signals_to(display.asked), display.progress:
        summary = run(options, display, runs_a_process(), judge)
    if json:
        typer.echo(json_module.dumps(summary.as_plain(), indent=2))
    else:
        display.show(summary, out, quiet)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
