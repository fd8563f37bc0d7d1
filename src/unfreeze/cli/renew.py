"""Long work in a process that is replaced from time to time.

TensorFlow keeps every graph that it has traced until the process ends
(tensorflow#124972, tensorflow#62854): about 0.1 to 0.2 GB per training run on YAMNet,
even if everything is deleted. So work that keeps each run restarts itself in a fresh
process, with the same process id, terminal and signals, and resumes.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

OPTION = "--renewed"
RUNS_A_PROCESS = 16


@contextmanager
def kept_run_by_run(out: Path, budget: float | None) -> Iterator[None]:
    """Wrap work in a folder that keeps each run: renew the process, and end cleanly.

    Args:
        out: the folder.
        budget: seconds of this process; None for no limit.
    """
    from unfreeze.compare import comparison_folder
    from unfreeze.compare.budget import Deadline, EnoughRuns

    clock = Deadline(budget)
    try:
        yield
    except EnoughRuns:
        renew(clock.left())
    except KeyboardInterrupt:
        if not (out / comparison_folder.CONFIG).is_file():
            raise
        typer.echo("interrupted; run the same command again to continue", err=True)
        raise typer.Exit(130) from None


def runs_a_process() -> int | None:
    """Runs that a process does before it is renewed; None if it need not or cannot be."""
    # Windows starts another process instead, and the terminal does not wait for it.
    leaks = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
    return RUNS_A_PROCESS if leaks and os.name == "posix" else None


def renew(seconds_left: float | None) -> NoReturn:
    """Start the command again, with `--renewed` and the seconds left of its budget."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, renewed_words(sys.orig_argv, seconds_left))


def renewed_words(words: Sequence[str], seconds_left: float | None) -> list[str]:
    """The command line of the renewed process.

    Args:
        words: command line of this process, which may have been renewed itself.
        seconds_left: of the budget; None for no limit.
    """
    kept = list(words)
    if OPTION in kept:
        kept = kept[: kept.index(OPTION)]
    value = "-" if seconds_left is None else f"{max(seconds_left, 0.001):.3f}"
    return [*kept, OPTION, value]


def budget_left(budget: float | None, renewed: str | None) -> float | None:
    """The budget of this process; if it was renewed, what is left of the budget.

    Args:
        budget: seconds that the user gave.
        renewed: the value of `--renewed`, None in the first process.
    """
    if renewed is None:
        return budget
    return None if renewed == "-" else float(renewed)
