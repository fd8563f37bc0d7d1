"""Where the recordings lie that a table names.

A path is tried as it is written, with `/` for `\\`, without the escapes of URLs, in both
Unicode forms, and with the usual endings if it has none; then the only file of that name below
the folder is taken, at last one with another ending.
What was found elsewhere is counted and told, and one file is never taken for two.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from unfreeze.audio.sound_formats import READABLE
from unfreeze.errors import DataError, show

# A path of Windows, and folders for tables, which lie beside that of the recordings.
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_METADATA = re.compile(
    r"(?:.*\.)?(?:meta|metadata|annotations?|labels?|ground[_ ]?truth|csv|tables?)", re.IGNORECASE
)
_ENDINGS = (".wav", ".flac", ".ogg", ".mp3")


class Places:
    """Finds the files that a table names.

    Args:
        folder: that paths are relative to.
        root: the table's folder.

    Attributes:
        moved: the files that were not where the table says and were found by their names,
            with what it says of each.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        # Given on a command line, it is relative to where that runs.
        self.folder, self.root = folder.absolute(), root
        self.moved: dict[Path, str] = {}
        self._by_name: dict[str, list[Path]] | None = None
        # A table of many sounds names each recording often.
        self._known: dict[str, tuple[Path, Path]] = {}

    def find(self, text: str, where: str) -> tuple[Path, Path]:
        """The file of a path, which need not be there, and its name.

        Args:
            text: the path.
            where: the table and line, for the error.

        Returns:
            The file, and its path relative to the table's folder if it is in it.

        Raises:
            DataError: the path is empty, or several files have its name and none its place.
        """
        known = self._known.get(text)
        if known is None:
            path = self._find(text, where)
            inside = path.is_relative_to(self.root)
            known = self._known[text] = path, path.relative_to(self.root) if inside else path
        return known

    def _find(self, text: str, where: str) -> Path:
        if not text or "\0" in text:
            raise DataError(f"{where}: the path is empty or has a null byte.")
        first = Path(os.path.normpath(self.folder / text))
        for path in self._forms(text):
            # Not by pathlib, which raises for a name that no file can have.
            if os.path.isfile(path):  # noqa: PTH113
                return path
        return self._elsewhere(text, where) or first

    def _forms(self, text: str) -> Iterator[Path]:
        slashed = text.replace("\\", "/")
        for form in dict.fromkeys((text, slashed, unquote(slashed))):
            composed = unicodedata.normalize("NFC", form)
            for named in dict.fromkeys((form, composed, unicodedata.normalize("NFD", form))):
                yield Path(os.path.normpath(self.folder / named))
        if Path(slashed).suffix.lower() not in READABLE:
            for suffix in _ENDINGS:
                yield Path(os.path.normpath(self.folder / f"{slashed}{suffix}"))

    def _elsewhere(self, text: str, where: str) -> Path | None:
        """The only file below the folder that ends in the path, or has its name."""
        if self._by_name is None:
            self._by_name = {}
            beside = _METADATA.fullmatch(self.folder.name) is not None
            self._index(self.folder.parent if beside else self.folder)
        slashed = text.replace("\\", "/")
        wanted, same = Path(slashed), list[Path]()
        for form in dict.fromkeys((slashed, unquote(slashed))):
            wanted = Path(form)
            for names in _names(wanted):
                same = same or [p for name in names for p in self._by_name.get(_key(name), [])]
            if same:
                break
        tail = tuple(_key(part) for part in (*wanted.parts[-2:-1], _stem(wanted)))
        closer = [p for p in same if _tail(p, len(tail)) == tail]
        if not closer and (len(tail) == 1 or wanted.is_absolute() or _DRIVE.match(text)):
            closer = same
        if len(closer) > 1:
            raise DataError(
                f"{where}: {show(text)!r} is not there, and there are {len(closer)} files of that "
                f"name: {', '.join(show(path) for path in closer[:3])}. Write the path relative "
                f"to the table, or give the folder that it is relative to with --audio-folder."
            )
        if not closer:
            return None
        other = self.moved.setdefault(closer[0], text)
        if other != text:
            raise DataError(
                f"{where}: {show(text)!r} and {show(other)!r} are not there, and {show(closer[0])} "
                f"is the only file of that name: it cannot be both. Complete the recordings, or "
                f"give the folder that the paths are relative to with --audio-folder."
            )
        return closer[0]

    def _index(self, folder: Path) -> None:
        assert self._by_name is not None
        for place, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if Path(name).suffix.lower() in READABLE and not name.startswith("."):
                    self._by_name.setdefault(_key(name), []).append(Path(place, name))


def _names(wanted: Path) -> tuple[list[str], list[str]]:
    """What a file may be called; and, after that, what it was converted from or to."""
    if wanted.suffix.lower() in READABLE:
        return [wanted.name], [wanted.stem + ending for ending in _ENDINGS]
    return [wanted.name + ending for ending in _ENDINGS], []


def _stem(path: Path) -> str:
    return path.stem if path.suffix.lower() in READABLE else path.name


def _tail(path: Path, parts: int) -> tuple[str, ...]:
    """The last parts of a path, without its ending."""
    return tuple(map(_key, (*path.parts[-parts:-1], _stem(path))))


def _key(name: str) -> str:
    # Windows and macOS do not tell cases apart.
    return unicodedata.normalize("NFC", name).casefold()
