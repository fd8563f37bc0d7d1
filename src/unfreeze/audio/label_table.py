"""Tables of labels: one row for each recording, or for each sound in a recording.

Columns are found by their names, in any order and case: `path` and `label`, and optionally
`group`, `split`, `start`, `end`, `low` and `high`, or what other programs and public data
sets call them (`_NAMES`). A path may be absolute, relative to the table's folder or to a folder of
recordings; where no file lies there, the file of that name below that folder is taken. No
sound is read here. Anything that would make a label wrong is an error that names the line;
`unfreeze.audio.rules` handles missing and damaged files.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from unfreeze.audio.class_columns import class_names, find_class_columns, row_reader, varies
from unfreeze.audio.entries import SPLITS, Entry, check_label, read_split
from unfreeze.audio.label_sets import is_set, read_set, split_labels, union
from unfreeze.audio.recording_places import Places
from unfreeze.audio.rules import Problem
from unfreeze.audio.sound_formats import READABLE
from unfreeze.audio.table_file import NOTHING, Table, read_table
from unfreeze.audio.time_columns import TIME, Pair, find_times
from unfreeze.errors import DataError, did_you_mean, show

# What each column is called, the most certain name first. Raven, Audacity, Kaleidoscope,
# BirdNET-Analyzer, crowsetta; ESC-50, UrbanSound8K, FSD50K, BirdCLEF, DCASE, Hugging Face.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "audio_path"),
        *("audio_file", "audio_filename", "wav", "recording", "begin path", "begin file"),
        *("begin_path", "begin_file", "in file", "soundfile", "sound_file", "slice_file_name"),
        *("fname", "clip", "audio", "notated_path"),
    ),
    "label": (
        *("label", "primary_label", "species", "scene_label", "event_label", "common name"),
        *("common_name", "manual id", "class_name", "category", "class", "annotation", "tag"),
        "labels",
    ),
    "group": ("group", "fsid", "src_file", "client_id", "identifier"),
    "folder": ("folder", "directory", "dirname", "indir"),
    "split": ("split", "part", "subset"),
    "fold": ("fold",),
    "start": (
        *("start", "begin", "onset", "start_time", "begin_time", "begin time (s)", "start_s"),
        *("start time (s)", "start (s)", "begin (s)", "start time", "begin time", "onset_s"),
        *("start_seconds", "start_sec", "t_start", "tmin", "onset (s)", "xmin"),
    ),
    "end": (
        *("end", "stop", "end_time", "stop_time", "end time (s)", "end_s", "end (s)", "stop_s"),
        *("end time", "stop time", "end_seconds", "end_sec", "t_end", "tmax", "offset_s"),
        *("offset (s)", "stop (s)", "xmax"),
    ),
    "duration": ("duration", "duration (s)", "duration_s", "delta time (s)", "length (s)"),
    "low": ("low freq (hz)", "low", "low_freq", "freq_low", "f_min", "fmin", "min_freq", "low_f"),
    "high": ("high freq (hz)", "high", "high_freq", "freq_high", "f_max", "fmax", "max_freq"),
}
_OFFSET = "offset"
# Columns that need no note.
_SAYS_NOTHING = {"view", "selection", "channel"}
# UrbanSound8K's start and end are places in a longer recording that its clips were cut from.
_URBAN = {"slice_file_name", "fsid"}
# Columns that say whose or whence a clip is, and those of further labels.
_ALIKE = re.compile(
    r"(?:speaker|spk|subject|site|station|location|recordist|author|user|session|recorder|device|"
    r"individual|animal|nest|colony|patient|participant|recording|source|original)"
    r"(?:[ _-]?(?:id|name|no|nr|number|file))?"
)
_MORE_LABELS = re.compile(r"(?:label|class|species)s?[ _-]?[2-9]|(?:secondary|other)[ _-]labels?")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?")


@dataclass(frozen=True)
class Columns:
    """Which columns and folders to read, where their names do not tell.

    Attributes:
        path: the column with the paths; None to find it.
        label: the column with the labels; None likewise.
        folder: the folder that paths are relative to; None for the table's own.
        several: whether a clip may have several labels, or none, also where no label
            says so.
    """

    path: str | None = None
    label: str | None = None
    folder: Path | None = None
    several: bool = False

    @property
    def named(self) -> bool:
        """Whether the user has named a column or a folder."""
        return any(name is not None for name in (self.path, self.label, self.folder))


#: Nothing is given: names tell.
BY_NAME = Columns()


def find_columns(table: Table, columns: Columns = BY_NAME) -> dict[str, int] | None:
    """The positions of the columns that are known, by what they hold; None without labels.

    Args:
        table: its header.
        columns: names that the user gave.

    Raises:
        DataError: a named column is not there or twice, or one of start and end is missing.
    """
    header, found = table.header, dict[str, int]()
    for kind, names in _NAMES.items():
        given = {"path": columns.path, "label": columns.label}.get(kind)
        if given is not None:
            names = (given.strip().lower(),)
            if names[0] not in header:
                hint = did_you_mean(names[0], header) or f" It has {_listed(header)}."
                raise DataError(f"{show(table.file)} has no column {show(given)!r}.{hint}")
        place = next((header.index(name) for name in names if name in header), None)
        if place is None:
            continue
        if header.count(header[place]) > 1:
            raise DataError(
                f"{show(table.file)}, line 1: the column {header[place]!r} appears twice."
            )
        found[kind] = place
    if "group" in found and "fold" in found and header[found["group"]] == "group":
        # What the user calls a group is meant as one.
        found.pop("fold")
    if "path" not in found:
        found.pop("folder", None)
    if set(header) >= _URBAN:
        found = {k: v for k, v in found.items() if k not in ("start", "end", "duration")}
    elif _OFFSET in header:
        # With an onset it is the end; with a duration, the start.
        kind = "end" if "start" in found else "start" if "duration" in found else "end"
        found.setdefault(kind, header.index(_OFFSET))
    series = {"begin file", "begin path"}.intersection(header)
    if "file offset (s)" in header and series and "start" in found:
        # In Raven, the other times count from the beginning of a series of files.
        found["offset in file"] = header.index("file offset (s)")
    if "start" not in found and "end" not in found:
        # Of whole clips these may be the names of classes.
        _refuse_units(table)
        found = {k: v for k, v in found.items() if k not in ("duration", "low", "high")}
    elif not ("start" in found and ("end" in found or "duration" in found)):
        if not {"path", "label"} & found.keys():
            return None
        there = "start" if "start" in found else "end"
        raise DataError(
            f"{show(table.file)} has a column for the {there} of sounds "
            f"({header[found[there]]!r}), and none for the other end. Add start and end in "
            "seconds, or rename the column if it is something else."
        )
    if "label" in found and columns.label is None:
        # A class named like a column of labels, among others.
        without = {kind: place for kind, place in found.items() if kind != "label"}
        flags = _flags(table, without)
        if found["label"] in flags and len(flags) > 1:
            found = without
    return found if "label" in found or _class_columns(table, found) else None


def _refuse_units(table: Table) -> None:
    """Refuse a start and an end under names that are not known, such as `start_ms`, `end_ms`.

    Whole recordings would be taken instead.
    """
    pair = _other_times(table)
    if pair is not None and pair.sure:
        first, second = (show(table.header[place]) for place in (pair.start, pair.end))
        raise DataError(
            f"{show(table.file)}: the columns {first!r} and {second!r} look like the times of "
            "sounds, perhaps not in seconds. Give them in seconds, in columns named start and end "
            "(or duration); or rename them if they are something else."
        )


def _other_times(table: Table) -> Pair | None:
    return find_times(table, frozenset(_NAMES["start"]), frozenset(_NAMES["duration"]))


def _perhaps_times(table: Table) -> list[Problem]:
    pair = _other_times(table)
    if pair is None:
        return []
    first, second = (show(table.header[place]) for place in (pair.start, pair.end))
    cause = (
        f"the columns {first!r} and {second!r} may be the times of sounds, and whole recordings "
        "are taken; if they are, give them in seconds, in columns named start and end"
    )
    return [Problem(Path(table.file.name), "perhaps_times", cause, False)]


def known_names(header: Sequence[str]) -> set[str]:
    """Names of columns of recordings and of labels among those of a table."""
    return {*_NAMES["path"], *_NAMES["label"]}.intersection(header)


def _class_columns(table: Table, found: Mapping[str, int]) -> list[int]:
    """The columns that stand for a class each, where none holds the label."""
    if "label" in found or not {"path", "start"} & found.keys():
        return []
    return _flags(table, found)


def _flags(table: Table, found: Mapping[str, int]) -> list[int]:
    silent = [p for p, name in enumerate(table.header) if name in _SAYS_NOTHING]
    rows = [row for _, row in table.rows]
    return find_class_columns(table.header, rows, {*found.values(), *silent})


def _overlooked(table: Table, found: Mapping[str, int]) -> list[int]:
    """Columns that look like classes beside one that holds the label."""
    known = {name for names in _NAMES.values() for name in names}
    rows = [row for _, row in table.rows]
    flags = [place for place in _flags(table, found) if table.header[place] not in known]
    return [place for place in flags if varies(rows, place)]


def _listed(header: Sequence[str]) -> str:
    return ", ".join(repr(show(name)) for name in header) or "no columns"


def lone_labels(file: Path, columns: Columns = BY_NAME) -> set[str]:
    """The labels that occur by themselves in a table; none where no column holds labels."""
    table = read_table(file)
    found = find_columns(table, columns) or {}
    return _lone(table, found["label"]) if "label" in found else set()


def read_labels(
    file: Path,
    columns: Columns = BY_NAME,
    recording: Path | None = None,
    alone: AbstractSet[str] = frozenset(),
) -> tuple[list[Entry], list[Problem]]:
    """Read a table of recordings or of sounds in recordings.

    Args:
        file: the table.
        columns: names that the user gave.
        recording: the recording that all rows are of, where no column names one.
        alone: labels that occur by themselves in other tables of the same data.

    Returns:
        The entries, with names relative to the table's folder or absolute, and notes. Rows
        that repeat an earlier one are dropped with a note.

    Raises:
        DataError: the table cannot be used; the message names the line.
    """
    table = read_table(file)
    found = find_columns(table, columns)
    if found is None or ("path" not in found and recording is None):
        raise _missing(table, "path" if found is not None else "label")
    classes = _class_columns(table, found)
    found, notes = _by_values(table, found, columns)
    notes += _unused(table, {**found, **{str(place): place for place in classes}})
    if "start" not in found:
        notes += _perhaps_times(table)
    _check_series(table, found)
    root = file.parent
    _check_widths(table)
    label_of, several = _label_reader(table, found, classes, columns.several, alone)
    if classes:
        names = ", ".join(show(table.names[place]) for place in classes)
        notes.append(Problem(Path(file.name), "class_columns", f"its classes: {names}", False))
    elif len(flags := _overlooked(table, found)) > 1:
        names = ", ".join(show(table.names[place]) for place in flags)
        cause = (
            f"the columns {names} look like classes, and are not used: the column "
            f"{table.header[found['label']]!r} names the class. Take that one out to use them"
        )
        notes.append(Problem(Path(file.name), "class_columns", cause, False))
    places = Places(root if columns.folder is None else columns.folder, root)
    entries: dict[tuple[object, ...], Entry] = {}
    blank = 0
    for line, row in table.rows:
        where = f"{show(file)}, line {line}"
        if "start" in found and _says_nothing(row, found):
            blank += 1
            continue
        entry = _entry(row, found, line, where, places, recording, label_of(row, where))
        entry = replace(entry, complete=True) if classes else entry
        key: tuple[object, ...] = (os.path.normcase(entry.path), entry.start, entry.end)
        key = key if entry.start is None else (*key, entry.label)
        earlier = entries.setdefault(key, entry)
        if several and earlier.label != entry.label:
            # One row for each label; what else they say must be the same.
            _repeated(replace(entry, label=earlier.label), earlier, where)
            earlier = replace(earlier, label=union(earlier.label, entry.label))
            entries[key], entry = earlier, replace(entry, label=earlier.label)
        elif earlier is not entry:
            note = _repeated(entry, earlier, where)
            # Raven writes a selection once for each view.
            if note is not None and not ("view" in table.header and entry.start is not None):
                notes.append(note)
    told = Path(file.name)
    if blank:
        cause = f"{blank:,} of its rows have no label or no start, and are not used"
        notes.append(Problem(told, "blank", cause, False))
    if places.moved:
        text = next(iter(places.moved.values()))
        cause = (
            f"{len(places.moved):,} of its recordings lie elsewhere and were found by their names, "
            f"such as {show(text)} at {show(places.find(text, where='')[1])}"
        )
        notes.append(Problem(told, "elsewhere", cause, False))
    if not entries and blank and recording is None:
        raise DataError(
            f"{show(file)}: none of its {blank:,} rows has both a label and a start. Fill them in, "
            f"or, if its labels are of whole recordings, take out the column "
            f"{table.header[found['start']]!r}."
        )
    if not entries and recording is None:
        raise DataError(f"{show(file)} has a header but no rows. Add one row per recording.")
    return _grouped(table, found, list(entries.values())), notes


def _check_widths(table: Table) -> None:
    for line, row in table.rows:
        if len(row) != len(table.header):
            raise DataError(
                f"{show(table.file)}, line {line}: {len(row)} fields where the header has "
                f"{len(table.header)}. Put double quotes around a value that holds a separator."
            )


def _lone(table: Table, place: int) -> set[str]:
    """The cells of a column of labels that name one label, without a mark that may join two."""
    listed = table.header[place] == "labels"
    cells = {row[place].strip() for _, row in table.rows if place < len(row)}
    alone = {cell for cell in cells if len(split_labels(cell, listed)) == 1}
    return {cell for cell in alone if not re.search(r"[,+&]", cell)}


def _label_reader(
    table: Table,
    found: Mapping[str, int],
    classes: Sequence[int],
    several: bool,
    known: AbstractSet[str],
) -> tuple[Callable[[Sequence[str], str], str], bool]:
    """How to read the label of a row, and whether rows may have several labels."""
    if classes:
        where, rows = f"{show(table.file)}, line 1", [row for _, row in table.rows]
        named = class_names(table.names, classes, lambda name: check_label(name, where), where)
        heard = row_reader(named, rows)
        texts = [heard(row, f"{show(table.file)}, line {line}") for line, row in table.rows]
        return heard, several or any(is_set(text) for text in texts) or len(named) == 1
    # A column of this name holds lists.
    place, listed = found["label"], table.header[found["label"]] == "labels"
    cells = {row[place].strip() for _, row in table.rows if place < len(row)}
    alone = known | _lone(table, place)
    parts = {cell: split_labels(cell, listed, alone) for cell in cells}
    several = several or any(len(own) > 1 for own in parts.values())

    def label(row: Sequence[str], where: str) -> str:
        cell = row[place].strip()
        if not several and not parts[cell]:
            raise DataError(
                f"{where}: the label is empty. Every recording needs one; or, if none of the "
                "classes is heard in it, say --multilabel."
            )
        if not several:
            # `cat;` and lists of one name a single class, too.
            return check_label(parts[cell][0], where)
        return read_set(parts[cell], lambda name: check_label(name, where))

    return label, several


def _by_values(
    table: Table, found: dict[str, int], columns: Columns
) -> tuple[dict[str, int], list[Problem]]:
    """Columns that only their values tell: names rather than numbers, parts that are parts."""
    found, notes, header = dict(found), list[Problem](), table.header

    def values(place: int) -> set[str]:
        return {row[place].strip() for _, row in table.rows if place < len(row)} - {""}

    others = [header.index(name) for name in _NAMES["label"] if name in header]
    if columns.label is None and len(others) > 1:
        names = [place for place in others if not all(v.isdecimal() for v in values(place))]
        names = [place for place in names if not {v.lower() for v in values(place)} <= set(SPLITS)]
        found["label"] = (names or others)[0]
        rest = ", ".join(repr(show(header[p])) for p in others if p != found["label"])
        cause = (
            f"the classes are those of the column {header[found['label']]!r}, not of {rest} "
            "(--label-column)"
        )
        notes.append(Problem(Path(table.file.name), "label_column", cause, False))
    part = found.get("split")
    # "part" may be a part of anything.
    named = part is not None and header[part] != "split"
    if part is not None and named and not {v.lower() for v in values(part)} <= set(SPLITS):
        found.pop("split")
    if not {"split", "fold"} & found.keys():
        for place, name in enumerate(header):
            parts = {SPLITS.get(v.lower()) for v in values(place)}
            if place not in found.values() and len(parts) > 1 and None not in parts:
                found["split"] = place
                cause = f"the parts of the split are those of the column {show(name)!r}"
                notes.append(Problem(Path(table.file.name), "split_column", cause, False))
                break
    front = found.get("path")
    if front is not None and header[front] == "path":
        files = [h for h in ("filename", "file_name", "file", "in file") if h in header]
        bare = not any(Path(v).suffix.lower() in READABLE for v in values(front))
        if files and bare and "folder" not in found:
            found |= {"folder": front, "path": header.index(files[0])}
    return found, notes


def _check_series(table: Table, found: Mapping[str, int]) -> None:
    """Refuse Raven's times in a series of recordings, which count from the first one's start."""
    path = found.get("path")
    if path is None or "start" not in found or "offset in file" in found:
        return
    of_raven = table.header[path] in ("begin file", "begin path")
    files = {row[path].strip() for _, row in table.rows if path < len(row)}
    if of_raven and table.header[found["start"]] == "begin time (s)" and len(files) > 1:
        raise DataError(
            f"{show(table.file)}: the times of {len(files)} recordings count from the beginning of "
            f"the first one. Let Raven write the column 'File Offset (s)', too; or, if they count "
            f"from the beginning of each, name the columns path, start and end."
        )


def _says_nothing(row: Sequence[str], found: Mapping[str, int]) -> bool:
    cells = (row[found[kind]].strip().lower() for kind in ("label", "start") if kind in found)
    return any(cell in NOTHING for cell in cells)


def _grouped(table: Table, found: Mapping[str, int], entries: list[Entry]) -> list[Entry]:
    """Groups by a column that says so, or by one of ids if it puts clips together."""
    if "group" not in found or "fold" in found or table.header[found["group"]] == "group":
        return entries
    counts = Counter(entry.group for entry in entries)
    ids = table.header[found["group"]] == "identifier" and max(counts.values()) == 1
    if not ids and all(entry.start is None for entry in entries):
        return entries
    return [replace(entry, group=None) for entry in entries]


def _entry(
    row: Sequence[str],
    found: Mapping[str, int],
    line: int,
    where: str,
    places: Places,
    recording: Path | None,
    label: str,
) -> Entry:
    def cell(kind: str) -> str:
        return row[found[kind]].strip() if kind in found else ""

    if "path" in found and (recording is None or cell("path")):
        front = f"{cell('folder')}/" if cell("folder") else ""
        path, name = places.find(front + cell("path"), where)
    else:
        assert recording is not None
        path, name = places.find(str(recording), where)
    start = end = None
    if "start" in found:
        start = seconds(cell("start"), where, "start")
        if "end" in found and cell("end"):
            end = seconds(cell("end"), where, "end")
        else:
            end = start + seconds(cell("duration"), where, "duration")
        if "offset in file" in found and cell("offset in file"):
            offset = seconds(cell("offset in file"), where, "file offset")
            start, end = offset, offset + end - start
        if not end > start:
            raise DataError(f"{where}: the sound ends at {end:g} s, not after its start {start:g}.")
    fold = f"fold {cell('fold')}" if cell("fold") else None
    group = cell("group") if cell("group").lower() not in NOTHING else None
    return Entry(
        path=path,
        name=name,
        label=label,
        group=fold or group,
        split=read_split(cell("split"), where),
        line=line,
        start=start,
        end=end,
        low=hertz(cell("low"), where),
        high=hertz(cell("high"), where),
    )


def seconds(text: str, where: str, what: str) -> float:
    """A time in seconds, from 12.5, 1:02.5 or 1:00:02.5.

    Raises:
        DataError: it is no time of 0 or more.
    """
    match = TIME.fullmatch(text.strip())
    if _THOUSANDS.fullmatch(text.strip()):
        raise DataError(
            f"{where}: the {what} {show(text)!r} may be thousands or thousandths of a second. "
            "Write it with a point, such as 1.234, or without any mark."
        )
    if match is None:
        raise DataError(f"{where}: the {what} {show(text)!r} is no time in seconds, 0 or more.")
    hours, minutes, rest = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest.replace(",", "."))


def hertz(text: str, where: str) -> float | None:
    """A frequency; None where there is none.

    Raises:
        DataError: it is no number.
    """
    if text.lower() in NOTHING:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise DataError(f"{where}: the frequency {show(text)!r} is no number of hertz.") from None
    # Audacity writes a negative one for a bound that is not set.
    return value if 0 <= value < float("inf") else None


def _missing(table: Table, kind: str) -> DataError:
    hint = "" if kind == "label" and "channel" in table.header else did_you_mean(kind, table.header)
    hint = hint.lstrip()
    if len(table.header) == 1:
        hint = "Separate the columns by commas, semicolons or tabs."
    cure = hint or f"Name it {kind!r}, or say which it is with --{kind}-column."
    if kind == "label":
        cure += " With a column for each class, write 1, 0 and ? in them."
    return DataError(
        f"{show(table.file)}, line 1: no column {kind!r} among {_listed(table.header)}. {cure}"
    )


def _unused(table: Table, found: Mapping[str, int]) -> list[Problem]:
    used = {table.header[place] for place in found.values()}
    unused = [show(name) for name in table.header if name not in used | _SAYS_NOTHING and name]
    if not unused:
        return []
    told = Path(table.file.name)
    cause = f"these columns are not used: {', '.join(unused)}"
    notes = [Problem(told, "unused_columns", cause, False)]
    for place, name in enumerate(table.header):
        alike = "group" not in found and _ALIKE.fullmatch(name)
        # Names first: a table may have many columns, and very many rows.
        if name in used or not (alike or _MORE_LABELS.fullmatch(name)):
            continue
        cells = (row[place].strip() for _, row in table.rows if place < len(row))
        filled = Counter(cell for cell in cells if cell.lower() not in {*NOTHING, "[]"})
        if alike:
            if len(filled) > 1 and max(filled.values()) > 1:
                cause = (
                    f"clips with the same {show(name)!r} may come into different parts of the "
                    "split, which makes scores too good; if they are alike, name the column group"
                )
                notes.append(Problem(told, "perhaps_groups", cause, False))
        elif filled:
            cause = (
                f"the column {show(name)!r} may hold further labels; to use them, write all of a "
                "clip's labels into one column, with ; between them"
            )
            notes.append(Problem(told, "perhaps_labels", cause, False))
    return notes


def _repeated(entry: Entry, earlier: Entry, where: str) -> Problem | None:
    for name in ("label", "group", "split"):
        mine, other = getattr(entry, name), getattr(earlier, name)
        if mine != other:
            more = " or, if clips may have several labels, say so with --multilabel"
            raise DataError(
                f"{where}: {show(entry.name)} has the {name} {show(str(mine))!r} here and "
                f"{show(str(other))!r} in line {earlier.line}. Keep one of the two rows"
                f"{more if name == 'label' else ''}."
            )
    cause = f"line {entry.line} repeats line {earlier.line}; it is dropped"
    return Problem(entry.name, "duplicate_row", cause, False)
