"""Places in an index that are like an example, of a class, uncertain, or like no example.

A query gives each window a number, the higher the better. Places are what is left when
neighbouring windows are put together: of all windows that are at least as good as the last place
that is listed, those that adjoin in a recording are one place, with the number of the best. The
example's own place is not listed, if it is in the index.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.errors import DataError, UnfreezeError, did_you_mean, show
from unfreeze.search.index_folder import Finished, Index, Indexed, Place
from unfreeze.search.likeness import in_blocks, joined, likeness
from unfreeze.search.neighbours import Neighbours

#: How many places are listed.
TOP = 20
# Windows that are looked at first for each place that is wanted; more if these are too few.
_WINDOWS = 8
# Of a hop: times are rounded where people see them.
_SLACK = 0.01

#: From a number to the windows that score best, at most so many, the best first; and scores.
Ranked = Callable[[int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Example:
    """A sound to compare with: a recording, or a part of one.

    Attributes:
        recording: the file; it need not be in the index.
        start: seconds.
        end: seconds; beyond the end stands for the end.
    """

    recording: Path
    start: float = 0.0
    end: float = math.inf


@dataclass(frozen=True)
class Found:
    """A place that was found.

    Attributes:
        place: where it is.
        score: of its best window: the likeness (-1 to 1), the class's probability, or the
            uncertainty (0 to 1).
        row: the number of that window.
        label: the class, where the query is about classes; for an uncertain place the
            likeliest one.
    """

    place: Place
    score: float
    row: int
    label: str = ""


def like(
    index: Index,
    examples: Sequence[Example],
    top: int = TOP,
    neighbours: Neighbours | None = None,
) -> list[Found]:
    """The places that sound most like one of some examples.

    Args:
        index: where to search.
        examples: what to compare with.
        top: the most places.
        neighbours: for an approximate search; None compares all windows.

    Returns:
        The places, the likest first.

    Raises:
        DataError: an example cannot be read, or the index is damaged.
    """
    vectors = example_vectors(index, examples)
    own = _own_rows(index, examples)
    if neighbours is None:
        scores = likeness(index, vectors)
        for rows in own:
            scores[rows.start : rows.stop] = -np.inf
        return best_places(index, ranked_by(scores), top)

    def ranked(count: int) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = neighbours.nearest(index, vectors, count + sum(map(len, own)))
        kept = np.ones(len(rows), bool)
        for mine in own:
            kept &= (rows < mine.start) | (rows >= mine.stop)
        return rows[kept][:count], scores[kept][:count]

    return best_places(index, ranked, top)


def unlike(index: Index, examples: Sequence[Example], top: int = TOP) -> list[Found]:
    """The places that resemble no example: what a training set, say, does not hold yet.

    Args:
        index: where to search.
        examples: what to compare with.
        top: the most places.

    Returns:
        The places, those least like their most similar example first; the score is that
        likeness with its sign changed. Digital silence is left out.

    Raises:
        DataError: an example cannot be read, or the index is damaged.
    """
    scores = -likeness(index, example_vectors(index, examples))
    scores[np.isposinf(scores)] = -np.inf
    return best_places(index, ranked_by(scores), top)


def of_class(index: Index, label: str, top: int = TOP) -> list[Found]:
    """The places with the highest probabilities of a class.

    Raises:
        UnfreezeError: the index has no such class, or none at all.
        DataError: the index is damaged.
    """
    check_class(index, label)
    column = index.labels.index(label)

    def of_block(first: int, end: int) -> np.ndarray:
        scores = index.scores(first, end)
        assert scores is not None
        found = scores[:, column].astype(np.float32)
        found[found <= 0] = -np.inf
        return found

    found = best_places(index, ranked_by(joined(in_blocks(range(index.rows), of_block))), top)
    return [Found(item.place, item.score, item.row, label) for item in found]


def uncertain(index: Index, top: int = TOP) -> list[Found]:
    """The places where the run is least certain.

    That is 1 less the margin between the two likeliest classes; where clips may have several
    labels, between the class that is nearest to a half and the half, doubled.

    Raises:
        UnfreezeError: the index has no classes.
        DataError: the index is damaged.
    """
    _check_classes(index)
    if len(index.labels) == 1 and not index.settings.several:
        raise UnfreezeError("A run with one class is never uncertain")

    def of_block(first: int, end: int) -> np.ndarray:
        scores = index.scores(first, end)
        assert scores is not None
        values = scores.astype(np.float32)
        if index.settings.several:
            return np.asarray(1 - 2 * np.abs(values - 0.5).min(axis=1))
        two = np.partition(values, -2, axis=1)[:, -2:]
        # Nothing is heard in digital silence, which is certain.
        return np.where(two[:, 1] > 0, 1 - (two[:, 1] - two[:, 0]), -np.inf)

    found = best_places(index, ranked_by(joined(in_blocks(range(index.rows), of_block))), top)
    labelled = []
    for item in found:
        scores = index.scores(item.row, item.row + 1)
        assert scores is not None
        label = index.labels[int(scores[0].argmax())]
        labelled.append(Found(item.place, item.score, item.row, label))
    return labelled


def check_class(index: Index, label: str) -> None:
    """Refuse a class that the index does not have.

    Raises:
        UnfreezeError: names the closest one.
    """
    _check_classes(index)
    if label not in index.labels:
        hint = did_you_mean(label, index.labels)
        known = ", ".join(show(name) for name in index.labels if not is_quiet(name))
        raise UnfreezeError(f"The index has no class {show(label)!r}; it has {known}.{hint}")


def _check_classes(index: Index) -> None:
    if not index.labels:
        raise UnfreezeError(
            f"{show(index.folder)} was made without a run, so it has no classes: make one with "
            "`unfreeze embed RECORDINGS --run RUN --out`"
        )


def example_vectors(index: Index, examples: Sequence[Example]) -> np.ndarray:
    """The vector of each example: the mean of those of its windows.

    The network runs only for recordings that are not in the index, or have changed.

    Returns:
        (examples, numbers) float32.

    Raises:
        DataError: a recording cannot be read, a part of it is empty or digital silence.
    """
    if not examples:
        raise DataError("No example is given")
    known = {item.path: item for item in index.recordings}
    encoder = None
    read: dict[Path, Finished] = {}
    found = []
    for example in examples:
        path = example.recording.absolute()
        item = known.get(path)
        if item is not None and item.change() is None:
            rows = rows_of(index, item, example)
            windows = index.vectors(rows.start, rows.stop)
        else:
            if path not in read:
                # Keras takes seconds to import.
                from unfreeze.search.embedding import open_index_encoder, vectors_of

                encoder = encoder or open_index_encoder(index)
                read[path] = vectors_of(encoder, index.settings, path)
            new = read[path]
            item = Indexed(path, 0, len(new.vectors), new.seconds, new.sample_rate, None)
            rows = rows_of(index, item, example)
            windows = new.vectors[rows.start : rows.stop]
        values = windows.astype(np.float32)
        sounding = values[np.any(values != 0, axis=1)]
        if not len(sounding):
            what = "is empty" if not len(values) else "is digital silence"
            part = "" if example == Example(example.recording) else " from there on"
            raise DataError(f"{show(example.recording)} {what}{part}: give another example")
        found.append(sounding.mean(axis=0))
    return np.stack(found)


def rows_of(index: Index, item: Indexed, example: Example) -> range:
    """The windows that lie in an example; if there are none, the one nearest to it."""
    hop, window = index.settings.hop, index.settings.window
    end = min(example.end, item.seconds)
    if example.start >= end:
        return range(item.first, item.first)
    first = math.ceil(max(example.start, 0.0) / hop - _SLACK)
    stop = item.rows
    if end < item.seconds:
        stop = min(math.floor((end - window) / hop + _SLACK) + 1, item.rows)
    if first >= stop:
        middle = (example.start + end - window) / 2
        first = min(max(round(middle / hop), 0), item.rows - 1)
        stop = first + 1
    return range(item.first + first, item.first + stop)


def _own_rows(index: Index, examples: Sequence[Example]) -> list[range]:
    """All windows of the index that share sound with an example."""
    hop, window = index.settings.hop, index.settings.window
    wanted = {example.recording.absolute() for example in examples}
    items = {item.path: item for item in index.recordings if item.path in wanted}
    found = []
    for example in examples:
        item = items.get(example.recording.absolute())
        if item is not None:
            first = max(math.floor((example.start - window) / hop + _SLACK) + 1, 0)
            end = item.rows if math.isinf(example.end) else math.ceil(example.end / hop - _SLACK)
            found.append(range(item.first + first, item.first + min(end, item.rows)))
    return found


def ranked_by(scores: np.ndarray) -> Ranked:
    """All windows by their scores; those of -inf are left out.

    Windows with the same score come in their order.
    """
    possible = np.flatnonzero(scores > -np.inf)

    def ranked(count: int) -> tuple[np.ndarray, np.ndarray]:
        rows, values = possible, scores[possible]
        if count < len(rows):
            least = -np.partition(-values, count - 1)[count - 1]
            # All that are as good as the last, so that ties do not depend on the partition.
            kept = np.flatnonzero(values >= least)
            rows, values = rows[kept], values[kept]
        order = np.argsort(-values, kind="stable")[:count]
        return rows[order], values[order]

    return ranked


def best_places(index: Index, ranked: Ranked, top: int) -> list[Found]:
    """The best places, the best first.

    Args:
        index: where they are.
        ranked: gives the best windows.
        top: the most places.
    """
    count = _WINDOWS * top
    while True:
        rows, scores = ranked(count)
        places = _runs(index, rows, scores)
        if len(places) >= top:
            # What is worse than the last place would only make the others longer.
            kept = scores >= sorted((found.score for found in places), reverse=True)[top - 1]
            places = _runs(index, rows[kept], scores[kept])
        if len(places) >= top or len(rows) < count:
            return sorted(places, key=lambda found: (-found.score, found.row))[:top]
        count *= 4


def _runs(index: Index, rows: np.ndarray, scores: np.ndarray) -> list[Found]:
    """Neighbouring windows of a recording as one place each."""
    if not len(rows):
        return []
    order = np.argsort(rows, kind="stable")
    rows, scores = rows[order], scores[order]
    recording = index.number_of(rows)
    begins = np.flatnonzero(np.append(True, (np.diff(rows) != 1) | (np.diff(recording) != 0)))
    ends = np.append(begins[1:], len(rows))
    best = np.maximum.reduceat(scores, begins)
    found = []
    for first, end, score in zip(begins.tolist(), ends.tolist(), best.tolist(), strict=True):
        peak = first + int(np.argmax(scores[first:end]))
        start, stop = index.place(int(rows[first])), index.place(int(rows[end - 1]))
        place = Place(start.recording, start.start, stop.end)
        found.append(Found(place, float(score), int(rows[peak])))
    return found
