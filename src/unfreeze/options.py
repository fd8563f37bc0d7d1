"""All settings of a training run, in one place: the command line and Python read them here."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unfreeze.core.presets import DEFAULT, preset
from unfreeze.core.schedule import Schedule
from unfreeze.core.variants import split_variant, vary
from unfreeze.errors import ScheduleError

# Patches a step, where nothing else is said.
DEFAULT_BATCH = 32
# Not a schedule, but the wish that trials on the training clips choose one.
AUTO = "auto"
# Names of the new layers, as the classic recipe has them.
HEAD = "transfer_*"


@dataclass(frozen=True)
class TrainOptions:
    """What to train on, how, and where to.

    Attributes:
        data: a folder with a folder for each class, or a CSV manifest.
        out: the run folder; None keeps nothing on disk.
        schedule: name of a preset, a YAML file, or a `Schedule`; "auto" chooses by
            trials on the training clips.
        backbone: name of the pretrained network.
        weights: the backbone's weights; None looks for them.
        epochs: at most so many in each stage; None as the schedule says.
        batch_size: patches a step; None as the schedule says, or else 32.
        learning_rate: of the first stage; the others keep their ratio to it.
        seed: of the split, the head's first weights, order and dropout.
        group_regex: takes a clip's group from its file name.
        validation: fraction of clips that choose epochs and end stages.
        test: fraction of clips that nothing is chosen by.
        strict: any unusable file is an error.
        max_bad: fraction of unusable files above which training is refused.
        overwrite: replace a run in `out`.
        resume: go on with the run in `out` if it was broken off.
        background: a folder of recordings without any of the sounds.
        negative: a folder of sounds that look like a class but are not.
        keep_audioset: the model also gives the backbone's own classes.
        add_to: a run; its data are trained on together with `data`, and its
            test clips stay the test set.
        budget: seconds for the trials of the schedule "auto".
    """

    data: Path
    out: Path | None = None
    schedule: str | Schedule = DEFAULT
    backbone: str = "yamnet"
    weights: Path | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    group_regex: str | None = None
    validation: float = 0.15
    test: float = 0.15
    strict: bool = False
    max_bad: float = 0.10
    overwrite: bool = False
    resume: bool = False
    background: Path | None = None
    negative: Path | None = None
    keep_audioset: bool = False
    add_to: Path | None = None
    budget: float = 600.0

    def as_plain(self) -> dict[str, Any]:
        """The settings as YAML can hold them; a schedule object stands by its name."""
        values = asdict(replace(self, schedule=self.schedule_name))
        for name, value in values.items():
            values[name] = str(value.absolute()) if isinstance(value, Path) else value
        del values["overwrite"], values["resume"]
        return values

    @property
    def schedule_name(self) -> str:
        """Name of the preset or schedule, or the file that it is read from."""
        return self.schedule if isinstance(self.schedule, str) else self.schedule.name


def resolve_schedule(options: TrainOptions, head: str = HEAD) -> Schedule:
    """The schedule that the options ask for, with their changes.

    Args:
        options: see `TrainOptions`.
        head: which layers presets take as the head.

    Raises:
        ScheduleError: no such preset or file, or a change that is out of range.
    """
    schedule = options.schedule
    if isinstance(schedule, str):
        schedule = named_schedule(schedule, head)
    if options.epochs is not None:
        schedule = capped(schedule, options.epochs)
    if options.batch_size is not None:
        schedule = schedule.with_changes(batch_size=options.batch_size)
    if options.learning_rate is not None:
        schedule = _with_rate(schedule, options.learning_rate)
    return schedule


def capped(schedule: Schedule, epochs: int) -> Schedule:
    """The schedule with at most so many epochs in each stage; shorter stages stay as they are."""
    stages = tuple(replace(stage, epochs=min(stage.epochs, epochs)) for stage in schedule)
    return replace(schedule, stages=stages)


def check_schedule(options: TrainOptions) -> None:
    """Refuse a schedule that cannot be resolved, before any work.

    Raises:
        ScheduleError: as `resolve_schedule`; or changes that "auto" leaves no place for.
    """
    if options.schedule != AUTO:
        resolve_schedule(options)
        return
    for name in ("batch_size", "learning_rate"):
        if getattr(options, name) is not None:
            raise ScheduleError(
                f"--{name.replace('_', '-')} and --schedule auto contradict each other: the "
                "trials choose it. Name a schedule, or leave it out"
            )
    if options.budget <= 0:
        raise ScheduleError(f"budget is {options.budget}: the trials need some seconds")


def named_schedule(text: str, head: str = HEAD) -> Schedule:
    """The schedule of a name: a preset or a YAML file, perhaps with changes.

    Args:
        text: such as "two_stage", "plan.yaml" or "two_stage+rate=3e-4"; see
            `unfreeze.core.variants` for what can be changed.
        head: which layers presets take as the head.

    Raises:
        ScheduleError: no such preset or file, or a change that cannot be made.
    """
    name, changes = (text, {}) if Path(text).is_file() else split_variant(text)
    if name.endswith((".yaml", ".yml")) or ("/" in name and not name.startswith("surgical:")):
        from unfreeze.core.schedule_yaml import read_schedule

        schedule = read_schedule(name)
    else:
        schedule = preset(name, head=head)
    return vary(schedule, changes, text) if changes else schedule


def _with_rate(schedule: Schedule, rate: float) -> Schedule:
    first = schedule.stages[0].learning_rate
    if not all(isinstance(s.learning_rate, int | float) for s in schedule):
        raise ScheduleError(
            "learning_rate cannot be set for a schedule with rates by layer or over time: "
            "set it in the schedule's file"
        )
    stages = [replace(s, learning_rate=rate * (s.learning_rate / first)) for s in schedule]
    return replace(schedule, stages=tuple(stages))
