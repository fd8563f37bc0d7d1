"""mixup: training samples mixed in pairs, their labels alike.

H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. A sample x with label
y becomes a * x + (1 - a) * x', with the label a * y + (1 - a) * y' of another sample; a is
drawn from Beta(alpha, alpha), and the larger share is the sample's own, so that each sample
leads once in an epoch. Where samples have weights (those of their classes, too), label and
weight of a pair are such that its loss is the mix of both losses, each by its own weight.

Invariants: who is mixed with whom depends on the seed and the epoch alone, or on the number of
a cached view; validation data are never mixed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unfreeze.core.data import Rows, Stream, kind_of
from unfreeze.core.graph import Graph
from unfreeze.core.keras_internals import tree
from unfreeze.core.labels import takes_one_hot
from unfreeze.core.objective import KnownBinaryCrossentropy, last_activation
from unfreeze.errors import DataError

#: The largest `alpha`. From 1 on, equal shares are as likely as any.
MOST = 10.0
# Losses and metrics that take numbers of classes, which cannot be mixed.
_SPARSE = (
    "sparsecategoricalcrossentropy",
    "sparsecategoricalaccuracy",
    "sparsetopkcategoricalaccuracy",
)
# Keeps these draws apart from those of the order of samples.
_SEED = 977


@dataclass(frozen=True, eq=False)
class MixedRows(Rows):
    """Rows as they were given, except that labels can be mixed; each `variant` is another mix.

    Attributes:
        alpha: of the distribution of shares, above 0.
        unknown: whether a label below 0 says that nobody knows; then nobody knows of a mix.
    """

    alpha: float = 0.0
    unknown: bool = False

    def variant(self, *seeds: int) -> Rows:
        """These rows, each mixed with another one, as the seeds decide."""
        rng = np.random.default_rng((*seeds, _SEED))
        partner, drawn = rng.permutation(self.n), rng.beta(self.alpha, self.alpha, self.n)
        share = np.maximum(drawn, 1 - drawn)
        x = tuple(Mixture(part, partner, share.astype(np.float32)) for part in self.x)
        weight = None
        if self.weight is not None:
            own = share * self.weight
            both = own + (1 - share) * self.weight[partner]
            # The weight is that of both losses together, the label shares it out.
            share = np.divide(own, both, out=share.copy(), where=both > 0)
            weight = both.astype(np.float32)
        across = share.reshape((-1,) + (1,) * (self.y.ndim - 1))
        y = across * self.y + (1 - across) * self.y[partner]
        if self.unknown:
            y = np.where((self.y < 0) | (self.y[partner] < 0), -1, y)
        return Rows(x, y.astype(np.float32), weight, self.n)

    def plain(self) -> Rows:
        """The same, never mixed."""
        return Rows(self.x, self.y, self.weight, self.n)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Inputs that are mixed when they are read: an array-like.

    Attributes:
        part: (n, ...) the inputs.
        partner: (n,) the row that each is mixed with.
        share: (n,) of the row itself, 0 to 1.
    """

    part: Any
    partner: np.ndarray
    share: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the inputs."""
        return tuple(self.part.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is read."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        own = np.asarray(self.part[rows], np.float32)
        other = np.asarray(self.part[self.partner[rows]], np.float32)
        share = self.share[rows].reshape((-1,) + (1,) * (own.ndim - 1))
        mixed: np.ndarray = share * own + (1 - share) * other
        return mixed


def labels_of_views(data: Rows, views: int) -> tuple[Any, Any]:
    """Labels and weights of cached views, view after view; the given ones where all are alike."""
    if not isinstance(data, MixedRows):
        return data.y, data.weight
    made = [data.variant(number) for number in range(views)]
    y = np.concatenate([rows.y for rows in made])
    return y, None if data.weight is None else np.concatenate([rows.weight for rows in made])


def mixed_rows(
    data: Rows | Stream,
    held: Rows | Stream | None,
    graph: Graph,
    loss: Any,
    alpha: float,
    class_weight: Mapping[int, float] | None,
) -> tuple[MixedRows, Rows | Stream | None]:
    """Training data that can be mixed, and validation data with the same kind of labels.

    Args:
        data: the training data; numbers of classes become one-hot, where the loss is Keras'
            own for them or is left to the labels.
        held: the validation data, which are not mixed, or None.
        graph: the flattened model.
        loss: the user's own; None for the one that fits the labels.
        alpha: above 0.
        class_weight: of each class; becomes the samples' weights.

    Raises:
        DataError: there is something that cannot be mixed.
    """
    if isinstance(alpha, bool) or not 0 < alpha <= MOST:
        raise DataError(f"mixup is {alpha!r}: it must be above 0, at most {MOST:g}")
    if isinstance(data, Stream):
        raise DataError(
            f"mixup mixes arrays, and train is a {kind_of(data.source)}: let it mix its own batches"
        )
    labels = [] if data.y is None else tree.flatten(data.y)
    if len(graph.outputs) != 1 or len(labels) != 1:
        raise DataError("mixup needs a model with one output, and one array of labels")
    for part in data.x:
        kind = np.dtype(part.dtype)
        if kind.kind != "f" and kind != np.uint8:
            raise DataError(f"mixup mixes numbers, and x holds {kind}: it takes floats and uint8")
    losses = tree.flatten(loss)
    own = losses[0] if len(losses) == 1 else loss
    name = _sparse(own)
    if name is not None:
        raise DataError(
            f"mixup mixes labels, and {name} takes numbers of classes: give "
            "loss='categorical_crossentropy'"
        )
    y, weight = np.asarray(labels[0]), None
    soft = _soft(y, graph, own)
    if data.weight is not None:
        weight = np.asarray(tree.flatten(data.weight)[0]).reshape(data.n)
    elif class_weight:
        columns = y.reshape(data.n, -1)
        numbers = columns.argmax(axis=1) if columns.shape[1] > 1 else columns[:, 0]
        weight = np.array([class_weight.get(int(number), 1.0) for number in numbers])
    mixed = MixedRows(
        *(data.x, soft, None if weight is None else weight.astype(np.float32), data.n),
        alpha=float(alpha),
        unknown=isinstance(own, KnownBinaryCrossentropy),
    )
    if held is None or mixed.y.shape == y.shape:
        return mixed, held
    if isinstance(held, Stream):
        raise DataError(
            f"mixup needs one-hot labels, and validation_data is a {kind_of(held.source)}: give "
            "arrays, or one-hot labels in both"
        )
    return mixed, replace(held, y=_one_hot(np.asarray(tree.flatten(held.y)[0]), soft.shape[-1]))


def refuse_sparse_metrics(metrics: Any) -> None:
    """Refuse metrics that cannot read mixed labels.

    Args:
        metrics: as for `compile`, those with weights, too.

    Raises:
        DataError: names the metric.
    """
    for metric in tree.flatten(metrics):
        name = _sparse(metric)
        if name is not None:
            raise DataError(
                f"mixup mixes labels, and the metric {name} takes numbers of classes: give "
                f"{name.replace('sparse_', '').replace('Sparse', '')}"
            )


def _sparse(part: Any) -> str | None:
    """Name of a loss or metric of Keras that takes numbers of classes; None for others."""
    kind = part if isinstance(part, type) else type(part)
    name = part if isinstance(part, str) else getattr(part, "__name__", None)
    names = [name] if isinstance(name, str) else []
    names += [base.__name__ for base in kind.__mro__]
    return next((name for name in names if name.replace("_", "").lower() in _SPARSE), None)


def _soft(y: np.ndarray, graph: Graph, loss: Any) -> np.ndarray:
    """Labels that can be mixed: numbers of classes as one-hot.

    Raises:
        DataError: there is no such class, or the loss may not take one-hot labels.
    """
    shape = graph.shapes[graph.outputs[0]]
    units, softmax = shape[-1], last_activation(graph) == "softmax"
    numbers = y.ndim == len(shape) - 1 or (y.ndim == len(shape) and y.shape[-1] == 1)
    if units in (None, 1) or not numbers:
        return np.asarray(y, np.float32)
    known = softmax if loss is None else takes_one_hot(loss)
    if known and len(shape) == 2 and _are_whole(y):
        return _one_hot(y, units)
    # Floats with another activation may be measured; those that are not whole fit no classes.
    if y.dtype.kind in "iub" or (softmax and _are_whole(y)):
        logits = loss is None and not softmax
        cure = " and loss=keras.losses.CategoricalCrossentropy(from_logits=True)" if logits else ""
        raise DataError(
            f"mixup mixes labels, and these are numbers of classes: give one-hot labels{cure}"
        )
    return np.asarray(y, np.float32)


def _are_whole(y: np.ndarray) -> bool:
    """Whether labels can be numbers of classes, of floats also: tables are often read as such."""
    return y.dtype.kind in "iub" or (y.dtype.kind == "f" and bool((y == np.floor(y)).all()))


def _one_hot(y: np.ndarray, units: int) -> np.ndarray:
    """Numbers of classes as one-hot; what is one-hot stays as it is.

    Raises:
        DataError: there is no such class.
    """
    if y.ndim > 1 and y.shape[1:] != (1,):
        return np.asarray(y, np.float32)
    if not _are_whole(y):
        raise DataError("labels are numbers of classes in train, and not whole in validation_data")
    classes = y.reshape(-1).astype(np.int64)
    if classes.min() < 0 or classes.max() >= units:
        raise DataError(
            f"labels from {classes.min()} to {classes.max()} do not fit an output of {units} "
            f"units, which stand for the classes 0 to {units - 1}"
        )
    one_hot: np.ndarray = np.eye(units, dtype=np.float32)[classes]
    return one_hot
