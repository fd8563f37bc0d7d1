"""Lists that come with a data set and say which recordings belong to which part.

Speech Commands (Warden, arXiv:1804.03209) has `validation_list.txt` and `testing_list.txt`, a
path a line. DCASE's acoustic scenes (Mesaros, Heittola and Virtanen, "TUT database for acoustic
scene classification and sound event detection", EUSIPCO 2016, and what followed it) have tables
in `evaluation_setup`: `fold1_train` and `fold1_evaluate`, and so on, with the path in the first
column. One fold is a split; of several, each recording is evaluated in one, which is its group.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unfreeze.audio.entries import Entry
from unfreeze.audio.rules import Problem
from unfreeze.errors import DataError, show

# Speech Commands: paths below the data's folder, one a line; the rest is for training.
LISTS = {"validation_list.txt": "validation", "testing_list.txt": "test"}
_FOLDER = "evaluation_setup"
_FOLD = re.compile(r"fold(\d+)_(train|eval)(?:uate|uation)?\.(?:csv|txt)", re.IGNORECASE)
# Of the files that a list names: with more of them missing, it is of other data.
_ABSENT = 0.1


def with_lists(root: Path, entries: list[Entry]) -> list[Entry]:
    """Give the clips that the lists of Speech Commands name their parts.

    Args:
        root: the data's folder.
        entries: its recordings, with names relative to it.

    Raises:
        DataError: a list cannot be read or is of other data, or two name the same clip.
    """
    files = {root / name: part for name, part in LISTS.items() if (root / name).is_file()}
    part = _read_parts(root, files, entries)
    if not part:
        return entries
    return [replace(e, split=part.get(e.name.as_posix(), "train")) for e in entries]


def with_folds(root: Path, entries: list[Entry]) -> tuple[list[Entry], list[Problem]]:
    """Divide recordings as the lists in `evaluation_setup` do.

    Args:
        root: the data's folder.
        entries: its recordings, with names relative to it.

    Returns:
        The entries with their part, or with their fold as the group, without those that no
        list names; and notes.

    Raises:
        DataError: as `with_lists`.
    """
    folds = _find_folds(root)
    if not folds:
        cause = "no fold in it has both lists, train and evaluate; it is not used"
        there = (root / _FOLDER).is_dir()
        return entries, [Problem(Path(_FOLDER), "folds", cause, False)] if there else []
    if len(folds) > 1:
        files = {own["eval"]: f"fold {number}" for number, own in folds.items()}
        fold = _read_parts(root, files, entries)
        kept = [replace(e, group=fold.get(e.name.as_posix())) for e in entries]
        kept = [e for e in kept if e.group is not None]
    else:
        ((_, own),) = folds.items()
        part = _read_parts(root, {own["train"]: "train", own["eval"]: "test"}, entries)
        kept = [replace(e, split=part.get(e.name.as_posix())) for e in entries]
        kept = [e for e in kept if e.split is not None]
    return kept, list(_told(len(folds), len(entries) - len(kept)))


def _find_folds(root: Path) -> dict[int, dict[str, Path]]:
    """The lists of each fold that has both, by what they are of."""
    found: dict[int, dict[str, Path]] = {}
    folder = root / _FOLDER
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _FOLD.fullmatch(file.name)
        if match is not None and file.is_file():
            found.setdefault(int(match[1]), {})[match[2].lower()] = file
    return {number: own for number, own in sorted(found.items()) if len(own) == 2}


def _told(folds: int, left_out: int) -> Iterator[Problem]:
    use = "its fold is the split" if folds == 1 else f"its {folds} folds are the groups"
    yield Problem(Path(_FOLDER), "folds", use, False)
    if left_out:
        verb = "recording is" if left_out == 1 else "recordings are"
        cause = f"{left_out:,} {verb} in none of its lists, and not used"
        yield Problem(Path(_FOLDER), "unnamed", cause, False)


def _read_parts(root: Path, files: Mapping[Path, str], entries: Sequence[Entry]) -> dict[str, str]:
    """The part of each recording that a list names, by the recording's name."""
    part: dict[str, str] = {}
    names = {entry.name.as_posix() for entry in entries}
    for file, own in files.items():
        listed = _listed(file)
        absent = sorted(listed - names)
        if len(absent) > _ABSENT * len(listed):
            raise DataError(
                f"{show(file)}: {len(absent)} of the {len(listed)} files that it names are "
                f"not there, such as {show(absent[0])}. Remove the list, or complete the data."
            )
        twice = sorted(listed & part.keys())
        if twice:
            raise DataError(f"{show(root)}: {show(twice[0])} is in two lists. Keep it in one.")
        part |= dict.fromkeys(listed, own)
    return part


def _listed(file: Path) -> set[str]:
    """The paths in a list: the first column, without its name."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{show(file)} cannot be read: {error}.") from error
    cells = [re.split(r"[\t,;]", line)[0].strip().strip('"') for line in lines]
    if cells and cells[0].lower() in ("filename", "file", "path"):
        cells = cells[1:]
    return {cell.replace("\\", "/").removeprefix("./") for cell in cells} - {""}
