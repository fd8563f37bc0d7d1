"""`unfreeze report`: write the page of a run, a comparison or an evaluation again."""

from pathlib import Path
from typing import Annotated

import typer

from unfreeze.errors import RunError, show

# What a search leaves, by which its folder is known.
_SEARCH = "tuning.json"


def report(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of a run, of a comparison, or of evaluate --out."),
    ],
) -> None:
    """Write report.html of a finished run, a comparison or an evaluation again.

    Commands write it by themselves; this is for runs of earlier versions, and for recordings
    that were elsewhere when it was written.
    """
    if (folder / _SEARCH).is_file():
        raise RunError(
            f"{show(folder)} holds a search, which has no report: train with its best.yaml "
            "(--schedule), and look at the report of that run"
        )
    from unfreeze.cli.terminal import named_bars
    from unfreeze.pipeline.evaluation import EVALUATION
    from unfreeze.report.comparison_report import RESULT, write_comparison_report
    from unfreeze.report.evaluation_report import EVENTS, write_evaluation_report
    from unfreeze.report.run_report import write_run_report

    with named_bars(shown=True) as (progress, _):

        def cutting(done: int, total: int) -> None:
            progress("report", done, total)

        if (folder / RESULT).is_file():
            file = write_comparison_report(folder)
        elif (folder / EVALUATION).is_file() or (folder / EVENTS).is_file():
            file = write_evaluation_report(folder, cutting)
        else:
            file = write_run_report(folder, cutting)
    typer.echo(f"Written to {show(file)}")
