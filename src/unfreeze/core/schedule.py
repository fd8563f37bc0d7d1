"""What is trained, when, for how long: `Stage` and `Schedule`, plain data.

Everything that can be checked without a model is checked when these are made;
what needs a model (does a pattern match a layer?) is checked by
`unfreeze.core.select.check` before the first epoch. The defaults of a stage
stand here and nowhere else.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal, get_args

from unfreeze.errors import ScheduleError

BatchNormPolicy = Literal["frozen", "affine", "train"]
Cache = Literal["auto", "always", "never", "float16", "bfloat16"]
CACHES = get_args(Cache)
# A stage with one of these fails where no cache can be had.
INSISTING = ("always", "float16", "bfloat16")
# Two bytes a number on disk.
HALVED = ("float16", "bfloat16")
# What is best where nobody says: see `Schedule.monitor`.
AUTO = "auto"
# Not a metric, but the epoch that a stage would keep.
BEST = "best"

# Only these end with a plain answer to "which way is better?"; any other metric
# must say so itself (`mode`), or a typo would pick the worst model.
_LOWER = ("loss", "error", "mae", "mse", "rmse", "mape", "msle", "perplexity")
_HIGHER = ("acc", "accuracy", "auc", "precision", "recall", "f1", "score", "iou", "r2")


def direction(metric: str, mode: str | None = None) -> Literal["min", "max"]:
    """Which way a metric is better.

    Args:
        metric: name as it stands in the training log, such as `val_loss`.
        mode: "min" or "max" when the name alone does not tell.

    Raises:
        ScheduleError: the name is not known and no mode is given.
    """
    if mode in ("min", "max"):
        return "min" if mode == "min" else "max"
    if mode is not None:
        raise ScheduleError(f"mode {mode!r} of metric {metric!r}: must be 'min' or 'max'")
    words = metric.lower().replace("-", "_").split("_")
    if any(word in _LOWER for word in words):
        return "min"
    if any(word in _HIGHER for word in words):
        return "max"
    raise ScheduleError(
        f"metric {metric!r}: is higher or lower better? Say so with mode='max' or mode='min'"
    )


@dataclass(frozen=True)
class Plateau:
    """Ends a stage after `patience` epochs without a gain of `min_delta`.

    The metric "best" goes by the epoch that the stage would keep: it ends after
    `patience` epochs that are not better by the schedule's `monitor`.
    """

    metric: str = "val_loss"
    patience: int = 3
    min_delta: float = 0.0
    mode: str | None = None

    def __post_init__(self) -> None:
        if self.metric != BEST:
            direction(self.metric, self.mode)
        elif self.min_delta or self.mode is not None:
            raise ScheduleError(
                "Plateau: metric 'best' takes neither min_delta nor mode; the schedule's monitor "
                "says what is better"
            )
        if self.patience < 1:
            raise ScheduleError(f"Plateau: patience {self.patience} must be at least 1 epoch")


@dataclass(frozen=True)
class Reached:
    """Ends a stage once a metric reaches `value`."""

    metric: str
    value: float
    mode: str | None = None

    def __post_init__(self) -> None:
        direction(self.metric, self.mode)


@dataclass(frozen=True)
class ReduceRate:
    """Scales the learning rate by `factor` after `patience` epochs without a gain."""

    metric: str = "val_loss"
    factor: float = 0.5
    patience: int = 3
    min_delta: float = 1e-4
    mode: str | None = None

    def __post_init__(self) -> None:
        direction(self.metric, self.mode)
        if not 0 < self.factor < 1:
            raise ScheduleError(f"ReduceRate: factor {self.factor} must lie between 0 and 1")
        if self.patience < 1:
            raise ScheduleError(f"ReduceRate: patience {self.patience} must be at least 1 epoch")


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one set of trainable layers.

    Args:
        name: for the log, the audit and files; unique in a schedule.
        train: which layers train: a glob on layer names or paths
            (`"transfer_*"`), `"re:..."`, a group (`"all"`, `"head"`,
            `"top:2"`, `"top:50%"`), a layer object, a function of a layer, or a
            list of these. `"!pattern"` in a list takes layers away again. A
            submodel's name stands for all layers inside it.
        epochs: at most so many; 0 leaves the stage out.
        learning_rate: a number, a `LearningRateSchedule`, or a map from layer
            patterns to factors of the rate under the key `"default"`.
        optimizer: name or template object; None is Adam. Each stage starts
            with fresh slots.
        batch_norm: "frozen" (inference mode, nothing moves), "affine"
            (statistics frozen, gamma and beta train), "train" (as Keras does).
        until: `Plateau` or `Reached`, to end before `epochs`.
        reduce: `ReduceRate`, to lower the rate on a plateau.
        callbacks: Keras callbacks for this stage only.
        batch_size: None takes the one given to `fit`.
        layer_decay: factor of the learning rate from each layer group to the
            one below it, in (0, 1] (Howard and Ruder, 2018, use 1/2.6).
        cache: "auto" keeps the frozen prefix's outputs on disk when that pays,
            "always" whenever it is exact, "never", "float16" at half the size, or
            "bfloat16": computed in bfloat16 too, kept at half the size.
        views: how many variants of each sample are cached when the model or the
            data augment at random.
    """

    name: str
    train: Any = "all"
    epochs: int = 10
    learning_rate: Any = 1e-3
    optimizer: Any = None
    batch_norm: BatchNormPolicy = "frozen"
    until: Plateau | Reached | None = None
    reduce: ReduceRate | None = None
    callbacks: tuple[Any, ...] = ()
    batch_size: int | None = None
    layer_decay: float | None = None
    cache: Cache = "auto"
    views: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "callbacks", tuple(self.callbacks))
        where = f"stage {self.name!r}"
        if not isinstance(self.name, str) or not self.name.strip():
            raise ScheduleError("a stage needs a name, such as Stage('head', ...)")
        if isinstance(self.train, Sequence) and not len(self.train):
            raise ScheduleError(f"{where} trains nothing: give `train` a pattern, such as 'all'")
        _whole(where, "epochs", self.epochs, least=0)
        _whole(where, "views", self.views, least=1)
        if self.batch_size is not None:
            _whole(where, "batch_size", self.batch_size, least=1)
        _one_of(where, "batch_norm", self.batch_norm, ("frozen", "affine", "train"))
        _one_of(where, "cache", self.cache, CACHES)
        _rate(where, self.learning_rate)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ScheduleError(f"{where}: layer_decay {self.layer_decay} must lie in (0, 1]")
        if self.until is not None and not isinstance(self.until, Plateau | Reached):
            raise ScheduleError(f"{where}: until must be Plateau(...) or Reached(...)")
        if self.reduce is not None and not isinstance(self.reduce, ReduceRate):
            raise ScheduleError(f"{where}: reduce must be ReduceRate(...)")
        rate = self.learning_rate
        base = rate["default"] if isinstance(rate, Mapping) else rate
        if self.reduce is not None and not _is_number(base):
            raise ScheduleError(
                f"{where}: reduce cannot lower the rate of a learning rate schedule: "
                "give a number, or leave reduce out"
            )


@dataclass(frozen=True)
class Schedule:
    """An ordered list of stages.

    Attributes:
        stages: in the order in which they run.
        name: for the log and files.
        groups: the layer groups that "top:2" and `layer_decay` count, from the
            input up: for each a pattern, a layer, or a list of these. Layers that
            none of them names are the head. None finds groups from the graph.
        monitor: the metric that chooses the best epoch of each stage, and the best
            stage, by its name in the training log; which way it is better follows
            from the name. Of equal epochs that with the lower loss is better, then
            the earlier. "auto" is `val_accuracy` where the model has that metric,
            else `val_loss`. Without validation data the training metric takes its
            place; for "auto" that is the loss.

    Raises:
        ScheduleError: no stages, a name used twice, no stage with an epoch, a
            group without a pattern, or a monitor whose name does not tell which
            way is better.
    """

    stages: tuple[Stage, ...] = field(default_factory=tuple)
    name: str = "custom"
    groups: tuple[tuple[Any, ...], ...] | None = None
    monitor: str = "val_loss"

    def __post_init__(self) -> None:
        if self.monitor != AUTO:
            try:
                direction(self.monitor)
            except ScheduleError:
                raise ScheduleError(
                    f"monitor {self.monitor!r}: is higher or lower better? A name such as "
                    "val_loss, val_accuracy or val_my_score tells; give the metric such a name"
                ) from None
        object.__setattr__(self, "stages", tuple(self.stages))
        if self.groups is not None:
            groups = [tuple(g) if isinstance(g, list | tuple) else (g,) for g in self.groups]
            object.__setattr__(self, "groups", tuple(groups))
            if not all(groups) or not groups:
                raise ScheduleError("groups: each needs a pattern; leave `groups` out for none")
        if not self.stages:
            raise ScheduleError("a schedule needs at least one stage")
        for stage in self.stages:
            if not isinstance(stage, Stage):
                raise ScheduleError(f"a schedule holds stages, not {stage!r}")
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ScheduleError(f"two stages are named {name!r}: give each its own name")
        if not any(stage.epochs for stage in self.stages):
            raise ScheduleError("every stage has 0 epochs: nothing would be trained")

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def with_changes(self, **changes: Any) -> "Schedule":
        """A copy in which every stage has the given fields replaced."""
        return replace(self, stages=tuple(replace(stage, **changes) for stage in self.stages))


def _whole(where: str, name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ScheduleError(f"{where}: {name} {value!r} must be a whole number, at least {least}")


def _one_of(where: str, name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ScheduleError(f"{where}: {name} {value!r} must be one of {', '.join(known)}")


def _rate(where: str, value: Any) -> None:
    """A number, a schedule (any callable), or a map of factors around one of these."""
    if isinstance(value, Mapping):
        if "default" not in value:
            raise ScheduleError(f"{where}: a map of learning rates needs the key 'default'")
        for pattern, factor in value.items():
            if pattern != "default" and not (_is_number(factor) and 0 <= factor < math.inf):
                raise ScheduleError(
                    f"{where}: learning_rate: factor {factor!r} of {pattern!r} must be a number, "
                    "at least 0"
                )
        value = value["default"]
    if _is_number(value):
        if not 0 < value < math.inf:
            raise ScheduleError(f"{where}: learning_rate {value} must be above 0 and finite")
    elif not callable(value):
        raise ScheduleError(
            f"{where}: learning_rate {value!r} must be a number, a schedule or a map"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
