"""An optimizer saved so that Keras finds all of its variables again when it loads the model.

Keras saves a flag for each layer of a graph, and none for weights or for layers inside a
layer. What it builds again may therefore train other weights: those of frozen attention,
but not the gamma and beta of a frozen BatchNorm. It makes the optimizer's variables for
these, finds another number in the file, and skips them all with a warning. So here the
file gets the variables that Keras will look for: the state of weights that the optimizer
knows, and that of a fresh optimizer for the others. Weights and flags are left to Keras.
"""

import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import keras

from unfreeze.core.keras_internals import building_scope, direct_layers, functional_graph
from unfreeze.core.optimizers import LayerRates


def save_as_rebuilt(model: keras.Model) -> None:
    """Let a compiled model's optimizer be saved as Keras will build it from the file."""
    owner, optimizer, making = weakref.ref(model), model.optimizer, False

    def stand_in() -> Any:
        nonlocal making
        found = owner()
        # To make one, the optimizer is asked for its settings as they are.
        if found is None or found.optimizer is not optimizer or making:
            return None
        making = True
        try:
            # A model that cannot be built again from its configuration is saved as ever.
            with suppress(Exception):
                return _as_rebuilt(found, optimizer)
            return None
        finally:
            making = False

    for path in _parts(optimizer):
        _replace_saving(optimizer, path, stand_in)


def _parts(optimizer: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where an optimizer, and those that it wraps, are found: each is saved by itself."""
    yield path
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        yield from _parts(optimizer.inner_optimizer, (*path, "inner_optimizer"))


def _at(optimizer: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        optimizer = getattr(optimizer, name)
    return optimizer


def _replace_saving(whole: Any, path: tuple[str, ...], stand_in: Any) -> None:
    part = _at(whole, path)
    kind = type(part)

    def save_own_variables(store: Any) -> None:
        made = stand_in()
        kind.save_own_variables(part if made is None else _at(made, path), store)

    def load_own_variables(store: Any) -> None:
        # A checkpoint of a stage, whose optimizer is not that of the whole model, has none.
        if not store.keys():
            return
        # What was saved from here comes back; and what has just these variables, as ever.
        made = stand_in() if len(store.keys()) != len(part.variables) else None
        kind.load_own_variables(part if made is None else _at(made, path), store)
        if made is not None:
            _copy(_at(made, path), part)

    def get_config() -> Any:
        # Rates by layer name the weights that they are for.
        made = stand_in() if isinstance(part, LayerRates) else None
        return kind.get_config(part if made is None else _at(made, path))

    # Of this object alone: its class, which the file names, stays as it is.
    part.save_own_variables, part.load_own_variables = save_own_variables, load_own_variables
    part.get_config = get_config


def _as_rebuilt(model: keras.Model, optimizer: Any) -> Any:
    """The optimizer with variables for all weights that will train; None where it is as it is."""
    flags = rebuilt_flags(model)
    weights = {id(v): v for v in model.variables}
    later = [v for key, v in weights.items() if flags.get(key, v.trainable)]
    if [id(v) for v in later] == [id(v) for v in model.trainable_variables]:
        return None
    with building_scope(model):
        made = type(optimizer).from_config(optimizer.get_config())
        made.build(later)
    for path in _parts(optimizer):
        _copy(_at(optimizer, path), _at(made, path))
    return made


def _copy(source: Any, target: Any) -> None:
    """Copy the variables that two optimizers have in common, by their paths."""
    known = {v.path.removeprefix(f"{source.name}/"): v for v in source.variables}
    for variable in target.variables:
        own = known.get(variable.path.removeprefix(f"{target.name}/"))
        if own is not None and own.shape == variable.shape:
            # Not the tensor itself, which one of them may change in place.
            variable.assign(keras.ops.convert_to_numpy(own))


def rebuilt_flags(model: keras.Model) -> dict[int, bool]:
    """The `trainable` that each weight will have in the model that Keras loads, by its id.

    Weights that keep their flag may be left out.
    """
    found: dict[int, bool] = {}
    for layer in model.layers:
        own = list(layer.weights)
        if functional_graph(layer) is not None and layer.trainable:
            found |= rebuilt_flags(layer)
        elif not direct_layers(layer) and all(v.trainable == layer.trainable for v in own):
            continue
        elif own:
            again = keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(layer)
            )
            found |= {id(v): w.trainable for v, w in zip(own, again.weights, strict=True)}
    return found
