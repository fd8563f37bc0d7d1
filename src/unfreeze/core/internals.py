"""The one place that touches Keras' private attributes.

Keras has no public way to walk the call graph of a functional model, to carry
masks across a cut, or to reset a dropout layer's seed. Everything of that kind
stands here, so that a new Keras release can break one module only.
Measured against Keras 3.15.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
from keras.src import tree
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.trainers import data_adapters

__all__ = [
    "building_scope",
    "compiled_optimizer",
    "compiled_with",
    "compiles_first",
    "computing_in_bfloat16",
    "conv_kernel_gradients_are_slow",
    "flatten_layers",
    "functional_graph",
    "get_keras_mask",
    "graph_loops_pay",
    "has_custom_training",
    "input_names",
    "is_dataset",
    "is_learnable",
    "nodes_in_order",
    "own_random_state",
    "own_weights",
    "reseed",
    "resumed_epoch",
    "seed_generators",
    "seeds_kept",
    "set_keras_mask",
    "set_trainable",
    "takes_class_weight",
    "tree",
    "variables_of",
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


def input_names(model: Any) -> tuple[str, ...]:
    """Names of a model's inputs, in the order of its flat inputs.

    A model whose inputs are a dict is asked by the dict's keys; any other by the
    names of its `Input`s.
    """
    graph = functional_graph(model)
    if graph is None:
        return ("input",)
    if isinstance(graph._inputs_struct, dict):
        return tuple(sorted(graph._inputs_struct))
    return tuple(x.name for x in graph.inputs)


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


def own_random_state(model: Any) -> list[Any]:
    """The variables that hold the states of a model's random layers, each once."""
    states = (g.state for layer in flatten_layers(model) for g in layer._seed_generators)
    return list({id(state): state for state in states}.values())


def reseed(generator: Any, seed: int) -> None:
    """Make a random layer draw from a seed (in [0, 2**31)) from now on.

    On PyTorch a Dropout without a seed of its own draws from the global random
    state instead (`backend/torch/random.py`, for speed), unless its generator
    says that it was seeded at the start.
    """
    generator.state.assign(np.array([seed, 0], dtype=generator.state.dtype))
    generator._initial_seed = seed


@contextmanager
def seeds_kept(model: Any) -> Iterator[None]:
    """Undo, at the end, what `reseed` has said about the start of a model's generators."""
    layers = flatten_layers(model)
    before = [(g, g._initial_seed) for layer in layers for g in layer._seed_generators]
    try:
        yield
    finally:
        for generator, seed in before:
            generator._initial_seed = seed


def compiled_with(model: Any) -> dict[str, Any]:
    """What a model was compiled with, as the user gave it; empty where it was not.

    `get_compile_config` gives text instead, from which a user's own loss
    function does not come back.
    """
    config = getattr(getattr(model, "_compile_config", None), "config", None)
    return dict(config) if getattr(model, "compiled", False) and config else {}


@contextmanager
def computing_in_bfloat16(layers: Iterable[Any]) -> Iterator[None]:
    """Let layers that compute in float32 do so in bfloat16, their weights as they are."""
    changed = []
    for outer in layers:
        for layer in flatten_layers(outer):
            if layer.autocast and layer.dtype_policy.name == "float32":
                changed.append((layer, layer._dtype_policy))
                layer._dtype_policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    try:
        yield
    finally:
        for layer, policy in changed:
            layer._dtype_policy = policy


def compiles_first() -> bool:
    """Whether the backend compiles a model for so long that timing it does not pay."""
    return bool(keras.backend.backend() == "jax")


def conv_kernel_gradients_are_slow() -> bool:
    """Whether a matrix product beats the backend's own kernel gradient of a 1x1 convolution."""
    return bool(keras.backend.backend() == "tensorflow")


def graph_loops_pay() -> bool:
    """Whether several steps in one call (`steps_per_execution`) are quicker on this backend.

    On TensorFlow each call costs about 2 ms, which is most of a small step. JAX
    has no such cost (and waits where results are joined), PyTorch refuses it.
    """
    return bool(keras.backend.backend() == "tensorflow")


def is_dataset(value: Any) -> bool:
    """Whether Keras' `fit` takes an object as a dataset that can be read again and again."""
    kinds = (
        data_adapters.is_tf_dataset,
        data_adapters.is_torch_dataloader,
        data_adapters.is_grain_dataset,
    )
    return any(kind(value) for kind in kinds)


def takes_class_weight(dataset: Any) -> bool:
    """Whether Keras' `fit` can weigh the batches of a dataset by class."""
    return not (
        data_adapters.is_torch_dataloader(dataset) or data_adapters.is_grain_dataset(dataset)
    )


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


def variables_of(optimizer: Any) -> list[Any] | None:
    """The variables that an optimizer was built for, None while it is not built."""
    return list(optimizer._trainable_variables) if optimizer.built else None


def building_scope(model: Any) -> AbstractContextManager[Any]:
    """Where new optimizer variables must be made for a model that trains on several devices."""
    strategy = getattr(model, "_distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


def compiled_optimizer(model: Any) -> Any:
    """The optimizer that was given to `compile`, whatever has taken its place since."""
    config = getattr(model, "_compile_config", None)
    given = None if config is None else config.config.get("optimizer")
    return model.optimizer if given is None else given


def resumed_epoch(model: Any) -> int | None:
    """The epoch at which `BackupAndRestore` makes `fit` go on, None without it."""
    epoch: int | None = model._initial_epoch
    return epoch
