"""Training and validation data as they are given to `fit`: every form that Keras' `fit` takes.

`gather` turns them into `Rows` or `Stream`s: x and y apart or together, a share of the
samples for validation, and datasets without an end. What does not fit together is
refused, with what to give instead. Invariant: validation data are the same samples in every
epoch, so of a dataset without an end the first `validation_steps` batches are taken.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import keras
import numpy as np

from unfreeze.core.data import ENDLESS, Rows, Stream, as_data, kind_of, number_of_batches
from unfreeze.core.keras_internals import is_dataset, tree
from unfreeze.errors import DataError


def gather(
    model: keras.Model,
    train: Any,
    y: Any,
    sample_weight: Any,
    validation_data: Any,
    validation_split: float,
    steps_per_epoch: int | None,
    validation_steps: int | None,
) -> tuple[Rows | Stream, Rows | Stream | None]:
    """The training and the validation data; the arguments are those of `unfreeze.fit`.

    Raises:
        DataError: they do not fit the model or each other; says what to give instead.
    """
    for name, steps in (
        ("steps_per_epoch", steps_per_epoch),
        ("validation_steps", validation_steps),
    ):
        if steps is not None and (
            isinstance(steps, bool) or not isinstance(steps, int) or steps < 1
        ):
            raise DataError(f"{name} is {steps!r}: it must be a whole number, at least 1")
    data = as_data(_together(train, y, sample_weight), model, steps=steps_per_epoch)
    if validation_split:
        if validation_data is not None:
            raise DataError("validation_data and validation_split are both given: leave one out")
        if validation_steps is not None:
            raise DataError("validation_steps is for datasets: with validation_split leave it out")
        return split_last(data, validation_split)
    if validation_data is None:
        if validation_steps is not None:
            raise DataError("validation_steps is given without validation_data")
        return data, None
    return data, _held_out(validation_data, model, validation_steps)


def may_hold_labels(data: Any) -> bool:
    """Whether data have a form that labels can be in, too: a tuple, a dataset, an iterator."""
    dataset = is_dataset(data) or isinstance(data, keras.utils.PyDataset | Iterator)
    return dataset or isinstance(data, tuple)


def _together(x: Any, y: Any, weight: Any) -> Any:
    """`(x, y)` or `(x, y, sample_weight)` where x and y were given apart."""
    if y is None:
        if weight is not None:
            raise DataError("sample_weight is given without y: give x, y and sample_weight")
        return x
    if isinstance(x, tuple):
        raise DataError(
            "x and y are given twice, as a tuple and as the argument `y`. If the latter are the "
            "validation data, name them: fit(model, schedule, (x, y), validation_data=...). "
            "Several inputs are a list, not a tuple"
        )
    if may_hold_labels(x):
        raise DataError(
            f"y is given, but the {kind_of(x)} gives the labels itself. If it is the validation "
            "data, name them: fit(model, schedule, dataset, validation_data=...)"
        )
    return (x, y) if weight is None else (x, y, weight)


def split_last(data: Rows | Stream, share: float) -> tuple[Rows, Rows]:
    """Keep the last samples for validation, as Keras does, before anything is shuffled.

    Args:
        data: of arrays.
        share: of the samples, above 0 and below 1.

    Raises:
        DataError: a dataset, whose samples have no last share that is known; a share out of
            range, or one that leaves a part without samples.
    """
    if isinstance(data, Stream):
        raise DataError(
            "validation_split takes the last samples of arrays, and a "
            f"{kind_of(data.source)} does not say which those are: divide it yourself and give "
            "validation_data"
        )
    if not 0 < share < 1:
        raise DataError(f"validation_split is {share!r}: it must lie between 0 and 1")
    first = math.floor(data.n * (1.0 - share))
    if not 0 < first < data.n:
        raise DataError(
            f"validation_split={share} leaves {first} samples to train on and {data.n - first} to "
            "validate with: both need at least one"
        )
    return _part(data, 0, first), _part(data, first, data.n)


class _Span:
    """Some neighbouring rows of an array-like that knows whole numbers only as an index."""

    def __init__(self, whole: Any, start: int, stop: int) -> None:
        self.whole, self.start = whole, start
        self.shape, self.dtype = (stop - start, *whole.shape[1:]), whole.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: np.ndarray) -> Any:
        return self.whole[np.asarray(rows) + self.start]


def _part(data: Rows, start: int, stop: int) -> Rows:
    def cut(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            return part[start:stop]
        return _Span(part, start, stop)

    def all_of(structure: Any) -> Any:
        return None if structure is None else tree.map_structure(cut, structure)

    return Rows(tuple(cut(x) for x in data.x), all_of(data.y), all_of(data.weight), stop - start)


def _held_out(data: Any, model: keras.Model, steps: int | None) -> Rows | Stream:
    what = "validation_data"
    count = number_of_batches(data)
    endless = steps is not None and (count is None or count == ENDLESS)
    if endless and isinstance(data, keras.utils.PyDataset):
        data, steps = _FirstBatches(data, steps or 0), None
    elif endless and hasattr(data, "take"):
        data, steps = data.take(steps), None
    elif endless and isinstance(data, Iterable) and not isinstance(data, tuple):
        # Read once, so that every epoch is judged by the same samples.
        data, steps = _in_memory(islice(data, steps)), None
    return as_data(data, model, what, steps)


class _FirstBatches(keras.utils.PyDataset):
    """The first batches of a dataset without an end."""

    def __init__(self, source: keras.utils.PyDataset, count: int) -> None:
        super().__init__()
        self.source, self.count = source, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.source[index]


def _in_memory(batches: Iterator[Any]) -> Any:
    """`(x, y)` or `(x, y, sample_weight)` of all batches, one after the other."""
    read = list(batches)
    if not read:
        raise DataError("validation_data: the generator gives no batches")
    if not all(isinstance(batch, tuple | list) and len(batch) in (2, 3) for batch in read):
        raise DataError("validation_data: a generator must give (x, y) or (x, y, sample_weight)")
    parts = [tree.lists_to_tuples(tuple(batch)) for batch in read]
    joined = tree.map_structure(lambda *same: np.concatenate([np.asarray(x) for x in same]), *parts)
    return (list(joined[0]) if isinstance(joined[0], tuple) else joined[0], *joined[1:])
