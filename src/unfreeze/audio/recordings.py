"""The recordings that a user names: files, and folders of them."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from unfreeze.audio.formats import meant_as_sound
from unfreeze.audio.names import show
from unfreeze.errors import DataError


def find_recordings(paths: Sequence[Path], recursive: bool = False) -> list[Path]:
    """List the recordings that paths name, each once.

    Args:
        paths: files, which are taken whatever they are, and folders, of which
            the visible files are taken that are meant as sound.
        recursive: search the folders in them, too; links to folders are not
            followed.

    Returns:
        In the order of the paths; those of a folder by name.

    Raises:
        DataError: a path does not exist, or no recording is there.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(_in_folder(path, recursive))
        elif path.exists():
            found[path] = None
        else:
            raise DataError(f"{show(path)} does not exist")
    if not found:
        more = "" if recursive else "; --recursive searches the folders in it"
        raise DataError(f"no recordings in {', '.join(show(path) for path in paths)}{more}")
    return list(found)


def _in_folder(folder: Path, recursive: bool) -> Iterable[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        for name in sorted(files):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file() and meant_as_sound(path):
                yield path
