"""What a `.keras` file says it holds, read before Keras opens it; nothing in it is run.

Keras in safe mode refuses functions stored as code (Lambda). But it makes objects of
any class that happens to be registered, unpacks what else lies in the archive, and
takes other formats for the same suffix. Here a file must be an archive of the three
members that Keras writes (and assets, below their folder), of plausible sizes, whose
configuration names Keras' classes and this package's alone.
"""

import json
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from unfreeze.errors import RunError

CONFIG_NAME, WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = frozenset({"metadata.json", CONFIG_NAME, WEIGHTS})
# The configuration of YAMNet's classifier has 60 KB, the largest of
# `keras.applications` (EfficientNetV2L) 0.7 MB.
_LARGEST_TEXT = 1 << 25
# Keras stores without compression; weights gain a few per cent by it.
_MOST_EXPANSION = 100
_SMALL = 1 << 20

# Classes of Keras that run code from the file, or load other files.
_REFUSED = frozenset(
    {"__lambda__", "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
)


def check_keras_file(path: Path) -> None:
    """Refuse a file that is no plain Keras model.

    Args:
        path: a `.keras` file, as written by `model.save`.

    Raises:
        RunError: it is not there, damaged, or holds what a plain model has not.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist: give a run folder or a .keras file")
    if path.suffix != ".keras":
        raise RunError(f"{path} is no .keras file: give one that Keras has saved")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            _check_config(path, json.loads(archive.read(CONFIG_NAME)))
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise RunError(
            f"{path} is no whole .keras file ({error}): copy it again, or train again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: {CONFIG_NAME} in it cannot be read ({error})") from None


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    for name in sorted(_MEMBERS - set(names)):
        raise RunError(f"{path} has no {name} in it: it is no model that Keras 3 has saved")
    for member in members:
        name = member.filename
        inside = PurePosixPath(name)
        leaves = inside.is_absolute() or ".." in inside.parts or "\\" in name or ":" in name
        if leaves or stat.S_ISLNK(member.external_attr >> 16):
            raise RunError(f"{path} is refused: {name!r} in it leads out of the archive")
        if (name not in _MEMBERS and inside.parts[0] != "assets") or names.count(name) > 1:
            raise RunError(f"{path} is refused: {name!r} does not belong into a Keras model")
        large = member.file_size > _SMALL + _MOST_EXPANSION * member.compress_size
        if large or (name != WEIGHTS and member.file_size > _LARGEST_TEXT):
            raise RunError(
                f"{path} is refused: {name!r} in it would take {member.file_size / 1e6:,.0f} MB "
                f"of memory (stored: {member.compress_size / 1e6:,.1f} MB)"
            )


def _check_config(path: Path, config: Any) -> None:
    for described in _objects(config):
        kind, module = described["class_name"], described.get("module")
        registered = described.get("registered_name")
        if kind in _REFUSED:
            raise RunError(
                f"{path} is refused: it has a {kind.strip('_')}, which runs code of the file's "
                "author. Ask for a model without it"
            )
        homes = [str(module or "keras"), str(registered or "")]
        foreign = homes[0].split(".")[0] not in ("keras", "builtins", "unfreeze")
        if foreign or (">" in homes[1] and homes[1].split(">")[0] != "unfreeze"):
            raise RunError(
                f"{path} is refused: it has a {registered or f'{module}.{kind}'}, which is "
                "neither of Keras nor of unfreeze"
            )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every description of an object or function in a configuration."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if isinstance(part.get("class_name"), str):
                yield part
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
