"""Layer groups of a model, found from its graph: the blocks that people speak of.

A group is a run of layers that belong together: those that share a name stem
with a number (`block_3_expand`, `layer5.conv`), or, where names say nothing,
those between two reductions of the spatial resolution. The last group is the
head: what comes after the last pooling or flattening to a vector.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from unfreeze.core.graph import Graph, Step
from unfreeze.core.internals import is_learnable

# Names that Keras gives by itself count instances, not blocks.
_AUTOMATIC = re.compile(r"^(?:separable_|depthwise_)?conv[123]d(?:_transpose)?(?:_\d+)?$")
_STEM = re.compile(r"^(.*?\d+)(?=[a-z]?(?:_|\.|-|$))")


@dataclass(frozen=True, eq=False)
class LayerGroup:
    """Layers that freeze and unfreeze together.

    Attributes:
        name: the shared stem, such as `block_3`, or `head`.
        layers: in the order of the graph.
    """

    name: str
    layers: tuple[Any, ...]


def find_groups(graph: Graph) -> tuple[LayerGroup, ...]:
    """Groups of a flattened model from its input to its output, the head last.

    Only layers that can learn are in groups. A model of one layer is all head.
    """
    steps = list({id(s.operation): s for s in graph.steps if is_learnable(s.operation)}.values())
    if not steps:
        return ()
    head = _head(graph, steps)
    base = steps[: len(steps) - len(head)]
    groups = _by_name(base) or _by_resolution(graph, base)
    groups.append(LayerGroup("head", tuple(s.operation for s in head)))
    return tuple(group for group in groups if group.layers)


def _head(graph: Graph, steps: Sequence[Step]) -> list[Step]:
    """The learnable steps after the last reduction from a map or sequence to a vector.

    Where none is found (a model of dense layers), or nothing learned follows
    it: the last learnable step.
    """
    position = {id(step): i for i, step in enumerate(graph.steps)}
    last = -1
    for i, step in enumerate(graph.steps):
        ranks = [len(graph.shapes[index]) for index in step.inputs]
        out = [len(graph.shapes[index]) for index in step.outputs]
        if ranks and out and max(ranks) > 2 and max(out) == 2:
            last = i
    if last >= 0:
        after = [step for step in steps if position[id(step)] > last]
        if after and len(after) < len(steps):
            return after
    return list(steps[-1:])


def _by_name(steps: Sequence[Step]) -> list[LayerGroup]:
    """Groups by name stem, or nothing where names do not form blocks."""
    stems = [_stem(step.operation.name) for step in steps]
    counts = {stem: stems.count(stem) for stem in stems if stem}
    named = sum(count for count in counts.values() if count > 1)
    if len(counts) < 2 or named < len(steps) / 2:
        return []
    groups: list[tuple[str, list[Any]]] = []
    for step, stem in zip(steps, stems, strict=True):
        known = next((g for g in groups if g[0] == stem), None)
        if known is not None:
            known[1].append(step.operation)
        elif stem and counts[stem] > 1:
            groups.append((stem, [step.operation]))
        elif groups:
            # A lone layer (a last projection, say) joins what comes before it.
            groups[-1][1].append(step.operation)
        else:
            groups.append(("stem", [step.operation]))
    return [LayerGroup(name, tuple(layers)) for name, layers in groups]


def _stem(name: str) -> str | None:
    if _AUTOMATIC.match(name):
        return None
    match = _STEM.match(name)
    return match.group(1) if match else None


def _by_resolution(graph: Graph, steps: Sequence[Step]) -> list[LayerGroup]:
    """A new group wherever the number of positions (pixels, time steps) shrinks."""
    groups: list[list[Any]] = []
    last: int | None = None
    for step in steps:
        size = _positions(step, graph.shapes[step.outputs[0]])
        if not groups or (size is not None and last is not None and size < last):
            groups.append([])
        groups[-1].append(step.operation)
        last = size if size is not None else last
    return [LayerGroup(f"level {i}", tuple(layers)) for i, layers in enumerate(groups, 1)]


def _positions(step: Step, shape: tuple[int | None, ...]) -> int | None:
    """How many pixels or time steps a layer's output has, None where that is not known."""
    layout = getattr(step.operation, "data_format", None)
    if layout is None and hasattr(step.operation, "axis"):
        return None  # A normalization: it knows its axis only, and keeps the resolution.
    if layout is None and len(shape) > 3:
        layout = keras.config.image_data_format()
    places = shape[2:] if layout == "channels_first" else shape[1:-1]
    known = [dimension for dimension in places if dimension is not None]
    return math.prod(known) if len(known) == len(places) else None
