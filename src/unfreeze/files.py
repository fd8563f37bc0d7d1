"""Atomic writes: a reader sees the old file or the whole new one, never a part.

Invariant: nothing in this package opens a final file name for writing; all
outputs go through here (temporary sibling, flush, fsync, rename).
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends well.

    Args:
        path: the final file; its folder is made when missing.

    Yields:
        A path in the same folder with the same suffix (some writers choose
        the format by it). On an exception it is removed and `path` is as before.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    # A dotted prefix keeps the half-written file out of globs; the full name
    # is kept at the end because Keras insists on `.weights.h5` and the like.
    partial = final.parent / f".partial-{secrets.token_hex(8)}-{final.name}"
    # Not `tempfile`: it makes files that only their owner can read, and the
    # umask of a process with threads cannot be asked for safely.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(final)
        _sync_folder(final.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str, errors: str = "strict") -> None:
    """Write UTF-8 text atomically.

    Args:
        path: the final file.
        text: may hold names of files.
        errors: what to do with names that are not UTF-8, as for `str.encode`:
            "surrogateescape" writes their bytes as they are.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=errors)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON atomically, indented, with a final newline.

    NaN and infinity are refused (ValueError): they are no JSON.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A name that is not UTF-8 has lone surrogates: Python's escape of one is JSON's, too.
    write_text(path, text, "backslashreplace")


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only when the folder is synced; Windows has
    # no handle for that and does not need it.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
