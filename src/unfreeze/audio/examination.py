"""What is to be known of a recording beside its classes: silence, its length, its faults."""

from dataclasses import dataclass
from pathlib import Path

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.rules import SILENT, as_warnings
from unfreeze.backbones.frontend import FrontEnd


@dataclass(frozen=True)
class Examined:
    """What is to be known of a recording, beside its classes.

    Attributes:
        silent: whether it holds digital silence alone: not one sample other than 0.
        seconds: its length.
        warnings: a clause each, such as that the header states another length, that channels
            cancel, or that nearly all of the energy is above what the network hears.
    """

    silent: bool
    seconds: float
    warnings: tuple[str, ...]


def examine(path: Path, front_end: FrontEnd, decoders: Decoders) -> Examined:
    """Read a recording to its end, and say what is to be known of it.

    Args:
        path: the recording.
        front_end: says what the network hears.
        decoders: to read with.

    Raises:
        DataError: the file cannot be read.
    """
    hears = front_end.high_hz / front_end.slow_down
    resampler = Resampler(front_end.sample_rate, front_end.channel, hears)
    with decoders.waveform(path, resampler, judge=True) as sound:
        # To the end: what is wrong shows only there.
        blocks = [(bool(block.any()), len(block)) for block in sound.blocks]
        silent = not any(sounding for sounding, _ in blocks)
        rest = [one for one in sound.findings if not (silent and one[0] == SILENT)]
        seconds = sum(length for _, length in blocks) / front_end.sample_rate
        return Examined(silent, seconds, as_warnings(rest, front_end.slow_down))
