"""Labels that do not fit the model's classes, found before anything trains.

What happens with class 7 of 5 depends on the backend: an error in the middle of a step, a
NaN, or a model that quietly learns nothing from those samples. So the labels are compared
with the loss and the output that will read them. Only losses of Keras itself are known
well enough; all others, and what Keras takes (soft labels, `ignore_class`), pass.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.core.data import Rows, Stream
from unfreeze.core.graph import Graph
from unfreeze.core.one_time import OneTime
from unfreeze.errors import DataError

_ROWS_AT_ONCE = 65536
_SPARSE, _ONE_HOT, _BINARY, _OTHER = "sparse", "one-hot", "binary", "other"
_NAMES = {
    "sparse_categorical_crossentropy": _SPARSE,
    "categorical_crossentropy": _ONE_HOT,
    "categorical_focal_crossentropy": _ONE_HOT,
    "binary_crossentropy": _BINARY,
    "binary_focal_crossentropy": _BINARY,
}
_KINDS: dict[type, str] = {
    keras.losses.SparseCategoricalCrossentropy: _SPARSE,
    keras.losses.CategoricalCrossentropy: _ONE_HOT,
    keras.losses.CategoricalFocalCrossentropy: _ONE_HOT,
    keras.losses.BinaryCrossentropy: _BINARY,
    keras.losses.BinaryFocalCrossentropy: _BINARY,
}
Shape = tuple[int | None, ...]


def check_labels(
    model: keras.Model, graph: Graph, loss: Any, data: Rows | Stream | None, what: str
) -> None:
    """Compare labels with the model's outputs: all of arrays, the first batch of a dataset.

    Args:
        model: whose output names tell which labels are whose.
        graph: the same, flattened.
        loss: as for `compile`.
        data: the data, or None.
        what: their argument's name, for messages.

    Raises:
        DataError: type, rank, width or values that the loss cannot take; says what the model
            expects, and a cure.
    """
    if data is None:
        return
    y = data.y if isinstance(data, Rows) else data.first()[1]
    where = what if isinstance(data, Rows) else f"{what} (first batch)"
    _check(model, graph, loss, y, where)


def find_misfit(
    model: keras.Model, graph: Graph, loss: Any, data: Rows | Stream | None, what: str
) -> DataError | None:
    """The error for the first batch of a dataset with labels that the loss cannot take.

    All of them are read, so it is for a stage that has failed. The arguments are those of
    `check_labels`, which has seen the first batch.
    """
    if not isinstance(data, Stream) or isinstance(data.source, OneTime):
        return None
    for number, (_, y, _) in enumerate(data.batches()):
        try:
            _check(model, graph, loss, y, f"{what} (batch {number})")
        except DataError as error:
            return error
    return None


def classes_to_watch(model: keras.Model, graph: Graph, loss: Any, data: Rows | Stream) -> int:
    """How many classes a step must check its labels against; 0 where nothing need be checked.

    Of a dataset only the first batch has been seen. TensorFlow and PyTorch fail in the step
    that meets a class which there is not; JAX makes a loss of 0 of it.
    """
    if keras.backend.backend() != "jax" or isinstance(data, Rows) or len(graph.outputs) != 1:
        return 0
    for _, one_loss, labels, shape in _outputs(model, graph, loss, data.first()[1]):
        last = getattr(one_loss, "axis", -1) in (-1, len(shape) - 1)
        sparse = _kind(one_loss, labels, shape) == _SPARSE
        if sparse and last and getattr(one_loss, "ignore_class", None) is None:
            return shape[-1] or 0
    return 0


def takes_one_hot(loss: Any) -> bool:
    """Whether a loss is one of Keras for one-hot labels, or becomes one where it sees them."""
    return loss in ("crossentropy", "ce") or _kind(loss, None, ()) == _ONE_HOT


def _check(model: keras.Model, graph: Graph, loss: Any, y: Any, where: str) -> None:
    for name, one_loss, labels, shape in _outputs(model, graph, loss, y):
        kind = _kind(one_loss, labels, shape)
        if kind is None or len(shape) < 2:
            continue
        here = where if len(graph.outputs) == 1 else f"{where}, output {name!r}"
        _check_type(labels, here)
        if kind == _SPARSE:
            _check_numbers(labels, shape, one_loss, here)
        elif kind == _ONE_HOT:
            _check_one_hot(labels, shape, here)
        elif kind == _BINARY:
            _check_binary(labels, shape, here)


def _outputs(
    model: keras.Model, graph: Graph, loss: Any, y: Any
) -> Iterator[tuple[str, Any, Any, Shape]]:
    """Name, loss, labels and shape of each output, as far as they can be told apart."""
    structure = graph.output_structure
    count = len(graph.outputs)
    names = list(getattr(model, "output_names", ())) or ["output"]
    if isinstance(structure, dict):
        names = sorted(structure)
    elif count == 1 and isinstance(y, dict | list | tuple) and len(y) == 1:
        y = next(iter(y.values())) if isinstance(y, dict) else y[0]
    if y is None or len(names) != count:
        return
    losses, labels = _by_name(loss, names), _by_name(y, names)
    for name, index in zip(names, graph.outputs, strict=True):
        if losses.get(name) is not None and hasattr(labels.get(name), "shape"):
            yield name, losses[name], labels[name], graph.shapes[index]


def _by_name(value: Any, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple):
        return dict(zip(names, value, strict=False))
    return dict.fromkeys(names, value)


def _kind(loss: Any, labels: Any, shape: Shape) -> str | None:
    """What a loss makes of labels; None for one that is not Keras' own."""
    if loss in ("crossentropy", "ce"):
        if shape[-1] == 1:
            return _BINARY
        same = len(labels.shape) == len(shape) and labels.shape[-1] != 1
        return _ONE_HOT if same else _SPARSE
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return None
    kind = loss if isinstance(loss, type) else type(loss)
    if kind in _KINDS:
        return _KINDS[kind]
    name = getattr(loss, "__name__", "")
    if name in _NAMES and loss is getattr(keras.losses, name):
        return _NAMES[name]
    own = getattr(loss, "__module__", kind.__module__)
    return _OTHER if str(own).startswith("keras.src.losses") else None


def _check_type(labels: Any, where: str) -> None:
    kind = np.dtype(labels.dtype).kind
    if kind not in "biuf" and np.dtype(labels.dtype).name not in ("bfloat16", "float16"):
        first = next(iter(np.asarray(labels[np.arange(1)]).flat), None)
        shown = (
            "text"
            if kind in "US" or isinstance(first, str | bytes)
            else f"of type {np.dtype(labels.dtype)}"
        )
        raise DataError(
            f"{where}: the labels are {shown}, not numbers. Number the classes from 0: "
            "`names, y = np.unique(y, return_inverse=True)`"
        )


def _check_numbers(labels: Any, shape: Shape, loss: Any, where: str) -> None:
    axis = getattr(loss, "axis", -1)
    axis = axis if isinstance(axis, int) else -1
    units = shape[axis]
    expected = tuple(size for place, size in enumerate(shape) if place != axis % len(shape))
    given = tuple(labels.shape)
    if not (_fits(given, expected) or (given[-1:] == (1,) and _fits(given[:-1], expected))):
        hint = (
            "These look one-hot: use categorical_crossentropy, or y.argmax(-1)"
            if len(given) == len(shape) and given[-1] == units
            else "Give one whole number for each of them"
        )
        raise DataError(
            f"{where}: labels of shape {_shown(given)} do not fit a loss that takes numbers of "
            f"classes, for an output of shape {_shown(shape)}. {hint}"
        )
    if units is None:
        return
    ignored = getattr(loss, "ignore_class", None)
    lowest, highest, outside, first = np.inf, -np.inf, 0, None
    for start, block in _blocks(labels):
        values = block.reshape(len(block), -1).astype(np.float64)
        counted = np.ones(values.shape, bool) if ignored is None else values != ignored
        if not counted.any():
            continue
        broken = counted & (values != np.floor(values))
        if broken.any():
            row = int(np.argwhere(broken)[0][0])
            raise DataError(
                f"{where}: the label {values[broken][0]:g} of sample {start + row} is no number of "
                f"a class: the model's {units} classes are 0 to {units - 1}. For labels that are "
                "measured, use a loss such as 'mse'"
            )
        lowest = min(lowest, float(values[counted].min()))
        highest = max(highest, float(values[counted].max()))
        wrong = counted & ((values < 0) | (values >= units))
        if wrong.any() and first is None:
            first = (start + int(np.argwhere(wrong)[0][0]), values[wrong][0])
        outside += int(wrong.sum())
    if first is None:
        return
    more = f"or give the last layer {highest + 1:.0f} units" if lowest >= 0 else ""
    if lowest < 0:
        more = f"or say which number means no class: ignore_class={lowest:.0f}"
    raise DataError(
        f"{where}: labels from {lowest:.0f} to {highest:.0f} do not fit the model's {units} "
        f"classes, 0 to {units - 1} ({outside} outside; sample {first[0]} has {first[1]:.0f}). "
        f"Number the classes from 0, as `np.unique(y, return_inverse=True)[1]` does, {more}"
    )


def _check_one_hot(labels: Any, shape: Shape, where: str) -> None:
    given = tuple(labels.shape)
    if len(given) == len(shape) and _fits(given, shape):
        return
    units = shape[-1]
    if len(given) == len(shape) and given[-1] != 1:
        hint = f"`keras.utils.to_categorical(y, {units})` makes labels of that width"
    else:
        hint = (
            "For numbers of classes use sparse_categorical_crossentropy, or make them one-hot: "
            f"`keras.utils.to_categorical(y, {units})`"
        )
    raise DataError(
        f"{where}: labels of shape {_shown(given)} do not fit the model's {units} classes, "
        f"one-hot, for an output of shape {_shown(shape)}. {hint}"
    )


def _check_binary(labels: Any, shape: Shape, where: str) -> None:
    given = tuple(labels.shape)
    if not (_fits(given, shape) or (shape[-1] == 1 and _fits(given, shape[:-1]))):
        raise DataError(
            f"{where}: labels of shape {_shown(given)} do not fit binary cross-entropy with an "
            f"output of shape {_shown(shape)}: it takes a 0 or 1 for each unit. For numbers of "
            "classes use a softmax and sparse_categorical_crossentropy"
        )
    for start, block in _blocks(labels):
        values = block.reshape(len(block), -1).astype(np.float64)
        wrong = (values < 0) | (values > 1)
        if wrong.any():
            row = int(np.argwhere(wrong)[0][0])
            raise DataError(
                f"{where}: binary cross-entropy takes labels from 0 to 1, and sample "
                f"{start + row} has {values[wrong][0]:g}. Map the classes to 0 and 1 (-1 and 1: "
                "`(y + 1) / 2`; 0 and 255: `y / 255`); for more than two use a softmax and "
                "sparse_categorical_crossentropy"
            )


def _blocks(labels: Any) -> Iterator[tuple[int, np.ndarray]]:
    """The labels piece by piece, as they may be in a file."""
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(labels)))
        yield start, np.asarray(labels[rows])


def _fits(given: Sequence[int], wanted: Shape) -> bool:
    """Whether sizes agree; the number of samples, and sizes that vary, fit any."""
    pairs = zip(given[1:], wanted[1:], strict=False)
    return len(given) == len(wanted) and all(b in (None, a) for a, b in pairs)


def _shown(shape: Sequence[int | None]) -> str:
    sizes = ["samples", *("any" if size is None else str(size) for size in shape[1:])]
    return f"({', '.join(sizes)})"
