"""`unfreeze train`: from a folder of recordings to a tested classifier."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from unfreeze.cli.arguments import MACHINES, Json, Quiet, takes
from unfreeze.cli.sentences import tell
from unfreeze.errors import RunError, UnfreezeError, show
from unfreeze.pipeline.train_options import OPTIONS, TrainOptions, command_line


def _complete(**given: Any) -> TrainOptions:
    from unfreeze.planning import complete_options

    return complete_options(**given)


@takes(*OPTIONS, make=_complete, required=("data", "out"))
def train(
    options: TrainOptions,
    progress: Annotated[
        Path | None,
        typer.Option(
            help="File to keep for other programs while it runs: JSON with stages, epochs and "
            "the time left.",
            rich_help_panel=MACHINES,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier on labelled recordings, in stages, and test it."""
    run(options, json, quiet, progress_file=progress)


def run(
    options: TrainOptions,
    json: bool,
    quiet: bool,
    make_data: Callable[[], None] | None = None,
    progress_file: Path | None = None,
) -> None:
    """Train, and show progress and scores.

    Args:
        options: of the run.
        json: print the scores as JSON.
        quiet: show only the scores.
        make_data: makes the recordings; given by `unfreeze demo`, which cannot resume.
        progress_file: kept for other programs while it runs.
    """
    from unfreeze.backend import check_backend, import_keras
    from unfreeze.cli.terminal import WORK, Asked, explain, named_bars, signals_to
    from unfreeze.pipeline import run_folder
    from unfreeze.pipeline.run_progress import recorded
    from unfreeze.planning import planned

    out = options.out
    resumes = options.resume and not options.overwrite
    if progress_file is not None and out is not None and _is_in(progress_file, out):
        raise UnfreezeError(
            f"--progress: {show(progress_file)} is in the run's folder, which holds only the "
            "run: give a file beside it"
        )
    kept = partial(recorded, progress_file, command_line(options), resumes)
    if out is not None and resumes and run_folder.is_finished(out):
        with kept():
            return _show_finished(options, out, json)
    check_backend()
    asked, display = Asked(), None
    try:
        with signals_to(asked), kept() as told, ExitStack() as stack:

            def show_work(what: str, done: int, total: int) -> None:
                progress(what, done, total)
                if told is not None:
                    told.work(WORK[what], done, total)

            # Keras takes seconds to import: make the plan, and show its errors, before that.
            with named_bars(shown=not (quiet or json)) as (progress, _):
                plan = stack.enter_context(planned(options, show_work, make_data))
            if told is not None:
                told.work("Loading Keras", 0, 0)
            import_keras()
            from unfreeze.cli.train_display import TrainDisplay
            from unfreeze.pipeline.training import train as run_plan

            display = TrainDisplay(quiet=quiet, json=json, out=out, asked=asked, told=told)
            with display.progress:
                run_plan(plan, display)
    except KeyboardInterrupt:
        again = _command_to_resume(options, display, make_data is not None)
        if again is None:
            raise
        typer.echo(f"interrupted; run {again} to continue", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        reason, again = explain(error), _command_to_resume(options, display, make_data is not None)
        if reason is None or again is None:
            raise
        raise RunError(f"{reason}. Then run {again} to continue") from error


def _is_in(file: Path, folder: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())


def _show_finished(options: TrainOptions, out: Path, json: bool) -> None:
    """Show the scores of a finished run, so that a script that resumes until done can end."""
    from unfreeze.backend import import_keras
    from unfreeze.pipeline import run_folder

    metrics = run_folder.scores_of_same(out, {"options": options.as_plain()})
    typer.echo(f"{out} already holds this run, finished: there is nothing to do", err=True)
    if not (out / run_folder.REPORT).is_file():
        # The run was killed just before, or is of an earlier version.
        from unfreeze.report.run_report import write_run_report

        try:
            write_run_report(out)
        except (RunError, OSError) as error:
            tell(f"note: its report could not be written: {error}")
    import_keras()
    from unfreeze.cli.terminal import Asked
    from unfreeze.cli.train_display import TrainDisplay

    TrainDisplay(quiet=True, json=json, out=out, asked=Asked()).on_scores(metrics)


def _command_to_resume(options: TrainOptions, display: Any, is_demo: bool) -> str | None:
    """The command that resumes an interrupted run; None if there is nothing to resume."""
    from unfreeze.pipeline import run_folder

    begun = options.resume or (display is not None and display.begun)
    if options.out is None or not begun or not run_folder.is_interrupted(options.out):
        return None
    if is_demo:
        return f"`{run_folder.read_config(options.out)['command']} --resume`"
    if options.overwrite:
        return "the same command with --resume instead of --overwrite"
    return "the same command with --resume"
