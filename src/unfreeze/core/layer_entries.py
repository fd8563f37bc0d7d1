"""The layers of a model as stages see them: each with its path, and blocks inside layers.

A step of the graph is one layer, whatever is inside. A layer of the user's (or of a library
such as KerasHub) may hold a whole stack of blocks, though, which stages should be able to
train one by one. Such a layer is opened here: what it holds takes its place, and its own
weights, if any, are an entry without the layers inside. The graph is not changed: it still
runs as one step, whose inside is then trained in part.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from unfreeze.core.graph import Graph
from unfreeze.core.keras_internals import (
    direct_layers,
    flatten_layers,
    held_weights,
    is_custom,
    is_learnable,
    own_weights,
)

_NUMBER = re.compile(r"_?(\d+)$")


@dataclass(frozen=True, eq=False)
class Entry:
    """A layer with the names that a pattern can match.

    Attributes:
        layer: the layer.
        path: where it is in the model.
        containers: paths of the submodels and opened layers around it, outer first.
        holders: the opened layers around it, outer first.
        alone: whether the layers inside it have entries of their own.
    """

    layer: Any
    path: str
    containers: tuple[str, ...]
    holders: tuple[Any, ...] = ()
    alone: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The layer's own name and path, and those of the submodels around it."""
        around = [part for path in self.containers for part in (path, path.split("/")[-1])]
        return (self.layer.name, self.path, *around)

    @property
    def layers(self) -> list[Any]:
        """The layer and all inside it that have no entry of their own."""
        return [self.layer] if self.alone else flatten_layers(self.layer)

    @property
    def weights(self) -> list[Any]:
        """Their weights, each once."""
        if self.alone:
            return [v for part in own_weights(self.layer) for v in part]
        return list({id(v): v for v in self.layer.weights}.values())

    @property
    def learnable(self) -> bool:
        """Whether some of them were made to be trained."""
        return bool(own_weights(self.layer)[0]) if self.alone else is_learnable(self.layer)

    @property
    def held(self) -> list[Any]:
        """Weights that the layer keeps frozen itself."""
        return held_weights(self.layer, alone=self.alone)

    @property
    def norms(self) -> list[Any]:
        """The BatchNorm layers among them."""
        return [x for x in self.layers if isinstance(x, keras.layers.BatchNormalization)]


def norms(layer: Any) -> list[Any]:
    """The BatchNorm layers among a layer and those inside it."""
    return [x for x in flatten_layers(layer) if isinstance(x, keras.layers.BatchNormalization)]


def entries(graph: Graph) -> tuple[Entry, ...]:
    """Each layer of a flattened model once, in the order of its graph; stacks of blocks opened."""
    found: dict[tuple[int, bool], Entry] = {}
    for opened in entries_by_step(graph).values():
        for entry in opened:
            found.setdefault((id(entry.layer), entry.alone), entry)
    return tuple(found.values())


def entries_by_step(graph: Graph) -> dict[int, list[Entry]]:
    """The entries of each layer that a step calls, by the layer's id, in the order of the graph."""
    whole = step_entries(graph)
    blocks = blocks_among([entry.layer for entry in whole])
    return {
        id(entry.layer): [entry] if id(entry.layer) in blocks else _open(entry) for entry in whole
    }


def step_entries(graph: Graph) -> tuple[Entry, ...]:
    """An entry for each layer that a step calls, none of them opened."""
    found: dict[int, Entry] = {}
    for step in graph.steps:
        if step.is_layer and id(step.operation) not in found:
            found[id(step.operation)] = Entry(step.operation, step.path, step.containers)
    return tuple(found.values())


def blocks_among(layers: Sequence[Any]) -> set[int]:
    """Ids of those layers that are the blocks of a stack: several custom ones of a kind.

    Of a kind are those of one class, or with one name but for the number at its end. A
    block holds other layers with weights, or at least two matrices; embeddings are none.
    """
    custom = [layer for layer in layers if _is_block(layer)]
    classes = Counter(type(layer) for layer in custom)
    stems = Counter(_NUMBER.sub("", layer.name) for layer in custom)
    return {
        id(layer)
        for layer in custom
        if classes[type(layer)] > 1 or stems[_NUMBER.sub("", layer.name)] > 1
    }


def number_of(layer: Any) -> int:
    """The number at the end of a layer's name; 0 where Keras gave none."""
    match = _NUMBER.search(layer.name)
    return int(match.group(1)) if match else 0


def embeds(layer: Any) -> bool:
    """Whether a layer turns tokens or positions into vectors."""
    return "embed" in type(layer).__name__.lower()


def _is_block(layer: Any) -> bool:
    if not is_custom(layer) or embeds(layer) or not is_learnable(layer):
        return False
    matrices = [v for v in own_weights(layer)[0] if len(v.shape) > 1]
    return len(matrices) > 1 or any(is_learnable(inner) for inner in direct_layers(layer))


def _open(entry: Entry) -> list[Entry]:
    """A layer's entry, or where it holds a stack of blocks those of what is inside."""
    layer = entry.layer
    if not _holds_blocks(layer):
        return [entry]
    inside = sorted(direct_layers(layer), key=lambda inner: not _mostly_embeds(inner))
    blocks = blocks_among(inside)
    around, holders = (*entry.containers, entry.path), (*entry.holders, layer)
    found = []
    if any(own_weights(layer)):
        found.append(Entry(layer, entry.path, entry.containers, entry.holders, alone=True))
    for inner in inside:
        part = Entry(inner, f"{entry.path}/{inner.name}", around, holders)
        found += [part] if id(inner) in blocks else _open(part)
    return found


def _holds_blocks(layer: Any) -> bool:
    """Whether a custom layer holds several blocks, itself or in a layer inside it."""
    if not is_custom(layer):
        return False
    inside = direct_layers(layer)
    return bool(blocks_among(inside)) or any(_holds_blocks(inner) for inner in inside)


def _mostly_embeds(layer: Any) -> bool:
    return any(embeds(inner) for inner in flatten_layers(layer)) and not _holds_blocks(layer)
