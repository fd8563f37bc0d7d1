"""`unfreeze train`: from a folder of recordings to a tested classifier."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.arguments import (
    Backbone,
    Background,
    BatchSize,
    Data,
    Epochs,
    Json,
    MaxBad,
    Negative,
    Out,
    Quiet,
    Rate,
    Regex,
    Schedule,
    Seed,
    Strict,
    Validation,
    Weights,
)
from unfreeze.cli.times import read_seconds
from unfreeze.errors import DataError, RunError
from unfreeze.options import TrainOptions, check_schedule


def train(
    context: typer.Context,
    data: Data,
    out: Out,
    schedule: Schedule = str(TrainOptions.schedule),
    epochs: Epochs = TrainOptions.epochs,
    batch_size: BatchSize = TrainOptions.batch_size,
    learning_rate: Rate = TrainOptions.learning_rate,
    seed: Seed = TrainOptions.seed,
    backbone: Backbone = TrainOptions.backbone,
    weights: Weights = TrainOptions.weights,
    group_regex: Regex = TrainOptions.group_regex,
    validation: Validation = TrainOptions.validation,
    test: Annotated[
        float, typer.Option(help="Share of clips kept for the test.")
    ] = TrainOptions.test,
    strict: Strict = TrainOptions.strict,
    max_bad: MaxBad = TrainOptions.max_bad,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in the folder.")
    ] = TrainOptions.overwrite,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder if it broke off.")
    ] = TrainOptions.resume,
    background: Background = TrainOptions.background,
    negative: Negative = TrainOptions.negative,
    keep_audioset: Annotated[
        bool, typer.Option("--keep-audioset", help="The model also gives the 521 AudioSet classes.")
    ] = TrainOptions.keep_audioset,
    add_to: Annotated[
        Path | None,
        typer.Option(help="A run to add the data to; its test clips and settings stay."),
    ] = TrainOptions.add_to,
    budget: Annotated[
        str, typer.Option(help="Time for the trials of --schedule auto: 90s, 30m, 2h.")
    ] = "10m",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier on labelled recordings, in stages, and test it."""
    options = TrainOptions(
        data=data,
        out=out,
        schedule=schedule,
        backbone=backbone,
        weights=weights,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        group_regex=group_regex,
        validation=validation,
        test=test,
        strict=strict,
        max_bad=max_bad,
        overwrite=overwrite,
        resume=resume,
        background=background,
        negative=negative,
        keep_audioset=keep_audioset,
        add_to=add_to,
        budget=read_seconds(budget),
    )
    if add_to is not None:
        from unfreeze.review.old_run import inherited_options

        given = {
            field.name: getattr(options, field.name)
            for field in fields(options)
            if field.name not in ("data", "add_to") and _is_given(context, field.name)
        }
        options = inherited_options(add_to, data, given)
    run(options, json, quiet)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def run(options: TrainOptions, json: bool, quiet: bool, is_demo: bool = False) -> None:
    """Train, and show what happens as the user wants it.

    Args:
        options: of the run.
        json: print the scores as JSON.
        quiet: show nothing but the scores.
        is_demo: whether the command was another one, which cannot resume.
    """
    from unfreeze import run_folder
    from unfreeze.backbones.registry import get_backbone
    from unfreeze.backend import import_keras

    # Keras takes seconds to import: what is plainly wrong is said before.
    if not options.data.exists():
        raise DataError(f"{options.data} does not exist: give a folder or a CSV manifest")
    if options.out is not None:
        if options.resume and not options.overwrite and run_folder.is_finished(options.out):
            return _say_what_it_reached(options, options.out, json)
        run_folder.claim(options.out, options.overwrite, options.resume)
    get_backbone(options.backbone)
    check_schedule(options)
    import_keras()
    from unfreeze.cli.complaints import explain
    from unfreeze.cli.display import TrainDisplay
    from unfreeze.cli.stopping import signals_to
    from unfreeze.training import train_classifier

    display = TrainDisplay(quiet=quiet, json=json, out=options.out)
    try:
        with signals_to(display.asked), display:
            train_classifier(options, display)
    except KeyboardInterrupt:
        again = _again(options, is_demo) if display.begun or options.resume else None
        if again is None:
            raise
        typer.echo(f"stopped; {again} goes on from here", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        told = explain(error)
        again = _again(options, is_demo) if display.begun or options.resume else None
        if told is None or again is None:
            raise
        raise RunError(f"{told}. Then {again} goes on from where it was") from error


def _say_what_it_reached(options: TrainOptions, out: Path, json: bool) -> None:
    """For a run that is finished already: who starts it until it is done shall see that it is."""
    from unfreeze import run_folder
    from unfreeze.backend import import_keras

    metrics = run_folder.scores_of_same(out, {"options": options.as_plain()})
    typer.echo(f"{out} holds this run, finished: nothing is left to do", err=True)
    import_keras()
    from unfreeze.cli.display import TrainDisplay

    TrainDisplay(quiet=True, json=json, out=out).on_scores(metrics)


def _again(options: TrainOptions, is_demo: bool) -> str | None:
    """What goes on with a run that was broken off; None where there is none."""
    from unfreeze import run_folder

    out = options.out
    if out is None or not run_folder.is_broken_off(out):
        return None
    if is_demo:
        return f"`{run_folder.read_config(out)['command']} --resume`"
    if options.overwrite:
        return "the same command with --resume instead of --overwrite"
    return "the same command with --resume"
