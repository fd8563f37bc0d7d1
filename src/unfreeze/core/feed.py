"""How data come to Keras' `fit`: batches in an order that a seed alone decides.

The order of epoch `e` depends on `(seed, e)` and nothing else, so a cached stage
and an uncached one, or a resumed run, see the same batches. A `tf.data.Dataset`
or a torch `DataLoader` keeps its own order.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.core.data import Rows, Stream
from unfreeze.core.internals import tree


class ShuffledRows(keras.utils.PyDataset):
    """Batches of `Rows`, shuffled anew in each epoch by a seed.

    Args:
        rows: the data; with `views`, parts may hold `rows.n` samples times
            `views`, view after view; those that hold `rows.n` are the same in all.
        batch_size: samples a batch; the last one may be smaller.
        seed: None keeps the order as it is, and draws no variants.
        views: variants of each sample; one is drawn anew in each epoch.
        epoch: number of the first epoch, from 0.
        sizes: of the batches that a stream had. They are kept together, and
            only their order changes, as in the stream itself.
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
            self.failure = error  # a backend makes another one of it
            raise

    def _batch(self, index: int) -> Any:
        span = self._spans[self._batches[index]]
        chosen = self._order[span]
        varied = self._variant[chosen] * self.rows.n + chosen

        def pick(part: Any) -> np.ndarray:
            return np.asarray(part[varied if len(part) > self.rows.n else chosen])

        x = [pick(part) for part in self.rows.x]
        inputs = x[0] if len(x) == 1 else tuple(x)
        y = None if self.rows.y is None else tree.map_structure(pick, self.rows.y)
        weight = None if self.rows.weight is None else tree.map_structure(pick, self.rows.weight)
        return (inputs, y) if weight is None else (inputs, y, weight)

    def on_epoch_end(self) -> None:
        """Arrange the next epoch."""
        self.skip(1)

    def skip(self, epochs: int) -> None:
        """Go on as after some more epochs."""
        self.epoch += epochs
        self._arrange()

    def _arrange(self) -> None:
        n = self.rows.n
        self._order, self._batches = np.arange(n), np.arange(len(self))
        self._variant = np.zeros(n, dtype=np.int64)
        if self._together:
            self._batches = batch_order(len(self), self._order_seed, self.epoch)
        elif self._order_seed is not None:
            self._order = _generator(self._order_seed, self.epoch).permutation(n)
        if self.seed is not None and self.views > 1:
            self._variant = _generator(self.seed, self.epoch, 1).integers(self.views, size=n)


class SeededBatches(keras.utils.PyDataset):
    """A user's `PyDataset`, its batches in an order by the seed instead of Keras' random one."""

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
        """Pass it on."""
        self.source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Pass it on, and arrange the next epoch."""
        self.source.on_epoch_end()
        self.epoch += 1
        self._order = batch_order(len(self), self.seed, self.epoch)

    def skip(self, epochs: int) -> None:
        """Go on as after some more epochs; the source is told of each."""
        for _ in range(epochs):
            self.on_epoch_begin()
            self.on_epoch_end()


def for_fit(data: Rows | Stream, batch_size: int, seed: int | None) -> Any:
    """Data in a form that `fit` takes (with `shuffle=False`); a seed of None keeps the order."""
    if isinstance(data, Rows):
        return ShuffledRows(data, batch_size, seed)
    if data.indexed:
        return SeededBatches(data.source, seed)
    return data.source


def batch_order(count: int, seed: int | None, epoch: int) -> np.ndarray:
    """The order of whole batches in an epoch."""
    if seed is None:
        return np.arange(count)
    return _generator(seed, epoch).permutation(count)


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.default_rng(seeds)
