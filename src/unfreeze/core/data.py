"""Training data of any kind in one of two forms, and how they are fed to Keras' `fit`.

`Rows` can be read in any order (numpy arrays, memory maps, or anything with `shape`,
`dtype`, `len` and indexing by an integer array); `Stream` comes batch by batch
(`keras.utils.PyDataset`, `tf.data.Dataset`, a torch `DataLoader`, a generator). Both give
batches of flat numpy inputs in the order of the model's inputs; text is an array of Python
strings. No backend is imported.

Invariant: the order of `Rows` in epoch `e` depends on `(seed, e)` alone, so a cached,
an uncached and a resumed stage see the same batches. A stream keeps its own order.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import keras
import numpy as np

from unfreeze.core.keras_internals import (
    functional_graph,
    input_names,
    is_dataset,
    takes_class_weight,
    tree,
)
from unfreeze.core.one_time import OneTime
from unfreeze.errors import DataError

Batch = tuple[list[np.ndarray], Any, Any]

#: Number of batches of a dataset without an end.
ENDLESS = -1

# Keras' own `fit` takes ragged tensors on TensorFlow; they cannot be cached or hashed as rows.
_AS_THEY_ARE = "or train with model.fit and the callback UnfreezeSchedule, which takes them"


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

    def variant(self, *seeds: int) -> "Rows":
        """What training reads in an epoch, or in a view that is cached: these rows themselves."""
        del seeds
        return self

    def first(self) -> Batch:
        """Two samples for a trial: far apart, because neighbours may be the same."""
        return self.take(np.unique([0, self.n // 2]))


@dataclass(frozen=True, eq=False)
class Stream:
    """Data that come in batches which the user's dataset makes.

    Attributes:
        source: can be iterated over any number of times.
        order: names of the model's inputs, for batches whose x is a dict.
        steps: batches that make an epoch, of a source without an end; else None.
    """

    source: Any
    order: tuple[str, ...]
    steps: int | None = None

    def batches(self, batch_size: int = 0) -> Iterator[Batch]:
        """One pass. The source decides the batch size; `batch_size` is ignored."""
        del batch_size
        for item in itertools.islice(_pass(self.source), self.steps):
            x, y, weight = _unpack(item)
            yield _flat_inputs(x, self.order), y, weight

    @property
    def indexed(self) -> bool:
        """Whether batches can be read by number, in any order (a `PyDataset`)."""
        return isinstance(self.source, keras.utils.PyDataset)

    def first(self) -> Batch:
        """The first batch of a pass; read only once, because that may be slow.

        Raises:
            DataError: there is none.
        """
        return self._first

    @cached_property
    def _first(self) -> Batch:
        if isinstance(self.source, OneTime):
            x, y, weight = _unpack(self.source.peek())
            return _flat_inputs(x, self.order), y, weight
        for batch in self.batches():
            return batch
        raise DataError(f"the {type(self.source).__name__} gives no batches")


def as_data(
    data: Any, model: keras.Model, what: str = "train", steps: int | None = None
) -> Rows | Stream:
    """Convert a user's data into one of the two forms.

    Args:
        data: `(x, y)`, `(x, y, sample_weight)` or a dataset object. x is one
            array, a table of pandas, a list of these, or a dict by input name.
        model: gives the order of the inputs and their shapes.
        what: the argument's name, for messages.
        steps: batches that make an epoch, of a dataset without an end.

    Raises:
        DataError: wrong count of inputs, rows or shapes that do not match, or a
            type that is none of these.
    """
    order = input_names(model)
    _check_text(model)
    if isinstance(data, tuple):
        if len(data) not in (2, 3):
            raise DataError(
                f"{what} must be (x, y) or (x, y, sample_weight), not {len(data)} parts"
            )
        x, y, weight = (*data, None)[:3]
        rows = _rows(x, y, weight, order, what)
        _check_shapes(rows.x, model, what)
        if steps is not None:
            raise DataError(
                f"{what}: {steps} steps per epoch are given, but arrays have an end: an epoch is "
                f"all of their {rows.n} samples. Leave the number of steps out"
            )
        return rows
    source, steps = _checked_source(data, what, steps)
    stream = Stream(source, order, steps)
    if any(part.dtype.kind == "O" and not _is_text(part) for part in stream.first()[0]):
        raise DataError(
            f"{what}: the {kind_of(source)} gives rows of unequal size (a ragged tensor): "
            f"make rows of one size in it, with `padded_batch` or `x.to_tensor()`, {_AS_THEY_ARE}"
        )
    _check_shapes(stream.first()[0], model, what)
    return stream


def check_batch_size(batch_size: Any) -> None:
    """Refuse a batch size that is no whole number above 0.

    Raises:
        DataError: names the value.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise DataError(f"batch_size is {batch_size!r}: it must be a whole number, at least 1")


def check_class_weight(data: Rows | Stream) -> None:
    """Refuse class weights where Keras would refuse them in the middle of a run.

    Raises:
        DataError: there are sample weights too, or the dataset is of a kind whose
            batches Keras does not change.
    """
    weight = data.weight if isinstance(data, Rows) else data.first()[2]
    if weight is not None:
        raise DataError("class_weight and sample weights cannot be combined: give one of them")
    one_time = isinstance(data, Stream) and isinstance(data.source, OneTime)
    if isinstance(data, Stream) and (one_time or not takes_class_weight(data.source)):
        raise DataError(
            f"class_weight does not work with a {kind_of(data.source)}: let it give "
            "(x, y, sample_weight) instead"
        )


def _checked_source(data: Any, what: str, steps: int | None) -> tuple[Any, int | None]:
    """A dataset, and how many batches make an epoch of one without an end."""
    count = number_of_batches(data)
    if isinstance(data, Iterator) and steps is not None:
        return OneTime(data), steps
    if not is_dataset(data) and not isinstance(data, keras.utils.PyDataset):
        hint = (
            " (a generator can be read only once: with steps_per_epoch it may train, in one pass)"
            if isinstance(data, Iterator)
            else ""
        )
        raise DataError(
            f"{what} is {type(data).__name__}{hint}: give (x, y), (x, y, sample_weight), a "
            "keras.utils.PyDataset, a tf.data.Dataset or a torch DataLoader"
        )
    if steps is None and count == ENDLESS:
        kind = "PyDataset" if isinstance(data, keras.utils.PyDataset) else kind_of(data)
        raise DataError(
            f"{what} is an endless {kind}: say how many batches make an epoch "
            "(steps_per_epoch, and validation_steps for validation data), or give it an end"
        )
    if steps is not None and isinstance(count, int) and count >= 0:
        if steps != count:
            raise DataError(
                f"{what}: {steps} steps per epoch are given, but the {kind_of(data)} ends "
                f"after {count}. Leave the number of steps out, or let the dataset repeat"
            )
        return data, None
    return data, steps


def kind_of(source: Any) -> str:
    """What a dataset is, as users call it."""
    if isinstance(source, OneTime):
        return "generator"
    return "tf.data.Dataset" if hasattr(source, "cardinality") else type(source).__name__


def known_batches(data: Any) -> int | None:
    """How many batches a dataset has, where it has an end and says so."""
    count = number_of_batches(data)
    return None if count == ENDLESS else count


def number_of_batches(data: Any) -> int | None:
    """How many batches a dataset has: `ENDLESS`, or None where it does not say."""
    if isinstance(data, keras.utils.PyDataset):
        return ENDLESS if data.num_batches is None else int(data.num_batches)
    if hasattr(data, "cardinality"):
        count = int(data.cardinality())
        return count if count >= ENDLESS else None
    try:
        return len(data)
    except TypeError:
        return None


def _rows(x: Any, y: Any, weight: Any, order: tuple[str, ...], what: str) -> Rows:
    parts = _flat_inputs(x, order, read=False)
    for part in parts:
        if not hasattr(part, "shape") or not hasattr(part, "dtype"):
            raise DataError(f"{what}: x is {type(part).__name__}, not an array")
        if getattr(part.dtype, "kind", "f") == "O" and not _is_text(part):
            raise DataError(f"{what}: {_no_text(np.asarray(part))}")
    if len(parts) != len(order):
        hint = (
            ". A list is one array for each input: of rows make one array, `np.asarray(x)`"
            if isinstance(x, list) and len(order) == 1
            else ""
        )
        count = f"{len(order)} input{'' if len(order) == 1 else 's'}"
        raise DataError(f"{what}: the model has {count}, the data {len(parts)}{hint}")
    y, weight = _labels(y), _labels(weight)
    all_parts = [*parts, *_arrays(y), *_arrays(weight)]
    if any(not part.shape for part in all_parts):
        raise DataError(f"{what}: found a single number instead of an array")
    n = len(parts[0])
    if any(len(part) != n for part in all_parts):
        lengths = ", ".join(str(len(part)) for part in all_parts)
        raise DataError(f"{what}: inputs, labels and weights have different lengths: {lengths}")
    if n == 0:
        raise DataError(f"{what}: there are no samples")
    return Rows(tuple(parts), y, weight, n)


def _no_text(part: np.ndarray) -> str:
    """What is wrong with Python objects among which some are no text."""
    flat = part.ravel()
    text = [isinstance(value, str | bytes) for value in flat]
    if any(text):
        first = text.index(False)
        return (
            f"x is text, but sample {first * len(part) // len(flat)} is {flat[first]!r}: put '' "
            "there, as `fillna('')` of pandas does, or leave it out"
        )
    return (
        "x holds Python objects, neither numbers nor text. Of rows of unequal size (a ragged "
        f"tensor) make rows of one size, as `x.to_tensor()` does, {_AS_THEY_ARE}"
    )


def _check_text(model: keras.Model) -> None:
    """Refuse a model that takes text where Keras cannot feed it any."""
    graph = functional_graph(model)
    texts = [t.name for t in (graph.inputs if graph is not None else ()) if t.dtype == "string"]
    backend = keras.backend.backend()
    if texts and backend != "tensorflow":
        raise DataError(
            f"the input {texts[0]!r} is text, which Keras reads on TensorFlow only, and it runs on "
            f"{backend}: set KERAS_BACKEND=tensorflow, or make numbers of the text before (call "
            "the TextVectorization layer on it) and leave that layer out of the model"
        )


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
    if len(order) > 1 and hasattr(x, "columns") and set(order) <= set(x.columns):
        x = {name: x[name] for name in order}  # a table with a column for each input
    if isinstance(x, dict):
        missing = [name for name in order if name not in x]
        if missing:
            raise DataError(
                f"x has no {', '.join(missing)}; the model's inputs: {', '.join(order)}"
            )
        x = [x[name] for name in order]
    if isinstance(x, list) and x and isinstance(x[0], str | bytes):
        x = np.array(x, dtype=object)
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
    # As Keras does: a dataset may draw new augmentation in these hooks.
    source.on_epoch_begin()
    for index in itertools.count() if source.num_batches is None else range(source.num_batches):
        yield source[index]
    source.on_epoch_end()


def _labels(value: Any) -> Any:
    if isinstance(value, list) and value and not hasattr(value[0], "shape"):
        return np.asarray(value)  # plain numbers; a list of arrays is one for each output
    # TensorFlow's datasets know tuples only.
    return None if value is None else tree.lists_to_tuples(tree.map_structure(_plain, value))


def _plain(value: Any) -> Any:
    """Numpy as it is (memory maps too); tensors, tables and lists as numpy arrays."""
    if not isinstance(value, np.ndarray):
        value = _as_numpy(value)
    # Keras takes text as objects.
    return value.astype(object) if value.dtype.kind in "US" else value


def _as_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "to_numpy"):  # pandas and its like
        return _of_a_table(value)
    if hasattr(value, "to_tensor") and hasattr(value, "row_splits"):
        return np.array(value.to_list(), dtype=object)  # ragged
    if keras.ops.is_tensor(value):
        numbers: np.ndarray = keras.ops.convert_to_numpy(value)
        return numbers
    if hasattr(value, "detach"):  # a tensor of torch, where Keras runs on something else
        value = value.detach().cpu()
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _of_a_table(table: Any) -> np.ndarray:
    """A table as one array: columns of numbers and of yes and no together are numbers."""
    values: np.ndarray = np.asarray(table.to_numpy())
    if values.ndim == 2 and values.dtype.kind == "O":
        kinds = [np.asarray(table.iloc[:, i].to_numpy()).dtype.kind for i in range(len(values.T))]
        if all(kind in "biuf" for kind in kinds):
            return values.astype(np.float32)
        if any(kind in "biuf" for kind in kinds):
            named = zip(table.columns, kinds, strict=True)
            others = ", ".join(str(name) for name, kind in named if kind not in "biuf")
            raise DataError(
                f"a table has columns of numbers and others ({others}): make numbers of these, as "
                "`pandas.get_dummies` does, or leave them out"
            )
    return values


def _array_like(value: Any) -> Any:
    """What can be indexed by an integer array: tensors cannot, on some backends."""
    tensor = keras.ops.is_tensor(value) or hasattr(value, "numpy") or hasattr(value, "to_numpy")
    of_jax = type(value).__module__.partition(".")[0] in ("jax", "jaxlib")
    whole = tensor or of_jax or isinstance(value, list | tuple)
    text = getattr(getattr(value, "dtype", None), "kind", "") in ("U", "S")
    return _plain(value) if whole or text else value


def _is_text(part: Any) -> bool:
    return all(isinstance(value, str | bytes) for value in np.asarray(part).flat)


def _arrays(structure: Any) -> list[Any]:
    return [] if structure is None else list(tree.flatten(structure))


def _take(structure: Any, rows: np.ndarray) -> Any:
    if structure is None:
        return None
    return tree.map_structure(lambda part: np.asarray(part[rows]), structure)


class ShuffledRows(keras.utils.PyDataset):
    """Batches of `Rows`, shuffled again in each epoch from a seed.

    Args:
        rows: the data; with `views`, a part may hold `rows.n` samples times
            `views`, view after view; one that holds `rows.n` is the same in all views.
        batch_size: samples per batch; the last one may be smaller.
        seed: None keeps the order as it is, and draws no variants.
        views: variants of each sample; one is drawn in each epoch.
        epoch: number of the first epoch, from 0.
        sizes: of the batches of the stream that was cached. Batches stay together,
            and only their order changes, as in the stream itself.
        keep_order: draw variants only.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        seed: int | None,
        views: int = 1,
        epoch: int = 0,
        sizes: Sequence[int] | None = None,
        keep_order: bool = False,
    ) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.rows, self.seed, self.views, self.epoch = rows, seed, views, epoch
        self._order_seed = None if keep_order else seed
        self._together = sizes is not None
        full, rest = divmod(rows.n, batch_size)
        sizes = sizes or [batch_size] * full + [rest] * (rest > 0)
        self.batch_size = max(sizes)
        ends = np.cumsum(sizes)
        self._spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self._arrange()

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._batch(index)
        except Exception as error:
            self.failure = error  # a backend turns it into another error
            raise

    def _batch(self, index: int) -> Any:
        span = self._spans[self._batches[index]]
        chosen = self._order[span]
        varied = self._variant[chosen] * self.rows.n + chosen

        def pick(part: Any) -> Any:
            found = np.asarray(part[varied if len(part) > self.rows.n else chosen])
            # Keras' adapter takes text as a tensor only.
            return keras.ops.convert_to_tensor(found) if found.dtype.kind == "O" else found

        now = self._now
        x = [pick(part) for part in now.x]
        inputs = x[0] if len(x) == 1 else tuple(x)
        y = None if now.y is None else tree.map_structure(pick, now.y)
        weight = None if now.weight is None else tree.map_structure(pick, now.weight)
        return (inputs, y) if weight is None else (inputs, y, weight)

    def divide(self, parts: int) -> None:
        """Leave samples out of the last batch until it divides into equal parts."""
        last = self._spans[-1]
        over = (last.stop - last.start) % parts
        kept = [slice(last.start, last.stop - over)] if over < last.stop - last.start else []
        self._spans = [*self._spans[:-1], *kept]
        self._arrange()

    def on_epoch_end(self) -> None:
        """Arrange the next epoch."""
        self.skip(1)

    def skip(self, epochs: int) -> None:
        """Continue as if some more epochs had passed."""
        self.epoch += epochs
        self._arrange()

    def _arrange(self) -> None:
        n = self.rows.n
        self._order, self._batches = np.arange(n), np.arange(len(self))
        self._variant = np.zeros(n, dtype=np.int64)
        self._now = self.rows if self.seed is None else self.rows.variant(self.seed, self.epoch)
        if self._together:
            self._batches = batch_order(len(self), self._order_seed, self.epoch)
        elif self._order_seed is not None:
            self._order = _generator(self._order_seed, self.epoch).permutation(n)
        if self.seed is not None and self.views > 1:
            self._variant = _generator(self.seed, self.epoch, 1).integers(self.views, size=n)


class SeededBatches(keras.utils.PyDataset):
    """A user's `PyDataset`, its batches ordered by the seed and not at random by Keras."""

    def __init__(self, source: keras.utils.PyDataset, seed: int | None, epoch: int = 0) -> None:
        super().__init__(
            workers=source.workers,
            use_multiprocessing=source.use_multiprocessing,
            max_queue_size=source.max_queue_size,
        )
        self.source, self.seed, self.epoch = source, seed, epoch
        self.failure: Exception | None = None
        self._order = batch_order(len(self), seed, epoch)

    def __len__(self) -> int:
        return int(self.source.num_batches)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.source[int(self._order[index])]
        except Exception as error:
            self.failure = error
            raise

    def on_epoch_begin(self) -> None:
        """Call the source's own hook."""
        self.source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Call the source's own hook, and arrange the next epoch."""
        self.source.on_epoch_end()
        self.epoch += 1
        self._order = batch_order(len(self), self.seed, self.epoch)

    def skip(self, epochs: int) -> None:
        """Continue as if some more epochs had passed; the source's hooks run for each."""
        for _ in range(epochs):
            self.on_epoch_begin()
            self.on_epoch_end()


def for_fit(data: Rows | Stream, batch_size: int, seed: int | None) -> Any:
    """Data in a form that `fit` takes (with `shuffle=False`); a seed of None keeps the order."""
    if isinstance(data, Rows):
        return ShuffledRows(data, batch_size, seed)
    if isinstance(data.source, OneTime):
        data.source.peek()
        return (batch for batch in data.source)
    if data.indexed and data.steps is None:
        return SeededBatches(data.source, seed)
    return data.source


def batch_order(count: int, seed: int | None, epoch: int) -> np.ndarray:
    """The order of whole batches in an epoch."""
    if seed is None:
        return np.arange(count)
    return _generator(seed, epoch).permutation(count)


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.default_rng(seeds)
