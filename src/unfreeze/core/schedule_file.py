"""Schedules as YAML files, both ways.

Law: `parse_schedule(dump_schedule(s)) == s` for every schedule of plain parts (a tuple or
set of patterns comes back as a list, a layer as its name). Writing leaves out keys that
equal their default, except those that people usually edit, and refuses what cannot be
written to a file (functions, callbacks, custom classes), naming the stage and the key.
Reading refuses what is unknown, repeated or impossible, with file, line and reason. Only
optimizers and rate schedules that Keras exports are known, by name: a file loads no other
code.
"""

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from numbers import Real
from typing import Any

import keras
import yaml

from unfreeze.core import yaml_file as nodes
from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage
from unfreeze.errors import ScheduleError
from unfreeze.files import write_text

# The stage sets the rate, and Keras numbers names by itself.
_LEFT_OUT = ("name", "learning_rate")
# Wrappers around other optimizers: a stage makes them itself where they are needed.
_WRAPPERS = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")


def optimizer_classes() -> dict[str, type]:
    """Keras' optimizers by their names in lower case."""
    base = keras.optimizers.Optimizer
    found = _classes(keras.optimizers, base)
    return {name.lower(): cls for name, cls in found.items() if name not in _WRAPPERS}


def schedule_classes() -> dict[str, type]:
    """Keras' learning rate schedules by their names."""
    base = keras.optimizers.schedules.LearningRateSchedule
    found = _classes(keras.optimizers.schedules, base)
    return {name: cls for name, cls in found.items() if cls is not base}


def option_names(cls: type) -> tuple[str, ...]:
    """Options that the class takes."""
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(p.name for p in parameters if p.kind in kinds and p.name not in _LEFT_OUT)


def options_of(value: Any) -> dict[str, Any]:
    """The options of an optimizer or schedule that differ from their defaults.

    Raises:
        ScheduleError: it is not one of Keras' own classes, or an option is not
            plain (a function, an array).
    """
    cls = _public_class(value)
    config = value.get_config()
    parameters = inspect.signature(cls).parameters
    options = {}
    for name in option_names(cls):
        if name not in config or _same(config[name], parameters[name].default):
            continue
        if not _is_plain(config[name]):
            raise ScheduleError(
                f"{cls.__name__}: {name}={config[name]!r} cannot be written to a file"
            )
        options[name] = config[name]
    return options


def make(cls: type, options: Mapping[str, Any]) -> Any:
    """An object of one of the classes above.

    Raises:
        ScheduleError: an option is missing, of another type than its default,
            or refused by Keras.
    """
    for name, value in options.items():
        default = inspect.signature(cls).parameters[name].default
        if not _fits(value, default):
            raise ScheduleError(f"{cls.__name__}: {name} {value!r} should be like {default!r}")
    try:
        inspect.signature(cls).bind(**options)
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ScheduleError(f"{cls.__name__}: {error}") from None


def _public_class(value: Any) -> type:
    kind = type(value)
    own = kind.__module__.split(".")[0] == "keras"
    for cls in (*optimizer_classes().values(), *schedule_classes().values()):
        # On PyTorch, Keras gives objects of a private subclass of the same name.
        if own and isinstance(value, cls) and cls.__name__ == kind.__name__:
            return cls
    raise ScheduleError(
        f"{kind.__name__} is not one of Keras' own classes, so it cannot be written to a file"
    )


def _classes(module: Any, base: type) -> dict[str, type]:
    members = vars(module).items()
    return {n: cls for n, cls in members if isinstance(cls, type) and issubclass(cls, base)}


def _fits(value: Any, default: Any) -> bool:
    # Keras takes anything here and fails in the middle of the training.
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return True


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) and not isinstance(part, list | tuple) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


# Written even where they equal the default: these are what people come to edit,
# and a file must not change its meaning when a default does.
_ALWAYS = ("name", "train", "epochs", "learning_rate")
_GROUP_WORDS = re.compile(r"all|head|top:.*|group:.*|re:.*|!.*")

_HELP = """\
# A training schedule for unfreeze; edit it and give the file as --schedule.
# Stages run in this order, and each starts from the best weights of the one before.
#
# train          "all", "head", "top:2" or "top:50%" (groups below the head), a layer's
#                name, a glob ("block_3_*"), "re:...", or a list of these; "!pattern"
#                takes layers away. Text that starts with * or ! needs quotes.
# epochs         the most epochs to train.
# learning_rate  a number; or {default: 1e-3, "block_*": 0.1}, factors of the default;
#                or {schedule: CosineDecay, initial_learning_rate: 1e-3, decay_steps: 500}.
# groups         beside `stages`, if those found from the names do not suit: a list from
#                the input up, each a pattern or a list of these; all other layers are the head.
# monitor        beside `stages`: the metric that chooses the best epoch and stage; val_loss,
#                or auto: val_accuracy where there is one.
# Other keys, with their defaults:
"""
_HELP_ON = {
    "optimizer": "a name, or {name: AdamW, weight_decay: 0.01}; null is Adam",
    "batch_norm": "frozen, affine (gamma and beta train) or train",
    "until": "{plateau: {metric: best, patience: 5}} or {reached: {metric: ..., value: 0.9}}",
    "reduce": "{metric: val_loss, factor: 0.5, patience: 3} lowers the rate on a plateau",
    "decay": "cosine: to almost 0 by epochs; warmup_cosine, one_cycle: up, then down, by steps",
    "keep": "best epoch, or last: for a rate that falls to almost 0",
    "average": "swa averages the weights of the last quarter of the epochs",
    "lora": "rank of LoRA for the layers below the head, merged at the end of the stage",
    "solve": "true computes the head by logistic regression instead of taking steps",
    "batch_size": "null takes that of the command",
    "layer_decay": "factor of the rate from each layer group to the one below it",
    "cache": "auto, always, never, float16 or bfloat16: outputs of the frozen part on disk",
    "views": "variants of each sample in the cache, where data are augmented",
    "augment": "false turns off random layers before the frozen ones, which are then cached",
}


def schedule_as_plain(schedule: Schedule) -> dict[str, Any]:
    """The schedule as nested lists and dicts of texts and numbers.

    Raises:
        ScheduleError: a part cannot be written to a file.
    """
    found: dict[str, Any] = {"name": schedule.name}
    if schedule.groups is not None:
        named = [_train_as_plain(group, "groups") for group in schedule.groups]
        found["groups"] = [group[0] if len(group) == 1 else group for group in named]
    if schedule.monitor != Schedule.monitor:
        found["monitor"] = schedule.monitor
    return {**found, "stages": [_stage_as_plain(stage) for stage in schedule]}


def help_text() -> str:
    """What each key means and its default, as YAML comments."""
    defaults = {field.name: field.default for field in fields(Stage)}
    lines = []
    for key, meaning in _HELP_ON.items():
        default = "null" if defaults[key] is None else str(defaults[key])
        lines.append(f"#   {key + ':':<12} {default:<7} {meaning}\n")
    return _HELP + "".join(lines)


def _stage_as_plain(stage: Stage) -> dict[str, Any]:
    where = f"stage {stage.name!r}"
    if stage.callbacks:
        raise ScheduleError(f"{where}: callbacks are code and cannot be written to a file")
    changed = [key for key, _ in _changed(stage) if key != "callbacks"]
    keys = [field.name for field in fields(Stage) if field.name in (*_ALWAYS, *changed)]
    return {key: _as_plain(getattr(stage, key), key, where) for key in keys}


def _changed(value: Any) -> Iterator[tuple[str, Any]]:
    """Fields of a data class that differ from their defaults."""
    for field in fields(value):
        held = getattr(value, field.name)
        if field.default is MISSING or (held is not field.default and held != field.default):
            yield field.name, held


def _as_plain(value: Any, key: str, where: str) -> Any:
    if isinstance(value, Plateau | Reached):
        return {type(value).__name__.lower(): _part_as_plain(value, where)}
    if isinstance(value, ReduceRate):
        return _part_as_plain(value, where)
    if key == "train":
        return _train_as_plain(value, where)
    if isinstance(value, Mapping):
        return {str(name): _as_plain(rate, key, where) for name, rate in value.items()}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Real):
        return _finite(float(value), f"{where}: {key}")
    return _object_as_plain(value, key, where)


def _part_as_plain(part: Any, where: str) -> dict[str, Any]:
    written = {"metric": part.metric, **dict(_changed(part))}
    return {key: _as_plain(value, key, where) for key, value in written.items()}


def _object_as_plain(value: Any, key: str, where: str) -> dict[str, Any]:

    head = {"learning_rate": "schedule", "optimizer": "name"}.get(key)
    if head is None or not hasattr(value, "get_config"):
        raise ScheduleError(f"{where}: {key}={value!r} cannot be written to a file")
    try:
        options = options_of(value)
    except ScheduleError as error:
        raise ScheduleError(f"{where}: {key}: {error}") from None
    written = {name: _listed(option) for name, option in options.items()}
    return {head: type(value).__name__, **written}


def _train_as_plain(train: Any, where: str) -> Any:
    if isinstance(train, str):
        return train
    if isinstance(train, list | tuple | set):
        parts = sorted(train, key=str) if isinstance(train, set) else train
        names = [_train_as_plain(part, where) for part in parts]
        doubled = [name for name in names if names.count(name) > 1]
        if doubled and not all(isinstance(part, str) for part in parts):
            raise ScheduleError(f"{where}: two layers in `train` are named {doubled[0]!r}")
        return names
    name = getattr(train, "name", None)
    if not isinstance(name, str) or not hasattr(train, "trainable"):
        raise ScheduleError(f"{where}: train={train!r} is code and cannot be written to a file")
    if _GROUP_WORDS.fullmatch(name) or re.search(r"[*?\[]", name):
        raise ScheduleError(
            f"{where}: the layer's name {name!r} would be read as a pattern or group; rename it"
        )
    return name


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _finite(value: float, what: str) -> float:
    if value - value != 0:
        raise ScheduleError(f"{what} is {value}: a number in a file must be finite")
    return value


FORMAT = 1
_FORMAT_KEY = "unfreeze_schedule"


def read_schedule(path: str | os.PathLike[str]) -> Schedule:
    """Read a schedule file.

    Raises:
        ScheduleError: it cannot be read or used; the message names the file, the
            line and the reason.

    Examples:
        >>> unfreeze.write_schedule(unfreeze.gradual(groups=3), "gradual.yaml")
        >>> [stage.name for stage in unfreeze.read_schedule("gradual.yaml")]
        ['head', 'top 1/3', 'top 2/3', 'all']
    """
    return parse_schedule(nodes.read_text(path), source=str(path))


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
        ScheduleError: a part cannot be written to a file.
    """
    return help_text() + nodes.dump({_FORMAT_KEY: FORMAT, **schedule_as_plain(schedule)})


def write_schedule(schedule: Schedule, path: str | os.PathLike[str]) -> None:
    """Write a schedule file, atomically.

    Args:
        schedule: to write.
        path: of the YAML file; replaced if it is there.

    Raises:
        ScheduleError: as `dump_schedule`.

    Examples:
        >>> unfreeze.write_schedule(unfreeze.two_stage(), "two_stage.yaml")
        >>> unfreeze.read_schedule("two_stage.yaml") == unfreeze.two_stage()
        True
    """
    write_text(path, dump_schedule(schedule))


def _check_format(root: yaml.Node, found: nodes.Pairs) -> None:
    line = f"`{_FORMAT_KEY}: {FORMAT}`"
    if _FORMAT_KEY not in found:
        raise nodes.error_at(root, f"no format version; add the line {line}")
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
                    key, "callbacks are code and cannot be written to a file; give them in Python"
                )
    found = nodes.pairs(node, "a stage", tuple(_READERS))
    if "name" not in found:
        raise nodes.error_at(node, "a stage needs a name, such as `name: head`")
    return _construct(Stage, _fields(found, _READERS), node, found)  # type: ignore[no-any-return]


def _fields(found: nodes.Pairs, readers: Mapping[str, nodes.Read]) -> dict[str, Any]:
    return {key: readers[key](value, key) for key, (_, value) in found.items()}


def _construct(cls: Any, values: dict[str, Any], node: yaml.Node, found: nodes.Pairs) -> Any:
    """Make the data class; its errors name the line of the key in question."""
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

    classes = schedule_classes()
    name = nodes.text(name_node, "schedule")
    if name not in classes:
        raise nodes.error_at(
            name_node, f"unknown rate schedule {name!r}{nodes.closest(name, classes)}"
        )
    return _keras_object(classes[name], node, "schedule")


def _optimizer(node: yaml.Node, what: str) -> Any:

    classes = optimizer_classes()
    name_node = node
    if isinstance(node, yaml.MappingNode):
        found = nodes.pairs(node, what)
        if "name" not in found:
            raise nodes.error_at(node, "an optimizer needs a name, such as `name: AdamW`")
        if "learning_rate" in found:
            raise nodes.error_at(
                found["learning_rate"][0], "the rate belongs to the stage: set learning_rate there"
            )
        name_node = found["name"][1]
    name = nodes.text(name_node, what)
    if name.lower() not in classes:
        hint = nodes.closest(name.lower(), classes)
        raise nodes.error_at(name_node, f"unknown optimizer {name!r}{hint}")
    return name if name_node is node else _keras_object(classes[name.lower()], node, "name")


def _keras_object(cls: type, node: yaml.Node, head: str) -> Any:

    found = nodes.pairs(node, cls.__name__, (head, *option_names(cls)))
    options = {key: nodes.plain(value, key) for key, (_, value) in found.items() if key != head}
    try:
        return make(cls, options)
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
    "decay": nodes.optional(nodes.text),
    "solve": nodes.boolean,
    "keep": nodes.text,
    "average": nodes.optional(nodes.text),
    "lora": nodes.optional(nodes.whole),
    "batch_size": nodes.optional(nodes.whole),
    "layer_decay": nodes.optional(nodes.number),
    "cache": nodes.text,
    "views": nodes.whole,
    "augment": nodes.boolean,
}
