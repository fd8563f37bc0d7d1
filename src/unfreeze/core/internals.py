"""The one place that touches Keras' private attributes.

Keras has no public way to walk the call graph of a functional model, to carry
masks across a cut, or to reset a dropout layer's seed. Everything of that kind
stands here, so that a new Keras release can break one module only.
Measured against Keras 3.15.
"""

from collections.abc import Iterator
from typing import Any

import keras
from keras.src import tree
from keras.src.backend import get_keras_mask, set_keras_mask

__all__ = [
    "flatten_layers",
    "functional_graph",
    "get_keras_mask",
    "has_custom_training",
    "is_learnable",
    "nodes_in_order",
    "own_weights",
    "seed_generators",
    "set_keras_mask",
    "set_trainable",
    "tree",
]


def functional_graph(model: Any) -> Any | None:
    """The functional graph behind a Functional or built Sequential model, else None.

    A subclass that overrides `call` is no graph: its behaviour is in its code.
    """
    if isinstance(model, keras.Sequential):
        overridden = type(model).call is not keras.Sequential.call
        return None if overridden else getattr(model, "_functional", None)
    functional = keras.src.models.functional.Functional
    if isinstance(model, functional) and type(model).call is functional.call:
        return model
    return None


def nodes_in_order(graph: Any) -> Iterator[Any]:
    """Call nodes of a functional graph, each after those that feed it; inputs left out."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def flatten_layers(layer: Any) -> list[Any]:
    """The layer itself and all layers inside it, outer first, each once."""
    found: list[Any] = []
    seen: set[int] = set()
    for inner in layer._flatten_layers(include_self=True, recursive=True):
        if id(inner) not in seen:
            seen.add(id(inner))
            found.append(inner)
    return found


def is_learnable(operation: Any) -> bool:
    """Whether an operation holds weights that were made to be trained.

    Looks at how the variables were created, not at the flags of the moment: a
    frozen Dense is learnable, a Normalization layer is not.
    """
    if not isinstance(operation, keras.layers.Layer):
        return False
    return any(inner._trainable_variables for inner in flatten_layers(operation))


def own_weights(layer: Any) -> tuple[list[Any], list[Any]]:
    """Variables made as trainable and as non-trainable by this layer itself.

    Those of layers inside it are left out, and flags of the moment do not count.
    """
    return list(layer._trainable_variables), list(layer._non_trainable_variables)


def set_trainable(layer: Any, value: bool) -> None:
    """Set the trainable flag of a layer, of all layers inside it and of their variables.

    `layer.trainable = value` alone is not enough: on TensorFlow an assignment of
    the value that the attribute already has returns at once, so layers and
    variables inside that were set one by one keep their flags (Keras 3.15).
    """
    for inner in flatten_layers(layer):
        if inner.trainable != value:
            inner.trainable = value
        for variable in inner._trainable_variables:
            variable.trainable = value


def seed_generators(operation: Any) -> list[Any]:
    """Random seed states that an operation draws from when it is called."""
    if not isinstance(operation, keras.layers.Layer):
        return []
    found = []
    for inner in flatten_layers(operation):
        found.extend(inner._seed_generators)
    return found


def has_custom_training(model: Any) -> str | None:
    """Name of the first training method that a model's class overrides, if any.

    Such a model must train through its own `fit`, as a rebuilt suffix would
    pass over the override without a word.
    """
    for name in ("fit", "train_step", "test_step", "compute_loss", "compute_metrics"):
        if getattr(type(model), name, None) is not _reference(model, name):
            return name
    return None


def _reference(model: Any, name: str) -> Any:
    base = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
    return getattr(base, name, None)
