"""Recordings to class scores along time: decoding runs ahead while the network works.

Each recording is read by a thread of its own, a few at once, and waits with a
few blocks; so memory depends neither on the length nor on the number of the
recordings. Patches of short recordings share batches.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.decode import Resampler, waveform_blocks
from unfreeze.audio.parallel import available_cores
from unfreeze.audio.sound import open_sound
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.ahead import Ended, run_ahead
from unfreeze.detection.scores import ScoreBlock
from unfreeze.detection.stream import BATCH, PatchBlock, PatchStream
from unfreeze.errors import DataError
from unfreeze.inference import patch_scores

# Values (samples times channels) decoded at once: 1 MiB, a few seconds of sound.
_BLOCK = 1 << 18


def scan_file(model: Any, front_end: FrontEnd, path: Path, hop: int) -> Iterator[ScoreBlock]:
    """Score the patches of one recording, in constant memory.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        path: the recording.
        hop: frames from one patch to the next.

    Yields:
        Blocks of up to `BATCH` patches, in order.

    Raises:
        DataError: the file cannot be read, when the damage is reached.
    """
    for _, found in scan_files(model, front_end, [path], hop):
        if isinstance(found, ScoreBlock):
            yield found
        elif found.error is not None:
            raise found.error


def scan_files(
    model: Any,
    front_end: FrontEnd,
    paths: Sequence[Path],
    hop: int,
    *,
    workers: int | None = None,
) -> Iterator[tuple[int, ScoreBlock | Ended]]:
    """Score the patches of many recordings, several at once.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        paths: the recordings.
        hop: frames from one patch to the next.
        workers: threads that decode; None takes one a core.

    Yields:
        The number of a recording with its next block, or with `Ended` after
        its last; blocks of one recording come in order, recordings may mix.
    """

    def read(path: Path) -> Iterator[PatchBlock]:
        return read_patches(path, front_end, hop)

    waiting: list[tuple[int, PatchBlock | Ended]] = []
    patches = 0
    stream = run_ahead(read, paths, workers or available_cores(), expected=DataError)
    for item in stream:
        waiting.append(item)
        patches += 0 if isinstance(item[1], Ended) else len(item[1].starts)
        if patches >= BATCH:
            yield from _score(model, waiting)
            waiting, patches = [], 0
    yield from _score(model, waiting)


def read_patches(path: Path, front_end: FrontEnd, hop: int) -> Iterator[PatchBlock]:
    """Read the patches of a recording, block by block.

    Args:
        path: the recording.
        front_end: the backbone's settings.
        hop: frames from one patch to the next.

    Yields:
        Blocks of patches, in order.

    Raises:
        SoundError: (a DataError) the file cannot be decoded.
    """
    stream = PatchStream(front_end, hop)
    with open_sound(path) as sound:
        for samples in waveform_blocks(sound, Resampler(front_end.sample_rate), block=_BLOCK):
            yield from stream.push(samples)
    yield from stream.finish()


def _score(
    model: Any, items: list[tuple[int, PatchBlock | Ended]]
) -> Iterator[tuple[int, ScoreBlock | Ended]]:
    blocks = [block.patches for _, block in items if isinstance(block, PatchBlock)]
    together = np.concatenate(blocks) if len(blocks) > 1 else blocks[0] if blocks else None
    at = 0
    scores = np.zeros((0, 0)) if together is None else _in_batches(model, together)
    for number, item in items:
        if isinstance(item, Ended):
            yield number, item
            continue
        mine = scores[at : at + len(item.starts)]
        at += len(item.starts)
        yield number, ScoreBlock(item.starts, mine, item.ends)


def _in_batches(model: Any, patches: np.ndarray) -> np.ndarray:
    parts = [patch_scores(model, patches[at : at + BATCH]) for at in range(0, len(patches), BATCH)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
