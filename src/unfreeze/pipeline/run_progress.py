"""How far a training is, in a file that other programs can read while it runs.

`unfreeze train --progress FILE` keeps `FILE`, a JSON object, which is written whole or not at
all, at most twice a second, and in at most 3 % of the time. While the process lives, it holds
`FILE.lock`: whoever finds that lock free knows that the training has ended, however it ended.
A run that is resumed keeps the epochs of the earlier process.

No Keras here: programs that only watch should not wait for it.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from unfreeze.errors import RunError, show
from unfreeze.files import make_folder, write_json

FORMAT = 1
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
# Seconds between two writes at least, and how much longer than a write itself that must be.
_EVERY, _TIMES_LONGER = 0.5, 33
# Whoever looks whether the lock is free holds it for a moment.
_PATIENCE = 5.0
_MOST_ROWS, _MOST_NOTES, _MOST_BYTES = 2000, 30, 8_000_000


class ProgressFile:
    """Writes how far a training is.

    Args:
        file: where to.
        command: that was given, for whoever finds the file.
        before: what an earlier process of the same run left.
    """

    def __init__(self, file: Path, command: str, before: Mapping[str, Any] | None = None) -> None:
        self.file = file
        self._rows = {(row["stage"], row["epoch"]): row for row in (before or {}).get("rows", ())}
        self._ended: dict[str, Any] = dict((before or {}).get("ended", {}))
        self._state: dict[str, Any] = {
            "unfreeze_progress": FORMAT,
            "pid": os.getpid(),
            "command": command,
            "state": RUNNING,
            "cause": None,
            "began": time.time(),
            "stages": list((before or {}).get("stages", ())),
            "stage": None,
            "work": None,
            "left": None,
            "notes": [],
        }
        # What the pace is of, since when, and how far it was then.
        self._mark: tuple[str, float, int] = ("", 0.0, 0)
        self._heard_at = time.monotonic()
        self._wrote_at = -math.inf
        self._cost = 0.0
        self._write()

    def work(self, title: str, done: int, total: int) -> None:
        """Other work than training is going on; `total` is 0 where it is not known."""
        self._state["work"] = {"title": title, "done": done, "total": total}
        self._tell_left(f"work {title}", done, done, total)
        self._write_if_time()

    def plan(self, stages: Sequence[tuple[str, int]]) -> None:
        """The stages, and the most epochs of each."""
        self._state["stages"] = [{"name": name, "epochs": epochs} for name, epochs in stages]
        self._write_if_time()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._state |= {"stage": name, "work": None, "left": None}
        self._heard_at = time.monotonic()
        self._write_if_time(True)

    def epoch(self, stage: str, number: int, epochs: int, logs: Mapping[str, Any]) -> None:
        """An epoch has ended; `number` counts from 1."""
        values = {name: float(value) for name, value in logs.items()}
        row = {name: value for name, value in values.items() if math.isfinite(value)}
        self._rows[stage, number] = {"stage": stage, "epoch": number, **row}
        self._state["work"] = None
        self._tell_left(f"stage {stage}", number - 1, number, epochs)
        self._write_if_time()

    def end_stage(self, name: str, best_epoch: int, monitor: str, value: float) -> None:
        """A stage has ended."""
        best = value if math.isfinite(value) else None
        self._ended[name] = {"best_epoch": best_epoch, "monitor": monitor, "value": best}
        self._state |= {"work": None, "left": None}
        self._write_if_time(True)

    def note(self, text: str) -> None:
        """Something that a person should read."""
        self._state["notes"] = [*self._state["notes"], text][-_MOST_NOTES:]
        self._write_if_time()

    def end(self, state: str, cause: str | None = None) -> None:
        """The process is about to end."""
        self._state |= {"state": state, "cause": cause, "work": None, "left": None}
        with suppress(OSError):
            self._write()

    def _tell_left(self, what: str, first: int, done: int, total: int) -> None:
        """Seconds left by the pace so far, which began where `first` were done."""
        now = time.monotonic()
        if self._mark[0] != what:
            # The first epoch began when what was before it ended.
            self._mark = (what, self._heard_at if done > first else now, first)
        self._heard_at = now
        _, began, first = self._mark
        known = total and done > first
        self._state["left"] = (now - began) / (done - first) * (total - done) if known else None

    def _write_if_time(self, due: bool = False) -> None:
        waited = time.monotonic() - self._wrote_at
        if due or waited >= max(_EVERY, _TIMES_LONGER * self._cost):
            # A full disk must not end a training: it does not need this file.
            with suppress(OSError):
                self._write()

    def _write(self) -> None:
        began = time.monotonic()
        rows = list(self._rows.values())[-_MOST_ROWS:]
        told = {**self._state, "updated": time.time(), "ended": self._ended, "rows": rows}
        self._wrote_at = began
        write_json(self.file, told)
        self._wrote_at = time.monotonic()
        self._cost = self._wrote_at - began


@contextmanager
def recorded(file: Path | None, command: str, resumes: bool) -> Iterator[ProgressFile | None]:
    """Keep a progress file for as long as a block runs, and write how that ended.

    Args:
        file: where to; None keeps none.
        command: that was given.
        resumes: whether the epochs in the file are of the same run.

    Raises:
        RunError: another process writes to the file, or it cannot be written.
    """
    if file is None:
        yield None
        return
    lock = _lock_of(file)
    try:
        make_folder(file.parent)
        lock.acquire(timeout=_PATIENCE)
    except filelock.Timeout:
        raise RunError(
            f"--progress: another training is writing to {show(file)}: give another file"
        ) from None
    except OSError as error:
        raise _unwritable(file, error) from None
    try:
        before = read_progress(file) if resumes else None
        try:
            told = ProgressFile(file, command, before)
        except OSError as error:
            raise _unwritable(file, error) from None
        try:
            yield told
        except KeyboardInterrupt:
            told.end(INTERRUPTED)
            raise
        except Exception as error:
            told.end(FAILED, str(error) or type(error).__name__)
            raise
        told.end(FINISHED)
    finally:
        # Before the release: after it, another process may make and hold a new one.
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def read_progress(file: Path) -> dict[str, Any] | None:
    """What a progress file says; None if there is none, or none of ours."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("unfreeze_progress") != FORMAT:
        return None
    rows = found.get("rows")
    whole = isinstance(rows, list) and all(
        isinstance(row, dict) and {"stage", "epoch"} <= row.keys() for row in rows
    )
    whole = whole and isinstance(found.get("ended"), dict)
    # 0 and less stand for many processes, 1 for the system's own.
    pid = found.get("pid")
    return found if whole and isinstance(pid, int) and pid > 1 else None


def is_being_written(file: Path) -> bool:
    """Whether the process that keeps a progress file lives."""
    lock = _lock_of(file)
    if not Path(lock.lock_file).exists():
        return False
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _lock_of(file: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(file.with_name(f"{file.name}.lock"))


def _unwritable(file: Path, error: OSError) -> RunError:
    return RunError(
        f"--progress: {show(file)} cannot be written ({error.strerror or error}): give another file"
    )
