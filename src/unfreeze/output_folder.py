"""Folders that commands write their results into.

Checked before any work, in this order: the folder is empty or holds earlier work of
ours, that work has the same settings, and no other process is writing to it.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from unfreeze.errors import RunError, show
from unfreeze.files import make_folder

LOCK = ".lock"


def holds(folder: Path, marker: str | None, what: str) -> bool:
    """Whether a folder holds earlier work of ours; refuses a folder with anything else.

    Args:
        folder: where to write; may be missing.
        marker: the file that marks earlier work; None if the folder must be empty.
        what: the work in words, such as "unfreeze run", for the message.

    Returns:
        False if the folder is missing or empty.

    Raises:
        RunError: it is a file, or holds anything else, which is never removed.
    """
    if folder.is_file():
        raise RunError(f"{show(folder)} is a file: give a folder that does not exist yet")
    if not folder.exists() or all(is_litter(item) for item in folder.iterdir()):
        return False
    if marker is None:
        raise RunError(f"{show(folder)} is not empty: give a folder that does not exist yet")
    if not (folder / marker).is_file():
        raise RunError(
            f"{show(folder)} is not empty and holds no {what}: give another folder with --out"
        )
    return True


def is_litter(item: Path) -> bool:
    """Whether a file may be ignored: left by a killed process, or by the system's file browser."""
    return item.name in (LOCK, ".DS_Store") or item.name.startswith((".partial-", ".lock-"))


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """Describe each setting that differs between earlier work and now.

    Args:
        before: the earlier settings; may hold more than `now`.
        now: the settings that must be equal; nested mappings are compared item by item.
        ignored: dotted names that may differ.
    """
    old, new = _flat(before), _flat(now)
    return [
        f"{name} was {old.get(name)!r} and is {value!r}"
        for name, value in new.items()
        if name not in ignored and old.get(name) != value
    ]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no other process writes into it.

    Raises:
        RunError: another process holds it, or you cannot write to it.
    """
    made = not folder.exists()
    try:
        make_folder(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        with lock_held(folder / LOCK, folder):
            yield
    finally:
        if made:
            # Empty only if the work was refused before it began: then leave nothing.
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def lock_held(file: Path, target: Path) -> Iterator[None]:
    """Hold a lock file, so that no other process writes to a target.

    Args:
        file: the lock; removed at the end.
        target: what it protects, for the message.

    Raises:
        RunError: another process holds it, or you cannot write to it.
    """
    lock = filelock.FileLock(file)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RunError(
            f"Another process is writing to {show(target)}: wait until it ends, or give another "
            "--out"
        ) from None
    except OSError as error:
        raise _unwritable(target, error) from None
    try:
        yield
    finally:
        # Before the release: after it, another process may make and hold a new one.
        with suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()


def _unwritable(target: Path, error: OSError) -> RunError:
    return RunError(
        f"{show(target)} cannot be written ({error.strerror or error}): give another --out"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
