"""Loss and metrics of a run: the user's, the compiled model's, or the default ones."""

from typing import Any

import keras

from unfreeze.core.data import Rows, Stream
from unfreeze.core.graph import Graph
from unfreeze.core.internals import compiled_with, tree
from unfreeze.core.losses import default_loss
from unfreeze.errors import DataError

# What `compile` is told besides the optimizer, where the model was compiled before.
_KEPT = ("loss", "loss_weights", "metrics", "weighted_metrics")
# On a loss that was chosen here: a later run with other labels chooses anew.
_CHOSEN = "_unfreeze_chosen"


def objective(
    model: keras.Model, graph: Graph, data: Rows | Stream, loss: Any, metrics: Any
) -> dict[str, Any]:
    """What each stage is compiled with.

    Args:
        model: where `loss` is None and it was compiled with one, that is taken,
            with its weights and metrics.
        graph: the model, flattened.
        data: the training data; its labels choose the default.
        loss: as for `compile`, or None.
        metrics: as for `compile`; None takes those that come with the loss.

    Raises:
        DataError: no loss is given and none follows from the labels.
    """
    if loss is not None:
        return {"loss": loss, "metrics": metrics}
    compiled = {name: compiled_with(model).get(name) for name in _KEPT}
    if compiled["loss"] is not None and not hasattr(compiled["loss"], _CHOSEN):
        if metrics is not None:
            compiled["metrics"] = metrics
        return compiled
    labels = data.y if isinstance(data, Rows) else data.first()[1]
    if labels is None or len(tree.flatten(labels)) != 1:
        raise DataError("no default loss for these labels: give `loss`")
    found, own = default_loss(graph, tree.flatten(labels)[0])
    setattr(found, _CHOSEN, True)
    return {"loss": found, "metrics": own if metrics is None else metrics}


def fresh(value: Any) -> Any:
    """Metrics hold state and must not be shared between stages: make them anew."""
    if isinstance(value, keras.metrics.Metric):
        return type(value).from_config(value.get_config())
    if isinstance(value, list | tuple):
        return type(value)(fresh(part) for part in value)
    if isinstance(value, dict):
        return {key: fresh(part) for key, part in value.items()}
    return value
