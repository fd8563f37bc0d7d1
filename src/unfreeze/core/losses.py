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
    | softmax | integers (n,) or (n, 1) | sparse categorical cross-entropy |
    | softmax | one row a class (n, classes) | categorical cross-entropy |
    | sigmoid | 0 and 1, of the output's shape | binary cross-entropy |
    | none, several outputs | integers (n,) | sparse categorical, from logits |
    | none | floats | mean squared error |

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
    units = graph.shapes[graph.outputs[0]][-1]
    dtype, shape = np.dtype(y.dtype), tuple(y.shape)
    whole = dtype.kind in "iub"
    one_row = len(shape) == 2 and shape[1] == units and shape[1] > 1
    accuracy = keras.metrics
    if activation == "softmax":
        if one_row:
            return (
                keras.losses.CategoricalCrossentropy(),
                [accuracy.CategoricalAccuracy("accuracy")],
            )
        return (
            keras.losses.SparseCategoricalCrossentropy(),
            [accuracy.SparseCategoricalAccuracy("accuracy")],
        )
    if activation == "sigmoid":
        return keras.losses.BinaryCrossentropy(), [accuracy.BinaryAccuracy("accuracy")]
    if whole and not one_row and units is not None and units > 1:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return loss, [accuracy.SparseCategoricalAccuracy("accuracy")]
    if not whole:
        return keras.losses.MeanSquaredError(), [accuracy.MeanAbsoluteError("mae")]
    raise DataError(
        f"no default loss for labels of type {dtype} and shape {shape} with an output of "
        f"{units} and the activation {activation}: give `loss`"
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
        if len(step.inputs) != 1 or (step.is_layer and operation.weights):
            return None
        index = step.inputs[0]
    return None
