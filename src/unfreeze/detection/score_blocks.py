"""Scores of consecutive patches that arrive block by block, and what smooths them.

`WindowMeans` and `MedianOfThree` take blocks and give blocks; what they give does not
depend on where the blocks are cut. Only a few patches are kept in memory.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ScoreBlock:
    """Class scores of some consecutive patches of a recording.

    Attributes:
        starts: (n,) float64, seconds from the start of the recording, ascending.
        scores: (n, classes) float32, probabilities.
        ends: (n,) float64, seconds; never beyond the recording's end.
        silent: (n,) whether a patch holds digital silence alone; None where that is not
            known.
    """

    starts: np.ndarray
    scores: np.ndarray
    ends: np.ndarray
    silent: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, part: slice) -> "ScoreBlock":
        silent = None if self.silent is None else self.silent[part]
        return ScoreBlock(self.starts[part], self.scores[part], self.ends[part], silent)

    def without_silence(self, exempt: np.ndarray) -> "ScoreBlock":
        """The same, but in digital silence nothing is heard.

        What a network makes of it is an accident of its training: "cat", say.

        Args:
            exempt: (classes,) whether a class may be one of silence.
        """
        if self.silent is None or not self.silent.any():
            return self
        scores = np.where(self.silent[:, None] & ~exempt, np.float32(0), self.scores)
        return ScoreBlock(self.starts, scores, self.ends)


def joined(first: ScoreBlock | None, second: ScoreBlock) -> ScoreBlock:
    """Join two consecutive blocks into one."""
    if first is None or not len(first):
        return second
    return ScoreBlock(
        np.concatenate([first.starts, second.starts]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.ends, second.ends]),
    )


class WindowMeans:
    """Averages the scores of the patches within windows longer than a patch.

    Args:
        count: patches in a window, 1 or more.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: ScoreBlock | None = None
        self._begun = False

    def push(self, block: ScoreBlock) -> ScoreBlock:
        """Take patches; return the windows that they complete, one from each patch on."""
        count, held = self._count, joined(self._held, block)
        if count == 1 or len(held) < count:
            self._held = None if count == 1 else held
            return held if count == 1 else held[:0]
        windows = np.lib.stride_tricks.sliding_window_view(held.scores, count, axis=0)
        self._held, self._begun = held[len(held) - count + 1 :], True
        means = windows.mean(axis=-1, dtype=np.float64).astype(np.float32)
        return ScoreBlock(held.starts[: len(means)], means, held.ends[count - 1 :])

    def finish(self) -> ScoreBlock | None:
        """Return what is left: the only window of a recording shorter than a window."""
        held, self._held = self._held, None
        if held is None or self._begun or not len(held):
            return None
        mean = held.scores.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return ScoreBlock(held.starts[:1], mean, held.ends[-1:])


class MedianOfThree:
    """Takes the median of each patch and its two neighbours, class by class.

    A single patch that differs from both neighbours, high or low, takes the
    score of one of them; steps stay where they are, which a mean would blur.
    The first and the last patch of a recording stay as they are.
    """

    def __init__(self) -> None:
        self._held: ScoreBlock | None = None
        self._begun = False

    def push(self, block: ScoreBlock) -> ScoreBlock:
        """Take patches; return those before the last, smoothed."""
        held = joined(self._held, block)
        if not self._begun and len(held):
            # Its own neighbour, so that the median is its own score.
            held, self._begun = joined(held[:1], held), True
        if len(held) < 3:
            self._held = held
            return held[:0]
        scores = held.scores
        middle = np.median(np.stack([scores[:-2], scores[1:-1], scores[2:]]), axis=0)
        self._held = held[len(held) - 2 :]
        return ScoreBlock(held.starts[1:-1], middle, held.ends[1:-1])

    def finish(self) -> ScoreBlock | None:
        """Return the last patch; None if there was none."""
        held, self._held = self._held, None
        return None if held is None or not len(held) else held[len(held) - 1 :]
