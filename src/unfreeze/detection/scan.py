"""Recordings to class scores along time: decoding runs ahead while the network works.

Each recording is read by a thread of its own, a few at once, and waits with a
few blocks; so memory depends neither on the length nor on the number of the
recordings. Patches of short recordings share batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decoders import Decoders, using
from unfreeze.audio.parallel import available_cores
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.ahead import Ended, run_ahead
from unfreeze.detection.scores import ScoreBlock
from unfreeze.detection.stream import BATCH, PatchBlock, PatchStream
from unfreeze.errors import DataError
from unfreeze.inference import patch_scores

# Values (samples times channels) decoded at once: 1 MiB, a few seconds of sound.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Begun:
    """A recording has been opened.

    Attributes:
        sample_rate: of the file, hertz.
        seconds: its length by its header, which may be wrong.
    """

    sample_rate: int
    seconds: float


def scan_file(
    model: Any, front_end: FrontEnd, path: Path, hop: int, decoders: Decoders | None = None
) -> Iterator[ScoreBlock]:
    """Score the patches of one recording, in constant memory.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        path: the recording.
        hop: frames from one patch to the next.
        decoders: to read with; None starts some for this call.

    Yields:
        Blocks of up to `BATCH` patches, in order.

    Raises:
        DataError: the file cannot be read, when the damage is reached.
    """
    for _, found in scan_files(model, front_end, [path], hop, decoders=decoders):
        if isinstance(found, ScoreBlock):
            yield found
        elif isinstance(found, Ended) and found.error is not None:
            raise found.error


def scan_files(
    model: Any,
    front_end: FrontEnd,
    paths: Sequence[Path],
    hop: int,
    *,
    workers: int | None = None,
    decoders: Decoders | None = None,
) -> Iterator[tuple[int, Begun | ScoreBlock | Ended]]:
    """Score the patches of many recordings, several at once.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        paths: the recordings.
        hop: frames from one patch to the next.
        workers: files that are decoded at once; None takes one a core.
        decoders: to read with; None starts some for this call.

    Yields:
        The number of a recording with `Begun`, then with each of its blocks,
        then with `Ended` (all there is for a file that cannot be opened). Blocks
        of one recording come in order, recordings may mix.
    """

    with using(decoders) as reading:

        def read(path: Path) -> Iterator[Begun | PatchBlock]:
            return read_patches(path, front_end, hop, reading)

        waiting: list[tuple[int, Begun | PatchBlock | Ended]] = []
        patches = 0
        stream = run_ahead(read, paths, workers or available_cores(), expected=DataError)
        for item in stream:
            waiting.append(item)
            patches += len(item[1].starts) if isinstance(item[1], PatchBlock) else 0
            if patches >= BATCH:
                yield from _score(model, waiting)
                waiting, patches = [], 0
        yield from _score(model, waiting)


def read_patches(
    path: Path, front_end: FrontEnd, hop: int, decoders: Decoders
) -> Iterator[Begun | PatchBlock]:
    """Read the patches of a recording, block by block.

    Args:
        path: the recording.
        front_end: the backbone's settings.
        hop: frames from one patch to the next.
        decoders: to read with.

    Yields:
        `Begun`, then blocks of patches, in order.

    Raises:
        SoundError: (a DataError) the file cannot be decoded.
    """
    stream = PatchStream(front_end, hop)
    resampler = Resampler(front_end.sample_rate)
    with decoders.waveform(path, resampler, block=_BLOCK) as sound:
        yield Begun(sound.sample_rate, sound.promised / sound.sample_rate)
        for samples in sound.blocks:
            yield from stream.push(samples)
    yield from stream.finish()


def _score(
    model: Any, items: list[tuple[int, Begun | PatchBlock | Ended]]
) -> Iterator[tuple[int, Begun | ScoreBlock | Ended]]:
    blocks = [block.patches for _, block in items if isinstance(block, PatchBlock)]
    together = np.concatenate(blocks) if len(blocks) > 1 else blocks[0] if blocks else None
    at = 0
    scores = np.zeros((0, 0)) if together is None else _in_batches(model, together)
    for number, item in items:
        if not isinstance(item, PatchBlock):
            yield number, item
            continue
        mine = scores[at : at + len(item.starts)]
        at += len(item.starts)
        yield number, ScoreBlock(item.starts, mine, item.ends)


def _in_batches(model: Any, patches: np.ndarray) -> np.ndarray:
    parts = [patch_scores(model, patches[at : at + BATCH]) for at in range(0, len(patches), BATCH)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
