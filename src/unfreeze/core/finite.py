"""Numbers that are not finite: which variables hold them, and where they came from.

One sample with NaN is enough to make every weight NaN within a step. `not_finite` finds
that at the end of an epoch, for the price of reading the weights once; only then does
`find_cause` read the data, to name the samples at fault.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from unfreeze.core.data import Rows, ShuffledRows, Stream
from unfreeze.core.keras_internals import tree
from unfreeze.core.one_time import OneTime

_SHOWN = 5
_ROWS_AT_ONCE = 256
_GUESS = "Likely cause: a learning rate that is too high"


def is_finite(numbers: Any) -> bool:
    """Whether an array holds neither NaN nor infinity; true for arrays of other things."""
    values = np.asarray(numbers)
    if not values.size or values.dtype.kind in "iubSUO":
        return True
    if values.dtype.kind != "f":
        values = values.astype(np.float32)  # bfloat16 and smaller, which numpy does not know
    return bool(np.isfinite(values).all())


def not_finite(variables: Iterable[Any]) -> list[str]:
    """Paths of the variables that hold NaN or infinity."""
    floats = [v for v in variables if "float" in keras.backend.standardize_dtype(v.dtype)]
    return [v.path for v in floats if not is_finite(keras.ops.convert_to_numpy(v))]


def some(names: Iterable[Any]) -> str:
    """The first few names of a list, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def find_cause(train: Rows | Stream, validation: Rows | Stream | None, fed: Any = None) -> str:
    """Why numbers are not finite, and what to do about it, in words.

    Args:
        train: the training data as they were given.
        validation: the validation data, or None.
        fed: what the stage's model trained on: outputs of frozen layers, if they are cached.
    """
    found = [*faults(train, "train"), *faults(validation, "validation_data")]
    if found:
        return f"Cause: {_spelt(found)}. Repair what is there, or leave it out"
    if isinstance(fed, ShuffledRows) and fed.rows.x is not getattr(train, "x", None):
        rows = sorted({row % fed.rows.n for part in fed.rows.x for row in _bad_rows(part)})
        if rows:
            half = any(np.dtype(part.dtype).itemsize == 2 for part in fed.rows.x)
            return (
                f"Cause: the outputs of the frozen layers are not finite for training samples "
                f"{some(rows)}, whose inputs are: look at the size of their numbers"
                + (", or cache in full precision: cache='always'" if half else "")
            )
    one_time = isinstance(train, Stream) and isinstance(train.source, OneTime)
    return guess() if one_time else f"{_GUESS}; the data are finite"


def guess() -> str:
    """What is likely where the data cannot be looked at."""
    return f"{_GUESS}, or NaN in the data"


def warning(data: Rows | Stream | None, what: str) -> str | None:
    """What to say of data that hold NaN, before anything trains.

    Of arrays in memory all is looked at, of a dataset the first batch. A model may handle
    them, so this is no error. Without it they might pass unseen: on some backends the ReLU of
    NaN is 0, so a frozen network hides what it was fed.
    """
    if isinstance(data, Stream):
        x, y, weight = data.first()
        names = [name for name, part in _parts(x, y, weight) if _bad_rows(part)]
        spelt = [f"{name} of {what}, batch 0" for name in names]
        return f"{_spelt(spelt)}: does the model expect that?" if spelt else None
    if data is None:
        return None
    parts = [part for _, part in _parts(data.x, data.y, data.weight)]
    if all(type(part) is not np.ndarray or is_finite(part) for part in parts):
        return None
    return f"{_spelt(list(faults(data, what)))}: does the model expect that?"


def _spelt(found: list[str]) -> str:
    return f"NaN or infinity in {'; '.join(found)}"


def faults(data: Rows | Stream | None, what: str) -> Iterator[str]:
    """Where data are not finite, in words."""
    if isinstance(data, Rows):
        for name, part in _parts(data.x, data.y, data.weight):
            rows = _bad_rows(part)
            if rows:
                yield f"{name} of {what}, sample{'s' if rows[1:] else ''} {some(rows)}"
    elif data is not None and not isinstance(data.source, OneTime):
        batches: dict[str, list[int]] = {}
        for number, (x, y, weight) in enumerate(data.batches()):
            for name, part in _parts(x, y, weight):
                if _bad_rows(part):
                    batches.setdefault(name, []).append(number)
        for name, numbers in batches.items():
            yield f"{name} of {what}, batch{'es' if numbers[1:] else ''} {some(numbers)}"


def _parts(x: Iterable[Any], y: Any, weight: Any) -> Iterator[tuple[str, Any]]:
    for name, value in (("x", list(x)), ("y", y), ("sample_weight", weight)):
        parts = [] if value is None else tree.flatten(value)
        for place, part in enumerate(parts):
            yield (name if len(parts) == 1 else f"{name}[{place}]"), part


def _bad_rows(part: Any) -> list[int]:
    """Numbers of the rows that hold NaN, infinity or more than float32 can hold."""
    found: list[int] = []
    if np.dtype(part.dtype).kind in "iubSUO":
        return found
    for start in range(0, len(part), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(part)))
        with np.errstate(over="ignore"):
            block = np.asarray(part[rows]).astype(np.float32)
        good = np.isfinite(block.reshape(len(rows), -1)).all(axis=1)
        found.extend(int(row) for row in rows[~good])
    return found
