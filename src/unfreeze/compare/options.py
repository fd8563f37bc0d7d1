"""What is to be compared, on what, for how long."""

from dataclasses import dataclass
from pathlib import Path

from unfreeze.core.presets import DEFAULT
from unfreeze.core.schedule import Schedule
from unfreeze.core.variants import split_variant, vary
from unfreeze.errors import ScheduleError, UnfreezeError
from unfreeze.options import TrainOptions, capped, named_schedule

STRATEGIES = ("head_only", DEFAULT, "full")


@dataclass(frozen=True)
class CompareOptions:
    """A comparison of strategies.

    Attributes:
        train: the data and how to read them, as for one run; `validation` and
            `test` are shares of clips, `epochs` is the most of each stage. Its
            schedule, seed and out are not used.
        out: the folder of the comparison.
        strategies: schedules by name: a preset, `surgical:first`, a YAML file, each
            perhaps with changes: `two_stage+rate=3e-4`. `+fuse=off` runs
            convolutions and BatchNorm one by one.
        seeds: how many; each has its own split, first weights and order.
        folds: test every group once for each seed, in so many parts; None deals
            out one test part for each seed.
        holdout: names of groups that are the test part in every run.
        budget: seconds after which no run is begun; None for no limit.
    """

    train: TrainOptions
    out: Path
    strategies: tuple[str, ...] = STRATEGIES
    seeds: int = 3
    folds: int | None = None
    holdout: tuple[str, ...] = ()
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UnfreezeError(f"seeds is {self.seeds}: at least 1 is needed")
        if self.folds is not None and self.holdout:
            raise UnfreezeError("--folds tests every group, --holdout some: give one of them")
        if not self.strategies:
            raise ScheduleError("no strategy is given: name some, such as head_only,two_stage")
        for name in self.strategies:
            if self.strategies.count(name) > 1:
                raise ScheduleError(f"strategy {name!r} is given twice")


@dataclass(frozen=True)
class Strategy:
    """A way to train.

    Attributes:
        name: as it was asked for.
        schedule: what is trained when.
        fuse: whether a convolution and the BatchNorm after it run as one.
    """

    name: str
    schedule: Schedule
    fuse: bool = True


def read_strategy(text: str, epochs: int | None = None) -> Strategy:
    """Read a strategy from its name.

    Args:
        text: see `CompareOptions.strategies`.
        epochs: the most of each stage; None leaves them.

    Raises:
        ScheduleError: it cannot be read.
    """
    name, fuse = text, True
    if "+fuse=" in text:
        name, changes = split_variant(text)
        value = changes.pop("fuse")
        if value not in ("on", "off"):
            raise ScheduleError(f"{text!r}: fuse={value} must be on or off")
        schedule, fuse = vary(named_schedule(name), changes, text), value == "on"
    else:
        schedule = named_schedule(name)
    if epochs is not None:
        schedule = capped(schedule, epochs)
    return Strategy(text, schedule, fuse)
