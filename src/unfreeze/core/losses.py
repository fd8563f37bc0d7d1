"""Loss and metrics that follow from the model's last activation and the labels' form."""

from typing import Any

import keras
import numpy as np

from unfreeze.core.graph import Graph
from unfreeze.errors import DataError


def default_loss(graph: Graph, y: Any) -> tuple[Any, list[Any]]:
    """The loss and metrics that a single-output model and its labels ask for.

    | last activation | labels | loss |
    |---|---|---|
    | softmax | of the output's shape (one-hot) | categorical cross-entropy |
    | softmax | numbers of classes | sparse categorical cross-entropy |
    | sigmoid | of the output's shape | binary cross-entropy |
    | none, several units | integers, numbers of classes | sparse categorical, from logits |
    | none | floats of the output's shape | mean squared error |

    Numbers of classes lack the output's last axis; so may labels of one unit. A
    last axis of size one does no harm.

    Args:
        graph: the flattened model.
        y: all labels, or a batch of them.

    Returns:
        `(loss, metrics)`, to be given to `compile`.

    Raises:
        DataError: the model has several outputs, or no rule fits; says which
            loss to give.
    """
    if len(graph.outputs) != 1:
        raise DataError(
            f"the model has {len(graph.outputs)} outputs: give `loss` (and `metrics`), "
            "as for Keras' compile"
        )
    activation = _last_activation(graph)
    shape = graph.shapes[graph.outputs[0]]
    units = shape[-1]
    whole = np.dtype(y.dtype).kind in "iub"
    same = len(y.shape) == len(shape) and y.shape[-1] == units
    numbers = len(y.shape) == len(shape) - 1 or (len(y.shape) == len(shape) and y.shape[-1] == 1)
    fits = same or (units == 1 and numbers)
    losses, metrics = keras.losses, keras.metrics
    if activation == "softmax" and same and units != 1:
        return losses.CategoricalCrossentropy(), [metrics.CategoricalAccuracy("accuracy")]
    if activation == "softmax" and numbers and units != 1:
        sparse = metrics.SparseCategoricalAccuracy("accuracy")
        return losses.SparseCategoricalCrossentropy(), [sparse]
    if activation == "sigmoid" and fits:
        return losses.BinaryCrossentropy(), [metrics.BinaryAccuracy("accuracy")]
    if activation is None and whole and numbers and units != 1:
        sparse = metrics.SparseCategoricalAccuracy("accuracy")
        return losses.SparseCategoricalCrossentropy(from_logits=True), [sparse]
    if activation is None and not whole and fits:
        return losses.MeanSquaredError(), [metrics.MeanAbsoluteError("mae")]
    raise DataError(
        f"no default loss for labels of type {np.dtype(y.dtype)} and shape {tuple(y.shape)} with "
        f"an output of shape {shape} and the activation {activation}: give `loss`"
    )


def _last_activation(graph: Graph) -> str | None:
    """Name of the activation that makes the model's output, None where it is linear."""
    made_by = {index: step for step in graph.steps for index in step.outputs}
    index = graph.outputs[0]
    while index in made_by:
        step = made_by[index]
        operation = step.operation
        if isinstance(operation, keras.layers.Softmax):
            return "softmax"
        name = getattr(getattr(operation, "activation", None), "__name__", None)
        if name is not None:
            return None if name == "linear" else str(name)
        word = type(operation).__name__.lower()
        if word in ("softmax", "sigmoid"):
            return word
        # Casts, reshapes and means over outputs keep what the layer before made.
        if len(step.inputs) != 1 or getattr(operation, "weights", None):
            return None
        index = step.inputs[0]
    return None
