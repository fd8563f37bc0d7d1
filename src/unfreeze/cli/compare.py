"""`unfreeze compare`: which strategy is best on these data."""

import json as json_module
from pathlib import Path
from typing import Annotated

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
    Strict,
    Validation,
    Weights,
)
from unfreeze.cli.renew import OPTION, budget_left, kept_run_by_run, runs_a_process
from unfreeze.cli.times import read_seconds
from unfreeze.compare.options import STRATEGIES, CompareOptions, read_strategy
from unfreeze.errors import DataError
from unfreeze.options import TrainOptions


def compare(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the comparison.")],
    strategies: Annotated[
        str,
        typer.Option(help="Presets, surgical:first, YAML files, each with +rate=3e-4 and so on."),
    ] = ",".join(STRATEGIES),
    seeds: Annotated[int, typer.Option(min=1, help="Splits and first weights.")] = (
        CompareOptions.seeds
    ),
    folds: Annotated[
        int | None, typer.Option(min=2, help="Test every group once a seed, in so many parts.")
    ] = None,
    holdout: Annotated[
        str | None, typer.Option(help="Groups to test in every run, with commas between.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Begin no run after this time: 90s, 30m, 2h.")
    ] = None,
    epochs: Epochs = None,
    backbone: Backbone = TrainOptions.backbone,
    weights: Weights = None,
    group_regex: Regex = None,
    validation: Validation = TrainOptions.validation,
    test: Annotated[
        float, typer.Option(help="Share of clips of unseen groups.")
    ] = TrainOptions.test,
    strict: Strict = TrainOptions.strict,
    max_bad: MaxBad = TrainOptions.max_bad,
    background: Background = None,
    negative: Negative = None,
    json: Json = False,
    quiet: Quiet = False,
    renewed: Annotated[str | None, typer.Option(OPTION, hidden=True)] = None,
) -> None:
    """Compare ways to train on the same splits: means, paired differences, a verdict."""
    train = TrainOptions(
        data=data,
        epochs=epochs,
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
    options = CompareOptions(
        train=train,
        out=out,
        strategies=tuple(_listed(strategies)),
        seeds=seeds,
        folds=folds,
        holdout=tuple(_listed(holdout or "")),
        budget=budget_left(None if budget is None else read_seconds(budget), renewed),
    )
    if not data.exists():
        raise DataError(f"{data} does not exist: give a folder or a CSV manifest")
    for name in options.strategies:
        read_strategy(name, epochs)
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.cli.compare_display import CompareDisplay
    from unfreeze.cli.stopping import signals_to
    from unfreeze.compare.runner import compare as run

    display = CompareDisplay(not (quiet or json), renewed is not None)
    with kept_run_by_run(out, options.budget), signals_to(display.asked), display:
        summary = run(options, display, runs_a_process())
    if json:
        typer.echo(json_module.dumps(summary.as_plain(), indent=2))
    else:
        display.show(summary, out, quiet)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
