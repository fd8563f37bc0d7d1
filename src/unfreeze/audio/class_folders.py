"""Data sets as folders: a folder per class, or a folder per part with a folder per class in it.

Layouts: `DATA/CLASS/clip.wav`; `DATA/train/CLASS/clip.wav` and `DATA/test/CLASS/clip.wav`;
and that of Speech Commands (Warden, arXiv:1804.03209), a folder per class with lists of the
clips to validate and to test on. Hidden files are skipped, files that are not recordings
are noted. Links are followed; where one leads in a circle, it is not. No sound is read here.
Folders that look like parts or folds are no classes, and a folder that holds nothing but
folders is an error: what would be learned from them is plausible and wrong.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from unfreeze.audio.entries import SPLITS, Entry, check_label, is_within
from unfreeze.audio.part_lists import LISTS, with_lists
from unfreeze.audio.rules import Problem
from unfreeze.audio.sound_file import meant_as_sound
from unfreeze.audio.table_file import TABLES
from unfreeze.errors import DataError, show

MANIFEST_NAME = "manifest.csv"
# Words for parts, also those that only say so beside another.
_PARTS = SPLITS | {
    **dict.fromkeys(("development", "seen", "entrainement", "entraînement"), "train"),
    **dict.fromkeys(("apprentissage", "entrenamiento", "treino", "addestramento"), "train"),
    **dict.fromkeys(("validierung", "validación", "validação", "validazione"), "validation"),
    **dict.fromkeys(("holdout", "unseen", "testen", "teste", "prueba", "auswertung"), "test"),
    **dict.fromkeys(("prüfung", "pruefung", "épreuve", "évaluation", "evaluación"), "test"),
    **dict.fromkeys(("avaliação", "valutazione", "verifica", "prova"), "test"),
}
_WORD = "|".join(sorted(_PARTS, key=len, reverse=True))
_PART = re.compile(
    rf"(?:.*[\W_])?(?:{_WORD})(?:s?(?:sets?|data|daten|files|clips|audio))?(?:[\W_].*|\d*)",
    re.IGNORECASE,
)
_PART_WORD = re.compile(_WORD, re.IGNORECASE)
# What macOS, Windows and network drives put beside the files of users.
_OF_SYSTEMS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found"}
_OF_SYSTEMS |= {"system volume information", "__pycache__"}
#: Endings of archives, which hide what is in them.
ARCHIVES = {".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz"}
_FOLD = re.compile(r"(?:fold|cv|split|part|subset|chunk|batch)[\W_]?\d+", re.IGNORECASE)
# Endings of annotations, also of those that are not read.
_MAY_BE_LABELS = {*TABLES, ".xlsx", ".xls", ".ods", ".json", ".jsonl", ".xml"}
_MAY_BE_LABELS |= {".textgrid", ".eaf", ".svl", ".srt", ".lab", ".antx", ".aup3", ".trs"}
_SHOWN = 3
# Of a folder's recordings, in folders within it: more of them, and it is no class.
_MOST = 0.8


def read_folders(root: Path, grouped: bool = False) -> tuple[list[Entry], list[Problem]]:
    """Read a folder per class, or a folder per part that holds a folder per class.

    Args:
        root: the folder of these folders.
        grouped: whether folders within a class's folder may hold its recordings, as a
            regular expression takes the groups from their names.

    Returns:
        The recordings, and notes on other files.

    Raises:
        DataError: there is no class folder, folders look like parts or folds or hold
            only folders, or a class name cannot be printed.
    """
    notes: list[Problem] = []
    folders = []
    for item in _visible(root):
        path = Path(item.path)
        if item.is_dir():
            folders.append(path)
        elif item.name not in LISTS and meant_as_sound(path):
            cause = "it lies beside the class folders and is not used; move it into one"
            notes.append(Problem(Path(item.name), "no_class", cause, False))
        elif path.suffix.lower() in ARCHIVES:
            cause = "what is in this archive is not used; unpack it"
            notes.append(Problem(Path(item.name), "archive", cause, False))
    archives = [show(note.path) for note in notes if note.rule == "archive"]
    if not folders and archives:
        raise DataError(
            f"{show(root)} has no class folders, but archives ({', '.join(archives[:_SHOWN])}). "
            "Unpack them, a folder per class."
        )
    if not folders:
        raise DataError(
            f"{show(root)} has no class folders. Expected {show(root)}/CLASS/clip.wav, or a "
            f"{MANIFEST_NAME} with the columns path,label[,group][,split].{_unread(root)}"
        )
    parts = {folder: SPLITS.get(folder.name.lower()) for folder in folders}
    if len(set(parts.values()) - {None}) > 1 and None not in parts.values():
        return _read_parts(root, parts, grouped)
    _refuse_parts(root, folders)
    entries = _read_classes(root, folders, grouped, notes)
    return with_lists(root, entries), notes


def _unread(root: Path) -> str:
    """What else lies in a folder without class folders, which may hold the labels."""
    names = [Path(item.path).name for item in _visible(root)]
    others = [show(name) for name in names if Path(name).suffix.lower() in _MAY_BE_LABELS]
    if not others:
        return ""
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return (
        f" It holds {', '.join(others[:_SHOWN])}{more}, which cannot be used: a table of sounds is "
        "named like its recording (a.txt for a.wav) or has a column path, and is one of Raven, a "
        "label track of Audacity, or a CSV file with the columns start,end,label in seconds."
    )


def _read_parts(
    root: Path, parts: dict[Path, str | None], grouped: bool
) -> tuple[list[Entry], list[Problem]]:
    """Read `PART/CLASS/clip.wav`."""
    entries: list[Entry] = []
    notes: list[Problem] = []
    for folder, part in parts.items():
        inner = [Path(item.path) for item in _visible(folder) if item.is_dir()]
        if not inner:
            raise DataError(
                f"{show(folder)} looks like a part of a split, but holds no class folders. "
                f"Expected {show(folder)}/CLASS/clip.wav, or a {MANIFEST_NAME} in {show(root)} "
                "with the columns path,label,split."
            )
        _refuse_parts(folder, inner)
        found = _read_classes(root, inner, grouped, notes)
        entries += [replace(entry, split=part) for entry in found]
    return entries, notes


def _refuse_parts(root: Path, folders: Sequence[Path]) -> None:
    # macOS writes an umlaut as two signs.
    plain = {folder: unicodedata.normalize("NFC", folder.name) for folder in folders}
    like_parts = [folder for folder, name in plain.items() if _PART.fullmatch(name)]
    kinds = {_PARTS[word.lower()] for f in like_parts for word in _PART_WORD.findall(plain[f])}
    like_folds = [folder for folder in folders if _FOLD.fullmatch(folder.name)]
    holding = [folder for folder in folders if folder not in (*like_parts, *like_folds)]
    several = len(kinds) > 1 or len(like_folds) > 1
    if not several and (holding or not (like_parts or like_folds)):
        return
    names = ", ".join(show(f.name) for f in (*like_parts, *like_folds))
    what = "parts of a split" if like_parts else "folds"
    cure = (
        "Name them train, validation and test, with a folder per class in each, or write"
        if like_parts
        else "Write"
    )
    column = "split" if like_parts else "group"
    raise DataError(
        f"{show(root)}: the folders {names} look like {what}, not like classes. {cure} a "
        f"{MANIFEST_NAME} with the columns path,label,{column}; to use one of them alone, give it "
        "as the data. If they are classes, rename them."
    )


def _read_classes(
    root: Path, folders: Sequence[Path], grouped: bool, notes: list[Problem]
) -> list[Entry]:
    entries: list[Entry] = []
    for folder in folders:
        found = list(walk_recordings(root, folder, notes))
        if not found and folder.is_symlink():
            continue
        if not found:
            cause = "the folder holds no recordings; it is not used as a class"
            notes.append(Problem(folder.relative_to(root), "no_audio", cause, False))
            continue
        deep = [path for path in found if path.parent != folder]
        inner = sorted({path.relative_to(folder).parts[0] for path in deep})
        # A stray recording does not make a class of a folder of classes.
        stray = len(found) - len(deep)
        if not grouped and (not stray or (inner[1:] and len(deep) > _MOST * len(found))):
            named = ", ".join(show(name) for name in inner[:_SHOWN])
            more = f" and {len(inner) - _SHOWN} more" if len(inner) > _SHOWN else ""
            beside = f"{stray} of its {len(found)} recordings beside them" if stray else ""
            raise DataError(
                f"{show(folder)} holds only folders ({named}{more}), {beside or 'no recordings'}. "
                f"If these are "
                f"the classes, give {show(folder)} as the data. If they are speakers, sites or "
                f"recorders, take the groups from them: --group-regex "
                f"'{re.escape(folder.name)}/([^/]+)/', say. Or write a {MANIFEST_NAME}."
            )
        label = check_label(folder.name, f"The folder {show(folder)}")
        entries += [Entry(path, path.relative_to(root), label) for path in found]
    return entries


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            shown = [
                item
                for item in items
                if not item.name.startswith(".") and item.name.lower() not in _OF_SYSTEMS
            ]
    except OSError as error:
        raise DataError(f"{show(folder)} cannot be listed: {error.strerror}.") from error
    return sorted(shown, key=lambda item: os.fsencode(item.name))


def walk_recordings(
    root: Path, folder: Path, notes: list[Problem], above: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Yield the recordings in a folder and the folders in it, by name.

    Args:
        root: the folder that the names in notes are relative to.
        folder: to search.
        notes: receives notes on other files, and on links that lead out of `root`.
        above: the real paths of the folders around it.

    Raises:
        DataError: a folder cannot be listed.
    """
    real = os.path.realpath(folder)
    inside = os.path.realpath(root)
    if real in above:
        cause = "a link that leads in a circle is not followed"
        notes.append(Problem(folder.relative_to(root), "link", cause, False))
        return
    if folder.is_symlink():
        if is_within(real, inside):
            # It would give the same files a second label or name.
            cause = "a link to a folder of the same data is not followed"
            notes.append(Problem(folder.relative_to(root), "link", cause, False))
            return
        _note_link(root, inside, folder, real, notes)
    for item in _visible(folder):
        path = Path(item.path)
        if path.is_dir():
            yield from walk_recordings(root, path, notes, (*above, real))
            continue
        if (path.exists() and not path.is_file()) or not meant_as_sound(path):
            cause = "it is not a recording and is ignored"
            notes.append(Problem(path.relative_to(root), "not_audio", cause, False))
            continue
        if item.is_symlink():
            _note_link(root, inside, path, os.path.realpath(path), notes)
        yield path


def _note_link(root: Path, inside: str, path: Path, real: str, notes: list[Problem]) -> None:
    if not is_within(real, inside) and Path(real).exists():
        cause = f"a link to {show(real)}, outside of the data's folder; it is used"
        notes.append(Problem(path.relative_to(root), "outside", cause, False))
