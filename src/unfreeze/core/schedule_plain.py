"""A schedule as plain values, ready to be written to a file.

Keys that equal their default are left out, except those that people come to
edit. What cannot stand in a file (functions, callbacks, custom classes) is
refused with the stage and the key.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from numbers import Real
from typing import Any

from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage
from unfreeze.errors import ScheduleError

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
# epochs         at most so many.
# learning_rate  a number; or {default: 1e-3, "block_*": 0.1}, factors of the default;
#                or {schedule: CosineDecay, initial_learning_rate: 1e-3, decay_steps: 500}.
# groups         beside `stages`, if those found from the names are not yours: a list from
#                the input up, each a pattern or a list of these; all other layers are the head.
# monitor        beside `stages`: the metric that chooses the best epoch and stage; val_loss,
#                or auto: val_accuracy where there is one.
# Where these are left out, this holds:
"""
_HELP_ON = {
    "optimizer": "a name, or {name: AdamW, weight_decay: 0.01}; null is Adam",
    "batch_norm": "frozen, affine (gamma and beta train) or train",
    "until": "{plateau: {metric: best, patience: 5}} or {reached: {metric: ..., value: 0.9}}",
    "reduce": "{metric: val_loss, factor: 0.5, patience: 3} lowers the rate on a plateau",
    "batch_size": "null takes the one of the command",
    "layer_decay": "factor of the rate from each layer group to the one below it",
    "cache": "auto, always, never, float16 or bfloat16: outputs of the frozen part on disk",
    "views": "variants of each sample in the cache, where data are augmented",
}


def schedule_as_plain(schedule: Schedule) -> dict[str, Any]:
    """The schedule as nested lists and dicts of texts and numbers.

    Raises:
        ScheduleError: a part cannot stand in a file.
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
    from unfreeze.core import configs

    head = {"learning_rate": "schedule", "optimizer": "name"}.get(key)
    if head is None or not hasattr(value, "get_config"):
        raise ScheduleError(f"{where}: {key}={value!r} cannot be written to a file")
    try:
        options = configs.options_of(value)
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
