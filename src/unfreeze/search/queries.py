"""Places in an index that are like an example, of a class, uncertain, or like no example.

A query gives each window a score, the higher the better. The best window begins the first place,
which lasts as long as its neighbours score nearly as well: they are above three quarters of the
way from the middle (median) score of the index to the place's own. The best of the windows that
neither belong to a place nor adjoin one begins the next, and so on. The example's own place is
not listed, if it is in the index.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.backend import import_keras
from unfreeze.errors import DataError, UnfreezeError, did_you_mean, show
from unfreeze.files import plain_path
from unfreeze.search.index_folder import Finished, Index, Indexed, Place
from unfreeze.search.likeness import cosines, in_blocks, joined, likeness, unit
from unfreeze.search.neighbours import Neighbours

#: Called for an example that cannot be used and is left out.
OnError = Callable[[DataError], None]
#: How many places are listed.
TOP = 20
# Windows that are looked at first for each place that is wanted; more if these are too few.
_WINDOWS = 8
# A place ends where the score has fallen by this share of the way to the middle score.
_FALLEN = 0.25
# Neighbours of a place that are looked at at once.
_STEP = 256
# Stretches of windows, and windows of each, that the middle score is estimated from.
_SAMPLES, _OF_EACH = 16, 512
# Of a hop: times are rounded where people see them.
_SLACK = 0.01


@dataclass(frozen=True)
class Example:
    """A sound to compare with: a recording, or a part of one.

    Attributes:
        recording: the file; it need not be in the index.
        start: seconds.
        end: seconds; beyond the end stands for the end.

    Examples:
        >>> unfreeze.Example("new.wav", 0.2, 0.8).recording.name
        'new.wav'
    """

    recording: Path
    start: float = 0.0
    end: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "recording", Path(self.recording))


@dataclass(frozen=True, eq=False)
class Ranking:
    """The scores of all windows for a query.

    Attributes:
        best: called with a number: the windows that score best, at most so many, the best
            first; and their scores.
        scores: called with the first and the end of some windows: the score of each.
        middle: the median of all scores, or nearly.
    """

    best: Callable[[int], tuple[np.ndarray, np.ndarray]]
    scores: Callable[[int, int], np.ndarray]
    middle: float


@dataclass(frozen=True)
class Found:
    """A place that was found.

    Attributes:
        place: where it is.
        score: of its best window: the likeness (-1 to 1), 1 less it, the class's probability,
            or the uncertainty (0 to 1).
        row: the number of that window.
        label: the class, where the query is about classes; for an uncertain place the
            likeliest one.
    """

    place: Place
    score: float
    row: int
    label: str = ""


def find_like(
    index: Index,
    examples: Sequence[Example],
    top: int = TOP,
    neighbours: Neighbours | None = None,
    on_error: OnError | None = None,
) -> list[Found]:
    """The places that sound most like one of some examples.

    Args:
        index: where to search.
        examples: what to compare with.
        top: the most places.
        neighbours: for an approximate search; None compares all windows.
        on_error: as for `example_vectors`.

    Returns:
        The places, the likest first.

    Raises:
        DataError: an example cannot be read, or the index is damaged.

    Examples:
        >>> index = unfreeze.open_index("index")
        >>> found = unfreeze.find_like(index, [unfreeze.Example("new.wav")], top=3)
        >>> 1 > found[0].score > found[1].score > found[2].score
        True
    """
    vectors = example_vectors(index, examples, on_error)
    if neighbours is None:
        ranking = ranking_of(likeness(index, vectors))
    else:
        ranking = _approximate(index, neighbours, vectors)
    return best_places(index, ranking, top, _own_rows(index, examples))


def _approximate(index: Index, neighbours: Neighbours, vectors: np.ndarray) -> Ranking:
    wanted = unit(vectors).T.copy()

    def scores(first: int, end: int) -> np.ndarray:
        return cosines(index.vectors(first, end), wanted)

    sample = np.linspace(0, index.rows, _SAMPLES, endpoint=False, dtype=int).tolist()
    some = joined([scores(at, at + _OF_EACH) for at in dict.fromkeys(sample)])
    return Ranking(partial(neighbours.nearest, index, vectors), scores, _middle(some))


def find_unlike(
    index: Index,
    examples: Sequence[Example],
    top: int = TOP,
    on_error: OnError | None = None,
) -> list[Found]:
    """The places that resemble no example: what a training set, say, does not hold yet.

    Args:
        index: where to search.
        examples: what to compare with.
        top: the most places.
        on_error: as for `example_vectors`.

    Returns:
        The places, those least like their most similar example first; the score is 1 less that
        likeness. Digital silence is left out, and so are the examples' own places.

    Raises:
        DataError: an example cannot be read, or the index is damaged.

    Examples:
        >>> index = unfreeze.open_index("index")
        >>> (found,) = unfreeze.find_unlike(index, [unfreeze.Example("new.wav")], top=1)
        >>> found.place.recording.parent.name != "low"
        True
    """
    scores = 1 - likeness(index, example_vectors(index, examples, on_error))
    scores[np.isposinf(scores)] = -np.inf
    return best_places(index, ranking_of(scores), top, _own_rows(index, examples))


def find_class(index: Index, label: str, top: int = TOP) -> list[Found]:
    """The places with the highest probabilities of a class.

    Raises:
        UnfreezeError: the index has no such class, or none at all.
        DataError: the index is damaged.

    Examples:
        >>> index = unfreeze.open_index("index")
        >>> (found,) = unfreeze.find_class(index, "noise", top=1)
        >>> found.place.recording.parent.name
        'noise'
    """
    check_class(index, label)
    column = index.labels.index(label)

    def of_block(first: int, end: int) -> np.ndarray:
        scores = index.scores(first, end)
        assert scores is not None
        found = scores[:, column].astype(np.float32)
        found[found <= 0] = -np.inf
        return found

    found = best_places(index, ranking_of(joined(in_blocks(range(index.rows), of_block))), top)
    return [Found(item.place, item.score, item.row, label) for item in found]


def find_uncertain(index: Index, top: int = TOP) -> list[Found]:
    """The places where the run is least certain.

    That is 1 less the margin between the two likeliest classes; where clips may have several
    labels, between the class that is nearest to a half and the half, doubled.

    Raises:
        UnfreezeError: the index has no classes.
        DataError: the index is damaged.

    Examples:
        >>> index = unfreeze.open_index("index")
        >>> len(unfreeze.find_uncertain(index, top=2))
        2
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

    found = best_places(index, ranking_of(joined(in_blocks(range(index.rows), of_block))), top)
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


def example_vectors(
    index: Index, examples: Sequence[Example], on_error: OnError | None = None
) -> np.ndarray:
    """The vector of each example: the mean of those of its windows.

    The network runs only for recordings that are not in the index, or have changed.

    Args:
        index: what the examples are compared with.
        examples: recordings, or parts of them.
        on_error: called for each example that cannot be used, which is then left out; None
            raises the first such error.

    Returns:
        (examples, numbers) float32, of those that can be used.

    Raises:
        DataError: a recording cannot be read, a part of it is empty or digital silence; with
            `on_error`, all of them.
    """
    if not examples:
        raise DataError("No example is given")
    found: list[np.ndarray] = []
    errors: list[DataError] = []
    for vector in _each_vector(index, examples):
        if isinstance(vector, np.ndarray):
            found.append(vector)
        elif on_error is None:
            raise vector
        else:
            errors.append(vector)
    if not found:
        raise errors[0]
    if on_error is not None:
        for error in errors:
            on_error(error)
    return np.stack(found)


def _each_vector(index: Index, examples: Sequence[Example]) -> Iterator[np.ndarray | DataError]:
    """The vector of each example, or why it has none."""
    encoder = None
    read: dict[Path, Finished] = {}
    for example in examples:
        path = plain_path(example.recording)
        item = index.recording(path)
        if item is not None and (item.change() is None or not path.exists()):
            rows = rows_of(index, item, example)
            windows = index.vectors(rows.start, rows.stop)
        else:
            if path not in read:
                # Keras takes seconds to import.
                import_keras()
                from unfreeze.search.embedding import open_index_encoder, vectors_of

                encoder = encoder or open_index_encoder(index)
                try:
                    read[path] = vectors_of(encoder, index.settings, path)
                except DataError as error:
                    yield error
                    continue
            new = read[path]
            item = Indexed(path, 0, len(new.vectors), new.seconds, new.sample_rate, None)
            rows = rows_of(index, item, example)
            windows = new.vectors[rows.start : rows.stop]
        values = windows.astype(np.float32)
        sounding = values[np.any(values != 0, axis=1)]
        if not len(sounding):
            what = "is empty" if not len(values) else "is digital silence"
            part = "" if example == Example(example.recording) else " from there on"
            yield DataError(f"{show(example.recording)} {what}{part}: give another example")
            continue
        yield sounding.mean(axis=0)


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
    found = []
    for example in examples:
        item = index.recording(example.recording)
        if item is not None:
            first = max(math.floor((example.start - window) / hop + _SLACK) + 1, 0)
            end = item.rows if math.isinf(example.end) else math.ceil(example.end / hop - _SLACK)
            found.append(range(item.first + first, item.first + min(end, item.rows)))
    return found


def ranking_of(scores: np.ndarray) -> Ranking:
    """The ranking of all windows by their scores.

    Args:
        scores: (windows,); those of -inf are never listed.
    """
    possible = np.flatnonzero(scores > -np.inf)

    def best(count: int) -> tuple[np.ndarray, np.ndarray]:
        rows, values = possible, scores[possible]
        if count < len(rows):
            least = -np.partition(-values, count - 1)[count - 1]
            # All that are as good as the last, so that ties do not depend on the partition.
            kept = np.flatnonzero(values >= least)
            rows, values = rows[kept], values[kept]
        order = np.argsort(-values, kind="stable")[:count]
        return rows[order], values[order]

    return Ranking(best, lambda first, end: scores[first:end], _middle(scores))


def _middle(scores: np.ndarray) -> float:
    known = scores[scores > -np.inf]
    return float(np.median(known)) if len(known) else 0.0


def best_places(
    index: Index, ranking: Ranking, top: int, taken: Sequence[range] = ()
) -> list[Found]:
    """The best places, the best first.

    Args:
        index: where they are.
        ranking: of its windows.
        top: the most places.
        taken: windows that are not listed.
    """
    free = np.ones(index.rows, bool)
    for own in taken:
        free[own.start : own.stop] = False
    found: list[Found] = []
    count = _WINDOWS * top + sum(map(len, taken))
    while len(found) < top:
        rows, scores = ranking.best(count)
        exhausted = len(rows) < count
        while len(found) < top:
            left = free[rows]
            rows, scores = rows[left], scores[left]
            if not len(rows):
                break
            found.append(_grown(index, ranking, int(rows[0]), float(scores[0]), free))
        if exhausted:
            break
        count *= 4
    return found


def _grown(index: Index, ranking: Ranking, row: int, score: float, free: np.ndarray) -> Found:
    """The place around a window; it and the windows that adjoin it are no longer free."""
    item = index.recording_of(row)
    least = score - _FALLEN * max(score - ranking.middle, 0.0)
    first, end = row, row + 1
    while first > item.first:
        start = max(first - _STEP, item.first)
        fits = (ranking.scores(start, first) >= least) & free[start:first]
        more = len(fits) if fits.all() else int(np.argmin(fits[::-1]))
        first -= more
        if more < len(fits):
            break
    last = item.first + item.rows
    while end < last:
        stop = min(end + _STEP, last)
        fits = (ranking.scores(end, stop) >= least) & free[end:stop]
        more = len(fits) if fits.all() else int(np.argmin(fits))
        end += more
        if more < len(fits):
            break
    free[max(first - 1, item.first) : min(end + 1, last)] = False
    place = Place(item.path, index.place(first).start, index.place(end - 1).end)
    return Found(place, score, row)
