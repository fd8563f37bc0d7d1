"""A clip model as one frozen TensorFlow graph, from which every format is written.

Weights are constants, each convolution and its BatchNorm are one convolution, and
everything that does not depend on the input is computed once, here. The graph has one
input, `waveform` (batch, samples) float32, and the outputs `probabilities` (batch,
classes) and, if requested, `embeddings` (batch, numbers), both means over the patches
of a sound. All names in the front end contain one of `FRONT_ENDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer
from tensorflow.python.training.saver import export_meta_graph

from unfreeze.audio.clip_model import (
    FRONT_ENDS,
    ClipMean,
    PatchRows,
    front_end_layer,
    head_input,
    parts_of,
)
from unfreeze.core.boundary import inference_cut
from unfreeze.core.graph import flatten
from unfreeze.core.read_out import PROJECTION
from unfreeze.core.step_model import prefix_model

# What `load` of every format returns: a function from waveforms (batch, samples) float32
# to the outputs by name, each (batch, numbers).
Runner = Callable[[np.ndarray], dict[str, np.ndarray]]

INPUT = "waveform"
PROBABILITIES, EMBEDDINGS = "probabilities", "embeddings"
# In the names of operations and weights that eight bits would ruin: the front end, and the
# projection of a read-out, whose sums of ten thousand products cancel.
EXACT = (*FRONT_ENDS, PROJECTION)
SMALL = 256
"""Smaller weights (biases, sizes) stay float32: the saving is not worth an operation."""
# Without the optimizers that make operations only TensorFlow knows (as `remap` does).
_OPTIMIZERS = ("function", "constfold", "arithmetic", "dependency", "pruning", "constfold")


@dataclass(frozen=True, eq=False)
class FrozenGraph:
    """A graph without variables.

    Attributes:
        graph_def: its operations and constants.
        outputs: names, in order.
        samples: length of the input. None takes any length and any batch size;
            otherwise the batch size is 1.
    """

    graph_def: Any
    outputs: tuple[str, ...]
    samples: int | None

    @property
    def shape(self) -> tuple[int | None, int | None]:
        """Shape of the input."""
        return (None, None) if self.samples is None else (1, self.samples)


def with_outputs(model: keras.Model, embeddings: bool) -> keras.Model:
    """The clip model, with the same layers and the outputs of an export.

    Args:
        model: from `unfreeze.audio.clip_model.clip_model`.
        embeddings: also output what the head reads, as the mean over patches.
    """
    patch_model, front_end, labels = parts_of(model)
    outputs = [patch_model.outputs[0]]
    if embeddings:
        outputs.append(head_input(patch_model))
    inner = keras.Model(patch_model.input, outputs)
    waveform = keras.Input((None,), dtype="float32", name=INPUT)
    patches = front_end_layer(front_end)(waveform)
    given = inner(PatchRows(name="patch_rows")(patches))
    scores, *rest = given if isinstance(given, list | tuple) else [given]
    means = [ClipMean(labels, name="clip_mean")(scores, patches)]
    for numbers in rest:
        places = [str(i) for i in range(numbers.shape[-1])]
        means.append(ClipMean(places, name="embedding_mean")(numbers, patches))
    return keras.Model(waveform, means)


def freeze(
    model: keras.Model,
    samples: int | None,
    shape: tuple[int | None, ...] | None = None,
    names: tuple[str, ...] | None = None,
) -> FrozenGraph:
    """Trace a model from `with_outputs`, make its weights constants and simplify it.

    Args:
        model: outputs probabilities and, optionally, embeddings.
        samples: a fixed length for one sound at a time, or None.
        shape: of the input; that of waveforms if not given.
        names: of the outputs, where they are others.
    """
    names = names or (PROBABILITIES, EMBEDDINGS)[: len(model.outputs)]
    # All layers count as frozen, so the whole model is the prefix, fused.
    program = prefix_model(inference_cut(flatten(model)), model)
    if shape is None:
        shape = (None, None) if samples is None else (1, samples)

    def run(waveform: Any) -> list[Any]:
        given = program([waveform], training=False)
        return [tf.identity(x, name=name) for name, x in zip(names, given, strict=True)]

    spec = tf.TensorSpec(shape, tf.float32, name=INPUT)
    traced = tf.function(run, input_signature=[spec], autograph=False).get_concrete_function()
    graph = convert_variables_to_constants_v2(traced).graph
    return FrozenGraph(_simplified(graph, names), names, samples)


def as_function(graph: FrozenGraph) -> Callable[[Any], dict[str, Any]]:
    """The graph as a `tf.function` from a waveform to outputs by name."""
    imported = tf.compat.v1.wrap_function(
        lambda: tf.import_graph_def(graph.graph_def, name=""), []
    ).prune(f"{INPUT}:0", [f"{name}:0" for name in graph.outputs])
    spec = tf.TensorSpec(graph.shape, tf.float32, name=INPUT)

    @tf.function(input_signature=[spec], autograph=False)  # type: ignore[untyped-decorator]
    def serve(waveform: Any) -> dict[str, Any]:
        return dict(zip(graph.outputs, imported(waveform), strict=True))

    # The function does not keep alive what it calls.
    serve.imported = imported
    return serve  # type: ignore[no-any-return]


def save(graph: FrozenGraph, folder: str, extras: Any = None) -> None:
    """Write a SavedModel with one signature, `serving_default`.

    Args:
        graph: the graph to run.
        folder: must be empty or missing.
        extras: a `tf.Module` whose attributes are saved, too.
    """
    module = tf.Module() if extras is None else extras
    module.serve = as_function(graph)
    tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})


def _simplified(graph: Any, outputs: tuple[str, ...]) -> Any:
    meta = export_meta_graph(graph_def=graph.as_graph_def(add_shapes=True), graph=graph)
    kept = meta_graph_pb2.CollectionDef()
    kept.node_list.value.extend([f"{name}:0" for name in (INPUT, *outputs)])
    meta.collection_def["train_op"].CopyFrom(kept)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.meta_optimizer_iterations = 2
    options.min_graph_nodes = -1  # small graphs, too
    options.optimizers.extend(_OPTIMIZERS)
    return tf_optimizer.OptimizeGraph(config, meta)
