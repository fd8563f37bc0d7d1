"""A decoding process that does what a bad decoder does, by the name of the file."""

import functools
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from unfreeze.audio import decode_worker
from unfreeze.audio.decode import mono_blocks
from unfreeze.audio.sound_file import Sound, open_sound


def main() -> None:
    """As `unfreeze.audio.decode_worker.main`, with a decoder of its own."""
    decode_worker.open_sound = opened
    decode_worker.decode_seconds = lambda size: 0.2
    decode_worker.mono_blocks = functools.partial(mono_blocks, block=1 << 15)
    decode_worker.main()


@contextmanager
def opened(path: Path) -> Iterator[Sound]:
    """Open a file; some are met with a signal, a wait, or worse."""
    with (path.parent / "tried.txt").open("a") as file:
        file.write(f"{path.name}\n")
    tries = (path.parent / "tried.txt").read_text().splitlines().count(path.name)
    name = path.name
    if name.startswith(("kill", "half")) or (name.startswith("once") and tries == 1):
        cut = name.startswith(("half", "once"))
        with open_sound(path) as sound:
            yield replace(sound, file=Killer(sound.file)) if cut else killed()
        return
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("hang"):
        time.sleep(1000)
    if name.startswith("hoard"):
        bytearray(3 << 30)
    if name.startswith("defect"):
        raise ZeroDivisionError("by nothing")
    if name.startswith("nonsense"):
        os.write(OUT, b"\xff" * 1000)
        time.sleep(1000)
    with open_sound(path) as sound:
        yield replace(sound, file=Slow(sound.file)) if name.startswith("slow") else sound


# `worker.main` takes standard output for itself, by the next free number.
OUT = os.dup(1)
os.close(OUT)


def killed() -> Sound:
    """Die as the out-of-memory killer has it."""
    os.kill(os.getpid(), signal.SIGKILL)
    sys.exit("never reached")


class Killer:
    """Reads two blocks and dies."""

    def __init__(self, file: object) -> None:
        self._file, self._blocks = file, 0

    def read(self, out: np.ndarray) -> np.ndarray:
        """As the file's own, twice: a block is handed on when the next is there."""
        self._blocks += 1
        if self._blocks > 2:
            killed()
        return self._file.read(out=out)


class Slow(Killer):
    """Reads with a lot of computing."""

    def read(self, out: np.ndarray) -> np.ndarray:
        """As the file's own."""
        began = time.process_time()
        while time.process_time() - began < 0.15:
            pass
        return self._file.read(out=out)
