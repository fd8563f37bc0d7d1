"""The schedule of a run: the preset or file that the options name, with their changes to it."""

from dataclasses import replace
from pathlib import Path

from unfreeze.core.presets import preset, split_variant, vary
from unfreeze.core.schedule import Schedule
from unfreeze.errors import ScheduleError
from unfreeze.pipeline.train_options import HEAD, NO_TAPS, TrainOptions


def resolve_schedule(options: TrainOptions, head: str = HEAD) -> Schedule:
    """The schedule that the options name, with their changes to it.

    Args:
        options: see `TrainOptions`.
        head: the layers that presets use as the head.

    Raises:
        ScheduleError: there is no such preset or file, or a change is out of range.
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
    """The schedule with at most `epochs` epochs in each stage; shorter stages are not changed."""
    stages = tuple(replace(stage, epochs=min(stage.epochs, epochs)) for stage in schedule)
    return replace(schedule, stages=stages)


def checked_schedule(options: TrainOptions) -> Schedule:
    """The schedule that the options name, which fits their head.

    Raises:
        ScheduleError: as `resolve_schedule` and `check_head`.
    """
    schedule = resolve_schedule(options)
    check_head(schedule, options.taps)
    return schedule


def check_head(schedule: Schedule, taps: str) -> None:
    """Refuse a schedule that solves the head where the head is the classic recipe's.

    Raises:
        ScheduleError: names the schedule and the cure.
    """
    if taps == NO_TAPS and any(stage.solve for stage in schedule):
        raise ScheduleError(
            f"{schedule.name} solves the head, which --taps none does not allow (its head has two "
            "layers): add --schedule two_stage or another schedule, or leave out --taps none"
        )


def named_schedule(text: str, head: str = HEAD) -> Schedule:
    """The schedule with a name: a preset or a YAML file, optionally with changes.

    Args:
        text: such as "two_stage", "plan.yaml" or "two_stage+rate=3e-4"; see
            `unfreeze.core.presets` for the possible changes.
        head: the layers that presets use as the head.

    Raises:
        ScheduleError: there is no such preset or file, or a change cannot be made.
    """
    name, changes = (text, {}) if Path(text).is_file() else split_variant(text)
    if name.endswith((".yaml", ".yml")) or ("/" in name and not name.startswith("surgical:")):
        from unfreeze.core.schedule_file import read_schedule

        schedule = read_schedule(name)
    else:
        schedule = preset(name, head=head)
    return vary(schedule, changes, text) if changes else schedule


def _with_rate(schedule: Schedule, rate: float) -> Schedule:
    # A head that is solved has no rate.
    rates = [stage.learning_rate for stage in schedule if not stage.solve]
    if not rates:
        raise ScheduleError(
            f"learning_rate has no effect on {schedule.name}, whose head is solved: leave it out"
        )
    first = rates[0]
    if not all(isinstance(s.learning_rate, int | float) for s in schedule):
        raise ScheduleError(
            "learning_rate cannot be set for a schedule whose rates differ by layer or over "
            "time: set the rates in the schedule's file"
        )
    stages = [replace(s, learning_rate=rate * (s.learning_rate / first)) for s in schedule]
    return replace(schedule, stages=tuple(stages))
