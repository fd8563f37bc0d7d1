"""Long work in a process that is renewed now and then.

TensorFlow keeps every graph that it has traced until the process ends
(tensorflow#124972, tensorflow#62854): about 0.1 to 0.2 GB a training run on YAMNet,
whatever is deleted. Work that is kept run by run begins anew in a fresh process and
goes on; it has the same process id, terminal and signals.
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
    """Around work in a folder that keeps each run: renews the process, and ends gently.

    Args:
        out: the folder.
        budget: seconds of this process; None for no limit.
    """
    from unfreeze.compare import folder
    from unfreeze.compare.budget import Deadline, EnoughRuns

    clock = Deadline(budget)
    try:
        yield
    except EnoughRuns:
        renew(clock.left())
    except KeyboardInterrupt:
        if not (out / folder.CONFIG).is_file():
            raise
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def runs_a_process() -> int | None:
    """How many runs a process does before it is renewed; None where it need not or cannot."""
    # Windows starts another process instead, and the terminal goes on without it.
    leaks = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
    return RUNS_A_PROCESS if leaks and os.name == "posix" else None


def renew(seconds_left: float | None) -> NoReturn:
    """Begin the command again, with `--renewed` and the seconds of its budget that are left."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, renewed_words(sys.orig_argv, seconds_left))


def renewed_words(words: Sequence[str], seconds_left: float | None) -> list[str]:
    """The command line of the renewed process.

    Args:
        words: of this process, which may have been renewed itself.
        seconds_left: of the budget; None for no limit.
    """
    kept = list(words)
    if OPTION in kept:
        kept = kept[: kept.index(OPTION)]
    value = "-" if seconds_left is None else f"{max(seconds_left, 0.001):.3f}"
    return [*kept, OPTION, value]


def budget_left(budget: float | None, renewed: str | None) -> float | None:
    """The budget of this process: what is left of it if it was renewed.

    Args:
        budget: seconds that the user gave.
        renewed: the value of `--renewed`, None in the first process.
    """
    if renewed is None:
        return budget
    return None if renewed == "-" else float(renewed)
