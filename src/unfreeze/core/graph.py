"""A model as a flat list of calls, however it is nested.

`flatten` turns a functional or Sequential model, with its submodels at any
depth, into a `Graph`: steps in an order that can be run, connected by integer
tensor numbers. A submodel that is used twice gives its steps twice, over the
same layers. Invariants: nothing is copied or built, no node is added to any
layer, and running all steps gives the model's outputs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from unfreeze.core.keras_internals import (
    direct_layers,
    functional_graph,
    get_keras_mask,
    is_custom,
    nodes_in_order,
    own_weights,
    set_keras_mask,
    tree,
)
from unfreeze.errors import ScheduleError


@dataclass(frozen=True)
class Ref:
    """Stands for tensor number `index` in a step's arguments."""

    index: int


@dataclass(frozen=True, eq=False)
class Step:
    """One call of one layer or operation.

    Attributes:
        operation: the Keras layer, Keras operation or function that is called.
        args: positional arguments, tensors replaced by `Ref`.
        kwargs: keyword arguments, likewise; without `training`, which the
            runner decides.
        outputs: numbers of the tensors that the call returns.
        path: where the operation is in the model, e.g. `base/conv1`; unique for a layer,
            as a name alone need not be.
        containers: paths of the submodels around it, outer first.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[int, ...]
    path: str
    containers: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of the tensors that the call reads."""
        flat = tree.flatten((self.args, self.kwargs))
        return tuple(leaf.index for leaf in flat if isinstance(leaf, Ref))

    @property
    def is_layer(self) -> bool:
        """Whether the operation is a layer (has weights, modes, a name to select by)."""
        return isinstance(self.operation, keras.layers.Layer)


@dataclass(frozen=True, eq=False)
class Graph:
    """A flattened model.

    Attributes:
        steps: calls in an order that can be run.
        inputs: tensor numbers of the model's inputs, flat.
        outputs: tensor numbers of the model's outputs, flat.
        output_structure: the nesting of the model's outputs, for packing.
        shapes: symbolic shape of each tensor, by number (batch is None).
        dtypes: dtype name of each tensor, by number.
    """

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output_structure: Any
    shapes: dict[int, tuple[int | None, ...]]
    dtypes: dict[int, str]

    def pack(self, flat: Sequence[Any]) -> Any:
        """Give flat outputs the model's own structure."""
        return tree.pack_sequence_as(self.output_structure, list(flat))

    def consumers(self) -> dict[int, list[Step]]:
        """Which steps read each tensor, by number; once for each argument."""
        readers: dict[int, list[Step]] = {}
        for step in self.steps:
            for index in step.inputs:
                readers.setdefault(index, []).append(step)
        return readers


def check_is_model(model: Any, caller: str) -> None:
    """Refuse what is no Keras model, and say how to get one.

    Raises:
        ScheduleError: a path, a class, or an object of another kind.
    """
    if isinstance(model, keras.Model):
        return
    given = f"an object of type {type(model).__name__}"
    cure = "give a functional or Sequential Keras model"
    if isinstance(model, str | os.PathLike):
        given = f"the text {str(model)!r}"
        cure = f"load the model first: keras.models.load_model({str(model)!r})"
    elif isinstance(model, type):
        given, cure = f"the class {model.__name__}", "make a model of it first"
    raise ScheduleError(f"{caller}: `model` is {given}, not a Keras model: {cure}")


def flatten(model: keras.Model) -> Graph:
    """Flatten a model into steps.

    Args:
        model: a built functional or Sequential model. Submodels and layers that
            are written as subclasses stay one step each.

    Raises:
        ScheduleError: the model is not built, or is itself a subclass with a
            `call` of its own, so there is no graph to walk.
    """
    flattener = _Flattener()
    graph = functional_graph(model)
    if graph is None and isinstance(model, keras.Sequential) and not is_custom(model):
        raise ScheduleError(
            f"model {model.name!r} has no graph to walk: build it (give its first layer an Input, "
            "or call it on data)"
        )
    if graph is None:
        raise ScheduleError(
            f"model {model.name!r} has no graph to walk, because its class {type(model).__name__} "
            "has a `call` of its own: train it in its own fit with the callback "
            "UnfreezeSchedule(schedule), or write it as a functional model"
        )
    inputs = [flattener.tensor(x) for x in graph.inputs]
    outputs = flattener.add(graph, inputs, ())
    return Graph(
        steps=tuple(flattener.steps),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        output_structure=graph._outputs_struct,
        shapes=flattener.shapes,
        dtypes=flattener.dtypes,
    )


def outline(model: keras.Model) -> Graph:
    """The layers of any built model as steps, to select from and not to be run.

    A functional or Sequential model is flattened. Of a subclass with a `call` of its own nobody
    knows how its layers are connected: they come in the order in which it made them, those of
    functional submodels in the order of their graphs. What comes last counts as the head.

    Raises:
        ScheduleError: the model is not built, or has weights outside of its layers.
    """
    if functional_graph(model) is not None:
        return flatten(model)
    if not model.weights:
        raise ScheduleError(
            f"model {model.name!r} is not built: call it before `fit`, as in model(x[:1])"
        )
    own = [v.name for part in own_weights(model) for v in part]
    if own:
        raise ScheduleError(
            f"model {model.name!r} has weights of its own ({', '.join(own[:3])}), which no stage "
            "can name: put them into a layer"
        )
    flattener = _Flattener()
    for layer in direct_layers(model):
        flattener.add_held(layer)
    return Graph(
        steps=tuple(flattener.steps),
        inputs=(),
        outputs=(),
        output_structure=None,
        shapes=flattener.shapes,
        dtypes=flattener.dtypes,
    )


def take_again(step: Step, tensors: dict[int, Any], name: str, copies: dict[int, Any]) -> None:
    """Take a step again in another graph, with a copy of its layer.

    Args:
        step: of a flattened model.
        tensors: of the other graph, by the numbers that the step knows them by; those that it
            returns are added.
        name: of the copy.
        copies: of layers, by the id of the layer: one that is called twice is copied once.
    """

    def tensor(leaf: Any) -> Any:
        return tensors[leaf.index] if isinstance(leaf, Ref) else leaf

    args, kwargs = tree.map_structure(tensor, (step.args, step.kwargs))
    operation = copies.get(id(step.operation), step.operation)
    if step.is_layer and operation is step.operation:
        operation = type(operation).from_config({**operation.get_config(), "name": name})
    result = operation(*args, **kwargs)
    if step.is_layer and id(step.operation) not in copies:
        operation.set_weights(step.operation.get_weights())
        copies[id(step.operation)] = operation
    tensors.update(zip(step.outputs, tree.flatten(result), strict=True))


def opened(model: keras.Model) -> keras.Model:
    """A copy of a model whose submodels' layers are its own; the same model if it has none.

    Args:
        model: functional or Sequential, with one input and no mask.
    """
    if not any(step.containers for step in flatten(model).steps):
        return model
    given = model.inputs[0]
    fresh = keras.Input(given.shape[1:], dtype=given.dtype, name=given.name)
    return copied_behind(model, fresh, fresh)


def copied_behind(model: keras.Model, x: Any, given: Any, name: str | None = None) -> keras.Model:
    """A copy of a model on another tensor, with its weights.

    Args:
        model: functional or Sequential, with one input and no mask.
        x: what the copy takes in place of the model's input.
        given: the input from which `x` is computed, or `x` itself.
        name: of the copy; the model's own if not given.
    """
    graph = flatten(model)
    paths = {step.path for step in graph.steps if step.is_layer}
    inner = [path.rpartition("/")[2] for path in paths]
    tensors, copies = {graph.inputs[0]: x}, dict[int, Any]()
    for step in graph.steps:
        own = step.path.rpartition("/")[2]
        # Layers of two submodels may have one name.
        own = own if inner.count(own) == 1 else step.path.replace("/", "_")
        take_again(step, tensors, own, copies)
    outputs = graph.pack([tensors[number] for number in graph.outputs])
    return keras.Model(given, outputs, name=name or model.name)


def run_step(step: Step, values: dict[int, Any], training: bool | None) -> None:
    """Run one step on the tensors in `values` and put its outputs there.

    `training` is passed to layers explicitly, in every step: Keras remembers the
    last explicit value for all later siblings (keras#20285), so a step without
    one would inherit its neighbour's mode.
    """

    def fill(leaf: Any) -> Any:
        return values[leaf.index] if isinstance(leaf, Ref) else leaf

    args = tree.map_structure(fill, step.args)
    kwargs = tree.map_structure(fill, step.kwargs)
    if step.is_layer and training is not None:
        kwargs["training"] = training
    result = step.operation(*args, **kwargs)
    for index, value in zip(step.outputs, tree.flatten(result), strict=True):
        values[index] = value


class _Flattener:
    """Numbers tensors and collects steps while submodels are opened."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.shapes: dict[int, tuple[int | None, ...]] = {}
        self.dtypes: dict[int, str] = {}
        self.paths: dict[int, str] = {}
        self.taken: set[str] = set()

    def tensor(self, like: Any) -> int:
        index = len(self.shapes)
        self.shapes[index] = tuple(like.shape)
        self.dtypes[index] = keras.backend.standardize_dtype(like.dtype)
        return index

    def add(self, graph: Any, inputs: Sequence[int], containers: tuple[str, ...]) -> list[int]:
        """Add all calls of a functional graph; give the numbers of its outputs."""
        number: dict[int, int] = {}
        for inner, outer in zip(graph.inputs, inputs, strict=True):
            dtype = keras.backend.standardize_dtype(inner.dtype)
            number[id(inner)] = self._cast(outer, dtype, containers)
        for node in nodes_in_order(graph):
            if any(id(x) not in number for x in node.input_tensors):
                continue
            outputs = self._add_node(node, number, containers)
            for symbolic, index in zip(node.outputs, outputs, strict=True):
                number[id(symbolic)] = index
        return [number[id(x)] for x in graph.outputs]

    def add_held(self, layer: Any) -> None:
        """Add a layer whose calls are not known, or all calls inside it where they are."""
        graph = functional_graph(layer) if isinstance(layer, keras.Model) else None
        path = self._path(layer, ())
        if graph is not None:
            self.add(graph, [self.tensor(x) for x in graph.inputs], (path,))
            return
        output = self.tensor(keras.KerasTensor((None,)))
        self.steps.append(Step(layer, (), {}, (output,), path))

    def _add_node(
        self, node: Any, number: dict[int, int], containers: tuple[str, ...]
    ) -> Sequence[int]:
        operation = node.operation
        inner = functional_graph(operation) if isinstance(operation, keras.Model) else None
        fed = None if inner is None else _fed(inner, node)
        if fed is not None:
            path = self._path(operation, containers)
            return self.add(inner, [number[id(x)] for x in fed], (*containers, path))

        def refer(leaf: Any) -> Any:
            return Ref(number[id(leaf)]) if isinstance(leaf, keras.KerasTensor) else leaf

        args = tree.map_structure(refer, node.arguments.args)
        kwargs = tree.map_structure(refer, node.arguments.kwargs)
        kwargs.pop("training", None)
        outputs = tuple(self.tensor(x) for x in node.outputs)
        path = self._path(operation, containers)
        self.steps.append(Step(operation, args, kwargs, outputs, path, containers))
        return outputs

    def _path(self, operation: Any, containers: tuple[str, ...]) -> str:
        """A path for an operation, the same for each of its calls, unique among all."""
        known = self.paths.get(id(operation))
        if known is not None:
            return known
        stem = "/".join((*containers[-1:], operation.name))
        path, copy = stem, 2
        while path in self.taken:
            path, copy = f"{stem}#{copy}", copy + 1
        self.taken.add(path)
        self.paths[id(operation)] = path
        return path

    def _cast(self, outer: int, wanted: str, containers: tuple[str, ...]) -> int:
        """Cast where a submodel's Input has another dtype, as Keras does on the call."""
        if self.dtypes[outer] == wanted:
            return outer
        index = self.tensor(keras.KerasTensor(self.shapes[outer], dtype=wanted))
        path = "/".join((*containers[-1:], "cast"))
        self.steps.append(Step(cast, (Ref(outer), wanted), {}, (index,), path, containers))
        return index


def cast(value: Any, dtype: str) -> Any:
    """Cast a tensor and keep its mask."""
    mask = get_keras_mask(value)
    value = keras.ops.cast(value, dtype)
    if mask is not None:
        set_keras_mask(value, mask)
    return value


def _fed(inner: Any, node: Any) -> list[Any] | None:
    """What a call passes to each input of a submodel, or None where it must stay one step.

    It can be opened when it only runs the submodel's graph on its inputs and the
    masks that these carry anyway. Keras adds or drops a last axis of size one when
    ranks differ, and takes masks from the caller; such a call is not opened.
    """
    args = list(node.arguments.args)
    extra = {k: v for k, v in node.arguments.kwargs.items() if k != "training" and v is not None}
    if not args and "inputs" in extra:
        args = [extra.pop("inputs")]
    if len(args) != 1 or not _carried(extra.pop("mask", None), args[0]) or extra:
        return None
    given, wanted = args[0], inner._inputs_struct
    if isinstance(given, dict) and not isinstance(wanted, dict):
        names = [x.name for x in inner.inputs]
        given = [given.get(name) for name in names]
    elif isinstance(given, dict) and set(given) != set(wanted):
        return None
    fed = tree.flatten(given)
    if len(fed) != len(inner.inputs):
        return None
    for value, symbol in zip(fed, inner.inputs, strict=True):
        if not isinstance(value, keras.KerasTensor) or len(value.shape) != len(symbol.shape):
            return None
    return list(fed)


def _carried(mask: Any, given: Any) -> bool:
    """Whether a mask argument is what Keras takes from the inputs by itself."""
    if mask is None:
        return True
    pairs = zip(tree.flatten(mask), tree.flatten(given), strict=False)
    return all(m is None or m is get_keras_mask(x) for m, x in pairs)


def count_numbers(weights: Sequence[Any]) -> int:
    """How many numbers a list of variables holds."""
    return int(sum(np.prod(w.shape, dtype=np.int64) for w in weights))
