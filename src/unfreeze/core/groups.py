"""Layer groups: a model divided into the blocks that stages freeze and unfreeze together.

Layers that share a name stem with a number (`block_3_expand`, `layer5.conv`) are a group.
Where each block is one custom layer (a transformer's), each begins a group, and what comes
before the first, the embeddings, is the lowest. Where names say nothing, attention layers
divide a model, or else reductions of the resolution. The last group, the head, is what comes
after the last pooling or flattening to a vector. `top:2`, `top:50%` and `group:1` name groups.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras

from unfreeze.core.graph import Graph, Step
from unfreeze.core.keras_internals import flatten_layers, is_learnable
from unfreeze.core.layer_entries import Entry, blocks_among, embeds, entries_by_step, number_of
from unfreeze.core.schedule import Schedule
from unfreeze.errors import ScheduleError

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
    steps = _learnable_steps(graph)
    if not steps:
        return ()
    opened = entries_by_step(graph)
    units = {key: [e for e in found if e.learnable] for key, found in opened.items()}
    head = _head(graph, steps)
    base = steps[: len(steps) - len(head)]
    inside = [entry for step in base for entry in units[id(step.operation)]]
    groups = _by_name([entry.layer for entry in inside]) or _by_blocks(inside)
    if not groups:
        groups = [
            LayerGroup(g.name, tuple(e.layer for layer in g.layers for e in units[id(layer)]))
            for g in _by_resolution(graph, base)
        ]
    top = tuple(entry.layer for step in head for entry in units[id(step.operation)])
    groups.append(LayerGroup("head", top))
    return tuple(group for group in groups if group.layers)


def why_few_groups(groups: Sequence[LayerGroup], schedule: Schedule) -> str | None:
    """What to say where stages divide a model that has no groups to be divided into."""
    if len(groups) > 2 or schedule.groups is not None:
        return None
    asking = [
        repr(stage.name)
        for stage in schedule
        if (stage.layer_decay or 1) < 1
        or any(is_group_pattern(p) and p.endswith("%") for p in _parts(stage.train))
    ]
    if not asking:
        return None
    found = "one layer group" if len(groups) == 2 else "no layer group"
    return (
        f"the model has only {found} below its head, so that shares such as top:50% and "
        f"`layer_decay` divide nothing (in {', '.join(asking)}): name its blocks with "
        "Schedule(groups=[...])"
    )


def _parts(train: Any) -> list[Any]:
    return list(train) if isinstance(train, list | tuple | set) else [train]


def base_groups(graph: Graph) -> tuple[LayerGroup, ...]:
    """Groups of a flattened network that has no head, from its input to its output.

    Where neither names nor resolution divide it (a transformer), each layer that is made
    of others begins a group.
    """
    steps = _learnable_steps(graph)
    groups = _by_name([s.operation for s in steps]) or _by_resolution(graph, steps)
    if len(groups) < 3:
        made = [at for at, s in enumerate(steps) if len(flatten_layers(s.operation)) > 1]
        if len(made) > 2:
            parts = [steps[at:end] for at, end in pairwise([*made, len(steps)])]
            groups = [
                LayerGroup(part[0].operation.name, tuple(s.operation for s in part))
                for part in parts
            ]
    return tuple(group for group in groups if group.layers)


def _learnable_steps(graph: Graph) -> list[Step]:
    return list({id(s.operation): s for s in graph.steps if is_learnable(s.operation)}.values())


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


def _by_name(layers: Sequence[Any]) -> list[LayerGroup]:
    """Groups by name stem, or nothing where names do not form blocks."""
    stems = [_stem(layer.name) for layer in layers]
    counts = {stem: stems.count(stem) for stem in stems if stem}
    named = sum(count for count in counts.values() if count > 1)
    if len(counts) < 2 or named < len(layers) / 2:
        return []
    groups: list[tuple[str, list[Any]]] = []
    for layer, stem in zip(layers, stems, strict=True):
        known = next((g for g in groups if g[0] == stem), None)
        if known is not None:
            known[1].append(layer)
        elif stem and counts[stem] > 1:
            groups.append((stem, [layer]))
        elif groups:
            # A lone layer (a last projection, say) joins what comes before it.
            groups[-1][1].append(layer)
        else:
            groups.append(("stem", [layer]))
    return [LayerGroup(name, tuple(members)) for name, members in groups]


def _by_blocks(units: Sequence[Entry]) -> list[LayerGroup]:
    """A new group at each block of a stack, or at each attention layer where none is custom.

    Blocks of two kinds with the same number (`attention_3`, `mlp_3`) are one group. What
    comes before the first block is the lowest group, and so is what embeds, wherever it is,
    and the own weights of the layer that holds the blocks. Nothing without blocks.
    """
    attention = keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention
    attending = {id(u.layer) for u in units if isinstance(u.layer, attention)}
    blocks = blocks_among([u.layer for u in units if not u.alone])
    if len(attending) > 1:
        blocks |= attending
    lowest: list[Any] = []
    groups: list[tuple[str, list[Any]]] = []
    number, kinds = 0, set[type]()
    for unit in units:
        layer = unit.layer
        if id(layer) in blocks and not unit.alone:
            if not groups or number_of(layer) != number or type(layer) in kinds:
                groups.append((unit.path, []))
                number, kinds = number_of(layer), set()
            kinds.add(type(layer))
            groups[-1][1].append(layer)
        elif not groups or unit.alone or embeds(layer):
            lowest.append(layer)
        else:
            groups[-1][1].append(layer)
    if groups and lowest:
        named = "embeddings" if any(embeds(layer) for layer in lowest) else "stem"
        groups.insert(0, (named, lowest))
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


def is_group_pattern(part: Any) -> bool:
    """Whether a part of `Stage.train` names layer groups."""
    return isinstance(part, str) and (part == "head" or part.startswith(("top:", "group:")))


def group_layers(groups: Sequence[LayerGroup], part: str, stage: str) -> list[Any]:
    """The layers that a group pattern names.

    Args:
        groups: of the model, from the input up, the head last.
        part: `head`; `top:2` or `top:50%`, the head and that many groups below it;
            `group:1`, one group alone, counted from the input, or with `group:-1`
            from the head down.
        stage: its name, for messages.

    Raises:
        ScheduleError: the pattern is malformed, or asks for more groups than there are.
    """
    base, head = list(groups[:-1]), list(groups[-1:])
    if part == "head":
        kept = head
    elif part.startswith("group:"):
        kept = [base[_place(part, len(base), stage)]]
    else:
        kept = base[len(base) - _top_count(part, len(base), stage) :] + head
    return [layer for group in kept for layer in group.layers]


def _place(part: str, available: int, stage: str) -> int:
    """The position of the group that `group:1` or `group:-1` means."""
    match = re.fullmatch(r"group:(-?[1-9]\d*)", part)
    if match is None:
        raise ScheduleError(
            f"stage {stage!r}: {part!r} should look like 'group:1', the one at the input, or "
            "'group:-1', the one below the head"
        )
    value = int(match.group(1))
    if abs(value) > available:
        raise ScheduleError(
            f"stage {stage!r}: {part!r}, but the model has {available} groups below its head"
        )
    return value - 1 if value > 0 else available + value


def _top_count(part: str, available: int, stage: str) -> int:
    """How many groups below the head `top:2` or `top:50%` means."""
    match = re.fullmatch(r"top:(\d+(?:\.\d+)?)(%?)", part)
    if match is None or (not match.group(2) and "." in match.group(1)):
        raise ScheduleError(f"stage {stage!r}: {part!r} should look like 'top:2' or 'top:50%'")
    value = float(match.group(1))
    if match.group(2):
        if value > 100:
            raise ScheduleError(f"stage {stage!r}: {part!r} is more than the whole base")
        # Rounded first, as presets write two thirds as 66.6667%.
        return math.ceil(round(value * available / 100, 3))
    if value > available:
        raise ScheduleError(
            f"stage {stage!r}: {part!r}, but the model has {available} groups below its head"
        )
    return int(value)
