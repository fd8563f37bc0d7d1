"""The record of a search through many recordings, so that the search can resume.

A journal is a file of JSON lines beside the results. The first line holds the
format version and the settings; each other line holds a finished recording with
its events. Lines are only ever added, with one write that reaches the disk before
the next one begins. So only the last line can be incomplete, after a kill
(cut short) or a power cut (with zeros in it); it is dropped. Results can be
written from the journal at any time, in any format.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unfreeze.detection.events import Event
from unfreeze.errors import RunError, show
from unfreeze.files import write_text
from unfreeze.output_folder import differences

FORMAT = 1
_KEY = "unfreeze_events"
# What a line raises that another program wrote or a disk damaged.
_DAMAGED = (ValueError, KeyError, TypeError, RecursionError)


class Journal:
    """The journal of one search.

    Args:
        path: the file; made when it is not there.
        settings: JSON values that decide what is found.
        overwrite: begin again, whatever is there.

    Raises:
        RunError: it belongs to a search with other settings, or is not a journal.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self._places: dict[str, tuple[int, Any]] = {}
        self._states: dict[str, Any] = {}
        if overwrite or not path.exists():
            write_text(path, _line({_KEY: FORMAT, "settings": dict(settings)}))
        else:
            self._read(settings)
        self._file = path.open("r+b", buffering=0)
        self._file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, recording: Path) -> bool:
        return _key(recording) in self._places

    def unfinished(self, recordings: Sequence[Path]) -> list[Path]:
        """Return the recordings that are not finished, or have changed since they were."""
        self._states = {_key(recording): state_of(recording) for recording in recordings}
        for key, state in self._states.items():
            if key in self._places and self._places[key][1] != state:
                del self._places[key]
        return [recording for recording in recordings if recording not in self]

    def add(self, recording: Path, events: Sequence[Event], about: Mapping[str, Any]) -> None:
        """Record that a recording is finished.

        Args:
            recording: one that `unfinished` gave.
            events: what was found in it.
            about: JSON values to keep with it.
        """
        self.add_together([(recording, events, about)])

    def add_together(
        self, finished: Sequence[tuple[Path, Sequence[Event], Mapping[str, Any]]]
    ) -> None:
        """Record that several recordings are finished, with one write.

        Args:
            finished: each with what `add` takes.
        """
        at, lines, places = self._file.tell(), list[bytes](), dict[str, tuple[int, Any]]()
        for recording, events, about in finished:
            # The state from before it was read: what was added since was not searched.
            key, rows = _key(recording), [asdict(event) for event in events]
            line = {"path": key, "state": self._states[key], "about": dict(about), "events": rows}
            lines.append(_line(line).encode("ascii"))
            places[key] = (at, self._states[key])
            at += len(lines[-1])
        before, data = self._file.tell(), memoryview(b"".join(lines))
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError:
            # The disk is full: half a line must not come before the next one.
            self._file.truncate(before)
            self._file.seek(before)
            raise
        self._places |= places

    def events(self, recording: Path) -> tuple[list[Event], dict[str, Any]]:
        """Return a finished recording's events, and what was kept with them.

        Raises:
            RunError: its line is damaged.
        """
        with self.path.open("rb") as file:
            file.seek(self._places[_key(recording)][0])
            try:
                line = json.loads(file.readline())
                return [Event(**row) for row in line["events"]], dict(line["about"])
            except _DAMAGED:
                raise self._damaged() from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, settings: Mapping[str, Any]) -> None:
        whole = 0
        try:
            before = read_settings(self.path)
            for line in each_line(self.path):
                if line.row is not None:
                    self._places[line.row["path"]] = (line.start, line.row["state"])
                whole = line.end
        except RunError as error:
            raise RunError(
                f"{error}: begin again with --overwrite, or give another --out"
            ) from None
        _compare(self.path, before, settings)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def _damaged(self) -> RunError:
        return RunError(
            f"{show(self.path)} is damaged: begin again with --overwrite, or give another --out"
        )


@dataclass(frozen=True)
class Line:
    """A whole line of a journal.

    Attributes:
        start: its first byte in the file.
        end: the byte after its last.
        row: `path`, `state`, `about` and `events` of a recording; None for the first line.
    """

    start: int
    end: int
    row: dict[str, Any] | None


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in the first line of a journal.

    Raises:
        RunError: it is not a journal.
    """
    with path.open("rb") as file:
        try:
            head = json.loads(file.readline())
            settings = dict(head["settings"]) if head[_KEY] == FORMAT else None
        except _DAMAGED:
            settings = None
    if settings is None:
        raise RunError(f"{show(path)} is not a journal that this version of unfreeze can read")
    return settings


def each_line(path: Path) -> Iterator[Line]:
    """The lines of a journal, but for a last one that is not whole.

    Raises:
        RunError: a line before the last one is not whole.
    """
    with path.open("rb") as file:
        at = len(file.readline())
        yield Line(0, at, None)
        for line in file:
            row = _row(line)
            if row is None:
                if file.read(1):
                    raise RunError(f"{show(path)} is damaged at byte {at}")
                return
            yield Line(at, at + len(line), row)
            at += len(line)


def _row(line: bytes) -> dict[str, Any] | None:
    """A line's content; None where it is incomplete."""
    try:
        row = json.loads(line)
        whole = line.endswith(b"\n") and {"path", "state", "about", "events"} <= row.keys()
        whole = whole and isinstance(row["path"], str)
    except (AttributeError, *_DAMAGED):
        return None
    return dict(row) if whole else None


def _compare(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = differences({**dict.fromkeys(now), **before}, {**dict.fromkeys(before), **now})
    if changed:
        raise RunError(
            f"{show(path)} was begun with other settings ({'; '.join(changed)}): use those, "
            f"give another --out, or begin again with --overwrite"
        )


def _key(recording: Path) -> str:
    # Absolute, so that a process in another folder finds it too; odd bytes as JSON escapes.
    return str(recording.absolute())


def state_of(recording: Path) -> list[int] | None:
    """Size and time of the last change: a recording that grew is searched again."""
    try:
        status = recording.stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"
