"""The one place that touches Keras' private attributes.

Keras has no public way to walk the call graph of a functional model, to carry
masks across a cut, or to reset a dropout layer's seed. Everything of that kind
is here, so that a new Keras release can break only one module.
Measured against Keras 3.15.
"""

from collections import UserList
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import keras
import numpy as np
from keras.src import tree
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.losses.loss import apply_mask, squeeze_or_expand_to_same_rank
from keras.src.metrics.reduction_metrics import reduce_to_samplewise_values
from keras.src.trainers import data_adapters

__all__ = [
    "Share",
    "averages_of",
    "build_variables",
    "building_scope",
    "compiled_optimizer",
    "compiled_with",
    "compiles_first",
    "computing_in_bfloat16",
    "conv_kernel_gradients_are_slow",
    "direct_layers",
    "each_loss",
    "flatten_layers",
    "forget_functions",
    "freeze_own",
    "functional_graph",
    "get_keras_mask",
    "graph_loops_pay",
    "has_custom_training",
    "held_weights",
    "input_names",
    "is_custom",
    "is_dataset",
    "is_learnable",
    "mean_of_samples",
    "move_to_devices",
    "names_of_logs",
    "nodes_in_order",
    "own_random_state",
    "own_weights",
    "processes",
    "remove_lora",
    "reseed",
    "resumed_epoch",
    "save_as_one",
    "seed_generators",
    "seeds_kept",
    "set_keras_mask",
    "set_trainable",
    "takes_class_weight",
    "takes_several_steps",
    "tree",
    "variables_of",
]


# On a variable that its layer held frozen when a stage froze the layer as a whole.
_HELD = "_unfreeze_held"
# On a variable that a stage froze alone, in a layer whose inside trains: it is not held.
_FROZEN = "_unfreeze_frozen"
# With "float8" weights are not replaced, and scales follow them.
_QUANTIZED = ("int8", "int4", "gptq", "awq")


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

    For a model whose inputs are a dict these are the dict's keys; for any other,
    the names of its `Input`s.
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


def direct_layers(layer: Any) -> list[Any]:
    """The layers that a layer holds itself, also in lists, without those inside them."""
    inner = layer._flatten_layers(include_self=False, recursive=False)
    return list({id(x): x for x in inner if x is not layer}.values())


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


def held_weights(layer: Any, alone: bool = False) -> list[Any]:
    """Variables that a layer keeps frozen itself: made to be trained, or quantized.

    Such as the kernel under `enable_lora`, whose own flag is False though the layer's is
    True; and what a layer of the user's freezes inside itself (the layer that it adapts).
    BatchNorm inside does not count: stages freeze it. In a layer that is frozen as a whole
    all flags are False: LoRA is known by its weights, and the rest by the mark that
    `set_trainable` leaves. A layer that was frozen as a whole holds nothing.

    Args:
        layer: the layer.
        alone: leave out the layers inside it.
    """
    layers = [layer] if alone else flatten_layers(layer)
    adapts = layer.trainable and not isinstance(layer, keras.Model) and is_custom(layer)
    found = []
    for inner in layers:
        norm = isinstance(inner, keras.layers.BatchNormalization)
        frozen_inside = adapts and not (norm or inner.trainable)
        found += [
            v
            for v in inner._trainable_variables
            if hasattr(inner, f"lora_{v.name}_a")
            or (
                not (v.trainable or hasattr(v, _FROZEN))
                and (inner.trainable or frozen_inside or hasattr(v, _HELD))
            )
        ]
        if getattr(inner, "quantization_mode", None) in _QUANTIZED:
            found += inner._non_trainable_variables
    return list({id(v): v for v in found}.values())


def remove_lora(layer: Any, target: str) -> None:
    """Undo `layer.enable_lora`; Keras has no way back.

    Args:
        layer: with LoRA, which is lost.
        target: name of the variable that it was added to.
    """
    for name in (f"lora_{target}_a", f"lora_{target}_b"):
        layer._untrack_variable(getattr(layer, name))
        # Keras collects garbage where a variable is deleted, which takes long in a large process.
        setattr(layer, name, None)
        delattr(layer, name)
    layer.lora_enabled, layer.lora_rank, layer.lora_alpha = False, None, None


def forget_functions(model: Any) -> None:
    """Have a model trace its functions again, as after `compile`: its weights have changed."""
    for layer in flatten_layers(model):
        if isinstance(layer, keras.Model):
            layer.train_function = layer.test_function = layer.predict_function = None


def is_custom(layer: Any) -> bool:
    """Whether a layer is of a class that is not Keras' own."""
    return type(layer).__module__.partition(".")[0] != "keras"


def set_trainable(layer: Any, value: bool, held: Iterable[Any] = ()) -> None:
    """Set the trainable flag of a layer, of all layers inside it and of their variables.

    `layer.trainable = value` alone is not enough: on TensorFlow an assignment of
    the value that the attribute already has returns at once, so layers and
    variables inside that were set one by one keep their flags (Keras 3.15).

    Args:
        layer: the layer.
        value: the flag.
        held: variables to keep frozen all the same, from `held_weights`.
    """
    kept = {id(v) for v in held}
    for variable in held:
        setattr(variable, _HELD, True)
    layers = flatten_layers(layer)
    for inner in layers:
        if inner.trainable != value:
            inner.trainable = value
    for inner in layers:
        for variable in inner._trainable_variables:
            variable.trainable = value and id(variable) not in kept
            vars(variable).pop(_FROZEN, None)
            if id(variable) not in kept:
                vars(variable).pop(_HELD, None)


def freeze_own(layer: Any, held: Iterable[Any] = ()) -> None:
    """Freeze a layer's own variables; its flag and the layers inside it stay as they are."""
    kept = {id(v) for v in held}
    for variable in layer._trainable_variables:
        variable.trainable = False
        if id(variable) not in kept:
            setattr(variable, _FROZEN, True)


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
    """Undo, at the end, what `reseed` changed in a model's generators."""
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
    """Make layers that compute in float32 do so in bfloat16; their weights stay as they are."""
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


def build_variables(model: keras.Model, batches: keras.utils.PyDataset) -> None:
    """Make the variables of a compiled model's optimizer and metrics before its first step.

    Keras does so on the other backends. On TensorFlow it makes them in the first
    step, which TensorFlow then traces twice: with this, the `fit` of a small stage
    takes about a quarter less time to begin. Nothing is drawn or computed.

    Args:
        model: compiled; not changed in any other way.
        batches: what it will train on. What is wrong with them is left for `fit` to say.
    """
    if keras.backend.backend() == "tensorflow":
        with suppress(Exception):
            model._symbolic_build(data_batch=batches[0])


def names_of_logs(model: keras.Model, y: Any, outputs: Any) -> set[str]:
    """The names in the logs of a compiled model, without running it.

    Args:
        model: compiled; its metrics are built, and hold what they made of the batch.
        y: labels, a batch.
        outputs: arrays of the shapes of the model's outputs, structured like them.
    """
    y, outputs = tree.map_structure(keras.ops.convert_to_tensor, (y, outputs))
    model._compile_loss(y, outputs)
    if model._compile_metrics is not None:
        # Some metrics have no result before they have seen a batch.
        model._compile_metrics.update_state(y, outputs)
    return set(model.get_metrics_result())


#: What each sample of a batch adds to a mean, times its weight, and its weight: two (samples,).
Share = tuple[Any, Any]


@contextmanager
def each_loss(model: keras.Model) -> Iterator[list[Share]]:
    """Collect each sample's share of the losses that a compiled model computes meanwhile.

    A share for each of its losses, times the loss's weight; scaled so that, as in the log,
    the loss is the sum over all samples divided by their number. None at all where a loss
    gives no value for each sample.
    """
    shares: list[Share | None] = []
    found: list[Share] = []
    compiled = model._compile_loss
    flat = compiled._flat_losses

    def watched(entry: Any) -> Any:
        def call(y_true: Any, y_pred: Any, weight: Any = None) -> Any:
            shares.append(_share_of_loss(entry, y_true, y_pred, weight))
            return entry.loss(y_true, y_pred, weight)

        return entry._replace(loss=call)

    if flat:
        compiled._flat_losses = [watched(entry) for entry in flat]
    try:
        yield found
    finally:
        compiled._flat_losses = flat if flat else compiled._flat_losses
    if all(share is not None for share in shares):
        found.extend(share for share in shares if share is not None)


def _share_of_loss(entry: Any, y_true: Any, y_pred: Any, weight: Any) -> Share | None:
    """As `keras.losses.Loss` computes the batch's loss, before the samples are added up."""
    loss = entry.loss
    usual = (
        isinstance(loss, keras.losses.Loss) and type(loss).__call__ is keras.losses.Loss.__call__
    )
    if not usual or loss.reduction in (None, "none"):
        return None
    mask = get_keras_mask(y_pred)
    y_true, y_pred = tree.map_structure(
        lambda part: keras.ops.convert_to_tensor(part, dtype=loss.dtype), (y_true, y_pred)
    )
    values = loss.call(y_true, y_pred)
    made = get_keras_mask(values)
    if mask is not None and made is not None:
        mask = mask & made
    values = keras.ops.convert_to_tensor(values, dtype=loss.dtype)
    if not values.shape:
        return None
    if weight is not None:
        weight = keras.ops.convert_to_tensor(weight, dtype=loss.dtype)
    weight = apply_mask(weight, made if mask is None else mask, values.dtype, loss.reduction)
    weights = keras.ops.ones_like(values)
    divisor = keras.ops.sum(weights)
    if weight is not None:
        weight = keras.ops.cast(weight, values.dtype)
        values, weight = squeeze_or_expand_to_same_rank(values, weight)
        weights = keras.ops.ones_like(values) * weight
        if loss.reduction == "mean_with_sample_weight":
            divisor = keras.ops.sum(weight)
    scale = keras.ops.cast(keras.ops.shape(values)[0], values.dtype)
    if loss.reduction != "sum":
        scale = keras.ops.divide_no_nan(scale, divisor)
    if entry.loss_weights is not None:
        scale = scale * entry.loss_weights
    axes = tuple(range(1, len(values.shape)))
    rows = (values * weights, weights)
    added = [keras.ops.sum(part, axis=axes) if axes else part for part in rows]
    return added[0] * scale, added[1] * scale


def mean_of_samples(model: keras.Model, name: str, y: Any, y_pred: Any, weight: Any) -> list[Share]:
    """Each sample's share of a metric that is a mean over samples, such as accuracy.

    Args:
        model: compiled, of one output.
        name: of the metric in the log.
        y: labels, a batch.
        y_pred: the model's outputs.
        weight: of the samples; it counts for `weighted_metrics`.

    Returns:
        One share; none where the model has no such metric, or several outputs.
    """
    compiled = model._compile_metrics
    if compiled is None or not compiled.built or tree.is_nested(y_pred) or tree.is_nested(y):
        return []
    for kinds, own in ((compiled._flat_metrics, None), (compiled._flat_weighted_metrics, weight)):
        for metric in kinds[0].metrics if kinds[0] else ():
            if metric.name != name:
                continue
            if not isinstance(metric, keras.metrics.MeanMetricWrapper):
                return []
            mask = get_keras_mask(y_pred)
            values = metric._fn(y, y_pred, **metric._fn_kwargs)
            own = apply_mask(own, mask, dtype=metric.dtype, reduction="sum")
            values, own = reduce_to_samplewise_values(
                values, own, reduce_fn=keras.ops.mean, dtype=metric.dtype
            )
            return [(values, keras.ops.ones_like(values) if own is None else own)]
    return []


def graph_loops_pay() -> bool:
    """Whether several steps in one call (`steps_per_execution`) are quicker on this backend.

    On TensorFlow each call costs about 2 ms, which is most of a small step. JAX
    has no such cost (and waits where results are joined), PyTorch refuses it.
    """
    return bool(keras.backend.backend() == "tensorflow")


def takes_several_steps() -> bool:
    """Whether the backend can run several steps in one call at all."""
    return bool(keras.backend.backend() != "torch")


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

    Such a model must train through its own `fit`, because a rebuilt suffix would
    silently leave the override out.
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


def averages_of(optimizer: Any) -> list[tuple[Any, Any]]:
    """Each variable with its average, of a built optimizer with `use_ema`; else nothing."""
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        return averages_of(inner)
    parts = getattr(optimizer, "_inner_optimizers", None)
    if parts is not None:
        return [pair for part in parts for pair in averages_of(part)]
    if not (getattr(optimizer, "use_ema", False) and optimizer.built):
        return []
    averages = optimizer._model_variables_moving_average
    return list(zip(optimizer._trainable_variables, averages, strict=True))


def building_scope(model: Any) -> AbstractContextManager[Any]:
    """Where new optimizer variables must be made for a model that trains on several devices."""
    strategy = getattr(model, "_distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


def move_to_devices(model: Any, distribution: Any) -> None:
    """Hold a model's variables where a distribution wants them; None is JAX's first device."""
    library = keras.src.backend.distribution_lib
    first = library._to_backend_device(keras.distribution.list_devices()[0])
    optimizer = getattr(model, "optimizer", None)
    held = [*model.variables, *([] if optimizer is None else optimizer.variables)]
    # Metrics that have seen no batch yet are not among the model's.
    given = compiled_with(model)
    parts = tree.flatten([given.get("metrics"), given.get("weighted_metrics")])
    metrics = [part for part in parts if isinstance(part, keras.metrics.Metric)]
    held += [v for metric in (*model.metrics, *metrics) for v in metric.variables]
    for variable in {id(v): v for v in held}.values():
        variable._layout = None
        layout = None if distribution is None else distribution.get_variable_layout(variable)
        variable._layout = layout
        variable._value = library.distribute_tensor(
            variable._value, first if layout is None else layout
        )


def processes() -> int:
    """How many processes share JAX's devices."""
    return int(keras.src.backend.distribution_lib.num_processes())


def save_as_one(optimizer: keras.optimizers.MultiOptimizer) -> None:
    """Save a `MultiOptimizer`'s variables once, as its own, and not those of each part again."""
    # Keras looks for parts to save in attributes that are lists, tuples or dicts.
    optimizer._inner_optimizers = UserList(optimizer._inner_optimizers)


def compiled_optimizer(model: Any) -> Any:
    """The optimizer that was given to `compile`, whatever has taken its place since."""
    config = getattr(model, "_compile_config", None)
    given = None if config is None else config.config.get("optimizer")
    return model.optimizer if given is None else given


def resumed_epoch(model: Any) -> int | None:
    """The epoch at which `BackupAndRestore` makes `fit` resume, None without it."""
    epoch: int | None = model._initial_epoch
    return epoch
