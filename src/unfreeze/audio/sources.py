"""Where recordings come from: the files, and what the data say of them.

No sound is read here. A source is a data set as the user gives it, a folder of
recordings without any of the sounds, or several of these joined. The layout is found from
what is there: a `manifest.csv`; a table that names recordings and labels, also as public
data sets have it; recordings with a table of sounds beside each; or a folder per class.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unfreeze.audio.annotations import WINDOW, read_annotated, read_sounds, recording_stem
from unfreeze.audio.class_folders import ARCHIVES, MANIFEST_NAME, read_folders, walk_recordings
from unfreeze.audio.entries import (
    BACKGROUND,
    DROPPED,
    SPLITS,
    Entry,
    is_quiet,
    is_within,
    read_label_map,
    rename_labels,
    settle_labels,
)
from unfreeze.audio.hearing import HIGHEST_HEARD
from unfreeze.audio.label_sets import classes_of, is_set
from unfreeze.audio.label_table import (
    BY_NAME,
    Columns,
    find_columns,
    known_names,
    lone_labels,
    read_labels,
)
from unfreeze.audio.part_lists import with_folds
from unfreeze.audio.rules import Problem
from unfreeze.audio.segments_file import SEGMENTS_NAME, read_segments, with_source_groups
from unfreeze.audio.sound_formats import READABLE
from unfreeze.audio.table_file import TABLES, read_table
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, show

# Files beside a data set that may hold its labels.
_ASIDE = (*TABLES, ".xlsx", ".xls", ".ods", ".jsonl")
_LABELS = re.compile(
    r"(?:labels?|classes|manifest|metadata|meta|annotations?|train|test|val|valid|validation|dev)"
    r"(?:[_-]?(?:labels?|metadata))?",
    re.IGNORECASE,
)
# Where public data sets keep their tables, below the data's folder.
_TABLE_FOLDERS = ("", "meta", "metadata", "annotations", "labels", "FSD50K.ground_truth")
# Of several tables in one folder, these say the same as the others and more.
_WHOLE_TABLES = ("metadata.csv", "meta.csv", "esc50.csv", "urbansound8k.csv", "validated.tsv")
_SHOWN = 5


@dataclass(frozen=True)
class Reading:
    """How a data set is read, beyond what its files say.

    Attributes:
        group_regex: its first capture group, searched in the file's name and then in
            its path below the data, is the clip's group. Every file must match.
        columns: names of columns, and the folder of recordings.
        label_map: a file with new names of classes.
        full: whether every sound of the classes in an annotated recording is in its
            table, so that the rest is background.
        channel: of recordings with several, the one to take, counted from 1; 0 mixes them.
        slow_down: how many times slower the network hears them.
        hears: the upper edge of what the network hears at their own speed, hertz.
        window: seconds that it hears at once, likewise.
    """

    group_regex: str | None = None
    columns: Columns = BY_NAME
    label_map: Path | None = None
    full: bool = False
    channel: int = 0
    slow_down: float = 1.0
    hears: float = HIGHEST_HEARD
    window: float = WINDOW

    def by(self, front_end: FrontEnd) -> "Reading":
        """The same for a network: its channel, its speed, its range and its window."""
        slow = front_end.slow_down
        return replace(
            self,
            channel=front_end.channel,
            slow_down=slow,
            hears=front_end.high_hz / slow,
            window=front_end.patch_seconds * slow,
        )


#: Nothing beyond what the files say.
AS_USUAL = Reading()


@dataclass(frozen=True)
class Source:
    """The recordings that some data name.

    Attributes:
        root: a folder that holds all of them, absolute.
        entries: in the order of their names.
        notes: on files that are not recordings, and similar.
        several: whether a clip may have several labels, or none.
    """

    root: Path
    entries: tuple[Entry, ...]
    notes: tuple[Problem, ...]
    several: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, sorted."""
        texts = {entry.label for entry in self.entries} - {DROPPED}
        return tuple(sorted({x for text in texts for x in classes_of(text, self.several)}))


def find_source(
    data: str | os.PathLike[str], group_regex: str | None = None, how: Reading | None = None
) -> Source:
    """Find the recordings of a data set.

    Args:
        data: a folder with a folder per class, a folder with a table or with annotated
            recordings, or a table (`path,label[,group][,split][,start,end]`). In a folder
            that `unfreeze segments` wrote, the group of a segment is the recording that it
            was cut from.
        group_regex: as in `Reading`, where `how` is not given.
        how: further settings.

    Raises:
        DataError: the data cannot be used; the message names the files, the
            cause and the cure.
    """
    how = how or Reading(group_regex)
    place = Path(data)
    if not place.exists():
        raise DataError(f"{show(place)} does not exist. Give a folder or a table of labels.")
    root = place.resolve() if place.is_dir() else place.parent.resolve()
    if place.is_dir():
        entries, notes = _read_folder(root, how)
    elif place.suffix.lower() in TABLES:
        entries, notes = read_sounds(root / place.name, how.columns)
    elif place.suffix.lower() in ARCHIVES:
        raise DataError(f"{show(place)} is an archive. Unpack it, and give the folder.")
    else:
        raise DataError(
            f"{show(place)} is a file, but not a table of labels (.csv, .tsv or .txt). Give a "
            f"folder with one subfolder per class, or a CSV with the columns "
            f"path,label[,group][,split]."
        )
    several = how.columns.several or any(is_set(entry.label) for entry in entries)
    if how.label_map is not None:
        entries = rename_labels(entries, read_label_map(how.label_map), how.label_map, several)
    if not how.full:
        entries = [entry for entry in entries if entry.label != DROPPED]
    entries, told = settle_labels(entries, several)
    _check_splits(root, entries)
    if how.group_regex is not None:
        entries = _with_groups(entries, how.group_regex)
    return replace(_rooted(root, entries, [*notes, *told]), several=several)


def _read_folder(root: Path, how: Reading) -> tuple[list[Entry], list[Problem]]:
    columns = how.columns
    if (root / MANIFEST_NAME).is_file():
        entries, notes = read_labels(root / MANIFEST_NAME, columns)
        return entries, [*notes, *_unnamed(root, columns, entries)]
    segments = (root / SEGMENTS_NAME).is_file()
    tables, unused = ([], []) if segments else _label_tables(root, columns)
    if tables:
        # One table for all says more than those beside the recordings.
        entries, notes = _read_tables(root, tables, columns)
        return entries, [*notes, *unused, *_unnamed(root, columns, entries)]
    annotated = read_annotated(root, columns, how.full)
    if annotated is not None:
        return annotated[0], [*annotated[1], *unused]
    if columns.named:
        reasons = "".join(f" {show(note.path)}: {note.cause}." for note in unused[:_SHOWN])
        raise DataError(
            f"{show(root)} has no table of labels that --path-column, --label-column or "
            f"--audio-folder fits: leave them out, or give the table as the data.{reasons}"
        )
    entries, notes = read_folders(root, how.group_regex is not None)
    if segments:
        entries = with_source_groups(read_segments(root), entries)
    return entries, [*notes, *unused]


def _label_tables(root: Path, columns: Columns) -> tuple[list[Path], list[Problem]]:
    """The tables in a data set's folder whose columns name recordings and labels, and notes.

    Raises:
        DataError: a table that is named like one of labels cannot be used.
    """
    parts = [item.name for item in sorted(root.iterdir()) if item.name.lower() in SPLITS]
    tables, unused = list[Path](), list[Problem]()
    for place in (*_TABLE_FOLDERS, *parts):
        folder = root / place
        if not folder.is_dir():
            continue
        files = sorted(folder.iterdir())
        recordings = {file.stem for file in files if file.suffix.lower() in READABLE}
        for file in files:
            if file.suffix.lower() not in _ASIDE or not file.is_file() or file.name[0] in ".~":
                continue
            if recording_stem(file) in recordings:
                # It is of that recording alone.
                continue
            reason = _why_no_labels(file, columns)
            if reason is None:
                tables.append(file)
            elif reason and not place:
                cause = f"{reason.removesuffix('.')}; it is not used"
                unused.append(Problem(file.relative_to(root), "no_table", cause, False))
    for note in unused:
        file = root / note.path
        named = file.suffix.lower() in TABLES and _LABELS.fullmatch(file.stem)
        # Beside a table of labels, one of something else may have such a name.
        if named and (not tables or _names_something(file)):
            raise DataError(
                f"{show(file)} cannot be used as a table of labels: "
                f"{note.cause.removesuffix('; it is not used')}. Mend it, or move it elsewhere if "
                f"{'it is of something else' if tables else 'the folders are the classes'}."
            )
    return tables, unused


def _names_something(file: Path) -> bool:
    """Whether a table has a column of recordings or of labels, or cannot be read."""
    try:
        return bool(known_names(read_table(file, head=True).header))
    except DataError:
        return True


def _why_no_labels(file: Path, columns: Columns) -> str | None:
    """Why a file is no table of recordings and labels; "" for a text, None if it is one."""
    if file.suffix.lower() not in TABLES:
        return "save it as a CSV file with the columns path,label, if it holds the labels"
    try:
        table = read_table(file, head=True)
        found = find_columns(table, columns)
    except DataError as error:
        if file.suffix.lower() == ".txt":
            return ""
        return str(error).removeprefix(show(file)).lstrip(",: ")
    if found is not None and "path" in found:
        return None
    if file.suffix.lower() == ".txt":
        return ""
    names = ", ".join(repr(show(name)) for name in table.header[:8])
    return (
        f"its columns ({names}) name no recordings and labels (--path-column and --label-column "
        "say which do)"
    )


def _unnamed(root: Path, columns: Columns, entries: Sequence[Entry]) -> list[Problem]:
    """A note on recordings in a data set's folder that its tables do not name."""
    named = {entry.path for entry in entries}
    below = root if columns.folder is None else columns.folder.resolve()
    count = sum(
        Path(name).suffix.lower() in READABLE
        and not name.startswith(".")
        and Path(place, name) not in named
        for place, _, files in os.walk(below)
        for name in files
    )
    if not count or not any(entry.path.is_relative_to(below) for entry in entries):
        return []
    cause = f"{count:,} recordings in it are named by no row, and not used"
    return [Problem(Path(root.name), "unnamed", cause, False)]


def _read_tables(
    root: Path, tables: Sequence[Path], columns: Columns
) -> tuple[list[Entry], list[Problem]]:
    """Read the tables of a data set; one for each part where they are named like parts."""
    by_part = {table: _part_of(root, table) for table in tables}
    parts = {table: part for table, part in by_part.items() if part is not None}
    whole = [table for table in tables if table.name.lower() in _WHOLE_TABLES]
    joined, told = list[Entry](), list[Problem]()
    if len(set(parts.values())) > 1:
        for table in by_part.keys() - parts.keys():
            cause = f"it is not used, as {', '.join(show(p.name) for p in parts)} are"
            told.append(Problem(table.relative_to(root), "no_table", cause, False))
        alone = {label for table in parts for label in lone_labels(table, columns)}
        for table, part in parts.items():
            if not read_table(table).rows:
                cause = f"it has no rows, so no recording is {part}"
                told.append(Problem(table.relative_to(root), "blank", cause, False))
                continue
            below = _below(root, table, columns)
            entries, notes = read_labels(table, below, alone=alone)
            joined += [entry if entry.split else replace(entry, split=part) for entry in entries]
            told += _noted(root, table, notes)
        return _named(root, joined), told
    if len(tables) > 1 and len(whole) != 1:
        names = ", ".join(show(table.relative_to(root)) for table in tables)
        raise DataError(
            f"{show(root)} has several tables of labels: {names}. Give one of them as the data, or "
            f"write one {MANIFEST_NAME}."
        )
    (table,) = whole if len(tables) > 1 else tables
    entries, notes = read_labels(table, _below(root, table, columns))
    named = _named(root, entries)
    first = {entry.name.parts[0].lower() for entry in named}
    if len({SPLITS.get(name) for name in first}) > 1 and first <= SPLITS.keys():
        # Hugging Face: `train/0.wav` and `test/0.wav` in one table.
        named = [e if e.split else replace(e, split=SPLITS[e.name.parts[0].lower()]) for e in named]
    notes = _noted(root, table, notes)
    if all(entry.split is None and entry.start is None for entry in named):
        named, told = with_folds(root, named)
        notes += told
    return named, notes


def _part_of(root: Path, table: Path) -> str | None:
    """The part that a table, or the folder that it lies in, is named like."""
    found = SPLITS.get(table.stem.lower())
    return found or (SPLITS.get(table.parent.name.lower()) if table.parent != root else None)


def _below(root: Path, table: Path, columns: Columns) -> Columns:
    """Columns that look for recordings below the data's folder, if not beside the table."""
    beside = table.parent if table.parent != root and _part_of(root, table) else root
    return columns if columns.folder is not None else replace(columns, folder=beside)


def _named(root: Path, entries: Sequence[Entry]) -> list[Entry]:
    return [
        replace(e, name=e.path.relative_to(root) if e.path.is_relative_to(root) else e.path)
        for e in entries
    ]


def _noted(root: Path, table: Path, notes: Sequence[Problem]) -> list[Problem]:
    own = table.parent.relative_to(root)
    return [replace(n, path=own / n.path if n.path.name == table.name else n.path) for n in notes]


def _rooted(root: Path, entries: Sequence[Entry], notes: Sequence[Problem]) -> Source:
    """A source whose root holds all recordings, also those that a table or link finds outside."""
    outside = {str(e.path.parent) for e in entries if not e.path.is_relative_to(root)}
    real = os.path.realpath(root)
    linked = {os.path.realpath(root / note.path) for note in notes if note.rule == "outside"}
    folders = sorted({*outside, *(place for place in linked if not is_within(place, real))})
    if not folders:
        return Source(root, _by_name(entries), tuple(notes))
    try:
        home = Path(os.path.commonpath([root, *folders]))
    except ValueError:
        raise DataError(
            f"{show(root)} and {show(folders[0])} lie on different drives. Put them on one."
        ) from None
    told = [
        Problem(Path(place), "outside", "recordings outside of the data's folder are used", False)
        for place in sorted(outside)[:_SHOWN]
    ]
    moved = [replace(e, name=e.path.relative_to(home)) for e in entries]
    seen = [replace(n, path=(root / n.path).relative_to(home)) for n in (*notes, *told)]
    return Source(home, _by_name(moved), tuple(seen))


def find_background(folder: Path, option: str) -> Source:
    """Find recordings without any of the sounds, in a folder of any depth.

    Args:
        folder: the folder with the recordings.
        option: the option that named it, for the error.

    Returns:
        All recordings, with the label `background`.

    Raises:
        DataError: there is no such folder, or no recording in it.
    """
    if not folder.is_dir():
        raise DataError(f"{show(folder)} ({option}) is not a folder. Give a folder of recordings.")
    root, notes = folder.resolve(), list[Problem]()
    entries = [
        Entry(path, path.relative_to(root), BACKGROUND)
        for path in walk_recordings(root, root, notes)
    ]
    if not entries:
        raise DataError(
            f"{show(folder)} ({option}) holds no recordings. Give a folder of recordings."
        )
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
    entries = [entry for source in sources for entry in source.entries]
    first: dict[str, tuple[int, Entry]] = {}
    for number, source in enumerate(sources):
        for entry in source.entries:
            owner, other = first.setdefault(os.path.realpath(entry.path), (number, entry))
            # A recording may have several sounds, but be given in one source only.
            if owner != number:
                raise DataError(
                    f"{show(entry.path)} is given twice, as {show(other.label)!r} and as "
                    f"{show(entry.label)!r}. Give folders that have no file in common."
                )
    joined = [replace(e, name=e.path.relative_to(root)) for e in entries]
    notes = [
        replace(note, path=(source.root / note.path).relative_to(root))
        for source in sources
        for note in source.notes
    ]
    several = any(source.several for source in sources)
    if several:
        # A recording of none of the sounds has no label.
        joined = [replace(e, label="") if is_quiet(e.label) else e for e in joined]
    return Source(root, tuple(joined), tuple(notes), several)


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
        DataError: it is not a regular expression, or has no capture group.
    """
    try:
        pattern = re.compile(group_regex)
    except re.error as error:
        raise DataError(
            f"group_regex {group_regex!r} is not a regular expression: {error}."
        ) from error
    if pattern.groups < 1:
        raise DataError(
            f"group_regex {group_regex!r} has no capture group: put parentheses around the part "
            f"that names the group, as in '_([a-z]+)_'."
        )
    return pattern


def find_group(pattern: re.Pattern[str], name: Path) -> str | None:
    """The group that a name gives: searched in the file's name, then in its path."""
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
