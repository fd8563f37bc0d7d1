"""Files: atomic writes, where a reader sees the old file or the whole new one; and names.

Invariant: nothing in this package opens a final file name for writing; all
outputs go through here (temporary sibling, flush, fsync, rename, fsync of the folder).
A finished file survives a power cut; an unfinished one never has its final name.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

_PARTIAL = re.compile(r"\.partial-[0-9a-f]{16}-(.+)", re.DOTALL)
# A user's folder may hold lock files of other programs, too.
_LOCK = re.compile(r"\.lock-[0-9a-f]{16}")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` when the block succeeds.

    Args:
        path: the final file; its folder is made if missing.

    Yields:
        A path in the same folder with the same suffix (some writers choose
        the format by it). On an exception it is removed and `path` stays as it was.
    """
    final = Path(path)
    make_folder(final.parent)
    # A dotted prefix keeps the half-written file out of globs; the full name
    # is kept at the end because Keras insists on `.weights.h5` and the like.
    partial = final.parent / f".partial-{secrets.token_hex(8)}-{final.name}"
    # Not `tempfile`: it makes files that only their owner can read, and a process
    # with threads cannot read its umask safely.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = partial.stat().st_mode
    try:
        yield partial
        # Some writers (safetensors) replace it with a file of their own.
        partial.chmod(mode)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(final)
        sync_folder(final.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def partial_folder(home: Path) -> Iterator[Path]:
    """Yield a new hidden folder in `home`, to be filled and renamed.

    It is removed at the end if it was not renamed. If the process is killed,
    `remove_dead_folders` removes it later: the free lock beside it shows that its
    process has ended.
    """
    token = secrets.token_hex(8)
    folder, lock = home / f".partial-{token}", filelock.FileLock(home / f".lock-{token}")
    with lock:
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)


def remove_dead_folders(home: Path) -> None:
    """Remove the folders that `partial_folder` made for processes since killed."""
    for path in [path for path in home.glob(".lock-*") if _LOCK.fullmatch(path.name)]:
        lock = filelock.FileLock(path)
        with suppress(filelock.Timeout, OSError), lock.acquire(timeout=0):
            shutil.rmtree(home / f".partial-{path.name.removeprefix('.lock-')}", ignore_errors=True)
            path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str, errors: str = "strict") -> None:
    """Write UTF-8 text atomically.

    Args:
        path: the final file.
        text: may contain file names.
        errors: what to do with names that are not UTF-8, as for `str.encode`:
            "surrogateescape" writes their bytes as they are.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=errors)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON atomically, indented, with a final newline.

    NaN and infinity are refused (ValueError): JSON has no such values.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A name that is not UTF-8 has lone surrogates; Python and JSON escape them alike.
    write_text(path, text, "backslashreplace")


def system_error(error: Exception, file: Path) -> OSError:
    """The operating system's error behind one of safetensors, which holds its number as text."""
    found = re.search(r"os error (\d+)", str(error))
    # Windows numbers its errors differently.
    number = int(found[1]) if found and os.name != "nt" else errno.EIO
    return OSError(number, os.strerror(number), str(file))


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and its missing parents, so that they survive a power cut."""
    path = Path(folder)
    missing = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a file for good, even after a power cut; a missing file is no error."""
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return
    sync_folder(Path(path).parent)


def remove_partials(folder: str | os.PathLike[str], names: Container[str]) -> None:
    """Remove half-written files of killed processes.

    Args:
        folder: where they are; may be missing.
        names: of the final files; no other process may be writing these now.
    """
    if not Path(folder).is_dir():
        return
    for item in list(Path(folder).iterdir()):
        match = _PARTIAL.fullmatch(item.name)
        if match and match[1] in names:
            item.unlink(missing_ok=True)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder to disk, so that new, renamed and removed files stay so."""
    # Windows has no handle for that and does not need it.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain_path(path: Path) -> Path:
    """A path made absolute and without `..`, which a link before it may lead astray."""
    return path.resolve() if ".." in path.parts else path.absolute()


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are names of one file that is there."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
