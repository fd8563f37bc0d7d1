"""Faults made on purpose, by the system itself where that can be."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def no_large_files(most: int) -> Iterator[None]:
    """Let the system refuse to write beyond `most` bytes of a file, as a full disk would.

    The error is another one (EFBIG instead of ENOSPC), but it comes from where a
    full disk's comes: in the middle of a write by whatever library writes.
    """
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Without this the system kills the process; Python ignores the signal already.
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def flip(file: Path, place: int = -5) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def cut(file: Path, share: float = 0.5) -> None:
    """Cut a file short, as a process that others read it from would see it."""
    with file.open("rb+") as opened:
        opened.truncate(int(file.stat().st_size * share))


def leavings(folder: Path) -> list[str]:
    """What was half-written and left, anywhere below a folder."""
    return sorted(p.name for p in folder.rglob(".partial-*"))
