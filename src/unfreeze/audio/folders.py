"""A folder per class: `DATA/CLASS/.../clip.wav`.

Folders within a class are searched; hidden files and folders are passed over;
files that are no recordings are noted. Names decide, no sound is read here.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from unfreeze.audio.entries import MANIFEST_NAME, SPLITS, Entry, check_label, is_within
from unfreeze.audio.formats import meant_as_sound
from unfreeze.audio.names import show
from unfreeze.audio.rules import Problem
from unfreeze.errors import DataError


def read_folders(root: Path) -> tuple[list[Entry], list[Problem]]:
    """Read a folder per class.

    Args:
        root: the folder of the class folders.

    Returns:
        The recordings, and notes on files that are none.

    Raises:
        DataError: no class folder, folders named like splits, a class name
            that cannot be printed, or a link that leaves `root`.
    """
    entries: list[Entry] = []
    notes: list[Problem] = []
    folders = []
    for item in _visible(root):
        if item.is_dir(follow_symlinks=False) or (item.is_symlink() and Path(item.path).is_dir()):
            folders.append(Path(item.path))
        elif meant_as_sound(Path(item.path)):
            cause = "it lies beside the class folders and is not used; move it into one"
            notes.append(Problem(Path(item.name), "no_class", cause, False))
    if not folders:
        raise DataError(
            f"{show(root)} has no class folders. Expected {show(root)}/CLASS/clip.wav, or a "
            f"{MANIFEST_NAME} with the columns path,label[,group][,split]."
        )
    if all(folder.name.lower() in SPLITS for folder in folders):
        raise DataError(
            f"{show(root)}: the folders {', '.join(show(f.name) for f in folders)} look like "
            f"parts of a split, not like classes. Write a {MANIFEST_NAME} with the columns "
            f"path,label,split, or give the folder of one part."
        )
    for folder in folders:
        found = list(walk_recordings(root, folder, notes))
        if not found and folder.is_symlink():
            continue
        if not found:
            cause = "the folder holds no recordings; it is not taken for a class"
            notes.append(Problem(folder.relative_to(root), "no_audio", cause, False))
            continue
        label = check_label(folder.name, f"The folder {show(folder)}")
        entries += [Entry(path, path.relative_to(root), label) for path in found]
    return entries, notes


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            shown = [item for item in items if not item.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{show(folder)} cannot be listed: {error.strerror}.") from error
    return sorted(shown, key=lambda item: os.fsencode(item.name))


def walk_recordings(root: Path, folder: Path, notes: list[Problem]) -> Iterator[Path]:
    """Yield the recordings in a folder and the folders in it, by name.

    Args:
        root: what links may not leave; `folder` lies in it.
        folder: to search.
        notes: takes what is said of other files.

    Raises:
        DataError: a folder cannot be listed, or a link leaves `root`.
    """
    _check_link(root, folder)
    if folder.is_symlink():
        # Within the folder it would give the same files a second label or name.
        cause = "a link to a folder is not followed"
        notes.append(Problem(folder.relative_to(root), "link", cause, False))
        return
    for item in _visible(folder):
        path = Path(item.path)
        if item.is_symlink():
            _check_link(root, path)
        if path.is_dir():
            yield from walk_recordings(root, path, notes)
        elif (path.exists() and not path.is_file()) or not meant_as_sound(path):
            cause = "it is no recording and is ignored"
            notes.append(Problem(path.relative_to(root), "not_audio", cause, False))
        else:
            yield path


def _check_link(root: Path, path: Path) -> None:
    if not is_within(os.path.realpath(path), os.path.realpath(root)):
        raise DataError(
            f"{show(path)} is a link that leaves {show(root)}. Copy the recordings into the "
            f"folder, or put a {MANIFEST_NAME} into a folder that holds all of them."
        )
