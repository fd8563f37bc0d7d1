"""A CSV manifest: `path,label[,group][,split]`, UTF-8, with a header.

Paths are relative to the manifest's folder. Anything that would make a label
wrong or leave that folder is an error with the line's number; files that are
missing or damaged are left to the rules.
"""

import csv
import difflib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from unfreeze.audio.entries import SPLITS, Entry, check_label, is_within
from unfreeze.audio.names import show
from unfreeze.audio.rules import Problem
from unfreeze.errors import DataError

_REQUIRED, _OPTIONAL = ("path", "label"), ("group", "split")


def read_csv(manifest: Path) -> tuple[list[Entry], list[Problem]]:
    """Read a CSV manifest.

    Args:
        manifest: the file. Rows that repeat an earlier one are dropped with a
            note; files that are missing are left to the rules.

    Returns:
        The recordings and the notes.

    Raises:
        DataError: not UTF-8, no CSV, missing columns, an empty or unprintable
            label, an unknown split, a path outside of the manifest's folder, or
            one file under two labels. The message names the line.
    """
    root = manifest.parent
    inside = os.path.realpath(root)
    rows = _rows(manifest)
    columns, notes = _columns(manifest, next(rows, (1, []))[1])
    entries: dict[str, Entry] = {}
    shown = show(manifest)
    real: dict[str, str] = {}
    for line, row in rows:
        where = f"{shown}, line {line}"
        if len(row) != len(columns):
            raise DataError(
                f"{where}: {len(row)} fields where the header has {len(columns)}. "
                f"Put double quotes around a value that holds a comma."
            )
        fields = {c: v.strip() for c, v in zip(columns, row, strict=True)}
        path = _inside(root, inside, real, fields["path"], where)
        entry = Entry(
            path=path,
            name=path.relative_to(root),
            label=check_label(fields["label"], where),
            group=fields.get("group") or None,
            split=_split(fields["split"], where) if "split" in fields else None,
            line=line,
        )
        earlier = entries.setdefault(os.path.normcase(path), entry)
        if earlier is not entry:
            notes.append(_repeated(entry, earlier, where))
    if not entries:
        raise DataError(f"{show(manifest)} has a header and no rows. Add one row a recording.")
    return list(entries.values()), notes


def _rows(manifest: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the rows that are not blank."""
    try:
        text = manifest.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{show(manifest)} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{show(manifest)}, line {line}: not UTF-8. Save the file as UTF-8."
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{show(manifest)}, line {line}: no valid CSV ({error}).") from error


def _columns(manifest: Path, header: list[str]) -> tuple[list[str], list[Problem]]:
    columns = [name.strip().lower() for name in header]
    for name in _REQUIRED:
        if name not in columns:
            cure = "Separate the columns by commas." if len(columns) == 1 else ""
            close = difflib.get_close_matches(name, columns, n=1)
            cure = cure or (f"Is it the column {show(close[0])!r}?" if close else "Add it.")
            raise DataError(
                f"{show(manifest)}, line 1: no column {name!r} among "
                f"{', '.join(repr(show(c)) for c in columns)}. {cure}"
            )
    known = (*_REQUIRED, *_OPTIONAL)
    for name in known:
        if columns.count(name) > 1:
            raise DataError(f"{show(manifest)}, line 1: the column {name!r} is there twice.")
    unused = [show(c) for c in columns if c not in known]
    if not unused:
        return columns, []
    cause = f"columns that are not used: {', '.join(unused)}"
    return columns, [Problem(Path(manifest.name), "unused_columns", cause, False)]


def _inside(root: Path, inside: str, real: dict[str, str], text: str, where: str) -> Path:
    if not text or "\0" in text:
        raise DataError(f"{where}: the path is empty or has a null byte.")
    path = Path(os.path.normpath(root / text))
    if not (is_within(str(path), str(root)) and is_within(_real(path, real), inside)):
        raise DataError(
            f"{where}: {show(text)!r} leads outside of {show(root)}. Put the manifest into a "
            f"folder that holds all recordings, and write paths relative to it."
        )
    return path


def _real(path: Path, real: dict[str, str]) -> str:
    """Return where a path leads; `real` remembers it for each folder."""
    # Not by pathlib, which raises for a name that no file can have.
    if os.path.islink(path):  # noqa: PTH114
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    if folder not in real:
        real[folder] = os.path.realpath(folder)
    return os.path.join(real[folder], name)  # noqa: PTH118


def _split(text: str, where: str) -> str:
    name = text.lower()
    if name not in SPLITS:
        close = difflib.get_close_matches(name, SPLITS, n=1)
        guess = f" Is it {close[0]!r}?" if close else ""
        raise DataError(
            f"{where}: unknown split {show(text)!r}; it must be train, validation or test "
            f"(or val, valid, dev).{guess}"
        )
    return SPLITS[name]


def _repeated(entry: Entry, earlier: Entry, where: str) -> Problem:
    for field in ("label", "group", "split"):
        mine, other = getattr(entry, field), getattr(earlier, field)
        if mine != other:
            raise DataError(
                f"{where}: {show(entry.name)} has the {field} {show(str(mine))!r} here and "
                f"{show(str(other))!r} in line {earlier.line}. Keep one of the two rows."
            )
    cause = f"line {entry.line} repeats line {earlier.line}; it is dropped"
    return Problem(entry.name, "duplicate_row", cause, False)
