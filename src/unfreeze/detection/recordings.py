"""Lists the recordings to search: the files you name, and those in the folders you name."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unfreeze.audio.sound_file import meant_as_sound
from unfreeze.errors import DataError, show


@dataclass(frozen=True)
class Recording:
    """A recording to search.

    Attributes:
        path: the file.
        name: its path below the folder that was given, or only its file name;
            results are named after it.
    """

    path: Path
    name: Path


def find_recordings(paths: Sequence[Path], *, recursive: bool = False) -> list[Recording]:
    """List the recordings in files and folders.

    Hidden files and folders and links to folders are skipped. So are files in folders
    that are not recordings by their extension or first bytes. A file that is named
    is always taken.

    Args:
        paths: files and folders.
        recursive: look into folders within folders.

    Returns:
        The recordings, in the order of the arguments, within folders by name;
        each file once.

    Raises:
        DataError: a folder has no recordings, or a path does not exist.
    """
    found: dict[Path, Recording] = {}
    for path in paths:
        if not path.exists():
            raise DataError(f"{show(path)} does not exist: give recordings or folders of them")
        if not path.is_dir():
            found.setdefault(path.resolve(), Recording(path, Path(path.name)))
            continue
        files = list(_walk(path, recursive))
        if not files:
            deeper = not recursive and next(_walk(path, True), None) is not None
            cure = "; add --recursive for those in its subfolders" if deeper else ""
            raise DataError(f"{show(path)} holds no recordings{cure}")
        for file in files:
            found.setdefault(file.resolve(), Recording(file, file.relative_to(path)))
    return list(found.values())


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    try:
        with os.scandir(folder) as items:
            shown = [item for item in items if not item.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{show(folder)} cannot be listed: {error.strerror}") from error
    for item in sorted(shown, key=lambda item: os.fsencode(item.name)):
        path = Path(item.path)
        if item.is_dir(follow_symlinks=False):
            if recursive:
                yield from _walk(path, recursive)
        elif path.is_file() and meant_as_sound(path):
            yield path
