"""Which recordings are meant: files as they are named, folders by what lies in them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unfreeze.audio.formats import meant_as_sound
from unfreeze.audio.names import show
from unfreeze.errors import DataError


@dataclass(frozen=True)
class Recording:
    """A recording that is to be searched.

    Attributes:
        path: the file.
        name: its place below the folder that was given, or its bare file name;
            results are named after it.
    """

    path: Path
    name: Path


def find_recordings(paths: Sequence[Path], *, recursive: bool = False) -> list[Recording]:
    """List the recordings in files and folders.

    Hidden files and folders, and links to folders, are passed over; in folders
    so is all that is no recording by its ending or first bytes. A file that is
    named is taken as it is.

    Args:
        paths: files and folders.
        recursive: look into folders within folders.

    Returns:
        The recordings, in the order of the arguments, within folders by name;
        each file once.

    Raises:
        DataError: a folder without a recording; a path that is not there.
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
            cure = "; those in its folders are taken with --recursive" if deeper else ""
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
