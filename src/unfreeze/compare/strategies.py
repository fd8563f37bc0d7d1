"""What to compare: the options of a comparison, and strategies by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze.core.presets import DEFAULT, split_variant, vary
from unfreeze.core.schedule import Schedule
from unfreeze.errors import ScheduleError, UnfreezeError
from unfreeze.pipeline.chosen_schedule import capped, named_schedule
from unfreeze.pipeline.train_options import OPTIONS, TrainOptions

if TYPE_CHECKING:
    # Keras takes seconds to import.
    from unfreeze.pipeline.patch_training import Material

# Changes that are not of the schedule.
_OWN = ("fuse", "taps", "augment", "class_weight")
STRATEGIES = ("probe", DEFAULT, "full")


@dataclass(frozen=True)
class CompareOptions:
    """A comparison of strategies.

    Attributes:
        train: the data and how to read them, as for one run; `validation` and
            `test` are shares of clips, `epochs` is the maximum per stage. Its
            schedule, seed and out are not used.
        out: the folder of the comparison.
        strategies: schedules by name: a preset, `surgical:first` or a YAML file, each
            optionally with changes: `two_stage+rate=3e-4`. `+fuse=off` runs each
            convolution and its BatchNorm separately; `+taps=`, `+augment=` and
            `+class_weight=` take the values of these training options.
        seeds: number of seeds; each has its own split, initial weights and order.
        folds: test every group once per seed, in this many parts; None draws one
            test part per seed.
        holdout: names of groups that are the test part in every run.
        budget: seconds after which no run is started; None for no limit.
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
            raise UnfreezeError("--folds tests every group, --holdout only some: give one of them")
        if not self.strategies:
            raise ScheduleError("no strategy is given: name some, such as head_only,two_stage")
        for name in self.strategies:
            if self.strategies.count(name) > 1:
                raise ScheduleError(f"strategy {name!r} is given twice")


@dataclass(frozen=True)
class Strategy:
    """A way to train.

    Attributes:
        name: as the user wrote it.
        schedule: what is trained when.
        fuse: whether a convolution and the BatchNorm after it run as one.
        taps: as the training option; None takes that of the comparison.
        augment: likewise.
        class_weight: likewise.
    """

    name: str
    schedule: Schedule
    fuse: bool = True
    taps: str | None = None
    augment: str | None = None
    class_weight: str | None = None

    def settings(self, shared: "TrainOptions | Material") -> tuple[str, str, str]:
        """Its taps, augmentation and class weight; those of `shared` where it has none."""
        return (
            shared.taps if self.taps is None else self.taps,
            shared.augment if self.augment is None else self.augment,
            shared.class_weight if self.class_weight is None else self.class_weight,
        )


def read_strategy(text: str, epochs: int | None = None) -> Strategy:
    """Read a strategy from its name.

    Args:
        text: see `CompareOptions.strategies`.
        epochs: maximum per stage; None keeps those of the schedule.

    Raises:
        ScheduleError: the name cannot be read.
    """
    name, changes = (text, {}) if "+" not in text else split_variant(text)
    own = {key: changes.pop(key) for key in _OWN if key in changes}
    for key, value in own.items():
        if key != "fuse":
            OPTIONS[key].check(f"{text!r}: {key}", value, (str,))
        elif value not in ("on", "off"):
            raise ScheduleError(f"{text!r}: fuse={value} must be on or off")
    schedule = named_schedule(name)
    if changes or own:
        schedule = vary(schedule, changes, text)
    if epochs is not None:
        schedule = capped(schedule, epochs)
    fuse = own.pop("fuse", "on") == "on"
    return Strategy(text, schedule, fuse, **own)
