"""The true events of recordings, from tables of annotations in any form that training takes.

A table belongs to the recording that it is named after, wherever it lies
(`tables/site.selections.txt`, `site.wav`), or to those that its column of paths names. So
one table may hold the sounds of all recordings. A recording that has no table is left out,
with a note; where one table is for all and the annotation is complete, a recording without a
row has none of the sounds. So has one whose own table is empty.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unfreeze.audio.annotations import (
    check_tables,
    find_tables,
    is_audacity,
    read_sounds,
    recording_stem,
    settle_sounds,
    why_no_times,
)
from unfreeze.audio.entries import (
    DROPPED,
    Entry,
    is_quiet,
    read_label_map,
    rename_labels,
    settle_labels,
)
from unfreeze.audio.label_sets import heard_in, is_set, unsure_in
from unfreeze.audio.label_table import Columns, find_columns
from unfreeze.audio.rules import Problem, content_hash
from unfreeze.audio.sources import Reading
from unfreeze.audio.table_file import read_table, read_text
from unfreeze.detection.event_scoring import Truth, as_spans, union
from unfreeze.detection.recordings import Recording, find_recordings
from unfreeze.errors import DataError, did_you_mean, show

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Annotations:
    """The true events of recordings.

    Attributes:
        sounds: the annotated stretches of each recording, in the recordings' order.
        full: whether all sounds are annotated: what is found elsewhere is then wrong.
        several: whether a stretch may have several labels, as in `cat;dog`.
        notes: what should be known about tables and classes, a sentence each.
        problems: recordings that are left out.
    """

    sounds: Mapping[Path, tuple[Entry, ...]]
    full: bool
    several: bool
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    def counts(self) -> Counter[str]:
        """The number of sounds of each class; those of the silent class are none."""
        return Counter(
            label
            for own in self.sounds.values()
            for entry in own
            if entry.label != DROPPED
            for label in (heard_in(entry.label) if self.several else (entry.label,))
            if not is_quiet(label)
        )


def read_annotations(
    recordings: Path, tables: Path, how: Reading, *, several: bool = False
) -> Annotations:
    """Read the true events of recordings.

    Args:
        recordings: a recording, or a folder of any depth.
        tables: a table of sounds, or a folder of any depth with tables.
        how: `columns`, `label_map` and `full` as for training.
        several: whether the model judges each class by itself.

    Raises:
        DataError: there is no recording, no table of one, or a table cannot be used.
    """
    given = find_recordings([recordings], recursive=True)
    if not tables.exists():
        raise DataError(f"{show(tables)} does not exist: give a table of sounds, or a folder")
    below = recordings if recordings.is_dir() else recordings.parent
    columns = how.columns
    columns = columns if columns.folder is not None else replace(columns, folder=below.absolute())
    names = {one.path.resolve(): one for one in given}
    owners, unused = _owners(given, tables, columns)
    entries, seen, notes, for_all = _read(owners, names, columns, below, tables.is_file())
    notes += _by_cause(unused)
    if not seen:
        more = f" ({_by_cause(unused)[0]})" if unused else ""
        raise DataError(
            f"{show(tables)} has no table of the {_recordings(len(given))} in {show(recordings)}"
            f"{more}. Name each table after its recording, such as "
            f"{show(given[0].path.stem)}.txt, or give one table with the columns path, start, "
            "end and label."
        )
    problems = list[Problem]()
    rest = [path for path in names if path not in seen]
    if rest and for_all and how.full:
        notes.append(
            f"{_recordings(len(rest))} without a row in {show(for_all[0])}: none of the sounds "
            "is in them"
        )
    elif rest:
        cause = "no table of sounds names it or has its name"
        problems = [Problem(names[path].path, "no_table", cause, False) for path in rest]
    several = several or any(is_set(entry.label) for entry in entries)
    if how.label_map is not None:
        entries = rename_labels(entries, read_label_map(how.label_map), how.label_map, several)
    entries, told = settle_labels(entries, several)
    notes += [f"{show(note.path)} {note.cause}" for note in told]
    by_file = defaultdict[Path, list[Entry]](list)
    for entry in entries:
        by_file[entry.path].append(entry)
    kept = [path for path in names if path in seen or (for_all and how.full)]
    sounds = {names[path].path: tuple(by_file[path]) for path in kept}
    return Annotations(sounds, how.full, several, tuple(notes), tuple(problems))


def _owners(
    given: Sequence[Recording], tables: Path, columns: Columns
) -> tuple[list[tuple[Path, Path | None]], list[tuple[Path, str]]]:
    """Each table with the recording that it is named after, or None where its rows name some.

    And notes on other files that may be meant as tables.
    """
    by_stem = defaultdict[str, list[Recording]](list)
    for one in given:
        by_stem[one.path.stem].append(one)
    found, unused = list[tuple[Path, Path | None]](), list[tuple[Path, str]]()
    for table in [tables] if tables.is_file() else find_tables(tables):
        same = by_stem.get(recording_stem(table), [])
        inside = Path() if tables.is_file() else table.parent.relative_to(tables)
        near = [one for one in same if one.name.parent == inside] or same
        # `site.wav.selections.txt` is not of `site.flac`.
        near = [one for one in near if table.name.startswith(f"{one.path.name}.")] or near
        if tables.is_file() and not same and len(given) == 1 and not _has_paths(table, columns):
            # The user says which recording it is of.
            near = list(given)
        if len(near) > 1:
            named = ", ".join(show(one.path) for one in near[:_SHOWN])
            raise DataError(
                f"{show(table)} may be of {len(near)} recordings: {named}. Put it in a folder "
                "named like that of its recording, or name it with the recording's ending, too: "
                f"{show(near[0].path.name)}{table.suffix}."
            )
        owner = near[0].path.absolute() if near else None
        reason = None if _is_blank(table) else why_no_times(table, columns)
        if reason is not None and (near or tables.is_file()):
            raise DataError(f"{show(table)} cannot be used as a table of sounds: {reason}")
        if owner is not None or (reason is None and _has_paths(table, columns)):
            found.append((table, owner))
        elif tables.is_file():
            raise DataError(
                f"{show(table)}: no recording is named {show(recording_stem(table))}, and no "
                "column of it names recordings. Rename it like its recording, or add a column "
                "path."
            )
        else:
            unused.append((table, f"{reason or 'no recording has its name'}; not used"))
    return found, unused


def _is_blank(table: Path) -> bool:
    # Audacity writes an empty file where there are no labels.
    return table.stat().st_size < 8 and not read_text(table).strip()


def _has_paths(table: Path, columns: Columns) -> bool:
    if _is_blank(table) or is_audacity(read_text(table)):
        return False
    found = find_columns(read_table(table, head=True), columns)
    return found is not None and "path" in found


def _read(
    owners: Sequence[tuple[Path, Path | None]],
    names: Mapping[Path, Recording],
    columns: Columns,
    below: Path,
    only: bool,
) -> tuple[list[Entry], dict[Path, Path], list[str], list[Path]]:
    """Read tables: the sounds, the table of each recording, notes, and tables for all.

    `only` says that no other table was given.
    """
    entries, seen = list[Entry](), dict[Path, Path]()
    told, for_all, foreign = list[tuple[Path, str]](), list[Path](), Counter[str]()
    for table, owner in owners:
        found, notes = ([], []) if _is_blank(table) else read_sounds(table, columns, owner)
        told += [(table, note.cause) for note in notes]
        real = {path: path.resolve() for path in {entry.path for entry in found}}
        ours = [replace(e, path=real[e.path]) for e in found if real[e.path] in names]
        foreign.update(show(entry.name) for entry in found if real[entry.path] not in names)
        of_table = {entry.path for entry in ours}
        of_table |= {owner.resolve()} if owner is not None else set()
        if owner is None and (only or len(of_table) > 1):
            # One that names a single recording, among others, may be of that one alone.
            for_all.append(table)
        for path in of_table:
            earlier = seen.setdefault(path, table)
            check_tables(names[path].path, [earlier, table] if earlier != table else [table])
        entries += ours
    said = _by_cause(told)
    if foreign:
        some = ", ".join(list(foreign)[:_SHOWN])
        said.append(
            f"{foreign.total():,} rows of {_recordings(len(foreign))} that are not in "
            f"{show(below)} are not used, such as {some}"
        )
    return entries, seen, said, for_all


def _by_cause(told: Sequence[tuple[Path, str]]) -> list[str]:
    """One note for all tables that have the same cause."""
    tables = defaultdict[str, list[Path]](list)
    for table, cause in told:
        tables[cause].append(table)
    return [
        f"{show(same[0])}{f' and {len(same) - 1:,} more' if len(same) > 1 else ''}: {cause}"
        for cause, same in tables.items()
    ]


def _recordings(count: int) -> str:
    return f"{count:,} recording{'' if count == 1 else 's'}"


def check_known(annotations: Annotations, labels: Sequence[str]) -> dict[str, int]:
    """Return the annotated classes that a model does not know, with their numbers of sounds.

    Args:
        annotations: of the recordings.
        labels: the model's classes.

    Raises:
        DataError: there are sounds, and none is of a class that it knows.
    """
    counts = annotations.counts()
    unknown = {label: number for label, number in counts.items() if label not in labels}
    if counts and len(unknown) == len(counts):
        hint = did_you_mean(next(iter(unknown)), labels)
        raise DataError(
            f"The model knows none of the annotated classes, {', '.join(map(show, unknown))}: it "
            f"knows {', '.join(map(show, labels))}. Rename classes with --map.{hint}"
        )
    return dict(sorted(unknown.items()))


def contents_of(annotations: Annotations) -> dict[Path, str]:
    """The SHA-256 of the bytes of each recording, in hex.

    Raises:
        DataError: a recording cannot be read.
    """
    found = dict[Path, str]()
    for path in annotations.sounds:
        try:
            found[path] = content_hash(path)
        except OSError as error:
            raise DataError(f"{show(path)} cannot be read: {error.strerror}") from error
    return found


def fingerprint(annotations: Annotations, contents: Mapping[Path, str]) -> str:
    """A digest of recordings and what is annotated in them; no path is in it.

    Args:
        annotations: of the recordings.
        contents: from `contents_of`.
    """
    rows = sorted(
        (contents[path], sorted((*_stretch(entry), entry.label) for entry in own))
        for path, own in annotations.sounds.items()
    )
    return hashlib.sha256(json.dumps([rows, annotations.full]).encode()).hexdigest()


def check_not_trained_on(contents: Mapping[Path, str], trained: Collection[str]) -> None:
    """Refuse recordings that models are trained on, or from which their clips were cut.

    Args:
        contents: from `contents_of`.
        trained: the SHA-256 of the data's recordings.

    Raises:
        DataError: names them.
    """
    both = [show(path) for path, content in contents.items() if content in trained]
    if both:
        more = f" and {len(both) - _SHOWN} more" if both[_SHOWN:] else ""
        raise DataError(
            f"Annotated recordings are in the data to train on, too, or its clips were cut from "
            f"them: {', '.join(both[:_SHOWN])}{more}. A model finds more in what it was "
            "trained on: give other recordings"
        )


def truths_of(
    annotations: Annotations, path: Path, seconds: float, labels: Sequence[str]
) -> tuple[dict[str, Truth], list[Problem]]:
    """What is known of each class in one recording.

    Args:
        annotations: of all recordings.
        path: the recording.
        seconds: its length; sounds are cut there.
        labels: the classes.

    Returns:
        The truth of each class, and notes on sounds that lie behind the recording's end.
    """
    own = annotations.sounds[path]
    settled, problems = settle_sounds(own, {entry.path: seconds for entry in own}, full=False)
    heard = defaultdict[str, list[tuple[float, float]]](list)
    unsure = defaultdict[str, list[tuple[float, float]]](list)
    for entry in settled:
        stretch = _stretch(entry)
        named = heard_in(entry.label) if annotations.several else (entry.label,)
        for label in named:
            if not is_quiet(label):
                heard[label].append(stretch)
        for label in unsure_in(entry.label):
            unsure[label].append(stretch)
    # Sounds of a class that the user drops are of no interest, and no background either.
    dropped = [_stretch(entry) for entry in own if entry.label == DROPPED]
    known = None
    if not annotations.full:
        known = union(as_spans([_stretch(entry) for entry in settled]))
    truths = {
        label: Truth(
            as_spans(heard[label]),
            as_spans([span for other, own in heard.items() if other != label for span in own]),
            as_spans([*unsure[label], *dropped]),
            known,
        )
        for label in labels
    }
    return truths, problems


def _stretch(entry: Entry) -> tuple[float, float]:
    assert entry.start is not None
    assert entry.end is not None
    return entry.start, entry.end
