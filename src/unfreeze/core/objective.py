"""Loss and metrics of a run: the user's, the compiled model's, or the default ones.

The default ones follow from the model's last activation and the form of the labels. For
independent classes of which some labels are not known there is `KnownBinaryCrossentropy`.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from unfreeze.core.data import Rows, Stream
from unfreeze.core.graph import Graph
from unfreeze.core.keras_internals import compiled_with, takes_several_steps, tree
from unfreeze.errors import DataError, ScheduleError

# Arguments of `compile` besides the optimizer, where the model was compiled before.
_KEPT = ("loss", "loss_weights", "metrics", "weighted_metrics")
# Of these, those that a loss given to `fit` does not replace.
_WEIGHTS = ("loss_weights", "weighted_metrics")
# On a loss that was chosen here: a later run with other labels chooses again.
_CHOSEN = "_unfreeze_chosen"


def default_loss(graph: Graph, y: Any) -> tuple[Any, list[Any]]:
    """The loss and metrics that fit a single-output model and its labels.

    | last activation | labels | loss |
    |---|---|---|
    | softmax | of the output's shape (one-hot) | categorical cross-entropy |
    | softmax | numbers of classes | sparse categorical cross-entropy |
    | sigmoid | of the output's shape | binary cross-entropy |
    | none, several units | integers, numbers of classes | sparse categorical, from logits |
    | none | floats of the output's shape | mean squared error |

    Class numbers do not have the output's last axis, and labels of one unit need not
    have it. A last axis of size one is accepted.

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
    activation = last_activation(graph)
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


def last_activation(graph: Graph) -> str | None:
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


def compile_settings(model: keras.Model, jit_compile: bool | str) -> dict[str, Any]:
    """How steps are run, as the model was compiled: further arguments of `compile`.

    Args:
        model: compiled or not.
        jit_compile: that of `fit`; "auto" takes the model's.

    Raises:
        ScheduleError: several steps in a call, which the backend does not have.
    """
    own = compiled_with(model)
    steps = int(own.get("steps_per_execution") or 1)
    if steps > 1 and not takes_several_steps():
        raise ScheduleError(
            f"the model was compiled with steps_per_execution={steps}, which Keras does not have "
            "on PyTorch: compile it without"
        )
    found: dict[str, Any] = {
        "jit_compile": own.get("jit_compile", "auto") if jit_compile == "auto" else jit_compile
    }
    if own.get("run_eagerly"):
        found |= {"run_eagerly": True, "jit_compile": False}
    if steps > 1 or own.get("run_eagerly"):
        found["steps_per_execution"] = steps
    scaled = isinstance(getattr(model, "optimizer", None), keras.optimizers.LossScaleOptimizer)
    if own and model.dtype_policy.name == "mixed_float16" and not scaled:
        # Keras does not record the argument.
        found["auto_scale_loss"] = False
    return found


def objective(
    model: keras.Model, graph: Graph, data: Rows | Stream, loss: Any, metrics: Any
) -> dict[str, Any]:
    """The arguments of `compile`, besides the optimizer, for each stage.

    Args:
        model: where `loss` is None and it was compiled with one, that is taken,
            with its metrics. Weights of outputs and weighted metrics are taken from there
            in any case.
        graph: the model, flattened.
        data: the training data; its labels choose the default.
        loss: as for `compile`, or None.
        metrics: as for `compile`; None takes those that come with the loss.

    Raises:
        DataError: no loss is given and none follows from the labels.
    """
    if loss is not None:
        more = {name: compiled_with(model).get(name) for name in _WEIGHTS}
        given = {name: value for name, value in more.items() if value is not None}
        return {"loss": loss, "metrics": metrics, **given}
    compiled = {name: compiled_with(model).get(name) for name in _KEPT}
    if own_loss(model, None) is not None:
        if metrics is not None:
            compiled["metrics"] = metrics
        return compiled
    labels = data.y if isinstance(data, Rows) else data.first()[1]
    if labels is None or len(tree.flatten(labels)) != 1:
        raise DataError("no default loss for these labels: give `loss`")
    found, own = default_loss(graph, tree.flatten(labels)[0])
    setattr(found, _CHOSEN, True)
    return {"loss": found, "metrics": own if metrics is None else metrics}


def own_loss(model: keras.Model, loss: Any) -> Any:
    """The loss that the user gave, or compiled the model with; None leaves it to the labels."""
    compiled = compiled_with(model).get("loss") if loss is None else loss
    return None if hasattr(compiled, _CHOSEN) else compiled


def fresh(value: Any) -> Any:
    """Copy metrics: they hold state, which stages must not share."""
    if isinstance(value, keras.metrics.Metric):
        return type(value).from_config(value.get_config())
    if isinstance(value, list | tuple):
        return type(value)(fresh(part) for part in value)
    if isinstance(value, dict):
        return {key: fresh(part) for key, part in value.items()}
    return value


@keras.saving.register_keras_serializable(package="unfreeze")
class KnownBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy over the labels that are known, for a sigmoid output.

    A label of 1 says that a class is there, 0 that it is not, one between is of a mix of both
    (`mixup`); one below 0 says that nobody knows, and neither adds to the loss nor gets a
    gradient. The loss of a sample is the sum over its known classes, divided by the number of
    all classes, in nats.

    Args:
        side_weights: (classes, 2), the weights of "not there" and "there" for each class;
            None for 1.
        name: of the loss.
    """

    def __init__(self, side_weights: Any = None, name: str = "known_binary_crossentropy") -> None:
        super().__init__(name=name)
        self.side_weights = None if side_weights is None else np.asarray(side_weights, np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """(batch, classes) labels and probabilities -> (batch,) losses."""
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        there = ops.clip(y_true, 0, 1)
        known = ops.cast(y_true >= 0, y_pred.dtype)
        if self.side_weights is None:
            return ops.mean(known * ops.binary_crossentropy(there, y_pred), axis=-1)
        sides = ops.cast(ops.convert_to_tensor(self.side_weights), y_pred.dtype)
        # Of a mix, each side by its own weight.
        losses = sides[:, 1] * there * ops.binary_crossentropy(ops.ones_like(there), y_pred)
        losses += sides[:, 0] * (1 - there) * ops.binary_crossentropy(ops.zeros_like(there), y_pred)
        return ops.mean(known * losses, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        sides = None if self.side_weights is None else self.side_weights.tolist()
        return {"name": self.name, "side_weights": sides}
