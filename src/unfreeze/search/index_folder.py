"""The folder of an index: the vectors of all windows of recordings, and where each one is.

Layout:

    encoder.keras     the model that made the vectors (`unfreeze.search.encoder`)
    recordings.jsonl  the settings; then a line for each recording that is in the index, with
                      the numbers of its windows: a journal, as a search for events has one
                      (`unfreeze.detection.journal`)
    vectors.f16       one row of float16 for each window, in the order in which recordings
                      were finished
    scores.f16        likewise the probabilities of the run's classes, if a run made the index
    head.npz          that run's head, where it is one dense layer on the vectors
    LICENCE.txt       the licence that goes with the model, if its backbone's asks for one
    neighbours.*      a graph for approximate search (`unfreeze.search.neighbours`)
    .lock             held by the process that writes

Invariants: rows are only ever added, and are on the disk before the line that tells of them
is. So a kill or a full disk loses the recordings that were not finished, and nothing else; what
no line tells of is cut off before more is added. A recording that has changed is added again,
and its old rows are skipped. Each 512 rows of a recording have a checksum in its line, which
is compared when they are first read.

Rows are read from the files and not mapped into memory, as `unfreeze.core.array_files`
explains.
"""

import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.core.array_files import RowReader
from unfreeze.detection.journal import Journal, each_line, read_settings, state_of
from unfreeze.errors import DataError, RunError, show
from unfreeze.files import plain_path, remove, same_file
from unfreeze.output_folder import holds, is_litter, locked

FORMAT, LICENCE, HEAD = 1, "LICENCE.txt", "head.npz"
JOURNAL, ENCODER, VECTORS, SCORES = (
    *("recordings.jsonl", "encoder.keras"),
    *("vectors.f16", "scores.f16"),
)
# Rows that share a checksum: 256 KB of vectors of 256 numbers.
_CHECKED = 512
_WHAT = "unfreeze index"
_REMAKE = "make the index again with `unfreeze embed --overwrite`"


@dataclass(frozen=True)
class Settings:
    """What all vectors of an index have in common.

    Attributes:
        format: of the folder.
        encoder: start of the SHA-256 of the model's file.
        of: "run", or the name of the backbone.
        numbers: in a vector.
        labels: the run's classes; empty without a run.
        several: whether each class is judged by itself.
        hop: seconds from one window to the next.
        window: seconds of a window.
        low_hz: the lowest frequency that the network hears.
        high_hz: the highest one.
    """

    format: int
    encoder: str
    of: str
    numbers: int
    labels: tuple[str, ...]
    several: bool
    hop: float
    window: float
    low_hz: float
    high_hz: float

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "labels": list(self.labels)}


@dataclass(frozen=True)
class Place:
    """Part of a recording.

    Attributes:
        recording: the file, as an absolute path.
        start: seconds from its start.
        end: seconds; never beyond its end.
    """

    recording: Path
    start: float
    end: float


@dataclass(frozen=True)
class Indexed:
    """A recording that is in an index.

    Attributes:
        path: the file, as an absolute path.
        first: the number of its first window in the index.
        rows: its windows.
        seconds: its length.
        sample_rate: of the file, in hertz.
        state: its size and the time of its last change, when it was read.
    """

    path: Path
    first: int
    rows: int
    seconds: float
    sample_rate: int
    state: Any = field(hash=False)

    def change(self) -> str | None:
        """What is to be said of the file now: a clause, or None if it is as it was."""
        now = state_of(self.path)
        if now is None:
            return "is no longer there"
        return None if now == self.state else "has changed since"


class Index:
    """An index that is open for reading; threads may share it.

    Make one with `open_index`.

    Attributes:
        folder: where it is.
        settings: what all vectors have in common.
        labels: the run's classes; empty without a run.
        recordings: in the order of their windows.
        rows: the number of windows.
        end_in_file: the rows in the files, those included that are of recordings which were
            added again.

    Examples:
        >>> index = unfreeze.open_index("index")
        >>> index.vectors(0, 3).shape[0], index.scores(0, 3).shape
        (3, (3, 3))
    """

    def __init__(
        self, folder: Path, settings: Settings, recordings: Sequence[Indexed], layout: "_Layout"
    ) -> None:
        self.folder, self.settings, self.labels = folder, settings, settings.labels
        self.recordings = tuple(recordings)
        self.rows, self.end_in_file = layout.rows, layout.end
        self._layout = layout
        self._firsts = np.array([item.first for item in recordings], np.int64)
        self._vectors = _open_rows(folder / VECTORS, settings.numbers, layout, 0)
        self._scores = (
            _open_rows(folder / SCORES, len(self.labels), layout, 1) if self.labels else None
        )

    def number_of(self, rows: np.ndarray) -> np.ndarray:
        """The numbers in `recordings` of those that windows are of."""
        return np.searchsorted(self._firsts, rows, "right") - 1

    def recording(self, path: Path) -> Indexed | None:
        """The recording that a file is, by whichever of its names: links and `..` are followed.

        A file that has changed since, or is gone, is known by the path in the index alone.
        """
        path = plain_path(path)
        if path in self._by_path:
            return self._by_path[path]
        state = state_of(path)
        others = self._by_state.get(tuple(state), ()) if state is not None else ()
        return next((item for item in others if same_file(item.path, path)), None)

    @cached_property
    def _by_path(self) -> dict[Path, Indexed]:
        return {item.path: item for item in self.recordings}

    @cached_property
    def _by_state(self) -> dict[tuple[int, ...], list[Indexed]]:
        found: dict[tuple[int, ...], list[Indexed]] = {}
        for item in self.recordings:
            if isinstance(item.state, list) and all(isinstance(x, int) for x in item.state):
                found.setdefault(tuple(item.state), []).append(item)
        return found

    def recording_of(self, row: int) -> Indexed:
        """The recording that a window is of.

        Raises:
            IndexError: there is no such window.
        """
        if not 0 <= row < self.rows:
            raise IndexError(f"window {row}: the index has {self.rows}")
        return self.recordings[int(self.number_of(np.asarray(row)))]

    def place(self, row: int) -> Place:
        """Where a window is.

        Raises:
            IndexError: there is no such window.
        """
        item = self.recording_of(row)
        start = (row - item.first) * self.settings.hop
        return Place(item.path, start, min(start + self.settings.window, item.seconds))

    def vectors(self, start: int, stop: int) -> np.ndarray:
        """The vectors of some consecutive windows.

        Args:
            start: the first.
            stop: the one after the last; what is beyond the end is left out.

        Returns:
            (stop - start, numbers) float16, read from the file.

        Raises:
            DataError: the file is damaged.
        """
        return self._read(self._vectors, start, stop)

    def scores(self, start: int, stop: int) -> np.ndarray | None:
        """The probabilities of the run's classes, likewise.

        Returns:
            (stop - start, classes) float16; None if the index was made without a run.

        Raises:
            DataError: the file is damaged.
        """
        return None if self._scores is None else self._read(self._scores, start, stop)

    def vectors_at(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of any windows, (windows, numbers) float16; for a few thousand."""
        parts = [self.vectors(row, row + 1) for row in rows.tolist()]
        return np.concatenate([*parts, self.vectors(0, 0)])

    def in_file(self, rows: np.ndarray) -> np.ndarray:
        """The places of windows in the files, counted in rows; these never change."""
        return self._layout.in_file(rows)

    def from_file(self, places: np.ndarray) -> np.ndarray:
        """The windows at places in the files; -1 where the recording has been added again."""
        return self._layout.from_file(places)

    def _read(self, rows: "_CheckedRows", start: int, stop: int) -> np.ndarray:
        parts = [rows.read(first, end) for first, end in self._layout.spans(start, stop)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([*parts, rows.read(0, 0)])


def open_index(folder: str | Path) -> Index:
    """Open an index for reading, while another process may be adding to it.

    Args:
        folder: what `unfreeze embed --out` wrote.

    Raises:
        DataError: it is not an index, one of another version, or damaged.

    Examples:
        >>> index = unfreeze.open_index("index")
        >>> index.place(0).start
        0.0
    """
    folder = Path(folder)
    file = folder / JOURNAL
    if not file.is_file():
        what = "does not exist" if not folder.exists() else f"has no {JOURNAL}: it is not an index"
        raise DataError(f"{show(folder)} {what}; make one with `unfreeze embed RECORDINGS --out`")
    settings = read_index_settings(folder)
    newest: dict[str, Mapping[str, Any]] = {}
    try:
        for line in each_line(file):
            if line.row is not None:
                newest[line.row["path"]] = line.row
        return _opened(folder, settings, newest)
    except RunError as error:
        raise DataError(f"{error}: {_REMAKE}") from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{show(file)} is damaged ({error!r}): {_REMAKE}") from None


def read_index_settings(folder: Path) -> Settings:
    """Read what all vectors of an index have in common.

    Raises:
        DataError: it is damaged, or of another version.
    """
    try:
        values = read_settings(folder / JOURNAL)
        # Another version may have other settings.
        if values["format"] != FORMAT:
            other = show(str(values["format"]))
            raise DataError(
                f"{show(folder)} has format {other}; this version of unfreeze reads {FORMAT}"
            )
        found = Settings(**{**values, "labels": tuple(values["labels"])})
    except (RunError, TypeError, KeyError) as error:
        raise DataError(f"{show(folder)} cannot be read as an index ({error}): {_REMAKE}") from None
    numbers = found.numbers, found.hop, found.window, found.low_hz, found.high_hz
    plain = all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)
    named = all(isinstance(text, str) for text in (*found.labels, found.of, found.encoder))
    if not (named and plain and isinstance(found.numbers, int) and min(numbers[:3]) > 0):
        raise DataError(f"{show(folder / JOURNAL)} is damaged: {_REMAKE}")
    return found


def _opened(folder: Path, settings: Settings, newest: Mapping[str, Mapping[str, Any]]) -> Index:
    rows = sorted(newest.values(), key=lambda row: (row["about"]["first"], row["about"]["rows"]))
    recordings, at = [], 0
    for row in rows:
        about = row["about"]
        recordings.append(
            Indexed(
                Path(row["path"]),
                at,
                int(about["rows"]),
                float(about["seconds"]),
                int(about["sample_rate"]),
                row["state"],
            )
        )
        at += recordings[-1].rows
        if not (0 <= recordings[-1].seconds < math.inf and recordings[-1].sample_rate >= 0):
            raise ValueError("the length of a recording")
    return Index(folder, settings, recordings, _Layout(rows))


class _Layout:
    """Where the rows of each recording lie in the files, and their checksums.

    Args:
        lines: of the recordings, in the order of their rows.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        abouts = [line["about"] for line in lines]
        first = np.array([about["first"] for about in abouts], np.int64)
        rows = np.array([about["rows"] for about in abouts], np.int64)
        if len(first) and (
            min(rows.min(), first.min()) < 0 or np.any(first[1:] < (first + rows)[:-1])
        ):
            raise ValueError("the windows of two recordings overlap")
        self.rows, self.end = int(rows.sum()), int((first + rows)[-1]) if len(rows) else 0
        # Consecutive recordings without old rows between them are one run.
        begins = np.flatnonzero(np.append(True, first[1:] != (first + rows)[:-1])[: len(first)])
        self._offsets = first[begins]
        before = np.concatenate([[0], np.cumsum(rows)])
        self._firsts = before[begins]
        self._ends = np.append(self._firsts[1:], self.rows)[: len(begins)]
        # A block for each checksum: all blocks of a recording but the last are full.
        counts = -(-rows // _CHECKED)
        self.sums = tuple(
            np.array([value for about in abouts for value in about[name]], np.int64)
            for name in ("vectors", "scores")
        )
        # Before anything is made as large as the journal says.
        blocks = int(counts.sum())
        # Without a run there are no scores.
        if len(self.sums[0]) != blocks or len(self.sums[1]) not in (0, blocks):
            raise ValueError("checksums are missing")
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.starts = np.repeat(first, counts) + number * _CHECKED
        self.stops = np.minimum(self.starts + _CHECKED, np.repeat(first + rows, counts))

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The places in the files of consecutive windows: first and end of each span."""
        start, stop = max(start, 0), min(stop, self.rows)
        if start >= stop:
            return
        run = int(np.searchsorted(self._firsts, start, "right")) - 1
        while start < stop:
            end = min(stop, int(self._ends[run]))
            offset = int(self._offsets[run] - self._firsts[run])
            yield start + offset, end + offset
            start, run = end, run + 1

    def in_file(self, rows: np.ndarray) -> np.ndarray:
        run = np.searchsorted(self._firsts, rows, "right") - 1
        found: np.ndarray = rows + (self._offsets - self._firsts)[run]
        return found

    def from_file(self, places: np.ndarray) -> np.ndarray:
        if not self.rows:
            return np.full(len(places), -1)
        run = np.searchsorted(self._offsets, places, "right") - 1
        rows = places - (self._offsets - self._firsts)[run]
        return np.where((run >= 0) & (rows < self._ends[run]), rows, -1)


class _CheckedRows:
    """Rows of a file, compared with their checksums when they are first read.

    Args:
        path: the file.
        numbers: in a row.
        layout: of the index.
        sums: the checksum of each block.
    """

    def __init__(self, path: Path, numbers: int, layout: _Layout, sums: np.ndarray) -> None:
        self._path, self._numbers = path, numbers
        self._reader = RowReader(path, f"{show(path)} ends too early: {_REMAKE}")
        self._layout, self._sums = layout, sums
        self._checked = np.zeros(len(sums), bool)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows from one place in the file to another."""
        starts, stops = self._layout.starts, self._layout.stops
        first = int(np.searchsorted(stops, start, "right"))
        end = int(np.searchsorted(starts, stop, "left"))
        new = first + np.flatnonzero(~self._checked[first:end])
        if not len(new):
            return self._raw(start, stop)
        low, high = min(start, int(starts[new[0]])), max(stop, int(stops[new[-1]]))
        found = self._raw(low, high)
        for block in new.tolist():
            a, b = int(starts[block]) - low, int(stops[block]) - low
            if zlib.crc32(found[a:b].data) != self._sums[block]:
                raise DataError(
                    f"{show(self._path)} is damaged (rows {a + low} to {b + low} do not match "
                    f"their checksum): {_REMAKE}"
                )
            self._checked[block] = True
        return found[start - low : stop - low]

    def _raw(self, start: int, stop: int) -> np.ndarray:
        found = np.empty((1, max(stop - start, 0), self._numbers), np.float16)
        try:
            self._reader.spans(found, np.array([start * self._numbers * 2]))
        except RunError as error:
            raise DataError(str(error)) from None
        rows: np.ndarray = found[0]
        return rows


def _open_rows(path: Path, numbers: int, layout: _Layout, kind: int) -> _CheckedRows:
    if len(layout.sums[kind]) != len(layout.starts):
        raise ValueError("checksums are missing")
    size = path.stat().st_size if path.is_file() else -1
    if size < layout.end * numbers * 2:
        what = "ends too early" if size >= 0 else "is missing"
        raise DataError(f"{show(path)} {what}: {_REMAKE}")
    return _CheckedRows(path, numbers, layout, layout.sums[kind])


@dataclass(frozen=True, eq=False)
class Finished:
    """What a recording adds to an index.

    Attributes:
        recording: one that `IndexWriter.unfinished` gave.
        vectors: (windows, numbers) float16.
        scores: (windows, classes) float16.
        seconds: its length.
        sample_rate: of the file, in hertz.
        warnings: what is wrong with the file, a clause each.
    """

    recording: Path
    vectors: np.ndarray
    scores: np.ndarray
    seconds: float
    sample_rate: int
    warnings: tuple[str, ...] = ()


class IndexWriter:
    """Adds recordings to an index; the folder is held by the caller.

    Args:
        folder: of the index.
        settings: as those of the index, if there is one.
        overwrite: begin again.

    Raises:
        RunError: the settings differ, or the index is damaged.
    """

    def __init__(self, folder: Path, settings: Settings, overwrite: bool = False) -> None:
        self._files: list[tuple[FileIO, int]] = []
        begun = (folder / JOURNAL).is_file() and not overwrite
        self._end = 0
        if begun:
            # Before anything is changed, so that what the journal tells of is there.
            open_index(folder)
            self._end = _end_of_all(folder)
        else:
            # A graph of other vectors would give wrong candidates.
            for old in (folder / JOURNAL, *folder.glob("neighbours.*")):
                remove(old)
        for name, width in ((VECTORS, settings.numbers), (SCORES, len(settings.labels))):
            if width:
                file = (folder / name).open("r+b" if begun else "w+b", buffering=0)
                self._files.append((file, width))
        self._journal = Journal(folder / JOURNAL, settings.as_plain())
        for file, width in self._files:
            file.truncate(self._end * width * 2)

    def unfinished(self, recordings: Sequence[Path]) -> list[Path]:
        """The recordings that are not in the index, or have changed since they were added."""
        return self._journal.unfinished(recordings)

    def add(self, finished: Sequence[Finished]) -> None:
        """Add recordings, all or none of them.

        Raises:
            RunError: they cannot be written.
        """
        first, rows = self._end, sum(len(item.vectors) for item in finished)
        try:
            for (file, width), kind in zip(self._files, ("vectors", "scores"), strict=False):
                file.seek(first * width * 2)
                for item in finished:
                    _write_all(file, getattr(item, kind))
                os.fsync(file.fileno())
            lines = []
            for item in finished:
                about = {
                    "first": first,
                    "rows": len(item.vectors),
                    "seconds": item.seconds,
                    "sample_rate": item.sample_rate,
                    "vectors": _sums(item.vectors),
                    "scores": _sums(item.scores),
                }
                lines.append((item.recording, (), about))
                first += len(item.vectors)
            self._journal.add_together(lines)
        except OSError as error:
            raise RunError(
                f"{show(self._journal.path.parent)} cannot be written ({error.strerror or error}): "
                "free some space and repeat the command; the recordings that are finished are kept"
            ) from None
        self._end += rows

    def close(self) -> None:
        """Close the files."""
        for file, _ in self._files:
            file.close()
        self._journal.close()


def _end_of_all(folder: Path) -> int:
    """The end of all rows in the files, those of recordings that were added again included."""
    lines = (line.row["about"] for line in each_line(folder / JOURNAL) if line.row is not None)
    return max((int(about["first"]) + int(about["rows"]) for about in lines), default=0)


def _write_all(file: FileIO, rows: np.ndarray) -> None:
    data = np.ascontiguousarray(rows).data.cast("B") if rows.size else memoryview(b"")
    while data:
        data = data[file.write(data) :]


def _sums(rows: np.ndarray) -> list[int]:
    if not rows.shape[1]:
        return []
    plain = np.ascontiguousarray(rows)
    return [zlib.crc32(plain[at : at + _CHECKED].data) for at in range(0, len(plain), _CHECKED)]


@contextmanager
def held_index(folder: Path, overwrite: bool) -> Iterator[bool]:
    """Hold a folder that an index is written into.

    Yields:
        Whether it holds an index to be added to.

    Raises:
        RunError: another process is writing to it, or it holds something else.
    """
    found = _holds_index(folder)
    with locked(folder):
        yield found and not overwrite


def _holds_index(folder: Path) -> bool:
    # A process that was killed as it began leaves the encoder, and nobody's data.
    names = (
        {item.name for item in folder.iterdir() if not is_litter(item)} if folder.is_dir() else ()
    )
    if ENCODER in names and set(names) <= {ENCODER, VECTORS, SCORES, LICENCE, HEAD}:
        return False
    return holds(folder, JOURNAL, _WHAT)
