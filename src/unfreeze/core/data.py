"""Training data in one form, whatever the user has.

`Rows` are data that can be read at any place (numpy arrays, memory maps, or
anything with `shape`, `dtype`, `len` and indexing by an integer array);
`Stream` is data that comes batch by batch (`keras.utils.PyDataset`,
`tf.data.Dataset`, a torch `DataLoader`). Both give batches of flat inputs in
the order of the model's inputs. No backend is imported: what streams give is
turned into numpy.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from unfreeze.core.internals import functional_graph, tree
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

    def native(self) -> Any:
        """The source in a form that `keras.Model.fit` takes."""
        return self.source


def as_data(data: Any, model: keras.Model, what: str = "train") -> Rows | Stream:
    """Bring a user's data into one of the two forms.

    Args:
        data: `(x, y)`, `(x, y, sample_weight)` or a dataset object. x is one
            array, a list of them, or a dict by input name.
        model: tells the order of the inputs.
        what: the argument's name, for messages.

    Raises:
        DataError: wrong count of inputs, rows that do not match, or a type that
            is none of these.
    """
    order = _input_names(model)
    if isinstance(data, tuple):
        if len(data) not in (2, 3):
            raise DataError(
                f"{what} must be (x, y) or (x, y, sample_weight), not {len(data)} parts"
            )
        x, y, weight = (*data, None)[:3]
        return _rows(x, y, weight, order, what)
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise DataError(f"{what} is a PyDataset without an end: give it a length")
        return Stream(data, order)
    if hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise DataError(f"{what} is an endless tf.data.Dataset: end it with .take(steps)")
    if isinstance(data, Iterable) and not isinstance(data, Iterator | str | bytes | dict):
        return Stream(data, order)
    raise DataError(
        f"{what} is {type(data).__name__}: give (x, y), (x, y, sample_weight), a "
        "keras.utils.PyDataset, a tf.data.Dataset or a torch DataLoader"
    )


def fingerprint(data: Rows | Stream, batch_size: int = 1024) -> str:
    """A digest of all samples that does not depend on their order for streams.

    Rows are hashed in order (an array-like that has a `fingerprint` of its own
    is taken at its word). A stream's samples are hashed one by one and summed,
    so that shuffling does not change the digest but a changed, missing or
    augmented sample does.
    """
    if isinstance(data, Rows):
        digest = hashlib.blake2b(digest_size=16)
        for part in (*data.x, *tree.flatten(data.y), *tree.flatten(data.weight)):
            _hash_rows(digest, part, batch_size)
        return digest.hexdigest()
    total = StreamDigest()
    for batch in data.batches(batch_size):
        total.add(batch)
    return total.hexdigest()


class StreamDigest:
    """Order-free digest of samples: the sum of each sample's hash."""

    def __init__(self) -> None:
        self._sum, self._count = 0, 0

    def add(self, batch: Batch) -> None:
        """Take a batch in."""
        x, y, weight = batch
        parts = [np.ascontiguousarray(p) for p in (*x, *_arrays(y), *_arrays(weight))]
        kinds = "".join(f"{p.dtype}{p.shape[1:]}" for p in parts).encode()
        for row in range(len(parts[0])):
            digest = hashlib.blake2b(kinds, digest_size=16)
            for part in parts:
                digest.update(part[row].tobytes())
            self._sum = (self._sum + int.from_bytes(digest.digest(), "big")) % (1 << 128)
            self._count += 1

    def hexdigest(self) -> str:
        """The digest of all samples so far."""
        return f"{self._sum:032x}-{self._count}"


class ShuffledRows(keras.utils.PyDataset):
    """Batches of `Rows` for `fit`, shuffled anew in each epoch by a seed.

    The order of epoch `e` depends on `(seed, e)` alone, so a cached stage and an
    uncached one, or a resumed run, see the same batches.

    Args:
        rows: the data; with `views`, parts may hold `rows.n` samples times
            `views`, view after view; those that hold `rows.n` are the same in all.
        batch_size: samples a batch; the last one may be smaller.
        seed: None keeps the order as it is.
        views: variants of each sample; one is drawn anew in each epoch.
        epoch: number of the first epoch, from 0.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        seed: int | None,
        views: int = 1,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.views, self.epoch = views, epoch
        self._arrange()

    def __len__(self) -> int:
        return -(-self.rows.n // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        span = slice(index * self.batch_size, (index + 1) * self.batch_size)
        chosen, variants = self._order[span], self._variant[span]
        varied = variants * self.rows.n + chosen

        def pick(part: Any) -> np.ndarray:
            return np.asarray(part[varied if len(part) > self.rows.n else chosen])

        x = [pick(part) for part in self.rows.x]
        inputs = x[0] if len(x) == 1 else tuple(x)
        y = None if self.rows.y is None else tree.map_structure(pick, self.rows.y)
        weight = None if self.rows.weight is None else tree.map_structure(pick, self.rows.weight)
        return (inputs, y) if weight is None else (inputs, y, weight)

    def on_epoch_end(self) -> None:
        """Arrange the next epoch."""
        self.epoch += 1
        self._arrange()

    def _arrange(self) -> None:
        n = self.rows.n
        if self.seed is None:
            self._order, self._variant = np.arange(n), np.zeros(n, dtype=np.int64)
            return
        rng = np.random.default_rng((self.seed, self.epoch))
        self._order = rng.permutation(n)
        self._variant = rng.integers(self.views, size=n)


def _rows(x: Any, y: Any, weight: Any, order: tuple[str, ...], what: str) -> Rows:
    parts = _flat_inputs(x, order, convert=False)
    if len(parts) != len(order):
        raise DataError(f"{what}: the model has {len(order)} inputs, the data {len(parts)}")
    for part in parts:
        if not hasattr(part, "shape") or not hasattr(part, "dtype"):
            raise DataError(f"{what}: x is {type(part).__name__}, not an array")
    n = len(parts[0])
    y = tree.map_structure(_plain, y) if y is not None else None
    weight = tree.map_structure(_plain, weight) if weight is not None else None
    others = [*parts[1:], *_arrays(y), *_arrays(weight)]
    if any(len(other) != n for other in others):
        lengths = ", ".join(str(len(part)) for part in (parts[0], *others))
        raise DataError(f"{what}: inputs, labels and weights have different lengths: {lengths}")
    if n == 0:
        raise DataError(f"{what}: there are no samples")
    return Rows(tuple(parts), y, weight, n)


def _flat_inputs(x: Any, order: Sequence[str], convert: bool = True) -> list[Any]:
    if isinstance(x, dict):
        missing = [name for name in order if name not in x]
        if missing:
            raise DataError(
                f"x has no {', '.join(missing)}; the model's inputs: {', '.join(order)}"
            )
        x = [x[name] for name in order]
    flat = list(x) if isinstance(x, list | tuple) else [x]
    return [_plain(part) for part in flat] if convert else [_lists(part) for part in flat]


def _input_names(model: keras.Model) -> tuple[str, ...]:
    graph = functional_graph(model)
    if graph is None:
        return ("input",)
    if isinstance(graph._inputs_struct, dict):
        return tuple(sorted(graph._inputs_struct))
    return tuple(x.name for x in graph.inputs)


def _unpack(item: Any) -> tuple[Any, Any, Any]:
    if isinstance(item, tuple | list) and len(item) in (1, 2, 3):
        x, y, weight = (*item, None, None)[:3]
        return x, _numpy(y), _numpy(weight)
    raise DataError("a dataset must give (x, y) or (x, y, sample_weight) batches")


def _pass(source: Any) -> Iterator[Any]:
    if isinstance(source, keras.utils.PyDataset):
        for index in range(source.num_batches):
            yield source[index]
        return
    yield from source


def _numpy(value: Any) -> Any:
    return None if value is None else tree.map_structure(_plain, value)


def _plain(value: Any) -> Any:
    """Numpy as it is (memory maps too); tensors of any backend as numpy; lists as arrays."""
    if isinstance(value, np.ndarray):
        return value
    if keras.ops.is_tensor(value) or hasattr(value, "numpy"):
        return keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value.numpy()
    return np.asarray(value)


def _lists(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, list | tuple) else value


def _arrays(structure: Any) -> list[Any]:
    return [] if structure is None else list(tree.flatten(structure))


def _take(structure: Any, rows: np.ndarray) -> Any:
    if structure is None:
        return None
    return tree.map_structure(lambda part: np.asarray(part[rows]), structure)


def _hash_rows(digest: Any, part: Any, batch_size: int) -> None:
    known = getattr(part, "fingerprint", None)
    if isinstance(known, str):
        digest.update(known.encode())
        return
    if part is None:
        return
    digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
    for start in range(0, len(part), batch_size):
        rows = np.arange(start, min(start + batch_size, len(part)))
        digest.update(np.ascontiguousarray(part[rows]).tobytes())
