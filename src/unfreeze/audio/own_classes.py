"""The classes that a backbone was published with, kept beside those of a new head.

Training changes the backbone, and its own top would then give other scores. So
the layers that no stage has changed are shared, and from the first one that has,
a copy with the published weights leads to the published top. After a run of the
head alone that is one dense layer more; after a run of all layers, a second
backbone.
"""

from typing import Any

import keras
import numpy as np

from unfreeze.core.graph import Ref, flatten
from unfreeze.core.internals import tree

#: Put before the names of the layers that are copied.
PREFIX = "audioset_"


def own_scores(trained: keras.Model, published: keras.Model) -> keras.KerasTensor:
    """Connect the published scores to the input of a trained model.

    Args:
        trained: patches to anything; of the published model's layers, by name.
        published: patches to scores, as it was before any training.

    Returns:
        The published model's output, as a tensor of the graph of `trained`.
    """
    graph = flatten(published)
    mine = {layer.name: layer for layer in trained.layers}
    tensors = dict(zip(graph.inputs, trained.inputs, strict=True))
    untouched = set(graph.inputs)
    for step in graph.steps:
        layer = mine.get(step.path)
        if layer is not None and untouched.issuperset(step.inputs) and _same(layer, step.operation):
            tensors[step.outputs[0]] = layer.output
            untouched.update(step.outputs)
            continue

        def tensor(leaf: Any) -> Any:
            return tensors[leaf.index] if isinstance(leaf, Ref) else leaf

        args, kwargs = tree.map_structure(tensor, (step.args, step.kwargs))
        operation = _copy(step.operation)
        tensors[step.outputs[0]] = operation(*args, **kwargs)
        if step.is_layer:
            operation.set_weights(step.operation.get_weights())
            operation.trainable = False
    return tensors[graph.outputs[0]]


def _same(layer: keras.layers.Layer, published: Any) -> bool:
    return type(layer) is type(published) and all(
        np.array_equal(a, b)
        for a, b in zip(layer.get_weights(), published.get_weights(), strict=True)
    )


def _copy(operation: Any) -> Any:
    if not isinstance(operation, keras.layers.Layer):
        return operation
    config = operation.get_config()
    return type(operation).from_config({**config, "name": PREFIX + operation.name})
