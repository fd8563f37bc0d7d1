"""How training patches are changed at random: settings by name, and those of a file.

Each change imitates a difference between recordings that does not change the class: when
the sound begins, how loud it is, the pitch of the voice, the microphone and the room, what
else is heard or drowns it; `mixup` alone changes labels, too. (Masks: Park et al.,
"SpecAugment", Interspeech 2019. Warped frequencies: Jaitly and Hinton, "Vocal Tract Length
Perturbation (VTLP) improves speech recognition", ICML workshop 2013.) `augment_layer` makes
the changes, and `unfreeze.core.mixup` mixes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from unfreeze.core import yaml_file
from unfreeze.errors import ScheduleError


@dataclass(frozen=True)
class Augmentation:
    """How much patches are changed; 0 leaves a change out.

    Frames and bands are those of YAMNet's patches, 96 by 64; patches of other networks are
    changed in proportion.

    Attributes:
        shift: frames, the largest shift in time, either way; edges are repeated.
        level: standard deviation of the level, in natural-log units (0.5 is 4.3 dB of
            amplitude).
        warp: largest relative change of the mel axis, either way; below 1.
        response: standard deviation of a smooth change over frequency, as `level`.
        mix: share of the patches, 0 to 1, to which another one of the batch is added, by
            5 to 20 dB weaker; it keeps its label.
        band_masks: how many stretches of bands are replaced by the patch's mean.
        band_width: bands, the largest width of such a stretch.
        frame_masks: how many stretches of frames are.
        frame_width: frames, the largest width of such a stretch.
        mixup: patches are mixed in pairs, and their labels alike, by shares from
            Beta(mixup, mixup); before all other changes (`unfreeze.fit`'s `mixup`).

    Raises:
        ScheduleError: a value out of range.
    """

    shift: int = 0
    level: float = 0.0
    warp: float = 0.0
    response: float = 0.0
    mix: float = 0.0
    band_masks: int = 0
    band_width: int = 8
    frame_masks: int = 0
    frame_width: int = 16
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ScheduleError(f"{name} {value:g} must be from 0 to {most:g}")


# A patch has 96 frames and 64 bands; more leaves nothing of it.
_MOST = {
    "shift": 96,
    "level": 5.0,
    "warp": 0.9,
    "response": 5.0,
    "mix": 1.0,
    "band_masks": 10,
    "band_width": 64,
    "frame_masks": 10,
    "frame_width": 96,
    "mixup": 10.0,
}

AUGMENTATIONS: Mapping[str, Augmentation | None] = MappingProxyType(
    {
        "none": None,
        "light": Augmentation(shift=6, level=0.25, band_masks=1, frame_masks=1, frame_width=8),
        "strong": Augmentation(
            shift=12, level=0.5, warp=0.12, response=0.3, band_masks=2, frame_masks=1
        ),
    }
)
"""The settings that have a name."""


def read_augmentation(name: str) -> Augmentation | None:
    """The settings with a name, or those of a YAML file: lines such as `shift: 12`.

    Args:
        name: one of `AUGMENTATIONS`, or a path.

    Raises:
        ScheduleError: the file cannot be read, or a line is not a setting in its range.
    """
    if name in AUGMENTATIONS:
        return AUGMENTATIONS[name]
    root = yaml_file.compose(yaml_file.read_text(name), name)
    kinds = {field.name: field.type for field in fields(Augmentation)}
    found = yaml_file.pairs(root, "augmentation", tuple(kinds))
    values: dict[str, Any] = {}
    for key, (at, node) in found.items():
        read = yaml_file.whole if kinds[key] is int else yaml_file.number
        values[key] = read(node, key)
        try:
            Augmentation(**{key: values[key]})
        except ScheduleError as error:
            raise yaml_file.error_at(at, str(error)) from None
    return Augmentation(**values)


def plain_augmentation(name: str) -> str | dict[str, float]:
    """The option as it is compared and kept: the content of a file, not its path."""
    if name in AUGMENTATIONS:
        return name
    found = read_augmentation(name)
    assert found is not None
    return asdict(found)
