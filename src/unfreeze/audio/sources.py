"""Where recordings come from: which files there are, and what is claimed of them.

No sound is read here. A source is a data set as the user gives it, a folder of
recordings that hold none of the sounds, or several of these joined.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unfreeze.audio.entries import MANIFEST_NAME, Entry
from unfreeze.audio.folders import read_folders, walk_recordings
from unfreeze.audio.names import show
from unfreeze.audio.quiet import BACKGROUND
from unfreeze.audio.rules import Problem
from unfreeze.audio.segments_file import SEGMENTS_NAME, read_segments, with_source_groups
from unfreeze.audio.table import read_csv
from unfreeze.errors import DataError


@dataclass(frozen=True)
class Source:
    """Recordings that are claimed to be there.

    Attributes:
        root: a folder that holds all of them, absolute.
        entries: in the order of their names.
        notes: on files that are none, and the like.
    """

    root: Path
    entries: tuple[Entry, ...]
    notes: tuple[Problem, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted({entry.label for entry in self.entries}))


def find_source(data: str | os.PathLike[str], group_regex: str | None = None) -> Source:
    """Find the recordings of a data set.

    Args:
        data: a folder with a folder per class, a folder with a `manifest.csv`,
            or a CSV file (`path,label[,group][,split]`). In a folder that
            `unfreeze segments` wrote, the group of a segment is the recording
            that it was cut from.
        group_regex: its first capture group, searched in the file's name and
            then in its path below `data`, is the clip's group. Every file must
            match.

    Raises:
        DataError: the data cannot be used; the message names the files, the
            cause and the cure.
    """
    place = Path(data)
    if not place.exists():
        raise DataError(f"{show(place)} does not exist. Give a folder or a CSV manifest.")
    if place.is_dir():
        root = place.resolve()
        table = root / MANIFEST_NAME
        if table.is_file():
            entries, notes = read_csv(table)
        else:
            entries, notes = read_folders(root)
            if (root / SEGMENTS_NAME).is_file():
                entries = with_source_groups(read_segments(root), entries)
    elif place.suffix.lower() == ".csv":
        root = place.parent.resolve()
        entries, notes = read_csv(root / place.name)
    else:
        raise DataError(
            f"{show(place)} is a file, and no .csv manifest. Give the folder that holds one "
            f"folder a class, or a CSV with the columns path,label[,group][,split]."
        )
    _check_splits(root, entries)
    if group_regex is not None:
        entries = _with_groups(entries, group_regex)
    return Source(root, _by_name(entries), tuple(notes))


def find_background(folder: Path, option: str) -> Source:
    """Find the recordings that hold none of the sounds, in a folder of any depth.

    Args:
        folder: with the recordings.
        option: that it was given by, for the error.

    Returns:
        All recordings, with the label `background`.

    Raises:
        DataError: there is no such folder, or no recording in it.
    """
    if not folder.is_dir():
        raise DataError(f"{show(folder)} ({option}) is no folder. Give a folder of recordings.")
    root, notes = folder.resolve(), list[Problem]()
    entries = [
        Entry(path, path.relative_to(root), BACKGROUND)
        for path in walk_recordings(root, root, notes)
    ]
    if not entries:
        raise DataError(f"{show(folder)} ({option}) holds no recordings.")
    return Source(root, _by_name(entries), tuple(notes))


def join_sources(sources: Sequence[Source]) -> Source:
    """Join sources into one; the order of their entries stays.

    Raises:
        DataError: a file is in two of them, or no folder holds them all.
    """
    if len(sources) == 1:
        return sources[0]
    try:
        root = Path(os.path.commonpath([source.root for source in sources]))
    except ValueError:
        places = ", ".join(show(source.root) for source in sources)
        raise DataError(f"{places} lie on different drives. Put them on one.") from None
    entries: dict[str, Entry] = {}
    for source in sources:
        for entry in source.entries:
            other = entries.setdefault(os.path.realpath(entry.path), entry)
            if other is not entry:
                raise DataError(
                    f"{show(entry.path)} is given twice, as {show(other.label)!r} and as "
                    f"{show(entry.label)!r}. Give folders that share no file."
                )
    joined = [replace(e, name=e.path.relative_to(root)) for e in entries.values()]
    notes = [
        replace(note, path=(source.root / note.path).relative_to(root))
        for source in sources
        for note in source.notes
    ]
    return Source(root, tuple(joined), tuple(notes))


def _by_name(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    # By bytes: names that are not UTF-8 have an order too.
    return tuple(sorted(entries, key=lambda e: os.fsencode(e.name.as_posix())))


def _check_splits(root: Path, entries: list[Entry]) -> None:
    splits = {entry.split for entry in entries}
    if splits - {None} and "train" not in splits:
        raise DataError(
            f"{show(root)}: the manifest's split column has no row for train, only "
            f"{', '.join(sorted(s for s in splits if s))}. Mark the rows to train on."
        )


def group_pattern(group_regex: str) -> re.Pattern[str]:
    """Compile a pattern whose first capture group names a clip's group.

    Raises:
        DataError: it is no regular expression, or has no capture group.
    """
    try:
        pattern = re.compile(group_regex)
    except re.error as error:
        raise DataError(
            f"group_regex {group_regex!r} is no regular expression: {error}."
        ) from error
    if pattern.groups < 1:
        raise DataError(
            f"group_regex {group_regex!r} has no capture group: put parentheses around the part "
            f"that names the group, as in '_([a-z]+)_'."
        )
    return pattern


def find_group(pattern: re.Pattern[str], name: Path) -> str | None:
    """The group that a name tells: searched in the file's name, then in its path."""
    match = pattern.search(name.name) or pattern.search(name.as_posix())
    return match.group(1) if match else None


def _with_groups(entries: list[Entry], group_regex: str) -> list[Entry]:
    pattern = group_pattern(group_regex)
    if any(entry.group is not None for entry in entries):
        raise DataError("The manifest has a group column already. Leave group_regex out.")
    groups = [find_group(pattern, entry.name) for entry in entries]
    missed = [e.name for e, group in zip(entries, groups, strict=True) if not group]
    if missed:
        raise DataError(
            f"group_regex {group_regex!r} names no group for {len(missed)} of {len(entries)} "
            f"files, such as {', '.join(show(name) for name in missed[:3])}. It is searched in "
            f"the file's name, then in its path; every file must match."
        )
    return [replace(e, group=group) for e, group in zip(entries, groups, strict=True)]
