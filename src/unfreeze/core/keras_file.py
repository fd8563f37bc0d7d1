"""Read `.keras` files without running any code from them.

In safe mode, Keras refuses functions stored as code (Lambda). But it makes objects of
any registered class, unpacks everything else in the archive, and accepts other formats
with the same suffix. Here a file must be an archive of the three members that Keras
writes (and assets, in their folder), of plausible sizes, whose configuration names only
classes of Keras and of this package, or those that the user has named.
"""

import importlib
import json
import os
import stat
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from unfreeze.errors import RunError, UnfreezeError, did_you_mean

#: Names classes and functions of the user's own, as module:Name, with commas between them: their
#: modules are imported, and models may be made of them.
VARIABLE = "UNFREEZE_CUSTOM_OBJECTS"

CONFIG_NAME, WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = frozenset({"metadata.json", CONFIG_NAME, WEIGHTS})
# The configuration of YAMNet's classifier has 60 KB, the largest of
# `keras.applications` (EfficientNetV2L) 0.7 MB.
_LARGEST_TEXT = 1 << 25
# Keras stores without compression; it would shrink weights by a few per cent.
_MOST_EXPANSION = 100
_SMALL = 1 << 20

# Classes of Keras that run code from the file, or load other files.
_REFUSED = frozenset(
    {"__lambda__", "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
)


def check_keras_file(
    path: Path, allowed: Mapping[str, Any] | None = None, named_by: str = "--custom-objects "
) -> None:
    """Refuse a file that is not a plain Keras model.

    Args:
        path: a `.keras` file, as written by `model.save`.
        allowed: classes and functions besides those of Keras and of this package, by the name
            that they are registered by; None where the user cannot name any.
        named_by: what the user writes before their names, for messages.

    Raises:
        RunError: it is missing or damaged, or holds more than a plain model.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist: give a run folder or a .keras file")
    if path.suffix != ".keras":
        raise RunError(f"{path} is not a .keras file: give one that Keras has saved")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            check_config(path, json.loads(archive.read(CONFIG_NAME)), allowed, named_by)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise RunError(
            f"{path} is not a complete .keras file ({error}): copy it again, or train again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: {CONFIG_NAME} in it cannot be read ({error})") from None


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    for name in sorted(_MEMBERS - set(names)):
        raise RunError(f"{path} has no {name} in it: give a file that Keras 3 has saved")
    for member in members:
        name = member.filename
        inside = PurePosixPath(name)
        leaves = inside.is_absolute() or ".." in inside.parts or "\\" in name or ":" in name
        if leaves or stat.S_ISLNK(member.external_attr >> 16):
            raise RunError(f"{path} is refused: {name!r} in it leads out of the archive")
        if (name not in _MEMBERS and inside.parts[0] != "assets") or names.count(name) > 1:
            raise RunError(f"{path} is refused: {name!r} does not belong in a Keras model")
        large = member.file_size > _SMALL + _MOST_EXPANSION * member.compress_size
        if large or (name != WEIGHTS and member.file_size > _LARGEST_TEXT):
            raise RunError(
                f"{path} is refused: {name!r} in it would take {member.file_size / 1e6:,.0f} MB "
                f"of memory (stored: {member.compress_size / 1e6:,.1f} MB)"
            )


def check_config(
    path: Path | str,
    config: Any,
    allowed: Mapping[str, Any] | None = None,
    named_by: str = "--custom-objects ",
) -> None:
    """Refuse a model's configuration that names more than classes of Keras and this package.

    Args:
        path: the file or card that it is of, for messages.
        config: plain values, as Keras saves them.
        allowed: as for `check_keras_file`.
        named_by: likewise.

    Raises:
        RunError: names what is foreign, and the cure.
    """
    foreign: dict[str, str] = {}
    for described in _objects(config):
        kind, module = described["class_name"], described.get("module")
        registered = described.get("registered_name")
        if kind in _REFUSED:
            raise RunError(
                f"{path} is refused: it has a {kind.strip('_')}, which can run code from the "
                "file. Ask its author for a model without it"
            )
        homes = [str(module or "keras"), str(registered or "")]
        if homes[1] in (allowed or ()):
            continue  # Keras takes what it is given under this name, and imports nothing.
        own = homes[0].split(".")[0] not in ("keras", "builtins", "unfreeze")
        if own or (">" in homes[1] and homes[1].split(">")[0] != "unfreeze"):
            foreign.setdefault(f"{module}:{kind}", str(registered or f"{module}.{kind}"))
    if not foreign:
        return
    between = "," if named_by.endswith("=") else f" {named_by}"
    cure = "" if allowed is None else f". If it is yours: {named_by}{between.join(foreign)}"
    first, *more = foreign.values()
    also = f" (and {', '.join(more)})" if more else ""
    raise RunError(
        f"{path} is refused: it has a {first}{also}, which belongs neither to Keras nor to "
        f"unfreeze{cure}"
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


def trusted_objects() -> dict[str, Any]:
    """Classes and functions that the environment variable `VARIABLE` names, as `named_objects`."""
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    return named_objects([name for name in names if name], f"{VARIABLE}=")


def named_objects(names: Sequence[str], named_by: str = "--custom-objects ") -> dict[str, Any]:
    """Classes and functions that a user names, by the names that Keras saves them under.

    Args:
        names: such as `my_layers:Block`; the module may lie in the current folder.
        named_by: what the user writes before their names, for messages.

    Raises:
        UnfreezeError: there is no such module or name, or it is no class or function.
    """
    import keras

    found: dict[str, Any] = {}
    for text in names:
        module_name, colon, name = text.partition(":")
        where = f"{named_by}{text}"
        if not (module_name and colon and name):
            raise UnfreezeError(f"{where}: give module:Name, such as my_layers:Block")
        thing = imported(module_name, name, where)
        found |= {name: thing, keras.saving.get_registered_name(thing): thing}
    return found


def imported(module_name: str, name: str, where: str, folder: Path | None = None) -> Any:
    """A class or function of the user's own; its module is imported, which runs its code.

    Args:
        module_name: of the module.
        name: in it.
        where: what names both, for messages.
        folder: that the module may lie in, beside the current one.

    Raises:
        UnfreezeError: there is no such module or name, or it is no class or function.
    """
    folders = [str(place) for place in (folder, Path.cwd()) if place is not None]
    sys.path.extend(folders)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UnfreezeError(
            f"{where}: {module_name} cannot be imported ({error}): run the command in its "
            "folder, or install it"
        ) from error
    finally:
        for place in folders:
            sys.path.remove(place)
    thing = getattr(module, name, None)
    if thing is None:
        hint = did_you_mean(name, [key for key in vars(module) if not key.startswith("_")])
        raise UnfreezeError(f"{where}: {module_name} has no {name}.{hint}")
    if not callable(thing):
        raise UnfreezeError(f"{where}: {name} is neither a class nor a function")
    return thing
