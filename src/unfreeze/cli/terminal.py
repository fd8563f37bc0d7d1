"""What all commands share at the terminal: progress bars, Ctrl-C and system errors."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from unfreeze.backend import cure_for, first_line, is_out_of_memory

# Titles of the bars, by the names of work that listeners receive.
WORK = {
    "reading": "Reading recordings",
    "weights": "Downloading weights",
    "features": "Log-mel",
    "trials": "Trying strategies",
    "proposals": "Proposals",
    "depths": "Reading each depth",
    "gate": "Telling background apart",
    "odd": "Comparing clips",
    "copies": "Looking for copies",
    "excerpts": "Cutting excerpts",
    "report": "Writing the report",
}


def bars(shown: bool, share: bool = False) -> Progress:
    """A display for bars that disappear when their work is done.

    Args:
        shown: False draws nothing.
        share: show percent instead of counts.
    """
    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn() if share else MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        # In a file or a pipe a bar that vanishes would leave an empty line.
        disable=not (shown and console.is_terminal),
    )


@contextmanager
def bar(title: str, shown: bool, share: bool = False) -> Iterator[Callable[[float, float], None]]:
    """Yield a callback `(done, total)` that draws one bar; `share` as for `bars`."""
    with bars(shown, share) as display:
        task = display.add_task(title, total=None)
        yield lambda done, total: display.update(task, completed=done, total=total or None)


@contextmanager
def named_bars(shown: bool) -> Iterator[tuple[Callable[[str, int, int], None], Console]]:
    """Yield a callback `(what, done, total)` that draws one bar after the other.

    Also yields the console, for lines above the bars. `what` is a key of `WORK`.
    """
    with bars(shown) as display:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    display.update(task, visible=False)
                tasks[what] = display.add_task(WORK[what], total=None)
            display.update(tasks[what], completed=done, total=total or None)

        yield progress, display.console


_TOLD = b"\nstopping after this step; press Ctrl-C again to stop at once\n"


class Asked:
    """The requests of signals so far.

    Attributes:
        in_step: whether training steps run, which may finish first; otherwise a
            signal stops at once.
        to_stop: whether the run must end after the current step.
    """

    def __init__(self) -> None:
        self.in_step = False
        self.to_stop = False

    def handle(self, number: int, frame: Any) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: no step is running, or it is the second signal.
        """
        del number, frame
        if self.to_stop or not self.in_step:
            raise KeyboardInterrupt
        self.to_stop = True
        # Straight to the terminal: the main thread may be in the middle of a print.
        os.write(2, _TOLD)


@contextmanager
def signals_to(asked: Asked) -> Iterator[None]:
    """Pass SIGINT and SIGTERM to `asked` while the block runs; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, asked.handle) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# What the user can do, by the system's error number.
_CURES = {
    errno.ENOSPC: "free disk space, then run it again",
    errno.EDQUOT: "free disk space, then run it again",
    errno.EFBIG: "the file would be larger than the system allows (see ulimit -f)",
    errno.EROFS: "choose a folder that you can write to",
    errno.EACCES: "change the permissions, or choose another folder",
    errno.EPERM: "change the permissions, or choose another folder",
    errno.ENOENT: "the file or its folder existed before: find out what removed it",
    errno.ENOTDIR: "choose another folder",
    errno.EEXIST: "choose another folder",
    errno.EIO: "the disk or its connection has failed: run it again with another folder",
    errno.ESTALE: "the disk or its connection has failed: run it again with another folder",
    errno.EMFILE: "too many files are open (see ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
}
_NO_MEMORY = "close other programs, or work with less at once (smaller batches, shorter files)"


def explain(error: BaseException) -> str | None:
    """The message for what the user can correct: a system error, a missing package; else None."""
    if isinstance(error, ImportError):
        return cure_for(error)
    if is_out_of_memory(error) or getattr(error, "errno", None) == errno.ENOMEM:
        return f"There is not enough memory ({first_line(error)}): {_NO_MEMORY}"
    if not isinstance(error, OSError) or error.errno not in _CURES:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; {_CURES[error.errno]}"
