"""What a stage will do, worked out before it starts: for summaries and `unfreeze plan`.

Nothing is run or changed. Work is estimated as multiply-adds of the kernels
(convolutions, dense layers and the like); what has no kernel counts nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from unfreeze.core.graph import Graph, Step, count_numbers
from unfreeze.core.internals import flatten_layers, is_learnable, own_weights
from unfreeze.core.schedule import Stage
from unfreeze.core.select import Selection
from unfreeze.core.split import find_cut

# Forward and backward of what trains, in forward passes of the same layers.
_TRAINING = 3.0
# Measured with YAMNet: a cache at block 4 is 192 KB a patch for 4 % of the time of an
# epoch, one at block 8 is 48 KB for 20 % (docs/boundaries.md).
_WORTH_A_CACHE = 0.05


@dataclass(frozen=True)
class Span:
    """Neighbours in the graph that train, from the first to the last.

    Attributes:
        first: path of the first layer.
        last: path of the last layer; the same where there is one only.
        layers: how many layers that train lie in it.
    """

    first: str
    last: str
    layers: int


@dataclass(frozen=True)
class StagePlan:
    """What one stage trains and what lies frozen before it.

    Attributes:
        stage: the stage's name.
        epochs: at most so many.
        trains: paths of all layers that get gradients, in the order of the graph.
        spans: the same, as runs of neighbours.
        layers_total: layers with weights in the model.
        weights_trained: numbers that get gradients.
        weights_updating: numbers that layers update themselves (BatchNorm statistics).
        weights_total: numbers in the model.
        prefix_layers: layers with weights before the freeze boundary; they run in
            inference mode.
        prefix_work: share of the model's multiply-adds that the prefix does, in
            [0, 1]; None where a size is not known.
        cached: whether the outputs of the prefix are kept, as far as the data do not
            decide that.
        boundary: paths of the layers whose outputs cross the boundary.
        cache_bytes: size of those outputs for one sample in float32; 0 where there
            is nothing to cache, None where a size is not known.
        silenced: frozen dropout and noise layers that the prefix turns off.
        live_augmentation: random layers before the frozen ones: they keep the
            prefix from being cached unless the stage has `views`.
    """

    stage: str
    epochs: int
    trains: tuple[str, ...]
    spans: tuple[Span, ...]
    layers_total: int
    weights_trained: int
    weights_updating: int
    weights_total: int
    prefix_layers: int
    prefix_work: float | None
    cached: bool
    boundary: tuple[str, ...]
    cache_bytes: int | None
    silenced: tuple[str, ...]
    live_augmentation: tuple[str, ...]

    @property
    def cacheable(self) -> bool:
        """Whether there are frozen layers whose outputs could be kept."""
        return self.prefix_layers > 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def plan_stage(graph: Graph, selection: Selection) -> StagePlan:
    """Work out what a stage trains, where its freeze boundary lies and what that saves.

    Args:
        graph: the flattened model.
        selection: from `unfreeze.core.select.select`.
    """
    stage = selection.stage
    cut = find_cut(graph, selection.live, views=stage.views)
    trained = {id(v) for v in selection.trained}
    learnable = [entry for entry in selection.entries if is_learnable(entry.layer)]
    trains = [e.path for e in learnable if any(id(v) in trained for v in e.layer.weights)]
    weights = {id(v): v for entry in selection.entries for v in entry.layer.weights}
    prefix = {id(s.operation) for s in cut.prefix if is_learnable(s.operation)}
    caches = cut.saves_work and bool(cut.frontier)
    work = share_of_work(graph, cut.prefix) if caches else 0.0
    return StagePlan(
        stage=stage.name,
        epochs=stage.epochs,
        trains=tuple(trains),
        spans=_spans([(e.path, e.path in trains, _is_norm(e.layer)) for e in learnable]),
        layers_total=len(learnable),
        weights_trained=count_numbers(selection.trained),
        weights_updating=count_numbers(selection.updating),
        weights_total=count_numbers(list(weights.values())),
        prefix_layers=len(prefix) if caches else 0,
        prefix_work=work,
        cached=caches and why_uncached(stage, work) is None,
        boundary=cut.boundary if caches else (),
        cache_bytes=cut.bytes_per_sample() if caches else 0,
        silenced=cut.silenced,
        live_augmentation=cut.live_augmentation,
    )


def why_uncached(stage: Stage, prefix_work: float | None) -> str | None:
    """Why a stage that could be cached is not, whatever its data; None if it is.

    Args:
        stage: its `cache`, `views` and `epochs`. "auto" without views asks for a cache
            where that saves a twentieth of the work; all but "never" always do.
        prefix_work: share of the model's multiply-adds before the freeze boundary, in
            [0, 1]; None where not known: then a cache pays.
    """
    if stage.cache == "never":
        return "the stage says cache='never'"
    if stage.cache != "auto" or stage.views > 1:
        return None
    if stage.epochs < 2:
        return "one epoch would use it only once"
    if prefix_work is None:
        return None
    saved = saved_share(prefix_work, stage.epochs)
    return None if saved >= _WORTH_A_CACHE else f"it would save {saved:.1%} of the work"


def saved_share(prefix_work: float, epochs: int) -> float:
    """Share of a stage's multiply-adds that a cache saves, in [0, 1].

    The prefix runs forward once instead of in each of `epochs`; the rest runs forward
    and backward in each.
    """
    an_epoch = prefix_work + _TRAINING * (1 - prefix_work)
    return prefix_work / an_epoch * (1 - 1 / epochs)


def multiply_adds(graph: Graph, step: Step) -> int | None:
    """Multiply-adds of a step's kernels for one sample, None where a size is not known.

    Each kernel (a weight of two or more dimensions) is used once for each
    position of the step's output; of a transposed convolution's input.
    Embeddings only look up. An estimate for layers of other kinds.
    """
    if not step.is_layer or isinstance(step.operation, keras.layers.Embedding):
        return 0
    layers = flatten_layers(step.operation)
    kernels = [w for x in layers for w in own_weights(x)[0] if len(w.shape) >= 2]
    if not kernels:
        return 0
    transposed = "Transpose" in type(step.operation).__name__
    shape = graph.shapes[step.inputs[0] if transposed and step.inputs else step.outputs[0]]
    first = getattr(step.operation, "data_format", None) == "channels_first"
    positions = shape[2:] if first else shape[1:-1]
    known = [dimension for dimension in positions if dimension is not None]
    return count_numbers(kernels) * math.prod(known) if len(known) == len(positions) else None


def share_of_work(graph: Graph, part: Sequence[Step]) -> float | None:
    """Share of the model's multiply-adds that some of its steps do, None where not known."""
    inside = {id(step) for step in part}
    total = done = 0
    for step in graph.steps:
        work = multiply_adds(graph, step)
        if work is None:
            return None
        total += work
        done += work if id(step) in inside else 0
    return done / total if total else None


def _spans(layers: Sequence[tuple[str, bool, bool]]) -> tuple[Span, ...]:
    """Runs of neighbours that train; BatchNorm that does not train breaks no run."""
    spans: list[Span] = []
    broken = True
    for path, trains, is_norm in layers:
        if trains and broken:
            spans.append(Span(path, path, 1))
        elif trains:
            spans[-1] = Span(spans[-1].first, path, spans[-1].layers + 1)
        if trains or not is_norm:
            broken = not trains
    return tuple(spans)


def _is_norm(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)
