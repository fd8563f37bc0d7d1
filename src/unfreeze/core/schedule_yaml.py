"""Schedules as YAML files, both ways.

Law: `parse_schedule(dump_schedule(s)) == s` for every schedule of plain parts
(a tuple or set of patterns comes back as a list, a layer as its name).
Whatever cannot stand in a file (functions, callbacks, custom classes) is
refused on writing; whatever is unknown, doubled or impossible is refused on
reading, with file, line and reason.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from unfreeze.core import yaml_nodes as nodes
from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage
from unfreeze.core.schedule_plain import help_text, schedule_as_plain
from unfreeze.errors import ScheduleError
from unfreeze.files import write_text

FORMAT = 1
_FORMAT_KEY = "unfreeze_schedule"


def read_schedule(path: str | os.PathLike[str]) -> Schedule:
    """Read a schedule file.

    Raises:
        ScheduleError: it cannot be read, or says something impossible; names
            the file, the line and the reason.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ScheduleError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ScheduleError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    return parse_schedule(text, source=str(path))


def parse_schedule(text: str, source: str = "schedule") -> Schedule:
    """Make a schedule from YAML text.

    Args:
        text: as `dump_schedule` writes it.
        source: the file's name, for messages.

    Raises:
        ScheduleError: as for `read_schedule`.
    """
    root = nodes.compose(text, source)
    found = nodes.pairs(root, "a schedule", (_FORMAT_KEY, "name", "groups", "monitor", "stages"))
    _check_format(root, found)
    if "stages" not in found:
        raise nodes.error_at(root, "a schedule needs `stages:`, a list")
    key, value = found["stages"]
    listed = nodes.items(value, "stages")
    stages: dict[str, Stage] = {}
    for node in listed:
        stage = _stage(node)
        if stage.name in stages:
            raise nodes.error_at(node, f"two stages are named {stage.name!r}; rename one")
        stages[stage.name] = stage
    named: dict[str, Any] = {}
    if "name" in found:
        named["name"] = nodes.text(found["name"][1], "name")
    if "groups" in found:
        parts = nodes.items(found["groups"][1], "groups")
        named["groups"] = tuple(_patterns(part, "groups") for part in parts)
    if "monitor" in found:
        named["monitor"] = nodes.text(found["monitor"][1], "monitor")
    try:
        return Schedule(tuple(stages.values()), **named)
    except ScheduleError as error:
        named_first = str(error).split(maxsplit=1)[0].rstrip(":")
        at = found[named_first][0] if named_first in ("groups", "monitor") else key
        raise nodes.error_at(at, str(error)) from None


def dump_schedule(schedule: Schedule) -> str:
    """Write a schedule as YAML text, with help as comments on top.

    Raises:
        ScheduleError: a part cannot stand in a file.
    """
    return help_text() + nodes.dump({_FORMAT_KEY: FORMAT, **schedule_as_plain(schedule)})


def write_schedule(schedule: Schedule, path: str | os.PathLike[str]) -> None:
    """Write a schedule file, atomically. Raises as `dump_schedule`."""
    write_text(path, dump_schedule(schedule))


def _check_format(root: yaml.Node, found: nodes.Pairs) -> None:
    line = f"`{_FORMAT_KEY}: {FORMAT}`"
    if _FORMAT_KEY not in found:
        raise nodes.error_at(root, f"this says no format version; add the line {line}")
    value = found[_FORMAT_KEY][1]
    version = nodes.whole(value, _FORMAT_KEY)
    if version > FORMAT:
        raise nodes.error_at(value, f"format {version} is newer than {FORMAT}: update unfreeze")
    if version != FORMAT:
        raise nodes.error_at(value, f"format {version} is not known; should be {line}")


def _stage(node: yaml.Node) -> Stage:
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if key.value == "callbacks":
                raise nodes.error_at(
                    key, "callbacks are code and cannot stand in a file; give them in Python"
                )
    found = nodes.pairs(node, "a stage", tuple(_READERS))
    if "name" not in found:
        raise nodes.error_at(node, "a stage needs a name, such as `name: head`")
    return _construct(Stage, _fields(found, _READERS), node, found)  # type: ignore[no-any-return]


def _fields(found: nodes.Pairs, readers: Mapping[str, nodes.Read]) -> dict[str, Any]:
    return {key: readers[key](value, key) for key, (_, value) in found.items()}


def _construct(cls: Any, values: dict[str, Any], node: yaml.Node, found: nodes.Pairs) -> Any:
    """Make the data class; what it refuses is told with the line of the key in question."""
    try:
        return cls(**values)
    except ScheduleError as error:
        unquoted = re.sub(r"'[^']*'", "", str(error))
        places = {key: re.search(rf"\b{key.replace('_', '[_ ]')}s?\b", unquoted) for key in found}
        named = {key: match.start() for key, match in places.items() if match}
        at = found[min(named, key=lambda key: named[key])][0] if named else node
        raise nodes.error_at(at, str(error)) from None


def _patterns(node: yaml.Node, what: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [nodes.text(part, what) for part in node.value]
    return nodes.text(node, what)


def _rate(node: yaml.Node, what: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return nodes.number(node, what)
    found = nodes.pairs(node, what)
    if "default" not in found and "schedule" in found:
        return _rate_schedule(node, found["schedule"][1])
    rates = {key: nodes.number(v, repr(key)) for key, (_, v) in found.items() if key != "default"}
    if "default" in found:
        rates["default"] = _rate(found["default"][1], "default")
    return rates


def _rate_schedule(node: yaml.Node, name_node: yaml.Node) -> Any:
    from unfreeze.core import configs

    classes = configs.schedule_classes()
    name = nodes.text(name_node, "schedule")
    if name not in classes:
        raise nodes.error_at(name_node, f"no rate schedule {name!r}{nodes.closest(name, classes)}")
    return _keras_object(classes[name], node, "schedule")


def _optimizer(node: yaml.Node, what: str) -> Any:
    from unfreeze.core import configs

    classes = configs.optimizer_classes()
    name_node = node
    if isinstance(node, yaml.MappingNode):
        found = nodes.pairs(node, what)
        if "name" not in found:
            raise nodes.error_at(node, "an optimizer needs a name, such as `name: AdamW`")
        if "learning_rate" in found:
            raise nodes.error_at(
                found["learning_rate"][0], "the rate is the stage's own: set learning_rate there"
            )
        name_node = found["name"][1]
    name = nodes.text(name_node, what)
    if name.lower() not in classes:
        hint = nodes.closest(name.lower(), classes)
        raise nodes.error_at(name_node, f"no optimizer {name!r}{hint}")
    return name if name_node is node else _keras_object(classes[name.lower()], node, "name")


def _keras_object(cls: type, node: yaml.Node, head: str) -> Any:
    from unfreeze.core import configs

    found = nodes.pairs(node, cls.__name__, (head, *configs.option_names(cls)))
    options = {key: nodes.plain(value, key) for key, (_, value) in found.items() if key != head}
    try:
        return configs.make(cls, options)
    except ScheduleError as error:
        raise nodes.error_at(node, str(error)) from None


_PART_READERS: dict[str, nodes.Read] = {
    "metric": nodes.text,
    "mode": nodes.optional(nodes.text),
    "patience": nodes.whole,
    "min_delta": nodes.number,
    "factor": nodes.number,
    "value": nodes.number,
}
_ENDS = {"plateau": Plateau, "reached": Reached}


def _part(cls: Any, node: yaml.Node, what: str) -> Any:
    names = [field.name for field in fields(cls)]
    found = nodes.pairs(node, what, names)
    for field in fields(cls):
        if field.default is MISSING and field.name not in found:
            raise nodes.error_at(node, f"{what} needs the key {field.name!r}")
    return _construct(cls, _fields(found, _PART_READERS), node, found)


def _until(node: yaml.Node, what: str) -> Any:
    found = nodes.pairs(node, what, tuple(_ENDS))
    if len(found) != 1:
        raise nodes.error_at(node, f"{what} needs one of {' or '.join(_ENDS)}, not {len(found)}")
    ((kind, (_, value)),) = found.items()
    return _part(_ENDS[kind], value, kind)


_READERS: dict[str, nodes.Read] = {
    "name": nodes.text,
    "train": _patterns,
    "epochs": nodes.whole,
    "learning_rate": _rate,
    "optimizer": nodes.optional(_optimizer),
    "batch_norm": nodes.text,
    "until": nodes.optional(_until),
    "reduce": nodes.optional(lambda node, what: _part(ReduceRate, node, what)),
    "batch_size": nodes.optional(nodes.whole),
    "layer_decay": nodes.optional(nodes.number),
    "cache": nodes.text,
    "views": nodes.whole,
}
