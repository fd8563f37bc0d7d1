"""A run folder read as if a stranger had sent it: plain values, and no way out of the folder.

`config.yaml` may hold plain YAML only (no tags, anchors or second documents). A link
in the folder that leads out of it is refused, and a path in `splits.csv` that leaves
the folder of the recordings. That folder itself is where the run says: nothing but
sound is read there, and nothing is written.
"""

import csv
import json
import os
from pathlib import Path
from typing import Any

import yaml

from unfreeze.audio.entries import is_within
from unfreeze.audio.names import show
from unfreeze.core.yaml_nodes import compose
from unfreeze.errors import RunError, ScheduleError


def refuse_links(run: Path) -> None:
    """Refuse a run folder with links that lead out of it.

    Args:
        run: the folder; may itself be reached by a link, or be missing.

    Raises:
        RunError: names the link.
    """
    home = os.path.realpath(run)
    for folder, folders, files in os.walk(run):
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink() and not is_within(os.path.realpath(path), home):
                raise RunError(
                    f"{show(path)} is a link that leads out of the run's folder. If it is meant, "
                    "put what it leads to in its place"
                )


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a mapping of plain values.

    Raises:
        RunError: it is damaged, or holds more than plain values.
    """
    try:
        text = file.read_text(encoding="utf-8")
        compose(text, str(file))
        values = yaml.safe_load(text)
    except (ScheduleError, yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise RunError(f"{show(file)} cannot be read: {error}") from None
    return dict(values) if isinstance(values, dict) else {}


def read_json(file: Path, cure: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        file: the file.
        cure: what to do about one that is damaged, for the message.

    Raises:
        RunError: it is damaged.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{show(file)} cannot be read ({error}): {cure}") from None
    return values


def read_rows(table: Path, root: Path) -> list[dict[str, str]]:
    """Read a table of recordings.

    Args:
        table: CSV with the columns `path`, `label`, `group` and `split`.
        root: the folder that the paths are in.

    Raises:
        RunError: it is damaged, or a path leads out of `root`.
    """
    try:
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{show(table)} cannot be read: {error}") from None
    needed = ("path", "label", "group", "split")
    if any(row.get(name) is None for row in rows for name in needed):
        raise RunError(f"{show(table)} cannot be read: it needs the columns {', '.join(needed)}")
    home = os.path.realpath(root)
    real: dict[str, str] = {}
    for row in rows:
        if not _stays(row["path"], root, home, real):
            raise RunError(
                f"{show(table)} is refused: the path {show(row['path'])!r} leads out of "
                f"{show(root)}, where the run's recordings are"
            )
    return rows


def _stays(name: str, root: Path, home: str, real: dict[str, str]) -> bool:
    """Whether a path stays in a folder; `real` remembers where each folder on the way leads."""
    path = Path(name)
    if not name or "\0" in name or path.is_absolute() or path.drive or ".." in path.parts:
        return False
    full = root / path
    if full.is_symlink():
        return is_within(os.path.realpath(full), home)
    folder = str(full.parent)
    if folder not in real:
        real[folder] = os.path.realpath(folder)
    return is_within(real[folder], home)
