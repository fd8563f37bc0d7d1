"""The clips that can be reviewed: recordings divided into clips of one length, with scores.

An index (`unfreeze.search`) has a row for each window that the network hears; windows overlap,
and nobody wants to hear the same sound three times. So each recording is divided into clips
that do not overlap, and a clip takes the largest score of each class among the windows whose
middle lies in it. One unit serves all: what is asked, what is trained on, and what is counted.
The last clip of a recording takes what is left over, up to a third of a length more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.review.quick_head import QuickHead
from unfreeze.search.index_folder import Index

# Rows that are read at once.
_BLOCK = 8192
# Windows whose vectors are in memory at once.
_ROWS = 32_768
# A rest of a recording shorter than this share of a clip belongs to the clip before.
_REST = 1 / 3


@dataclass(frozen=True, eq=False)
class Pool:
    """Clips, in the order of recordings and time.

    Attributes:
        recordings: the files.
        recording: (clips,) int32, the position of each clip's file among them.
        start: (clips,) float64, seconds.
        end: (clips,) float64, seconds.
        labels: name of each class.
        scores: (clips, classes) float16, the largest of each class in the clip.
        rows: (clips + 1,) int64: clip i has the rows of the index from rows[i] to rows[i + 1].
        several: whether each class is judged by itself.
    """

    recordings: tuple[Path, ...]
    recording: np.ndarray
    start: np.ndarray
    end: np.ndarray
    labels: tuple[str, ...]
    scores: np.ndarray
    rows: np.ndarray
    several: bool = False

    def __len__(self) -> int:
        return len(self.start)

    def place(self, clip: int) -> tuple[Path, float, float]:
        """The file of a clip, and its start and end in seconds."""
        file = self.recordings[int(self.recording[clip])]
        return file, float(self.start[clip]), float(self.end[clip])

    @cached_property
    def number_of(self) -> dict[Path, int]:
        """The position of each file among the recordings."""
        return {file: number for number, file in enumerate(self.recordings)}

    @property
    def loud(self) -> np.ndarray:
        """(classes,) whether a class may be asked for: background is not."""
        return _loud(self.labels)

    def likeliest(self) -> np.ndarray:
        """(clips,) the number of the likeliest class of each clip that may be asked for."""
        found: np.ndarray = np.where(self.loud, self.scores, np.float16(-1)).argmax(axis=1)
        return found

    def certainty(self) -> np.ndarray:
        """(clips,) float32, 0 (nothing is less certain) to 1.

        The margin between the two likeliest classes (T. Scheffer et al., IDA 2001) or, where
        each class is judged by itself, the distance of the nearest score from 0.5.
        """
        found = np.empty(len(self), np.float32)
        for at in range(0, len(self), _BLOCK):
            part = self.scores[at : at + _BLOCK].astype(np.float32)
            if self.several or part.shape[1] < 2:
                found[at : at + _BLOCK] = 2 * np.abs(part - 0.5).min(axis=1)
            else:
                two = np.sort(np.partition(part, -2, axis=1)[:, -2:], axis=1)
                found[at : at + _BLOCK] = two[:, 1] - two[:, 0]
        return found


def make_pool(index: Index, length: float) -> Pool:
    """Divide the recordings of an index into clips.

    Args:
        index: made with a run, so that it has scores.
        length: seconds of a clip.
    """
    recording, start, end, bounds = list[np.ndarray](), list[np.ndarray](), list[np.ndarray](), [0]
    for number, item in enumerate(index.recordings):
        if not item.rows:
            continue
        edges = np.array(clip_edges(item.seconds, length))
        begin = np.arange(item.rows) * index.settings.hop
        middle = (begin + np.minimum(begin + index.settings.window, item.seconds)) / 2
        clip = np.clip(np.searchsorted(edges, middle, "right") - 1, 0, len(edges) - 2)
        own, first = np.unique(clip, return_index=True)
        recording.append(np.full(len(own), number, np.int32))
        start.append(edges[own])
        end.append(edges[own + 1])
        bounds += [item.first + int(at) for at in [*first[1:], item.rows]]
    rows = np.array(bounds, np.int64)
    none = [np.zeros(0)]
    return Pool(
        tuple(item.path for item in index.recordings),
        np.concatenate(recording or [np.zeros(0, np.int32)]),
        np.concatenate(start or none),
        np.concatenate(end or none),
        index.labels,
        _largest(rows, len(index.labels), index.scores),
        rows,
        index.settings.several,
    )


def _loud(labels: Sequence[str]) -> np.ndarray:
    return np.array([not is_quiet(label) for label in labels], bool)


def clip_edges(seconds: float, length: float) -> list[float]:
    """Where the clips of a recording begin, and where the last one ends.

    Args:
        seconds: length of the recording.
        length: seconds of a clip.

    Examples:
        >>> clip_edges(7.5, 3.0), clip_edges(6.5, 3.0), clip_edges(1.2, 3.0)
        ([0.0, 3.0, 6.0, 7.5], [0.0, 3.0, 6.5], [0.0, 1.2])
    """
    whole = max(int(seconds / length - _REST + 1 - 1e-9), 1)
    return [*(number * length for number in range(whole)), seconds]


def _largest(
    bounds: np.ndarray,
    classes: int,
    scores_of: Callable[[int, int], np.ndarray | None],
) -> np.ndarray:
    """The largest score of each class among the rows of each clip.

    Args:
        bounds: as `Pool.rows`.
        classes: how many `scores_of` returns.
        scores_of: (rows, classes) of a stretch of rows.
    """
    found = np.zeros((len(bounds) - 1, classes), np.float16)
    for at, stop in _blocks(bounds):
        own = bounds[at : stop + 1]
        scores = scores_of(int(own[0]), int(own[-1]))
        assert scores is not None
        found[at:stop] = np.maximum.reduceat(scores, own[:-1] - own[0], axis=0)
    return found


def _blocks(bounds: np.ndarray) -> Iterator[tuple[int, int]]:
    """Clips from one to another whose windows fit into memory, until all are through."""
    at = 0
    while at < len(bounds) - 1:
        most = int(np.searchsorted(bounds, bounds[at] + _ROWS, side="right")) - 1
        stop = max(most, at + 1)
        yield at, stop
        at = stop


def scored_again(index: Index, pool: Pool, head: QuickHead) -> Pool:
    """The same clips with the scores, and the classes, of a new head.

    Args:
        index: that the pool was made from.
        pool: the clips.
        head: on the index's vectors.
    """

    def scores_of(start: int, stop: int) -> np.ndarray:
        before = index.scores(start, stop)
        assert before is not None
        return head.scores(index.vectors(start, stop).astype(np.float32), before)

    largest = _largest(pool.rows, len(head.names), scores_of)
    return replace(pool, labels=head.names, scores=largest)


def similarities(index: Index, pool: Pool, clip: int, label: str) -> np.ndarray:
    """How alike each clip is to one of them.

    Args:
        index: that the pool was made from.
        pool: the clips.
        clip: the one to compare with.
        label: the class that is heard in it. The window with the largest score for it stands
            for the clip or, where the index does not know the class, that of any class.

    Returns:
        (clips,) float32, the cosine of the clip's most similar window.
    """
    begin, stop = (int(x) for x in pool.rows[clip : clip + 2])
    own = index.vectors(begin, stop).astype(np.float32)
    scores = index.scores(begin, stop)
    assert scores is not None
    # What is heard in a clip lies where the model hears it best.
    known = np.array([name == label for name in index.labels], bool)
    columns = known if known.any() else _loud(index.labels)
    best = int(scores[:, columns].max(axis=1).argmax())
    wanted = own[best] / max(float(np.linalg.norm(own[best])), 1e-12)
    found = np.empty(len(pool), np.float32)
    for at, stop in _blocks(pool.rows):
        bounds = pool.rows[at : stop + 1]
        vectors = index.vectors(int(bounds[0]), int(bounds[-1])).astype(np.float32)
        norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
        found[at:stop] = np.maximum.reduceat(vectors @ wanted / norms, bounds[:-1] - bounds[0])
    return found


def without(pool: Pool, unwanted: Mapping[Path, str]) -> np.ndarray:
    """(clips,) bool, whether a clip may be asked for: not of an unwanted recording."""
    good = np.array([file not in unwanted for file in pool.recordings], bool)
    found: np.ndarray = good[pool.recording]
    return found


def overlapping(pool: Pool, recording: Path, start: float, end: float) -> Sequence[int]:
    """The clips of a recording that overlap a stretch of it."""
    number = pool.number_of.get(recording)
    if number is None:
        return []
    first, last = np.searchsorted(pool.recording, [number, number + 1])
    own = slice(int(first), int(last))
    touched = (pool.start[own] < end - 1e-3) & (pool.end[own] > start + 1e-3)
    return [int(first) + int(i) for i in np.flatnonzero(touched)]
