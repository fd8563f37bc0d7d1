"""Training data in one form, whatever the user has.

`Rows` are data that can be read at any place (numpy arrays, memory maps, or
anything with `shape`, `dtype`, `len` and indexing by an integer array);
`Stream` is data that comes batch by batch (`keras.utils.PyDataset`,
`tf.data.Dataset`, a torch `DataLoader`). Both give batches of flat inputs in
the order of the model's inputs. No backend is imported: what streams give is
turned into numpy. `unfreeze.core.feed` brings them to `fit`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from unfreeze.core.internals import (
    functional_graph,
    input_names,
    is_dataset,
    takes_class_weight,
    tree,
)
from unfreeze.errors import DataError

Batch = tuple[list[np.ndarray], Any, Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """Data with random access.

    Attributes:
        x: one array-like for each model input, each with `n` rows.
        y: labels, an array or a structure of arrays with `n` rows, or None.
        weight: sample weights, likewise.
        n: number of samples.
    """

    x: tuple[Any, ...]
    y: Any
    weight: Any
    n: int

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All samples in order."""
        for start in range(0, self.n, batch_size):
            yield self.take(np.arange(start, min(start + batch_size, self.n)))

    def take(self, rows: np.ndarray) -> Batch:
        """The samples of the given numbers."""
        x = [np.asarray(part[rows]) for part in self.x]
        return x, _take(self.y, rows), _take(self.weight, rows)

    def first(self) -> Batch:
        """Two samples to try things with: far apart, as neighbours may be the same."""
        return self.take(np.unique([0, self.n // 2]))


@dataclass(frozen=True, eq=False)
class Stream:
    """Data that comes in batches of the user's own making.

    Attributes:
        source: can be iterated over again and again.
        order: names of the model's inputs, for batches whose x is a dict.
    """

    source: Any
    order: tuple[str, ...]

    def batches(self, batch_size: int = 0) -> Iterator[Batch]:
        """One pass. `batch_size` is the source's own matter."""
        del batch_size
        for item in _pass(self.source):
            x, y, weight = _unpack(item)
            yield _flat_inputs(x, self.order), y, weight

    @property
    def indexed(self) -> bool:
        """Whether batches can be had by number, in any order (a `PyDataset`)."""
        return isinstance(self.source, keras.utils.PyDataset)

    def first(self) -> Batch:
        """The first batch of a pass; drawn once, as that may be slow.

        Raises:
            DataError: there is none.
        """
        return self._first

    @cached_property
    def _first(self) -> Batch:
        for batch in self.batches():
            return batch
        raise DataError(f"the {type(self.source).__name__} gives no batches")


def as_data(data: Any, model: keras.Model, what: str = "train") -> Rows | Stream:
    """Bring a user's data into one of the two forms.

    Args:
        data: `(x, y)`, `(x, y, sample_weight)` or a dataset object. x is one
            array, a list of them, or a dict by input name.
        model: tells the order of the inputs and their shapes.
        what: the argument's name, for messages.

    Raises:
        DataError: wrong count of inputs, rows or shapes that do not match, or a
            type that is none of these.
    """
    order = input_names(model)
    if isinstance(data, tuple):
        if len(data) not in (2, 3):
            raise DataError(
                f"{what} must be (x, y) or (x, y, sample_weight), not {len(data)} parts"
            )
        x, y, weight = (*data, None)[:3]
        rows = _rows(x, y, weight, order, what)
        _check_shapes(rows.x, model, what)
        return rows
    stream = Stream(_checked_source(data, what), order)
    _check_shapes(stream.first()[0], model, what)
    return stream


def check_class_weight(data: Rows | Stream) -> None:
    """Refuse class weights where Keras would refuse them in the middle of a run.

    Raises:
        DataError: there are sample weights too, or the dataset is of a kind whose
            batches Keras does not change.
    """
    weight = data.weight if isinstance(data, Rows) else data.first()[2]
    if weight is not None:
        raise DataError("class_weight and sample weights do not go together: give one of them")
    if isinstance(data, Stream) and not takes_class_weight(data.source):
        raise DataError(
            f"class_weight does not go with a {type(data.source).__name__}: let it give "
            "(x, y, sample_weight) instead"
        )


def _checked_source(data: Any, what: str) -> Any:
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise DataError(f"{what} is a PyDataset without an end: give it a length")
        return data
    if hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise DataError(f"{what} is an endless tf.data.Dataset: end it with .take(steps)")
    if is_dataset(data):
        return data
    hint = " (a generator can be read only once)" if isinstance(data, Iterator) else ""
    raise DataError(
        f"{what} is {type(data).__name__}{hint}: give (x, y), (x, y, sample_weight), a "
        "keras.utils.PyDataset, a tf.data.Dataset or a torch DataLoader"
    )


def _rows(x: Any, y: Any, weight: Any, order: tuple[str, ...], what: str) -> Rows:
    parts = _flat_inputs(x, order, read=False)
    for part in parts:
        if not hasattr(part, "shape") or not hasattr(part, "dtype"):
            raise DataError(f"{what}: x is {type(part).__name__}, not an array")
        if getattr(part.dtype, "kind", "f") == "O":
            raise DataError(f"{what}: x holds Python objects, not numbers (rows of unequal size?)")
    if len(parts) != len(order):
        raise DataError(f"{what}: the model has {len(order)} inputs, the data {len(parts)}")
    y, weight = _labels(y), _labels(weight)
    all_parts = [*parts, *_arrays(y), *_arrays(weight)]
    if any(not part.shape for part in all_parts):
        raise DataError(f"{what}: a single number stands where an array belongs")
    n = len(parts[0])
    if any(len(part) != n for part in all_parts):
        lengths = ", ".join(str(len(part)) for part in all_parts)
        raise DataError(f"{what}: inputs, labels and weights have different lengths: {lengths}")
    if n == 0:
        raise DataError(f"{what}: there are no samples")
    return Rows(tuple(parts), y, weight, n)


def _check_shapes(parts: Sequence[Any], model: keras.Model, what: str) -> None:
    """Compare with the model's inputs; a last axis of size one may be left out, as in Keras."""
    graph = functional_graph(model)
    for part, wanted in zip(parts, graph.inputs if graph is not None else (), strict=False):
        shape, sizes = tuple(part.shape[1:]), tuple(wanted.shape[1:])
        if len(shape) == len(sizes) - 1 and sizes[-1] == 1:
            shape = (*shape, 1)
        if len(shape) == len(sizes) + 1 and shape[-1] == 1:
            shape = shape[:-1]
        fits = len(shape) == len(sizes)
        if not fits or any(b not in (None, a) for a, b in zip(shape, sizes, strict=True)):
            raise DataError(
                f"{what}: samples of shape {tuple(part.shape[1:])} do not fit the input "
                f"{wanted.name!r} of shape {tuple(wanted.shape[1:])}"
            )


def _flat_inputs(x: Any, order: Sequence[str], read: bool = True) -> list[Any]:
    """Inputs in the model's order; with `read` as numpy, else array-likes as they are."""
    if isinstance(x, dict):
        missing = [name for name in order if name not in x]
        if missing:
            raise DataError(
                f"x has no {', '.join(missing)}; the model's inputs: {', '.join(order)}"
            )
        x = [x[name] for name in order]
    flat = list(x) if isinstance(x, list | tuple) else [x]
    return [_plain(part) if read else _array_like(part) for part in flat]


def _unpack(item: Any) -> tuple[Any, Any, Any]:
    if isinstance(item, tuple | list) and len(item) in (1, 2, 3):
        x, y, weight = (*item, None, None)[:3]
        return x, _labels(y), _labels(weight)
    raise DataError("a dataset must give (x, y) or (x, y, sample_weight) batches")


def _pass(source: Any) -> Iterator[Any]:
    if not isinstance(source, keras.utils.PyDataset):
        yield from source
        return
    # As Keras does: a dataset may draw its augmentation anew in these hooks.
    source.on_epoch_begin()
    for index in range(source.num_batches):
        yield source[index]
    source.on_epoch_end()


def _labels(value: Any) -> Any:
    if isinstance(value, list) and value and not hasattr(value[0], "shape"):
        return np.asarray(value)  # plain numbers; a list of arrays is one for each output
    # TensorFlow's datasets know tuples only.
    return None if value is None else tree.lists_to_tuples(tree.map_structure(_plain, value))


def _plain(value: Any) -> Any:
    """Numpy as it is (memory maps too); tensors of any library as numpy; lists as arrays."""
    if isinstance(value, np.ndarray):
        return value
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _array_like(value: Any) -> Any:
    """What can be indexed by an integer array: tensors cannot, on some backends."""
    tensor = keras.ops.is_tensor(value) or hasattr(value, "numpy")
    return _plain(value) if tensor or isinstance(value, list | tuple) else value


def _arrays(structure: Any) -> list[Any]:
    return [] if structure is None else list(tree.flatten(structure))


def _take(structure: Any, rows: np.ndarray) -> Any:
    if structure is None:
        return None
    return tree.map_structure(lambda part: np.asarray(part[rows]), structure)
