"""What is trained, when, for how long: `Stage` and `Schedule`, plain data.

Everything that can be checked without a model is checked when these are made;
what needs a model (does a pattern match a layer?) is checked by
`unfreeze.core.layers.check` before the first epoch. The defaults of a stage
are set here and nowhere else.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal, get_args

from unfreeze.core.html_tables import html_table
from unfreeze.errors import ScheduleError

BatchNormPolicy = Literal["frozen", "affine", "train"]
Decay = Literal["cosine", "warmup_cosine", "one_cycle"]
# These follow the steps, not the epochs.
BY_STEP = ("warmup_cosine", "one_cycle")
Average = Literal["swa"]
Keep = Literal["best", "last"]
Cache = Literal["auto", "always", "never", "float16", "bfloat16"]
CACHES = get_args(Cache)
# A stage with one of these fails where no cache is possible.
INSISTING = ("always", "float16", "bfloat16")
# Two bytes per number on disk.
HALVED = ("float16", "bfloat16")
# What chooses the best epoch by default: see `Schedule.monitor`.
AUTO = "auto"
# Not a metric, but the epoch that a stage would keep.
BEST = "best"

# Only these name endings show which way is better; for any other metric the user
# must say so (`mode`), or a typo would pick the worst model.
_LOWER = ("loss", "error", "mae", "mse", "rmse", "mape", "msle", "perplexity")
_HIGHER = ("acc", "accuracy", "auc", "precision", "recall", "f1", "score", "iou", "r2")


def direction(metric: str, mode: str | None = None) -> Literal["min", "max"]:
    """Which way a metric is better.

    Args:
        metric: its name in the training log, such as `val_loss`.
        mode: "min" or "max" when the name alone does not show it.

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

    With the metric "best", the stage ends after `patience` epochs that are not better
    than its best epoch by the schedule's `monitor`.

    Examples:
        >>> until = unfreeze.Plateau("val_loss", patience=5)
        >>> unfreeze.Stage("head", train="head", epochs=100, until=until).until.patience
        5
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
    """Ends a stage once a metric reaches `value`.

    Examples:
        >>> unfreeze.Reached("val_accuracy", 0.9)
        Reached(metric='val_accuracy', value=0.9, mode=None)
    """

    metric: str
    value: float
    mode: str | None = None

    def __post_init__(self) -> None:
        direction(self.metric, self.mode)


@dataclass(frozen=True)
class ReduceRate:
    """Scales the learning rate by `factor` after `patience` epochs without a gain.

    Examples:
        >>> reduce = unfreeze.ReduceRate("val_loss", factor=0.3, patience=2)
        >>> unfreeze.Stage("all", learning_rate=1e-4, reduce=reduce).reduce.factor
        0.3
    """

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
        epochs: the most epochs to train; 0 skips the stage.
        learning_rate: a number, a `LearningRateSchedule`, or a map from layer
            patterns to factors of the rate under the key `"default"`.
        optimizer: name or template object; None is Adam. Each stage starts
            with fresh slots.
        batch_norm: "frozen" (inference mode, nothing moves), "affine"
            (statistics frozen, gamma and beta train), "train" (as Keras does).
        until: `Plateau` or `Reached`, to end before `epochs`.
        reduce: `ReduceRate`, to lower the rate on a plateau.
        decay: "cosine" lowers the rate from epoch to epoch, to almost 0 in the last one
            (Loshchilov and Hutter, 2017). Step by step: "warmup_cosine" raises it from
            almost 0 in the first tenth of the stage's steps, "one_cycle" from 1/25 in the
            first three tenths (after Smith and Topin, 2018); both then lower it along half a
            cosine to almost 0. `learning_rate` is the highest rate.
        solve: compute the weights by logistic regression instead of taking steps: each
            epoch tries another strength of regularization, and the best one by the
            schedule's `monitor` is kept; without validation data only the first is tried.
            For a last dense layer with softmax or sigmoid above frozen layers. Random
            layers are off, unless there are `views`.
        keep: the weights of the "best" epoch by the schedule's `monitor`, or of the "last"
            one, which is the better choice where the rate falls to almost 0. A stage that
            keeps its last epoch is dropped for an earlier stage only if it is worse by more
            than a standard error, which `fit` computes for means over samples.
        average: "swa" averages the weights at the ends of the last quarter of the epochs (at
            least two), each counting the same (stochastic weight averaging, Izmailov et al.,
            2018). The averages are validated and kept; training goes on from the last step.
        lora: rank of LoRA (Hu et al., 2022) for the layers below the head that the stage names
            and that offer it: their kernels stay fixed, and the product of two matrices of
            that rank trains beside each. At the end of the stage it is added to the kernels,
            so that the model keeps its structure. All else that the stage names trains as
            usual.
        callbacks: Keras callbacks for this stage only.
        batch_size: None takes the one given to `fit`.
        layer_decay: factor of the learning rate from each layer group to the
            one below it, in (0, 1] (Howard and Ruder, 2018, use 1/2.6).
        cache: "auto" keeps the frozen prefix's outputs on disk when that pays off,
            "always" whenever it is exact, "never", "float16" at half the size, or
            "bfloat16": computed in bfloat16 too, kept at half the size.
        views: how many variants of each sample are cached when the model or the
            data augment at random.
        augment: whether random layers before the frozen ones draw in each step. False
            leaves them off, so that the frozen layers can be cached.

    Examples:
        >>> stage = unfreeze.Stage("top", train=["head", "top:1"], epochs=5, learning_rate=1e-4)
        >>> unfreeze.plan(model, stage).stages[0].trains
        ('block2_conv', 'block3_conv', 'head')
    """

    name: str
    train: Any = "all"
    epochs: int = 10
    learning_rate: Any = 1e-3
    optimizer: Any = None
    batch_norm: BatchNormPolicy = "frozen"
    until: Plateau | Reached | None = None
    reduce: ReduceRate | None = None
    decay: Decay | None = None
    solve: bool = False
    keep: Keep = "best"
    average: Average | None = None
    lora: int | None = None
    callbacks: tuple[Any, ...] = ()
    batch_size: int | None = None
    layer_decay: float | None = None
    cache: Cache = "auto"
    views: int = 1
    augment: bool = True

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
        if self.lora is not None:
            _whole(where, "lora", self.lora, least=1)
        _one_of(where, "batch_norm", self.batch_norm, ("frozen", "affine", "train"))
        _one_of(where, "cache", self.cache, CACHES)
        _one_of(where, "keep", self.keep, get_args(Keep))
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
        self._check_decay(where, base)
        self._check_average(where)
        for name in ("solve", "augment"):
            if not isinstance(getattr(self, name), bool):
                raise ScheduleError(f"{where}: {name} must be True or False")
        if self.views > 1 and not self.augment:
            raise ScheduleError(
                f"{where}: views={self.views} are variants: leave out augment=False"
            )
        if self.solve and self.cache == "never":
            raise ScheduleError(f"{where}: solve reads the cache: leave out cache='never'")
        steps = ("optimizer", "until", "reduce", "decay", "average", "lora", "layer_decay")
        given = [name for name in steps if getattr(self, name) is not None]
        if self.solve and given:
            raise ScheduleError(
                f"{where}: solve takes no steps, so {' and '.join(given)} would have no effect: "
                "leave out one or the other"
            )

    def _check_decay(self, where: str, base: Any) -> None:
        if self.decay is None:
            return
        _one_of(where, "decay", self.decay, get_args(Decay))
        if self.reduce is not None:
            raise ScheduleError(f"{where}: decay and reduce both lower the rate: give one")
        if not _is_number(base):
            raise ScheduleError(f"{where}: decay needs a number as learning_rate, not a schedule")

    def _check_average(self, where: str) -> None:
        if self.average is None:
            return
        _one_of(where, "average", self.average, get_args(Average))
        if self.until is not None:
            raise ScheduleError(
                f"{where}: average is of the last quarter of `epochs`, which `until` may leave "
                "out: give one of the two"
            )
        if self.batch_norm == "train":
            raise ScheduleError(
                f"{where}: average with batch_norm='train': the statistics of BatchNorm would not "
                "fit the averaged weights: use batch_norm='frozen' or 'affine'"
            )
        if self.epochs == 1:
            raise ScheduleError(f"{where}: average needs at least 2 epochs")
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if getattr(inner, "use_ema", False):
            raise ScheduleError(
                f"{where}: average and an optimizer with use_ema both average the weights: give "
                "one of the two"
            )

    def rate_factor(self, epoch: int) -> float:
        """Share of the learning rate in an epoch, counted from 0, where `decay` goes by epochs."""
        return 1.0 if self.decay != "cosine" else (1 + math.cos(math.pi * epoch / self.epochs)) / 2


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
            from the name. Of equal epochs the one with the lower loss is better,
            then the earlier. "auto" is `val_mean_average_precision`, `val_balanced_accuracy`
            or `val_accuracy`, the first that the log has, else `val_loss`. Without
            validation data the training metric takes its place; for "auto" that is the loss.

    Raises:
        ScheduleError: no stages, a name used twice, no stage with an epoch, a
            group without a pattern, or a monitor whose name does not show which
            way is better.

    Examples:
        >>> head = unfreeze.Stage("head", train="head", epochs=20, learning_rate=1e-3)
        >>> rest = unfreeze.Stage("all", train="all", epochs=10, learning_rate=1e-5)
        >>> [stage.name for stage in unfreeze.Schedule([head, rest])]
        ['head', 'all']
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
                    f"monitor {self.monitor!r}: is higher or lower better? Names such as "
                    "val_loss, val_accuracy or val_my_score show it; give the metric such a name"
                ) from None
        if isinstance(self.stages, Stage):
            raise ScheduleError(
                f"stages is the stage {self.stages.name!r} alone: put it in a list, "
                "Schedule([stage])"
            )
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

    def _repr_html_(self) -> str:
        headers = ("stage", "trains", "epochs, at most", "rate", "ends after", "BatchNorm")
        rows = []
        for stage in self.stages:
            train = stage.train if isinstance(stage.train, str | list | tuple) else "custom"
            trains = train if isinstance(train, str) else ", ".join(map(str, train))
            rate = "solved" if stage.solve else stage.learning_rate
            rows.append(
                (stage.name, trains, stage.epochs, rate, _end(stage.until), stage.batch_norm)
            )
        return html_table(headers, rows, f"schedule {self.name}, monitor {self.monitor}")

    def with_changes(self, **changes: Any) -> "Schedule":
        """A copy in which every stage has the given fields replaced.

        `lora` is left out of stages that it is not for: those that train "head" alone, which
        is new and trains in full, and those that are solved.
        """
        others = {key: value for key, value in changes.items() if key != "lora"}

        def changed(stage: Stage) -> Stage:
            solved = others.get("solve", stage.solve)
            head = others.get("train", stage.train) in ("head", ["head"], ("head",))
            return replace(stage, **(others if solved or head else changes))

        return replace(self, stages=tuple(changed(stage) for stage in self.stages))


def _end(rule: Plateau | Reached | None) -> str:
    """When a stage ends, in words."""
    if isinstance(rule, Plateau):
        name = "" if rule.metric == BEST else f" of {rule.metric}"
        return f"{rule.patience} epochs without a gain{name}"
    return "" if rule is None else f"{rule.metric} {rule.value:g}"


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
