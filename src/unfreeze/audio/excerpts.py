"""Short excerpts of clips, to look at and to listen to.

Each recording is read once, from its start up to the last excerpt, whatever number of its
sounds are wanted. Of a long clip, the loudest stretch within its first minute is taken.
"""

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.sound_file import SoundError
from unfreeze.backbones.frontend import FrontEnd

#: Seconds of an excerpt at most, and of a clip within which it is chosen; as the network
#: hears them.
LENGTH, SEARCHED = 5.0, 60.0
# Seconds between the starts of stretches that are compared.
_STEP = 0.5


@dataclass(frozen=True)
class Span:
    """A clip to take an excerpt of.

    Attributes:
        path: the recording.
        start: seconds, where the clip begins in it.
        end: seconds, where it ends; None for the recording's end.
    """

    path: Path
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A part of a clip.

    Attributes:
        waveform: (samples,) float32 mono, at the front end's rate.
        start: seconds from the recording's start.
    """

    waveform: np.ndarray
    start: float


def cut_excerpts(
    spans: Sequence[Span], front_end: FrontEnd, decoders: Decoders
) -> Generator[tuple[int, Excerpt], None, None]:
    """Cut an excerpt of each clip.

    Args:
        spans: the clips.
        front_end: of the model; gives rate, channel and slowing down.
        decoders: to read with.

    Yields:
        The position of each span with its excerpt, recording by recording; recordings that
        cannot be read are left out.
    """
    by_file: dict[Path, list[int]] = defaultdict(list)
    for number, span in enumerate(spans):
        by_file[span.path].append(number)
    rate = front_end.sample_rate
    longest = round(SEARCHED / front_end.slow_down * rate)
    for path, numbers in by_file.items():
        bounds = {}
        for number in numbers:
            first = round(spans[number].start * rate)
            end = spans[number].end
            last = first + longest if end is None else min(round(end * rate), first + longest)
            bounds[number] = first, last
        resampler = Resampler(rate, front_end.channel)
        try:
            with decoders.waveform(path, resampler) as sound:
                pieces = _collect(sound.blocks, bounds)
        except SoundError:
            continue
        for number, waveform in pieces.items():
            if len(waveform):
                begin, part = _loudest(waveform, front_end)
                yield number, Excerpt(part, (bounds[number][0] + begin) / rate)


def _collect(
    blocks: Iterator[np.ndarray], bounds: dict[int, tuple[int, int]]
) -> dict[int, np.ndarray]:
    """The samples of each stretch; reading ends with the last."""
    parts: dict[int, list[np.ndarray]] = {number: [] for number in bounds}
    end, at = max(last for _, last in bounds.values()), 0
    for block in blocks:
        for number, (first, last) in bounds.items():
            if first < at + len(block) and last > at:
                parts[number].append(block[max(first - at, 0) : last - at].copy())
        at += len(block)
        if at >= end:
            break
    return {n: np.concatenate(own) for n, own in parts.items() if own}


def _loudest(waveform: np.ndarray, front_end: FrontEnd) -> tuple[int, np.ndarray]:
    """The place and the samples of the loudest stretch of `LENGTH`."""
    rate = front_end.sample_rate / front_end.slow_down
    size, step = round(LENGTH * rate), round(_STEP * rate)
    if len(waveform) <= size:
        return 0, waveform
    total = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    starts = np.arange(0, len(waveform) - size + 1, step)
    begin = int(starts[np.argmax(total[starts + size] - total[starts])])
    return begin, waveform[begin : begin + size]
