"""The named schedules, written from the same public parts that users have.

Each is a function that gives a `Schedule`; `preset(name)` finds one by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from unfreeze.core.schedule import AUTO, BEST, Plateau, ReduceRate, Schedule, Stage
from unfreeze.errors import ScheduleError

DEFAULT = "two_stage"
"""The preset that is taken where none is named; docs/evidence.md is the study behind it."""


def two_stage(head: Any = "head") -> Schedule:
    """The head first, then everything at a tenth of the rate (LP-FT).

    Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022.
    BatchNorm statistics stay as they were pretrained; each stage ends on a
    plateau and hands on its best weights.
    """
    return Schedule(
        (
            Stage(
                "head", train=head, epochs=100, learning_rate=1e-3, until=Plateau(BEST, patience=10)
            ),
            Stage(
                "all",
                train="all",
                epochs=30,
                learning_rate=1e-4,
                reduce=ReduceRate(patience=2),
                until=Plateau(BEST, patience=8),
            ),
        ),
        name="two_stage",
        monitor=AUTO,
    )


def classic(head: Any = "head") -> Schedule:
    """The recipe that many follow by hand, to the letter, compiled correctly.

    Adam at 1e-3 in both stages, 100 epochs each, no early end, the rate halved
    after 3 epochs without a gain, BatchNorm in training mode, batches of 128.
    """
    common: dict[str, Any] = {
        "epochs": 100,
        "learning_rate": 1e-3,
        "batch_norm": "train",
        "reduce": ReduceRate(factor=0.5, patience=3),
        "batch_size": 128,
    }
    return Schedule(
        (Stage("head", train=head, **common), Stage("all", train="all", **common)),
        name="classic",
    )


def gradual(groups: int = 4, head: Any = "head") -> Schedule:
    """The head, then the base from the top down in `groups` steps.

    Howard and Ruder, "Universal Language Model Fine-tuning for Text
    Classification", ACL 2018 (gradual unfreezing). They add a layer an epoch; here a
    step is a share of the layer groups, of at most 5 epochs: each has a freeze
    boundary, below which the base runs once.
    """
    if groups < 1:
        raise ScheduleError(f"gradual: groups {groups} must be at least 1")
    first, last = two_stage(head).stages
    between = [
        Stage(
            f"top {step}/{groups}",
            train=[head, f"top:{100 * step / groups:g}%"],
            epochs=5,
            learning_rate=last.learning_rate,
        )
        for step in range(1, groups)
    ]
    return Schedule((first, *between, last), name="gradual", monitor=AUTO)


def head_only(head: Any = "head") -> Schedule:
    """Only the head: a linear probe when the head is one layer."""
    stage = Stage(
        "head", train=head, epochs=200, learning_rate=1e-3, until=Plateau(BEST, patience=10)
    )
    return Schedule((stage,), name="head_only", monitor=AUTO)


def full(head: Any = "head") -> Schedule:
    """Everything from the start, at a fine-tuning rate. `head` is accepted, and not needed."""
    del head
    stage = Stage(
        "all",
        train="all",
        epochs=60,
        learning_rate=1e-4,
        reduce=ReduceRate(patience=3),
        until=Plateau(BEST, patience=8),
    )
    return Schedule((stage,), name="full", monitor=AUTO)


def surgical(layers: Any = "group:1", head: Any = "head") -> Schedule:
    """The head first, then one part of the base and the head, the rest as pretrained.

    Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts",
    ICLR 2023. They adapt a trained classifier and leave its head; here the head is
    new, so it trains on.

    Args:
        layers: the part of the base: a pattern as in `Stage.train`, or "first" or
            "last" for the layer group at the input or below the head.
        head: which layers are the head.
    """
    part = {"first": "group:1", "last": "group:-1"}.get(layers, layers)
    stages = two_stage(head).stages
    second = replace(stages[1], name="surgical", train=[head, part])
    return Schedule((stages[0], second), name=f"surgical:{layers}", monitor=AUTO)


PRESETS: dict[str, Callable[..., Schedule]] = {
    "two_stage": two_stage,
    "classic": classic,
    "gradual": gradual,
    "head_only": head_only,
    "full": full,
    "surgical": surgical,
}


def preset(name: str, head: Any = "head") -> Schedule:
    """The preset schedule of that name.

    Args:
        name: one of `PRESETS`; "surgical:last" and the like say which part of the
            base trains.
        head: which layers are the head, as in `Stage.train`.

    Raises:
        ScheduleError: the name is not known; names the closest.
    """
    if name.startswith("surgical:"):
        return surgical(name.removeprefix("surgical:"), head)
    if name not in PRESETS:
        close = get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ScheduleError(f"no schedule is named {name!r}{hint} Known: {', '.join(PRESETS)}")
    return PRESETS[name](head=head)


def as_schedule(value: Schedule | Sequence[Stage] | str) -> Schedule:
    """A schedule from any form that users give: itself, its stages, or a preset's name."""
    if isinstance(value, Schedule):
        return value
    return preset(value) if isinstance(value, str) else Schedule(tuple(value))
