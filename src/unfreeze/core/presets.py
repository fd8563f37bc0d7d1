"""The named schedules, and variants of them in one line, such as `two_stage+rate=3e-4`.

Each preset is a function that makes a `Schedule` from public parts; `preset(name)` finds
one by name. Variants let you list, compare and search strategies without a file for each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unfreeze.core.schedule import AUTO, BEST, Plateau, ReduceRate, Schedule, Stage
from unfreeze.errors import ScheduleError, did_you_mean

DEFAULT = "probe_tune"
"""The preset that is used when none is named; docs/evidence.md is the study behind it."""


def two_stage(head: Any = "head") -> Schedule:
    """The head first, then everything at a tenth of the rate (LP-FT).

    Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022.
    BatchNorm statistics stay as they were pretrained; each stage ends on a
    plateau and passes on its best weights.

    Examples:
        >>> [stage.name for stage in unfreeze.two_stage()]
        ['head', 'all']
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
    """The recipe that many follow by hand, unchanged, but compiled correctly.

    Adam at 1e-3 in both stages, 100 epochs each, no early stopping, the rate halved
    after 3 epochs without a gain, BatchNorm in training mode, batches of 128.

    Examples:
        >>> unfreeze.classic().stages[0].batch_norm
        'train'
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
    """The head, then the base from the top down in several steps.

    Howard and Ruder, "Universal Language Model Fine-tuning for Text
    Classification", ACL 2018 (gradual unfreezing). They add one layer per epoch; here a
    step adds a share of the layer groups and lasts at most 5 epochs. Below its freeze
    boundary the base runs only once.

    Examples:
        >>> [stage.name for stage in unfreeze.gradual(groups=3)]
        ['head', 'top 1/3', 'top 2/3', 'all']
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
    """Only the head: a linear probe when the head is one layer.

    Examples:
        >>> [stage.name for stage in unfreeze.head_only()]
        ['head']
    """
    stage = Stage(
        "head", train=head, epochs=200, learning_rate=1e-3, until=Plateau(BEST, patience=10)
    )
    return Schedule((stage,), name="head_only", monitor=AUTO)


def probe(head: Any = "head") -> Schedule:
    """Only the head, solved: a linear probe, without a learning rate, in seconds.

    It needs a head of one dense layer, such as that of `unfreeze.read_out`.

    Examples:
        >>> unfreeze.probe().stages[0].solve
        True
    """
    return Schedule((_solved(head),), name="probe", monitor="val_loss")


def probe_tune(head: Any = "head") -> Schedule:
    """The head solved, then everything at a falling rate (LP-FT with a solved probe).

    The last stage starts from a strongly regularized head (`start`), as one that fits the
    training samples closely leaves it little to learn. It keeps its last epoch, at the
    lowest rate: which of the earlier ones has the best score on few validation clips is
    mostly luck. It is dropped if the head alone has a lower validation loss; where
    `validation_scores` gives the standard error of that loss, as `unfreeze train` does,
    only if it is lower by more than that.

    Examples:
        >>> [stage.name for stage in unfreeze.probe_tune()]
        ['head', 'start', 'all']
    """
    start = Stage("start", train=head, epochs=1, solve=True)
    tune = Stage("all", train="all", epochs=20, learning_rate=2e-4, decay="cosine", keep="last")
    return Schedule((_solved(head), start, tune), name="probe_tune", monitor="val_loss")


def _solved(head: Any) -> Stage:
    return Stage("head", train=head, epochs=7, solve=True)


def full(head: Any = "head") -> Schedule:
    """Everything from the start, at a fine-tuning rate. `head` is accepted and ignored.

    Examples:
        >>> [stage.name for stage in unfreeze.full()]
        ['all']
    """
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
    "probe": probe,
    "probe_tune": probe_tune,
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
        ScheduleError: the name is not known; the message names the closest one.
    """
    if name.startswith("surgical:"):
        return surgical(name.removeprefix("surgical:"), head)
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise ScheduleError(f"no schedule is named {name!r}.{hint} Known: {', '.join(PRESETS)}")
    return PRESETS[name](head=head)


def as_schedule(value: Schedule | Stage | Sequence[Stage] | str) -> Schedule:
    """A schedule from any form that users give: itself, a stage or several, or a preset's name.

    Raises:
        ScheduleError: it is none of these, or the stages make no schedule.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str):
        return preset(value)
    if isinstance(value, Stage):
        return Schedule((value,))
    if not isinstance(value, Iterable):
        raise ScheduleError(
            f"schedule is {value!r}: give a Schedule, a list of Stage, or the name of a preset "
            f"({', '.join(PRESETS)})"
        )
    return Schedule(tuple(value))


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
    change those after it (and after any that are solved, too), or the only one. `monitor`
    is the whole schedule's.

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
            hint = did_you_mean(key, known)
            raise ScheduleError(f"no change is named {key!r}.{hint} Known: {', '.join(known)}")
        change = CHANGES[key]
        if key.startswith("head_"):
            if len(stages) == 1:
                raise ScheduleError(f"{key}: {schedule.name} has only one stage, none for the head")
            stages[0] = _changed(stages[0], change, key, value)
        else:
            solved = next((n for n, stage in enumerate(stages) if not stage.solve), 0)
            first = min(len(stages) - 1, max(1, solved))
            stages[first:] = [_changed(stage, change, key, value) for stage in stages[first:]]
    return replace(schedule, stages=tuple(stages), name=name or schedule.name, monitor=monitor)


def _changed(stage: Stage, change: Callable[[Stage, str], Stage], key: str, value: str) -> Stage:
    try:
        return change(stage, value)
    except ScheduleError:
        raise
    except ValueError:
        raise ScheduleError(f"{key}={value}: not a valid value") from None


def _rate(stage: Stage, value: str) -> Stage:
    if stage.solve:
        raise ScheduleError(f"stage {stage.name!r} is solved: it has no learning rate to change")
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
    "lora": _field("lora", int),
    "batch_size": _field("batch_size", int),
    "train": _field("train", lambda value: value.split("|")),
}
"""What can be changed. `train` takes patterns with `|` between them: `train=head|top:3`."""
