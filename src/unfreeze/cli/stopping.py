"""Ctrl-C, and the signal by which batch systems end a job: first gently, then at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TOLD = b"\nstopping after this step; once more stops at once\n"


class Asked:
    """What the signals have asked for so far.

    Attributes:
        in_step: whether training steps run, which are worth finishing; elsewhere
            a signal stops at once.
        to_stop: whether the run is to end after the step under way.
    """

    def __init__(self) -> None:
        self.in_step = False
        self.to_stop = False

    def handle(self, number: int, frame: Any) -> None:
        """Take a signal.

        Raises:
            KeyboardInterrupt: no steps run, or it is the second signal.
        """
        del number, frame
        if self.to_stop or not self.in_step:
            raise KeyboardInterrupt
        self.to_stop = True
        # Straight to the terminal: the main thread may be anywhere, also in a print.
        os.write(2, _TOLD)


@contextmanager
def signals_to(asked: Asked) -> Iterator[None]:
    """Give SIGINT and SIGTERM to `asked` while the block runs; in the main thread only."""
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
