"""The freeze boundary: the frozen prefix, the live suffix, and what a stage will do with them.

A step is *live* when training changes it, or when it must draw new random numbers
in each epoch (`stochastic_role` says which random layers must). What reads from a
live step is the suffix; the rest of what the suffix needs is the prefix; the tensors
that cross are the frontier. Invariant: the prefix runs in inference mode, so its
outputs are the same in every epoch.

`plan_stage` says what a stage will do before anything runs. It estimates work as the
multiply-adds of kernels; layers without a kernel count as zero.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from unfreeze.core.graph import Graph, Step, count_numbers
from unfreeze.core.keras_internals import (
    flatten_layers,
    held_weights,
    is_learnable,
    own_weights,
    seed_generators,
)
from unfreeze.core.layers import Selection, check
from unfreeze.core.lora import adapted_layers, numbers_trained
from unfreeze.core.schedule import BEST, Schedule, Stage
from unfreeze.errors import ScheduleError

# Forward and backward of what trains, in forward passes of the same layers.
_TRAINING = 3.0
# Measured with YAMNet: a cache at block 4 is 192 KB a patch for 4 % of the time of an
# epoch, one at block 8 is 48 KB for 20 % (docs/boundaries.md).
_WORTH_A_CACHE = 0.05


@dataclass(frozen=True, eq=False)
class Cut:
    """A graph divided at its freeze boundary.

    Attributes:
        graph: the whole model.
        prefix: frozen steps that feed the frontier, in running order.
        suffix: the other steps that the outputs need, in running order.
        frontier: numbers of tensors computed by the prefix and read by the
            suffix (or returned as a model output).
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
        """Whether the prefix holds layers with weights, so that caching its outputs pays off."""
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
    """The purpose of a random step without weights of its own, judged by its position.

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


def find_cut(
    graph: Graph,
    trained: Collection[int],
    *,
    views: int = 1,
    augments: bool = True,
    drops: bool = True,
) -> Cut:
    """Divide a graph for a stage.

    Args:
        graph: from `unfreeze.core.graph.flatten`.
        trained: ids (`id(variable)`) of all variables that the stage trains or
            lets update themselves.
        views: above 1, random input layers belong to the prefix, which is then
            run once for each view.
        augments: whether random input layers draw; False leaves them off, like the
            dropout of a frozen base.
        drops: whether the head's dropout draws, likewise.
    """
    roles = _roles(graph, trained)
    augmentation = {id(s) for s in graph.steps if roles[id(s)] == "augmentation"}

    def is_live(step: Step) -> bool:
        role = roles[id(step)]
        if role == "augmentation":
            return augments and views == 1
        return (role == "head" and drops) or trains(step, trained)

    live = _spread(graph, is_live)
    # What would be live without augmentation, too: there is nothing to cache below it.
    calm = _spread(graph, lambda step: roles[id(step)] != "augmentation" and is_live(step))
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
        augmentation=frozenset(id(s) for s in prefix if augments and id(s) in augmentation),
        silenced=tuple(dict.fromkeys(s.path for s in prefix if roles[id(s)] == "base")),
        live_augmentation=tuple(
            dict.fromkeys(s.path for s in readers if roles[id(s)] == "augmentation")
            if any(is_learnable(s.operation) for s in readers if id(s) not in calm)
            else ()
        ),
    )


def inference_cut(graph: Graph, trained: Collection[int] = frozenset()) -> Cut:
    """Divide a graph where nothing draws at random; without `trained`, all of it is prefix."""
    return find_cut(graph, trained, augments=False, drops=False)


def cut_for(graph: Graph, selection: Selection, views: int) -> Cut:
    """Divide a graph as a stage does, with so many views of each sample."""
    stage = selection.stage
    augments = views > 1 or (stage.augment and not stage.solve)
    drops = not stage.solve
    return find_cut(graph, selection.live, views=views, augments=augments, drops=drops)


@dataclass(frozen=True, eq=False)
class Solvable:
    """The layer to solve.

    Attributes:
        layer: the dense layer.
        activation: "softmax" or "sigmoid".
    """

    layer: keras.layers.Dense
    activation: str


def solvable(graph: Graph, selection: Selection) -> Solvable:
    """The dense layer that a stage with `solve` trains.

    Raises:
        ScheduleError: it trains anything else; says what and what to do instead.
    """
    stage = selection.stage
    cut = inference_cut(graph, selection.live)
    layers = {
        id(entry.layer): entry.layer
        for entry in selection.chosen
        if {id(v) for v in entry.weights} & selection.live
    }
    layer = next(iter(layers.values()), None)
    is_last = (
        len(layers) == 1
        and len(cut.suffix) == 1
        and cut.suffix[0].operation is layer
        and type(layer) is keras.layers.Dense
        and graph.outputs == cut.suffix[0].outputs
        and len(cut.frontier) == 1
        and len(graph.shapes[cut.frontier[0]]) == 2
        and not held_weights(layer)
    )
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    if not is_last or layer is None or activation not in ("softmax", "sigmoid"):
        names = ", ".join(x.name for x in list(layers.values())[:3])
        raise ScheduleError(
            f"stage {stage.name!r}: solve needs one last dense layer with softmax or sigmoid right "
            f"above frozen layers, but the stage trains {names or 'none'}: leave out solve, or "
            "make the model with unfreeze.read_out"
        )
    return Solvable(layer, activation)


def check_stages(graph: Graph, schedule: Schedule) -> list[Selection]:
    """Work out every stage of a schedule, so that it is refused before the first epoch.

    Raises:
        ScheduleError: as `unfreeze.core.layers.check`, `solvable` and `adapted_layers`.
    """
    selections = check(graph, schedule)
    for selection in selections:
        if selection.stage.solve:
            solvable(graph, selection)
        if selection.stage.lora is not None:
            adapted_layers(selection)
    return selections


def _roles(graph: Graph, trained: Collection[int]) -> dict[int, str | None]:
    """The role of each step, by its id."""
    learnable = {id(s) for s in graph.steps if is_learnable(s.operation)}
    below = _spread(graph, lambda step: id(step) in learnable)
    # A BatchNorm that its policy keeps frozen says nothing: heads that train hold such layers too.
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


@dataclass(frozen=True)
class Span:
    """Neighbouring layers of the graph that train, from the first to the last.

    Attributes:
        first: path of the first layer.
        last: path of the last layer; the same as `first` where there is only one.
        layers: how many layers in it train.
    """

    first: str
    last: str
    layers: int


@dataclass(frozen=True)
class StagePlan:
    """What one stage trains and what lies frozen before it.

    Attributes:
        stage: the stage's name.
        epochs: the largest number of epochs that it may run.
        trains: paths of all layers that get gradients, in the order of the graph.
        spans: the same layers, as runs of neighbours.
        layers_total: layers with weights in the model.
        weights_trained: numbers that get gradients.
        weights_updating: numbers that layers update themselves (BatchNorm statistics).
        weights_total: numbers in the model.
        prefix_layers: layers with weights before the freeze boundary; they run in
            inference mode.
        prefix_work: share of the model's multiply-adds that the prefix does, in
            [0, 1]; None where a size is not known.
        cached: whether the outputs of the prefix will be cached, unless the data
            turn out to prevent it.
        boundary: paths of the layers whose outputs cross the boundary.
        cache_bytes: size of those outputs for one sample in float32; 0 where there
            is nothing to cache, None where a size is not known.
        silenced: frozen dropout and noise layers that the prefix turns off.
        live_augmentation: random layers before the frozen ones: they keep the
            prefix from being cached unless the stage has `views`.
        solve: whether its epochs are strengths of a solver, not steps.
        keep: whether the weights of its "best" or of its "last" epoch are kept.
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
    solve: bool = False
    keep: str = BEST

    @property
    def cacheable(self) -> bool:
        """Whether there are frozen layers whose outputs could be kept."""
        return self.prefix_layers > 0

    @property
    def step_work(self) -> float | None:
        """Work of a step, where one that trains all layers is 1; None where not known."""
        if self.prefix_work is None:
            return None
        frozen = 0.0 if self.cached else self.prefix_work
        return (frozen + _TRAINING * (1 - self.prefix_work)) / _TRAINING

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def plan_stage(graph: Graph, selection: Selection) -> StagePlan:
    """Work out what a stage trains, where its freeze boundary lies and what that saves.

    Args:
        graph: the flattened model.
        selection: from `unfreeze.core.layers.select`.
    """
    stage = selection.stage
    cut = cut_for(graph, selection, stage.views)
    trained = {id(v) for v in selection.trained}
    learnable = [entry for entry in selection.entries if entry.learnable]
    trains = [e.path for e in learnable if any(id(v) in trained for v in e.weights)]
    weights = {id(v): v for entry in selection.entries for v in entry.weights}
    prefix = {id(s.operation) for s in cut.prefix if is_learnable(s.operation)}
    caches = cut.saves_work and bool(cut.frontier)
    work = share_of_work(graph, cut.prefix) if caches else 0.0
    return StagePlan(
        stage=stage.name,
        epochs=stage.epochs,
        solve=stage.solve,
        keep=stage.keep,
        trains=tuple(trains),
        spans=_spans([(e.path, e.path in trains, _is_norm(e.layer)) for e in learnable]),
        layers_total=len(learnable),
        weights_trained=numbers_trained(selection),
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
        stage: its `cache`, `views` and `epochs`. "auto" without views uses a cache
            where that saves 5 % of the work; all others but "never" always do.
        prefix_work: share of the model's multiply-adds before the freeze boundary, in
            [0, 1]; None where not known: a cache is then taken to pay off.
    """
    if stage.solve:
        return None
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
