"""Annotated recordings: sounds with start and end, from the tables of annotation programs.

Selection tables of Raven (Cornell Lab of Ornithology, "Raven Pro User's Manual"), label
tracks of Audacity (its manual, "Importing and Exporting Labels"), and CSV or TSV tables
with start and end, one beside each recording: `site.wav` and `site.Table.1.selections.txt`,
`site.selections.txt`, `site.txt`, `site_labels.txt`, `site.labels.txt`, `site.csv`. A table
with a column of paths may be given by itself (`unfreeze.audio.label_table`).

Where the annotation is complete, what lies between the sounds is background. Where the
sounds are of few recordings, stretches of time take the place of recordings as groups, so
that a detector can be trained and tested on a single one.
"""

import math
import os
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from unfreeze.audio.class_folders import walk_recordings
from unfreeze.audio.entries import BACKGROUND, DROPPED, Entry, check_label, is_quiet
from unfreeze.audio.label_sets import (
    heard_in,
    read_set,
    set_text,
    split_labels,
    union,
    unsure_in,
)
from unfreeze.audio.label_table import (
    BY_NAME,
    Columns,
    find_columns,
    hertz,
    read_labels,
    seconds,
)
from unfreeze.audio.rules import Problem
from unfreeze.audio.sound_formats import READABLE
from unfreeze.audio.table_file import TABLES, read_table, read_text
from unfreeze.errors import DataError, show

# What programs append to the recording's name.
_ENDING = re.compile(
    r"(?:\.\w+)?\.selection\.table|(?:\.Table\.\d+)?\.selections|[._-]labels?|[._-]annotations?",
    re.I,
)
_NUMBER = r"-?\d+(?:[.,]\d+)?"
_AUDACITY = re.compile(rf"{_NUMBER}\t{_NUMBER}(?:\t.*)?")
_NUMBER_ONLY = re.compile(_NUMBER)
# Raven's tables of one recording, which belong together.
_NUMBERED = re.compile(r".*\.Table\.\d+\.selections\.txt", re.IGNORECASE)
# With fewer groups than this, stretches of time are groups.
FEWEST_GROUPS = 5
# So many that the tested part has groups enough for an interval.
_STRETCHES = 40
#: Seconds of sound that a model hears at once: YAMNet's patch.
WINDOW = 0.96
# Seconds: programs round times.
_SLACK = 0.05
# Seconds: sounds that only touch do not overlap.
_ROUNDING = 1e-6


def is_audacity(text: str) -> bool:
    """Say whether a text is a label track: two times and a label, not a number, in each line."""
    rows = [row for row in text.splitlines() if row.strip() and not row.startswith("\\")]
    if not rows or not _AUDACITY.fullmatch(rows[0]):
        return False
    labels = (row.split("\t")[2:3] for row in rows)
    return not all(label and _NUMBER_ONLY.fullmatch(label[0].strip()) for label in labels)


def read_annotated(
    root: Path, columns: Columns = BY_NAME, full: bool = False
) -> tuple[list[Entry], list[Problem]] | None:
    """Read a folder of recordings with a table beside each.

    Args:
        root: the folder, of any depth.
        columns: names that the user gave.
        full: whether a table without sounds says that its recording has none.

    Returns:
        The sounds and notes; None where no recording has a table.

    Raises:
        DataError: a table cannot be used; the message names the line.
    """
    tables = list(find_tables(root))
    if not tables:
        return None
    notes: list[Problem] = []
    recordings = list(walk_recordings(root.parent, root, []))
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in recordings:
        by_stem[str(path.parent / path.stem)].append(path)
    entries: list[Entry] = []
    seen: dict[Path, Path] = {}
    why = dict[Path, str]()
    for table in tables:
        same = by_stem[str(table.parent / recording_stem(table))]
        if not same:
            continue
        reason = why_no_times(table, columns)
        if reason is not None or len(same) > 1:
            several = f"{table.name}: {len(same)} recordings have its name"
            why |= dict.fromkeys(same, reason or several)
            continue
        (wav,) = same
        both = [path for path in (seen.get(wav), table) if path is not None]
        check_tables(wav, both)
        seen[wav] = table
        found, told = read_sounds(table, columns, wav)
        entries += [replace(entry, name=entry.path.relative_to(root)) for entry in found]
        notes += [replace(note, path=table.relative_to(root)) for note in told]
        if not found and full:
            name = wav.relative_to(root)
            entries.append(Entry(wav, name, BACKGROUND, start=0.0, end=math.inf))
        elif not found:
            cause = "it has no sounds, and its recording is not used"
            notes.append(Problem(table.relative_to(root), "no_sounds", cause, False))
    if not seen:
        if why and all(path.parent == root for path in recordings):
            path, reason = next(iter(why.items()))
            raise DataError(f"{show(path)} has a table beside it that cannot be used: {reason}")
        return None
    _refuse_few(root, recordings, seen)
    for path in recordings:
        if path not in seen:
            cause = why.get(path, "no table of sounds lies beside it") + "; it is not used"
            notes.append(Problem(path.relative_to(root), "no_table", cause, False))
    return entries, notes


def check_tables(recording: Path, tables: Sequence[Path]) -> None:
    """Refuse several tables of one recording, unless they are Raven's, which are numbered.

    Raises:
        DataError: names the tables.
    """
    if len(tables) > 1 and not all(_NUMBERED.fullmatch(path.name) for path in tables):
        named = " and ".join(map(show, tables))
        raise DataError(f"{show(recording)} has two tables, {named}. Remove one of them.")


def _refuse_few(root: Path, recordings: Sequence[Path], seen: Mapping[Path, Path]) -> None:
    """Refuse class folders in which a few recordings have a table, too."""
    without = [path for path in recordings if path not in seen]
    folders = {path.relative_to(root).parts[0] for path in without if path.parent != root}
    if len(folders) > 1 or (without and folders and len(without) > len(seen)):
        table = next(iter(seen.values()))
        raise DataError(
            f"{show(root)} looks like a folder per class, but {len(seen)} of its "
            f"{len(recordings)} recordings have a table of sounds beside them, such as "
            f"{show(table)}. Move these tables elsewhere to train on whole clips, or the "
            f"recordings with tables into a folder of their own."
        )


def find_tables(root: Path) -> Iterator[Path]:
    """The files in a folder of any depth that may be tables of sounds, by their endings."""
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            known = path.suffix.lower() in TABLES and not name.startswith(".")
            if known and path.is_file():
                yield path


def why_no_times(table: Path, columns: Columns = BY_NAME) -> str | None:
    """Why a file is no table of sounds; None if it is one."""
    try:
        if is_audacity(read_text(table)):
            return None
        read = read_table(table, head=True)
        found = find_columns(read, columns) if read.header else None
    except DataError as error:
        return str(error)
    if found is not None and "start" in found:
        return None
    return f"{table.name} has no columns for label, start and end"


def recording_stem(table: Path) -> str:
    """The name, without ending, of the recording that a table is of."""
    stem = table.stem
    known = Path(stem).suffix.lower() in READABLE
    stem = Path(stem).stem if known else _ENDING.sub("", stem)
    # `site.wav.selections.txt`, as we write it.
    return Path(stem).stem if Path(stem).suffix.lower() in READABLE else stem


def read_sounds(
    table: Path, columns: Columns = BY_NAME, recording: Path | None = None
) -> tuple[list[Entry], list[Problem]]:
    """Read the sounds of a label track, a selection table or another table with times.

    Args:
        table: the file.
        columns: names that the user gave.
        recording: that the sounds are of; None for the one that the table or its name says.

    Raises:
        DataError: the table cannot be used, or its recording is not there.
    """
    text = read_text(table)
    if is_audacity(text):
        return _audacity(text, table, recording or _beside(table, columns.folder)), []
    if recording is None:
        found = find_columns(read_table(table, head=True), columns)
        if found is not None and "start" in found and "path" not in found:
            recording = _beside(table, columns.folder)
    return read_labels(table, columns, recording)


def _beside(table: Path, folder: Path | None) -> Path:
    """The recording that a table has the name of: beside it, or in the folder of recordings."""
    stem = recording_stem(table)
    same = [
        path
        for path in sorted((folder or table.parent).iterdir())
        if path.stem == stem and path.suffix.lower() in READABLE
    ]
    if len(same) != 1:
        found = f"{len(same)} recordings are" if same else "no recording is"
        where = "beside it" if folder is None else f"in {show(folder)}"
        raise DataError(
            f"{show(table)}: {found} named {show(stem)} {where}, such as {show(stem)}.wav. Put "
            f"the recording there, or add a column 'path' to the table."
        )
    return same[0]


def _audacity(text: str, table: Path, recording: Path) -> list[Entry]:
    entries: list[Entry] = []
    beside = recording.is_relative_to(table.parent)
    name = recording.relative_to(table.parent) if beside else recording
    for line, row in enumerate(text.splitlines(), start=1):
        where = f"{show(table)}, line {line}"
        cells = row.split("\t")
        if not row.strip():
            continue
        if cells[0] == "\\" and entries and len(cells) == 3:
            # Frequencies follow in a line of their own.
            low, high = (hertz(cell, where) for cell in cells[1:])
            entries[-1] = replace(entries[-1], low=low, high=high)
            continue
        if len(cells) == 4 and _NUMBER_ONLY.fullmatch(cells[3].strip()):
            # BirdNET-Analyzer writes its confidence behind the label.
            cells.pop()
        if len(cells) not in (2, 3):
            raise DataError(f"{where}: expected start, end and label, separated by tabs.")
        start, end = seconds(cells[0], where, "start"), seconds(cells[1], where, "end")
        if not end > start:
            raise DataError(
                f"{where}: the label {show(cells[-1])!r} marks a moment, {start:g} s, not a "
                f"stretch. Give it an end."
            )
        label = _track_label(cells[2].strip() if len(cells) == 3 else "", where)
        entries.append(Entry(recording, name, label, line=line, start=start, end=end))
    return entries


def _track_label(text: str, where: str) -> str:
    parts = split_labels(text)
    if len(parts) < 2:
        return check_label(text, where)
    return read_set(parts, lambda name: check_label(name, where))


def unlabelled(sounds: Sequence[Entry], length: float, window: float) -> list[Entry]:
    """What lies between the sounds of a recording, as background.

    Args:
        sounds: of one recording, one or more.
        length: seconds of it.
        window: seconds, the shortest stretch that is taken.
    """
    found, at = list[Entry](), 0.0
    # A short sound is heard with what surrounds it, so that is not background.
    spans = sorted(heard(s.start or 0.0, s.end or 0.0, window) for s in sounds)
    for start, end in [*spans, (length, length)]:
        if start - at >= window:
            plain = replace(sounds[0], line=None, low=None, high=None, group=None)
            found.append(replace(plain, label=BACKGROUND, start=at, end=min(start, length)))
        at = max(at, end)
    return found


def heard(start: float, end: float, window: float) -> tuple[float, float]:
    """What a model hears of a sound: all of it, and at least a window around its middle."""
    middle = (start + end) / 2
    return min(start, middle - window / 2), max(end, middle + window / 2)


def chains(sounds: Sequence[tuple[float, float]], window: float) -> list[list[int]]:
    """Sounds of a recording that are heard in the same moment, one after another.

    Args:
        sounds: start and end of each, in seconds.
        window: seconds that a model hears at once.

    Returns:
        The positions of each chain's sounds, in the order of time; no two chains overlap.
    """
    spans = sorted((*heard(start, end, window), i) for i, (start, end) in enumerate(sounds))
    found, reach = list[list[int]](), -math.inf
    for begin, end, index in spans:
        if begin >= reach - _ROUNDING:
            found.append([])
        found[-1].append(index)
        reach = max(reach, end)
    return found


def stretches(sounds: Sequence[Entry], count: int, window: float) -> list[int]:
    """Divide the sounds of a recording into stretches of time.

    Args:
        sounds: of one recording.
        count: stretches wanted; fewer where the sounds leave too few gaps.
        window: seconds that a model hears at once: sounds of a chain stay together.

    Returns:
        The number of the stretch of each sound, from 0.
    """
    found, done = [0] * len(sounds), 0
    for chain in chains([(s.start or 0.0, s.end or 0.0) for s in sounds], window):
        for index in chain:
            found[index] = min(done * count // len(sounds), count - 1)
        done += len(chain)
    return found


def settle_sounds(
    entries: Sequence[Entry],
    lengths: Mapping[Path, float],
    full: bool,
    several: bool = False,
    window: float = WINDOW,
) -> tuple[list[Entry], list[Problem]]:
    """Fit annotated sounds to their recordings, and give them groups.

    Args:
        entries: of a data set, all of recordings that can be read.
        lengths: seconds of each recording.
        full: whether the annotation is complete: what lies between the sounds is then
            background.
        several: whether a sound may have several labels: it then has those of the sounds
            that it overlaps with, too.
        window: seconds that a model hears at once.

    Returns:
        The entries and problems: sounds that lie behind the end of their recording.
    """
    found, problems = list[Entry](), list[Problem]()
    for entry in entries:
        if entry.start is None or entry.end is None:
            found.append(entry)
            continue
        length = lengths[entry.path]
        if entry.start >= length:
            cause = f"the sound at {entry.start:g} s lies behind its end, {length:.2f} s"
            if entry.start >= 20 * length:
                cause += " (are these milliseconds? Write seconds)"
            problems.append(Problem(entry.name, "behind_end", cause, True))
            continue
        if length + _SLACK < entry.end < math.inf:
            cause = (
                f"the sound from {entry.start:g} to {entry.end:g} s ends after it, at "
                f"{length:.2f} s; it is cut there"
            )
            problems.append(Problem(entry.name, "behind_end", cause, False))
        found.append(replace(entry, end=min(entry.end, length)))
    if full:
        sounds: dict[Path, list[Entry]] = defaultdict(list)
        for entry in found:
            if entry.start is not None:
                sounds[entry.path].append(entry)
        for path, own in sounds.items():
            if any(not is_quiet(entry.label) for entry in own):
                found += unlabelled(own, lengths[path], window)
    found = [entry for entry in found if entry.label != DROPPED]
    if several:
        found = _heard_together(found, window)
    return time_groups(found, window) or found, problems


def _heard_together(entries: Sequence[Entry], window: float) -> list[Entry]:
    """Sounds with the labels of all that is heard in their stretches.

    A sound that fills half of a stretch or more is heard in it; of one that fills less, it
    is not known. The same stretch under two labels is one sound with both.
    """
    found, by_file = list[Entry](), defaultdict[Path, list[Entry]](list)
    for entry in entries:
        if entry.start is None:
            found.append(entry)
        else:
            quiet = is_quiet(entry.label)
            by_file[entry.path].append(replace(entry, label="") if quiet else entry)
    for own in by_file.values():
        ordered = sorted(own, key=lambda e: (e.start or 0.0, e.end or 0.0, e.label))
        spans = [(e.start or 0.0, e.end or 0.0) for e in ordered]
        starts = [start for start, _ in spans]
        # The latest end so far: what ends before a sound begins is not looked at.
        latest = list(accumulate((end for _, end in spans), max))
        merged: dict[tuple[float, float], Entry] = {}
        for i, entry in enumerate(ordered):
            text = entry.label
            begin, end = heard(*spans[i], window)
            for j in range(bisect_right(latest, begin), bisect_left(starts, end)):
                shared = min(end, spans[j][1]) - max(begin, spans[j][0])
                if j == i or not ordered[j].label or shared <= _ROUNDING:
                    continue
                # A row that speaks of every class says of its own stretch what is heard.
                if entry.complete and spans[i] != spans[j]:
                    continue
                classes, unsure = heard_in(ordered[j].label), unsure_in(ordered[j].label)
                fills = shared >= (spans[i][1] - spans[i][0]) / 2
                more = set_text(classes, unsure) if fills else set_text((), classes + unsure)
                text = union(text, more)
            same = merged.get(spans[i])
            text = text if same is None else union(text, same.label)
            merged[spans[i]] = replace(same or entry, label=text)
        found += merged.values()
    return found


def time_groups(entries: Sequence[Entry], window: float) -> list[Entry] | None:
    """Give the sounds of few recordings stretches of time as groups.

    Args:
        entries: of a data set.
        window: as for `stretches`.

    Returns:
        The entries with groups; None where there are groups or recordings enough, or not
        all entries are stretches.
    """
    if not entries or any(e.start is None or e.group is not None for e in entries):
        return None
    by_file: dict[Path, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        by_file[entry.path].append(index)
    if len(by_file) >= FEWEST_GROUPS or any(entry.split is not None for entry in entries):
        return None
    count = -(-_STRETCHES // len(by_file))
    found = list(entries)
    for indices in by_file.values():
        places = stretches([entries[i] for i in indices], count, window)
        for index, place in zip(indices, places, strict=True):
            entry = entries[index]
            found[index] = replace(entry, group=f"{entry.name.as_posix()}, stretch {place + 1}")
    return found
