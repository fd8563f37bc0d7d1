"""Scores of consecutive patches, and what is done to them before events are sought.

Everything works on a stream of blocks and keeps only a few patches.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ScoreBlock:
    """Class scores of some consecutive patches of a recording.

    Attributes:
        starts: (n,) float64, seconds from the start of the recording, ascending.
        scores: (n, classes) float32, probabilities.
        ends: (n,) float64, seconds; never beyond the recording's end.
    """

    starts: np.ndarray
    scores: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, part: slice) -> "ScoreBlock":
        return ScoreBlock(self.starts[part], self.scores[part], self.ends[part])


def joined(first: ScoreBlock | None, second: ScoreBlock) -> ScoreBlock:
    """Return two blocks that follow each other as one."""
    if first is None or not len(first):
        return second
    return ScoreBlock(
        np.concatenate([first.starts, second.starts]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.ends, second.ends]),
    )


def smoothed(blocks: Iterable[ScoreBlock]) -> Iterator[ScoreBlock]:
    """Take the median of each patch and its two neighbours, class by class.

    A single patch that differs from both neighbours, high or low, takes the
    score of one of them; steps stay where they are, which a mean would blur.
    The first and the last patch of a recording stay as they are.

    Args:
        blocks: of one recording, in order.

    Yields:
        The same patches.
    """
    held: ScoreBlock | None = None
    begun = False
    for block in blocks:
        held = joined(held, block)
        if not begun and len(held):
            yield held[:1]
            begun = True
        if len(held) >= 3:
            scores = held.scores
            middle = np.median(np.stack([scores[:-2], scores[1:-1], scores[2:]]), axis=0)
            yield ScoreBlock(held.starts[1:-1], middle, held.ends[1:-1])
            held = held[-2:]
    if held is not None and len(held) > 1:
        yield held[-1:]


def window_means(blocks: Iterable[ScoreBlock], count: int) -> Iterator[ScoreBlock]:
    """Average the scores of the patches within windows longer than a patch.

    Args:
        blocks: of one recording, in order.
        count: patches in a window, 1 or more.

    Yields:
        A window from each patch on that has `count` patches; a recording with
        fewer is one window.
    """
    if count == 1:
        yield from blocks
        return
    held: ScoreBlock | None = None
    begun = False
    for block in blocks:
        held = joined(held, block)
        if len(held) >= count:
            windows = np.lib.stride_tricks.sliding_window_view(held.scores, count, axis=0)
            yield ScoreBlock(
                held.starts[: len(held) - count + 1],
                windows.mean(axis=-1, dtype=np.float64).astype(np.float32),
                held.ends[count - 1 :],
            )
            begun = True
            held = held[len(held) - count + 1 :]
    if held is not None and len(held) and not begun:
        mean = held.scores.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        yield ScoreBlock(held.starts[:1], mean, held.ends[-1:])
