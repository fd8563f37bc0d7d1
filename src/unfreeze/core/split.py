"""The freeze boundary: which steps are the frozen prefix, which the live suffix.

A step is *live* when training changes it or when it must draw at random anew in
each epoch; everything that reads from a live step is suffix, all the rest that
the suffix needs is prefix. Tensors that cross are the frontier. The prefix runs
in inference mode, so that its outputs are the same in every epoch.

Random layers without weights are placed by position (see `stochastic_role`).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import keras

from unfreeze.core.graph import Graph, Step
from unfreeze.core.internals import flatten_layers, is_learnable, seed_generators


@dataclass(frozen=True, eq=False)
class Cut:
    """A graph divided at its freeze boundary.

    Attributes:
        graph: the whole model.
        prefix: frozen steps that feed the frontier, in running order.
        suffix: the other steps that the outputs need, in running order.
        frontier: numbers of tensors computed by the prefix and read by the
            suffix (or given out as a model output).
        passed: numbers of model inputs that the suffix reads directly.
        augmentation: steps of the prefix that run in training mode, for `views`.
        silenced: paths of frozen dropout and noise layers that the prefix turns off.
        live_augmentation: paths of random input layers that keep the suffix
            large: with `views` they could be part of the prefix.
    """

    graph: Graph
    prefix: tuple[Step, ...]
    suffix: tuple[Step, ...]
    frontier: tuple[int, ...]
    passed: tuple[int, ...]
    augmentation: frozenset[int]
    silenced: tuple[str, ...]
    live_augmentation: tuple[str, ...]

    @property
    def saves_work(self) -> bool:
        """Whether the prefix holds layers with weights, so that keeping its outputs pays."""
        return any(is_learnable(step.operation) for step in self.prefix)

    @property
    def boundary(self) -> tuple[str, ...]:
        """Paths of the layers whose outputs cross the boundary."""
        made_by = {index: step.path for step in self.prefix for index in step.outputs}
        return tuple(made_by[index] for index in self.frontier)

    def bytes_per_sample(self, bytes_per_number: int = 4) -> int | None:
        """Size of the frontier for one sample, None where a dimension is not known."""
        total = 0
        for index in self.frontier:
            size = bytes_per_number
            for dimension in self.graph.shapes[index][1:]:
                if dimension is None:
                    return None
                size *= dimension
            total += size
        return total


def trains(step: Step, trained: Collection[int]) -> bool:
    """Whether a step holds a variable whose id is in `trained`, or updates itself.

    A layer that is trainable and has weights made as non-trainable updates them
    in training mode (BatchNorm statistics, without gamma and beta too).
    """
    if not step.is_layer:
        return False
    for layer in flatten_layers(step.operation):
        if any(id(weight) in trained for weight in layer.weights):
            return True
    return False


def stochastic_role(step: Step, below: bool, above: bool) -> str | None:
    """What a random step without weights of its own is for, told by its position.

    Args:
        step: the step in question.
        below: whether a learnable layer feeds it.
        above: whether it feeds a frozen learnable layer.

    Returns:
        None when the step is not random or has weights; "augmentation" when
        nothing learned comes before it (RandomFlip, noise on the input);
        "base" inside a frozen base (dropout between its layers: silenced);
        "head" after it (dropout before the new layers: stays live).
    """
    if not seed_generators(step.operation) or is_learnable(step.operation):
        return None
    if not below:
        return "augmentation"
    return "base" if above else "head"


def find_cut(graph: Graph, trained: Collection[int], *, views: int = 1) -> Cut:
    """Divide a graph for a stage.

    Args:
        graph: from `unfreeze.core.graph.flatten`.
        trained: ids (`id(variable)`) of all variables that the stage trains or
            lets update themselves.
        views: above 1, random input layers belong to the prefix, which is then
            run once for each view.
    """
    roles = _roles(graph, trained)
    augmentation = {id(s) for s in graph.steps if roles[id(s)] == "augmentation"}

    def is_live(step: Step) -> bool:
        role = roles[id(step)]
        if role == "augmentation":
            return views == 1
        return role == "head" or trains(step, trained)

    live = _spread(graph, is_live)
    readers = [step for step in graph.steps if id(step) in live]
    made_by_live = {index for step in readers for index in step.outputs}
    read = [*(index for step in readers for index in step.inputs), *graph.outputs]
    wanted = list(dict.fromkeys(index for index in read if index not in made_by_live))
    inputs = set(graph.inputs)
    frontier = tuple(index for index in wanted if index not in inputs)
    prefix = _needed(tuple(s for s in graph.steps if id(s) not in live), frontier)
    return Cut(
        graph=graph,
        prefix=prefix,
        suffix=_needed(tuple(readers), graph.outputs),
        frontier=frontier,
        passed=tuple(index for index in wanted if index in inputs),
        augmentation=frozenset(id(s) for s in prefix if id(s) in augmentation),
        silenced=tuple(dict.fromkeys(s.path for s in prefix if roles[id(s)] == "base")),
        live_augmentation=tuple(
            dict.fromkeys(s.path for s in readers if roles[id(s)] == "augmentation")
        ),
    )


def _roles(graph: Graph, trained: Collection[int]) -> dict[int, str | None]:
    """The role of each step, by its id."""
    learnable = {id(s) for s in graph.steps if is_learnable(s.operation)}
    below = _spread(graph, lambda step: id(step) in learnable)
    # A BatchNorm that its policy holds frozen tells nothing: it stands in heads that train too.
    norm = keras.layers.BatchNormalization
    frozen = {
        id(step)
        for step in graph.steps
        if id(step) in learnable
        and not trains(step, trained)
        and not isinstance(step.operation, norm)
    }
    above = _feeds(graph, lambda step: id(step) in frozen)
    roles: dict[int, str | None] = {}
    for step in graph.steps:
        roles[id(step)] = stochastic_role(step, id(step) in below, id(step) in above)
    return roles


def _spread(graph: Graph, starts: Callable[[Step], bool]) -> set[int]:
    """Ids of the steps that start something, and of all that read from them."""
    reached: set[int] = set()
    tensors: set[int] = set()
    for step in graph.steps:
        if starts(step) or any(index in tensors for index in step.inputs):
            reached.add(id(step))
            tensors.update(step.outputs)
    return reached


def _feeds(graph: Graph, ends: Callable[[Step], bool]) -> set[int]:
    """Ids of the steps whose outputs reach a step for which `ends` holds."""
    reached: set[int] = set()
    tensors: set[int] = set()
    for step in reversed(graph.steps):
        if any(index in tensors for index in step.outputs):
            reached.add(id(step))
        if id(step) in reached or ends(step):
            tensors.update(step.inputs)
    return reached


def _needed(steps: tuple[Step, ...], outputs: Collection[int]) -> tuple[Step, ...]:
    """Those of the steps on which the outputs depend, in the same order."""
    wanted = set(outputs)
    kept: list[Step] = []
    for step in reversed(steps):
        if any(index in wanted for index in step.outputs):
            kept.append(step)
            wanted.update(step.inputs)
    return tuple(reversed(kept))


def frontier_dtypes(cut: Cut) -> list[Any]:
    """Dtype names of the frontier tensors, in order."""
    return [cut.graph.dtypes[index] for index in cut.frontier]
