"""What the studio finds in its folder, and puts there: data, dropped files, runs.

A request names a place by its path below the folder. It is refused if it leads out: by `..`, as
an absolute path, or through a link. So are data whose links or tables name recordings outside.
Nothing is written but whole sound files into a folder of a class, tables of labels of recordings
that are there, and the runs of `unfreeze train`; nothing is ever replaced or removed.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.audio.annotations import read_sounds
from unfreeze.audio.class_folders import MANIFEST_NAME
from unfreeze.audio.entries import Entry, check_label, is_within
from unfreeze.audio.label_table import Columns
from unfreeze.audio.rules import content_hash
from unfreeze.audio.sound_formats import READABLE
from unfreeze.audio.sources import find_source
from unfreeze.audio.table_file import TABLES
from unfreeze.errors import DataError, RunError, UnfreezeError, show
from unfreeze.files import atomic_path, make_folder
from unfreeze.pipeline import run_folder

#: The folder for runs, in the studio's folder or beside it.
RUNS = "runs"
_RUN_NAME = re.compile(r"\w[\w .+-]{0,62}(?<![ .])")
_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|]')
# Entries of a folder that are listed, and looked at to say what is in one.
_MOST_LISTED, _MOST_LOOKED_AT = 500, 2000
_MOST_RUNS = 200
# Bytes of a name on disk, and of a table.
_LONGEST_NAME, _LARGEST_TABLE = 150, 20_000_000


@dataclass(frozen=True)
class StudioFolder:
    """The folder that a studio is for.

    Attributes:
        root: absolute, without links.
        runs: where its runs are, likewise; in `root` or beside it.
    """

    root: Path
    runs: Path

    def place(self, name: str) -> Path:
        """The folder or file of a name; "" is the folder itself.

        Raises:
            DataError: it leads out of the folder, or there is no such place.
        """
        path = Path(name)
        refused = "\0" in name or path.is_absolute() or path.drive or ".." in path.parts
        full = self.root / path
        try:
            if refused or not is_within(os.path.realpath(full), str(self.root)):
                raise DataError(f"{show(name)} is not in {show(self.root)}, where the studio looks")
            if not full.exists():
                raise DataError(f"{show(name)} is no longer in {show(self.root)}")
        except OSError as error:
            raise DataError(f"{show(name[:80])}: {error.strerror}") from None
        return full

    def data(self, name: str) -> Path:
        """The data of a name: all of their recordings are in the folder.

        Raises:
            DataError: they cannot be used, or recordings are outside.
        """
        data = self.place(name)
        if data.is_dir() and is_within(str(self.runs), str(data)):
            raise DataError(
                f"{show(data)} holds the runs, too, which would count as a class. Move the class "
                f"folders into a folder of their own, such as {show(data / 'sounds')}"
            )
        self.refuse_outside(find_source(data).entries)
        return data

    def refuse_outside(self, entries: Iterable[Entry]) -> None:
        """Refuse recordings that are not in the folder.

        Raises:
            DataError: names one.
        """
        real: dict[Path, str] = {}
        for entry in entries:
            path = entry.path
            folder = real.get(path.parent)
            if folder is None:
                folder = real[path.parent] = os.path.realpath(path.parent)
            where = os.path.realpath(path) if path.is_symlink() else folder
            if not is_within(where, str(self.root)):
                raise DataError(
                    f"{show(path)} is outside of {show(self.root)}, where the studio looks: start "
                    "it with a folder that holds all recordings, or use the command line"
                )

    def run(self, name: str) -> Path:
        """The folder of a run that is there.

        Raises:
            RunError: there is none of that name.
        """
        run = self.new_run(name)
        if run.is_symlink() or not (run / run_folder.CONFIG).is_file():
            raise RunError(f"There is no run {show(name)} in {show(self.runs)}")
        return run

    def new_run(self, name: str) -> Path:
        """The folder for a run.

        Raises:
            RunError: it cannot be the name of one.
        """
        if not _RUN_NAME.fullmatch(name):
            raise RunError(
                f"{show(name)!r} cannot be the name of a run: use letters, digits, spaces and "
                "_ . + - , at most 63"
            )
        return self.runs / name


def open_folder(root: Path, runs: Path | None = None) -> StudioFolder:
    """The folder of a studio.

    Args:
        root: the folder.
        runs: for the runs. If not given, `runs` in `root`; but beside `root`, with `-runs` at its
            name, where `root` holds class folders itself.

    Raises:
        DataError: there is no such folder.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{show(root)} {what}: give a folder, in which your recordings are")
    root = root.resolve()
    if runs is None:
        inside, beside = root / RUNS, root.parent / f"{root.name}-{RUNS}"
        itself = root.name and (beside.is_dir() or _is_data(root))
        runs = beside if itself and not inside.is_dir() else inside
    return StudioFolder(root, runs.resolve())


def list_folder(folder: StudioFolder, name: str) -> dict[str, Any]:
    """What can be chosen in a place.

    Args:
        folder: of the studio.
        name: of a folder in it.

    Returns:
        `path`; `above`: the names of the folders on the way, with their paths; `folders` and
        `tables`, each with `name`, `path` and `holds`, in words; `holds`: the same of the place
        itself; `usable`: whether it looks like data; `left_out`: entries that are not listed.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    here = folder.place(name)
    if not here.is_dir():
        raise DataError(f"{show(name)} is not a folder")
    folders, tables, count = [], [], 0
    try:
        items = sorted(os.scandir(here), key=lambda item: item.name.casefold())
    except OSError as error:
        raise DataError(f"{show(here)} cannot be read: {error.strerror}") from None
    for item in items:
        path = Path(item.path)
        if item.name.startswith(".") or not _can_be_said(item.name) or path == folder.runs:
            continue
        if item.is_symlink() and not is_within(os.path.realpath(path), str(folder.root)):
            continue
        is_table = path.suffix.lower() in TABLES and item.is_file()
        if not (is_table or item.is_dir()):
            continue
        count += 1
        if count > _MOST_LISTED:
            continue
        entry = {"name": item.name, "path": path.relative_to(folder.root).as_posix()}
        if is_table:
            tables.append(entry)
        else:
            folders.append({**entry, "holds": _holds(folder, path)})
    relative = here.relative_to(folder.root)
    above = [p for p in (relative, *relative.parents) if p.parts][::-1]
    return {
        "path": relative.as_posix() if relative.parts else "",
        "above": [{"name": p.name, "path": p.as_posix()} for p in above],
        "folders": folders,
        "tables": tables,
        "holds": _holds(folder, here),
        "usable": _is_data(here) and not is_within(str(folder.runs), str(here)),
        "left_out": max(count - _MOST_LISTED, 0),
    }


def _can_be_said(name: str) -> bool:
    # The page sends names back as they are shown.
    return show(name) == name


def _look(folder: Path) -> tuple[int, list[Path]]:
    """How many recordings are in a folder itself, and its folders; of the first entries."""
    sounds, folders = 0, []
    try:
        with os.scandir(folder) as items:
            for _, item in zip(range(_MOST_LOOKED_AT), items, strict=False):
                if item.name.startswith("."):
                    continue
                if item.is_dir():
                    folders.append(Path(item.path))
                else:
                    sounds += has_sound_suffix(item.name)
    except OSError:
        return 0, []
    return sounds, folders


def _holds(studio: StudioFolder, folder: Path) -> str:
    """What a folder holds, in words."""
    sounds, folders = _look(folder)
    folders = [inner for inner in folders if inner != studio.runs]
    more = "or more " if max(sounds, len(folders)) >= _MOST_LOOKED_AT else ""
    parts = []
    if folders:
        parts.append(f"{len(folders)} {more}folder{'s' if folders[1:] else ''}")
    if sounds:
        parts.append(f"{sounds} {more}recording{'s' if sounds > 1 else ''}")
    return ", ".join(parts) or "no recordings"


def _is_data(folder: Path) -> bool:
    """Whether a folder looks like data: folders with recordings, or a table."""
    if (folder / MANIFEST_NAME).is_file():
        return True
    sounds, folders = _look(folder)
    return sounds > 0 or any(_look(inner)[0] for inner in folders[:_MOST_LISTED])


def class_folder(folder: StudioFolder, name: str, label: str) -> Path:
    """Where recordings of a class go; made when the first is placed.

    Args:
        folder: of the studio.
        name: of the data's folder in it, which may be missing.
        label: the class.

    Raises:
        DataError: it leads out of the folder, or the class cannot have such a name.
    """
    check_label(label, "The class")
    place = data_folder(folder, name) / _folder_name(label, "class")
    if place.exists() and not is_within(os.path.realpath(place), str(folder.root)):
        raise DataError(f"{show(place)} is a link that leads out of {show(folder.root)}")
    return place


def data_folder(folder: StudioFolder, name: str) -> Path:
    """Where data are, or will be; made when the first file is placed.

    Args:
        folder: of the studio.
        name: of the data's folder in it.

    Raises:
        DataError: it leads out of the folder, holds the runs, or is a file.
    """
    parts = Path(name).parts
    there = len(parts)
    while there and not (folder.root / Path(*parts[:there])).exists():
        there -= 1
    data = folder.place("/".join(parts[:there]))
    for part in parts[there:]:
        data /= _folder_name(part, "folder")
    if is_within(str(data), str(folder.runs)) or is_within(str(folder.runs), str(data)):
        raise DataError(
            f"{show(data)} holds the runs: give a folder for the recordings, such as sounds"
        )
    if not data.is_dir() and data.exists():
        raise DataError(f"{show(data)} is a file: choose a folder")
    return data


def _folder_name(name: str, what: str) -> str:
    bad = _NOT_IN_NAMES.search(name) or name.startswith(".") or name != name.strip()
    if bad or not _can_be_said(name) or name.endswith(".") or len(os.fsencode(name)) > 100:
        raise DataError(
            f"{show(name)!r} cannot be the name of a {what}: leave out "
            + r'\ / : * ? " < > |, '
            + "a dot or space at its ends, and what is beyond 100 bytes"
        )
    return name


def keep_recording(file: Path, name: str, place: Path) -> tuple[Path, bool]:
    """Put a received file into the folder of a class, whole or not at all.

    Threads must not do this at once.

    Args:
        file: where it is now.
        name: what the client calls it.
        place: the folder.

    Returns:
        Where it is, and whether it is new: a file of the same name and content is left as it is,
        and beside one of another content the new one gets a number.

    Raises:
        DataError: it cannot be written.
    """
    plain = Path(_plain_name(name))
    stem, suffix = plain.stem, plain.suffix
    try:
        content = content_hash(file)
        make_folder(place)
        number = 1
        final = place / f"{stem}{suffix}"
        while os.path.lexists(final):
            if final.is_file() and not final.is_symlink() and content_hash(final) == content:
                return final, False
            number += 1
            final = place / f"{stem} {number}{suffix}"
        with atomic_path(final) as partial:
            shutil.copyfile(file, partial)
    except OSError as error:
        raise DataError(f"{show(place)}: {error.strerror}. {_cure(error)}") from None
    return final, True


def keep_table(folder: StudioFolder, file: Path, name: str, place: Path) -> tuple[Path, bool, int]:
    """Put a received table of labels beside its recordings, if training can read it there.

    Threads must not do this at once.

    Args:
        folder: of the studio.
        file: where the table is now.
        name: what the client calls it: a table of Raven or Audacity is of the recording that it
            has the name of.
        place: where it goes, and where its recordings are.

    Returns:
        Where it is; whether it is new, as a table of the same name and content is left as it is;
        and how many labels it has.

    Raises:
        DataError: it cannot be used, another of that name is there, or it cannot be written.
    """
    if not place.is_dir():
        raise DataError(f"{show(place)} does not exist: add the recordings first")
    if file.stat().st_size > _LARGEST_TABLE:
        raise DataError(f"{show(name)}: a table has at most {_LARGEST_TABLE // 1_000_000} MB")
    final = place / _plain_name(name)
    # Its name counts, and errors show it.
    own = file.with_name(final.name)
    file.replace(own)
    try:
        entries, _ = read_sounds(own, Columns(folder=place))
    except DataError as error:
        raise DataError(str(error).replace(show(own), show(own.name))) from None
    # First: whether there is a file elsewhere is nobody's business.
    folder.refuse_outside(entries)
    for entry in entries:
        if not entry.path.is_file():
            raise DataError(
                f"{show(own.name)} names {show(entry.path)}, which is not there: add the "
                "recordings first"
            )
    if os.path.lexists(final):
        if final.is_file() and content_hash(final) == content_hash(own):
            return final, False, len(entries)
        # With a number behind its name it would be of another recording.
        raise DataError(f"{show(place)} has another {show(final.name)}: give yours another name")
    try:
        with atomic_path(final) as partial:
            shutil.copyfile(own, partial)
    except OSError as error:
        raise DataError(f"{show(place)}: {error.strerror}. {_cure(error)}") from None
    return final, True, len(entries)


def _plain_name(name: str) -> str:
    """A client's name of a file as one that every system takes."""
    plain = Path(_NOT_IN_NAMES.sub("_", name).lstrip(". "))
    stem, suffix = plain.stem, plain.suffix
    while len(os.fsencode(stem + suffix)) > _LONGEST_NAME:
        stem = stem[:-1]
    return (stem.rstrip(" .") or "recording") + suffix


def _cure(error: OSError) -> str:
    return "Free space on the disk." if error.errno == errno.ENOSPC else "Is it writable?"


def is_table_name(name: str) -> bool:
    """Whether a name is that of a table of labels."""
    return Path(name).suffix.lower() in TABLES


def has_sound_suffix(name: str) -> bool:
    """Whether a name is that of a sound file."""
    return Path(name).suffix.lower() in READABLE


class RunList:
    """The runs of a studio; each is read again only when it has changed."""

    def __init__(self, folder: StudioFolder) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[Any, dict[str, Any]]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """One row for each run, the newest first."""
        try:
            items = [path for path in self._folder.runs.iterdir() if _RUN_NAME.fullmatch(path.name)]
        except OSError:
            return []
        runs = [(run, stamp) for run in items if (stamp := _stamp(run)) is not None]
        runs.sort(key=lambda item: -item[1][0])
        found = []
        for run, stamp in runs[:_MOST_RUNS]:
            if run not in self._known or self._known[run][0] != stamp:
                self._known[run] = stamp, _row(run)
            found.append(self._known[run][1])
        return found


def _stamp(run: Path) -> tuple[float, ...] | None:
    """The times of a run's files; None if it is none."""
    times = []
    for name in (run_folder.CONFIG, run_folder.METRICS, run_folder.REPORT):
        try:
            times.append((run / name).stat().st_mtime)
        except OSError:
            times.append(0.0)
    return None if run.is_symlink() or not times[0] else (max(times[:2]), *times)


def _row(run: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": run.name, "path": show(run)}
    try:
        config = run_folder.read_config(run)
        data, labels = config.get("options", {}).get("data"), config.get("labels")
        row |= {
            "state": "interrupted",
            "command": str(config.get("command", "")),
            "data": show(str(data)),
            "classes": len(labels) if isinstance(labels, list) else 0,
        }
        if run_folder.is_finished(run):
            row |= {"state": "finished", **_scores(run_folder.read_scores(run))}
            row["report"] = (run / run_folder.REPORT).is_file()
    except (UnfreezeError, AttributeError, TypeError, ValueError, KeyError) as error:
        row |= {"state": "damaged", "cause": show(str(error))}
    return row


def _scores(metrics: dict[str, Any]) -> dict[str, Any]:
    """The first score of the test clips, or else of the validation clips."""
    for part in ("test", "validation"):
        scores = metrics.get(part)
        for name in ("accuracy", "mean_average_precision"):
            if isinstance(scores, dict) and isinstance(scores.get(name), float | int):
                return {"part": part, "score": name, "value": float(scores[name])}
    return {}
