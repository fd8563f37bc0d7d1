"""Patterns that name layer groups: `head`, `top:2`, `top:50%`, `group:1`."""

import math
import re
from collections.abc import Sequence
from typing import Any

from unfreeze.core.groups import LayerGroup
from unfreeze.errors import ScheduleError


def is_group_pattern(part: Any) -> bool:
    """Whether a part of `Stage.train` speaks of layer groups."""
    return isinstance(part, str) and (part == "head" or part.startswith(("top:", "group:")))


def group_layers(groups: Sequence[LayerGroup], part: str, stage: str) -> list[Any]:
    """The layers that a group pattern names.

    Args:
        groups: of the model, from the input up, the head last.
        part: `head`; `top:2` or `top:50%`, the head and so many groups below it;
            `group:1`, one group alone, counted from the input, or with `group:-1`
            from the head down.
        stage: its name, for messages.

    Raises:
        ScheduleError: the pattern is malformed, or asks for more groups than there are.
    """
    base, head = list(groups[:-1]), list(groups[-1:])
    if part == "head":
        kept = head
    elif part.startswith("group:"):
        kept = [base[_place(part, len(base), stage)]]
    else:
        kept = base[len(base) - _top_count(part, len(base), stage) :] + head
    return [layer for group in kept for layer in group.layers]


def _place(part: str, available: int, stage: str) -> int:
    """The position of the group that `group:1` or `group:-1` means."""
    match = re.fullmatch(r"group:(-?[1-9]\d*)", part)
    if match is None:
        raise ScheduleError(
            f"stage {stage!r}: {part!r} should look like 'group:1', the one at the input, or "
            "'group:-1', the one below the head"
        )
    value = int(match.group(1))
    if abs(value) > available:
        raise ScheduleError(
            f"stage {stage!r}: {part!r}, but the model has {available} groups below its head"
        )
    return value - 1 if value > 0 else available + value


def _top_count(part: str, available: int, stage: str) -> int:
    """How many groups below the head `top:2` or `top:50%` means."""
    match = re.fullmatch(r"top:(\d+(?:\.\d+)?)(%?)", part)
    if match is None or (not match.group(2) and "." in match.group(1)):
        raise ScheduleError(f"stage {stage!r}: {part!r} should look like 'top:2' or 'top:50%'")
    value = float(match.group(1))
    if match.group(2):
        if value > 100:
            raise ScheduleError(f"stage {stage!r}: {part!r} is more than the whole base")
        # Rounded first, as presets write two thirds as 66.6667%.
        return math.ceil(round(value * available / 100, 3))
    if value > available:
        raise ScheduleError(
            f"stage {stage!r}: {part!r}, but the model has {available} groups below its head"
        )
    return int(value)
