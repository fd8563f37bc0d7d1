"""Variants of a schedule in a line: `two_stage+rate=3e-4+batch_norm=affine`.

So that strategies can be listed, compared and searched without a file for each.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from unfreeze.core.schedule import Plateau, Schedule, Stage
from unfreeze.errors import ScheduleError


def split_variant(text: str) -> tuple[str, dict[str, str]]:
    """Divide `two_stage+rate=3e-4` into the schedule's name and its changes.

    Raises:
        ScheduleError: a change without `=`, or given twice.
    """
    name, *parts = text.split("+")
    changes: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise ScheduleError(f"{text!r}: {part!r} should look like rate=3e-4")
        if key in changes:
            raise ScheduleError(f"{text!r}: {key} is given twice")
        changes[key] = value
    return name, changes


def vary(schedule: Schedule, changes: Mapping[str, str], name: str | None = None) -> Schedule:
    """Change a schedule's stages.

    `head_rate` and `head_epochs` change the first of several stages; all others
    change those after it, or the only one. `monitor` is the whole schedule's.

    Args:
        schedule: what to start from.
        changes: from `split_variant`; keys are those of `CHANGES`.
        name: of the result.

    Raises:
        ScheduleError: an unknown key, a value that cannot be read or used.
    """
    stages, monitor = list(schedule.stages), schedule.monitor
    for key, value in changes.items():
        if key == MONITOR:
            monitor = value
            continue
        if key not in CHANGES:
            known = (*CHANGES, MONITOR)
            close = get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ScheduleError(f"no change is named {key!r}{hint} Known: {', '.join(known)}")
        change = CHANGES[key]
        if key.startswith("head_"):
            if len(stages) == 1:
                raise ScheduleError(f"{key}: {schedule.name} has one stage, without a head's own")
            stages[0] = _changed(stages[0], change, key, value)
        else:
            first = min(len(stages) - 1, 1)
            stages[first:] = [_changed(stage, change, key, value) for stage in stages[first:]]
    return replace(schedule, stages=tuple(stages), name=name or schedule.name, monitor=monitor)


def _changed(stage: Stage, change: Callable[[Stage, str], Stage], key: str, value: str) -> Stage:
    try:
        return change(stage, value)
    except ScheduleError:
        raise
    except ValueError:
        raise ScheduleError(f"{key}={value}: the value cannot be read") from None


def _rate(stage: Stage, value: str) -> Stage:
    return replace(stage, learning_rate=float(value))


def _epochs(stage: Stage, value: str) -> Stage:
    return replace(stage, epochs=int(value))


def _patience(stage: Stage, value: str) -> Stage:
    if not isinstance(stage.until, Plateau):
        raise ScheduleError(f"patience: stage {stage.name!r} does not end on a plateau")
    return replace(stage, until=replace(stage.until, patience=int(value)))


def _field(name: str, read: Callable[[str], Any]) -> Callable[[Stage, str], Stage]:
    return lambda stage, value: replace(stage, **{name: read(value)})


MONITOR = "monitor"
CHANGES: dict[str, Callable[[Stage, str], Stage]] = {
    "head_rate": _rate,
    "head_epochs": _epochs,
    "rate": _rate,
    "epochs": _epochs,
    "patience": _patience,
    "batch_norm": _field("batch_norm", str),
    "layer_decay": _field("layer_decay", float),
    "batch_size": _field("batch_size", int),
    "train": _field("train", lambda value: value.split("|")),
}
"""What can be changed. `train` takes patterns with `|` between them: `train=head|top:3`."""
