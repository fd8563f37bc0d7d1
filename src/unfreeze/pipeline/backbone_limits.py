"""What cannot be done with some networks: refused, or said, before any work.

A frozen network in a file of its own has nothing to train, and its outputs cannot be changed
as spectrograms can. A network that hears samples has no spectrograms, either.
"""

from unfreeze.backbones.frontend import NUMBERS
from unfreeze.backbones.registry import Backbone
from unfreeze.core.schedule import Schedule
from unfreeze.errors import ScheduleError, UnfreezeError
from unfreeze.pipeline.train_options import DEFAULT_AUGMENT, HEAD, NO_AUGMENT


def check_limits(
    backbone: Backbone, schedule: Schedule, augment: str, in_noise: bool = False
) -> None:
    """Refuse what the network does not allow.

    Args:
        backbone: the network.
        schedule: what is to be trained when.
        augment: as the option of that name.
        in_noise: as the option of that name.

    Raises:
        ScheduleError: a stage trains a frozen network.
        UnfreezeError: another option cannot be used with it.
    """
    if backbone.is_frozen:
        for stage in schedule:
            if not trains_head_alone(stage.train):
                raise ScheduleError(
                    f"{backbone.name} is a frozen network in a file of its own, and the stage "
                    f"{stage.name!r} of {schedule.name} would train it: add --schedule probe "
                    "(solves a head on its outputs, in seconds) or --schedule head_only (to "
                    "compare: --strategies probe,head_only)"
                )
    if in_noise and backbone.front_end.holds == NUMBERS:
        raise UnfreezeError(
            f"--in-noise adds noise to what the network hears, and of {backbone.name} only its "
            "outputs are kept: leave out --in-noise, and give recordings of your site's noise "
            "with --background"
        )
    if not backbone.front_end.has_spectrograms and augment not in (DEFAULT_AUGMENT, NO_AUGMENT):
        raise UnfreezeError(
            f"--augment {augment} changes spectrograms, and {backbone.name} is given "
            f"{backbone.front_end.holds}: leave out --augment"
        )


def trains_head_alone(train: object) -> bool:
    """Whether a stage's `train` names nothing but the new layers.

    Examples:
        >>> trains_head_alone("transfer_*"), trains_head_alone(["head", "top:1"])
        (True, False)
    """
    parts = train if isinstance(train, list | tuple) else [train]
    new = HEAD.removesuffix("*")
    return all(isinstance(part, str) and (part == "head" or part.startswith(new)) for part in parts)


def usable_augment(backbone: Backbone, augment: str) -> str:
    """The option `augment` as it is used: none where there is no spectrogram to change."""
    return augment if backbone.front_end.has_spectrograms else NO_AUGMENT


def limit_notes(backbone: Backbone, augment: str) -> tuple[str, ...]:
    """What the user should know of the options' defaults, one sentence each."""
    if usable_augment(backbone, augment) == augment:
        return ()
    given = "what its network gives" if backbone.is_frozen else "samples"
    return (
        f"Training sounds are not changed at random (--augment): {backbone.name} is read from "
        f"{given}, not from spectrograms.",
    )
