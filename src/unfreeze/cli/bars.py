"""Progress bars on standard error, the same in all commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

# Pieces of work that listeners hear of, as the bars call them.
WORK = {
    "reading": "Reading recordings",
    "weights": "Fetching weights",
    "features": "Log-mel",
    "trials": "Trying strategies",
    "proposals": "Proposals",
}


def bars(shown: bool) -> Progress:
    """A display for bars that vanish when their work is done.

    Args:
        shown: False draws nothing.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, highlight=False),
        transient=True,
        disable=not shown,
    )


@contextmanager
def bar(title: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback `(done, total)` that draws one bar."""
    with bars(shown) as display:
        task = display.add_task(title, total=None)
        yield lambda done, total: display.update(task, completed=done, total=total or None)
