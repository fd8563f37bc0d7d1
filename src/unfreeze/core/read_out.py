"""A head that reads a frozen network at every depth, not only at its end.

The last layer of a pretrained network is the wrong place to read from where the task is
not the one it was trained for. `read_out` puts taps at the ends of a network's layer
groups, pools each over its positions, compresses the range (x / sqrt(|x|)), and joins
them; one fixed linear layer then standardizes all of this and projects it to a few hundred
numbers (PCA), which a new head reads. (Evci et al., "Head2Toe: Utilizing Intermediate
Representations for Better Transfer Learning", ICML 2022; they select features where we
project.)

The result is an ordinary Keras model. `adapt` fits its fixed layer to training samples.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.core.boundary import inference_cut
from unfreeze.core.data import Rows, as_data
from unfreeze.core.graph import Graph, Step, flatten
from unfreeze.core.keras_internals import (
    flatten_layers,
    functional_graph,
    is_learnable,
    nodes_in_order,
)
from unfreeze.core.layer_entries import step_entries
from unfreeze.core.layers import base_groups, matching
from unfreeze.core.read_out_layers import Compress, MeanPool, Projection
from unfreeze.core.step_model import prefix_model
from unfreeze.errors import DataError, ScheduleError

#: Name of the fixed layer, and of the new layer that is trained.
PROJECTION, HEAD = "transfer_projection", "transfer_output"
COMPONENTS = 256
# The most taps that "auto" sets: more add little (docs/evidence.md) and make the model larger.
MOST_TAPS = 8
# Samples that the projection is fitted to: more change it little and cost time.
SAMPLES = 2048
BATCH = 128

Pool = str | Callable[[Any], Any]


def tap_points(
    graph: Graph, taps: str | Sequence[Any] = "auto", most: int | None = MOST_TAPS
) -> dict[str, Step]:
    """Where a network is read.

    Args:
        graph: the flattened network, without a head.
        taps: "auto" for the ends of its layer groups, from the last one down, or of every
            second or third where there are many; or patterns as in `Stage.train`, or layers.
        most: the most taps that "auto" sets; None for one at each group.

    Returns:
        The steps whose first output is read, by the name of the group or layer, from the
        input up.

    Raises:
        ScheduleError: a pattern matches no layer, or there is nothing to read.
    """
    if isinstance(taps, str) and taps == "auto":
        ends = {group.name: _end(graph, group.layers) for group in base_groups(graph)}
        if not ends:
            raise ScheduleError("taps: the network has no layer with weights to read")
        apart = 1 if most is None else -(-len(ends) // most)
        kept = list(ends)[::-1][::apart]
        return {name: end for name, end in ends.items() if name in kept}
    known = step_entries(graph)
    wanted: set[int] = set()
    if not taps:
        raise ScheduleError("taps: none are given: 'auto' reads at every depth")
    for part in [taps] if isinstance(taps, str) else taps:
        matched = matching(known, part)
        if not matched:
            raise ScheduleError(
                f"taps: {getattr(part, 'name', part)!r} matches no layer of the network. Its last "
                f"layers are {', '.join(entry.path for entry in known[-4:])}"
            )
        wanted |= {id(entry.layer) for entry in matched}
    return {step.path: step for step in graph.steps if id(step.operation) in wanted}


def _end(graph: Graph, layers: Sequence[Any]) -> Step:
    """The last step of a group: behind its last layer, what only reshapes no longer counts."""
    inside = {id(layer) for layer in layers}
    end = [step for step in graph.steps if id(step.operation) in inside][-1]
    while True:
        readers = [step for step in graph.steps if end.outputs[0] in step.inputs]
        if len(readers) != 1 or is_learnable(readers[0].operation):
            return end
        shapes = [graph.shapes[step.outputs[0]] for step in (readers[0], end)]
        if shapes[0] != shapes[1] or len(readers[0].outputs) != 1:
            return end
        end = readers[0]


def read_out(
    base: keras.Model,
    classes: int,
    *,
    taps: str | Sequence[Any] = "auto",
    pool: Pool = "mean",
    components: int = COMPONENTS,
    activation: str = "softmax",
    data: Any = None,
    seed: int = 0,
) -> keras.Model:
    """Put a head on a network that reads it at every depth.

    Args:
        base: a functional network without a head; its layers are shared, not copied.
        classes: units of the head.
        taps: "auto" for the ends of its layer groups, or patterns or layers.
        pool: how a tap becomes a vector. "mean" averages over all positions (pixels,
            tokens); "time" over the first axis alone, so that a spectrogram keeps its
            frequencies; or a function from a tensor to one of shape (batch, numbers).
        components: numbers that the head reads; fewer where there are fewer samples.
        activation: of the head: "softmax", or "sigmoid" for independent classes.
        data: training samples for `adapt`, as in `x`; None to call it later.
        seed: of the head's first weights and of the samples chosen.

    Returns:
        A model from the inputs of `base` to (batch, classes).

    Raises:
        ScheduleError: a tap matches no layer, lies inside a model within `base`, or is not
            pooled to a vector.
        DataError: see `adapt`.

    Examples:
        >>> deep = unfreeze.read_out(base, classes=3, data=x)
        >>> result = unfreeze.fit(deep, "probe", x, y, validation_split=0.2, seed=1, verbose=0)
        >>> deep.output_shape
        (None, 3)
    """
    graph = flatten(base)
    tensors = _tensors(base, graph)
    vectors = []
    for name, step in tap_points(graph, taps).items():
        if step.containers:
            raise ScheduleError(
                f"taps: {step.path} lies inside the model {step.containers[0]}: give read_out "
                "that model as its base, or name layers outside of it"
            )
        x = tensors[id(step)]
        x = pool(x) if callable(pool) else _pooled(x, pool_axes(graph, step, pool), name)
        if len(x.shape) != 2 or x.shape[1] is None:
            raise ScheduleError(
                f"taps: {name} is pooled to the shape {tuple(x.shape)}, not to (batch, numbers)"
            )
        vectors.append(Compress(name=f"tap_{_plain(name)}_root")(x))
    joined = keras.layers.Concatenate(name="tap_join")(vectors) if vectors[1:] else vectors[0]
    x = Projection(components, name=PROJECTION)(joined)
    start = keras.initializers.GlorotUniform(seed=seed)
    x = keras.layers.Dense(classes, activation, kernel_initializer=start, name=HEAD)(x)
    # One input stays one, not a list of one: an exported SavedModel is called as it is made.
    inputs = base.inputs if base.inputs[1:] else base.inputs[0]
    model = keras.Model(inputs, x, name=f"{base.name}_read_out")
    if data is not None:
        adapt(model, data, seed=seed)
    return model


def _tensors(base: keras.Model, graph: Graph) -> dict[int, Any]:
    """What the steps of a network return first, by the step's id; not inside of submodels.

    A layer's own `output` is that of its first call, maybe in another network.
    """
    calls: dict[int, list[Any]] = {}
    for node in nodes_in_order(functional_graph(base)):
        calls.setdefault(id(node.operation), []).append(node.outputs[0])
    own = (step for step in graph.steps if not step.containers)
    return {id(step): calls[id(step.operation)].pop(0) for step in own}


def _pooled(x: Any, axes: Sequence[int], name: str) -> Any:
    return MeanPool(axes, name=f"tap_{_plain(name)}")(x)


def pool_axes(graph: Graph, step: Step, pool: str) -> tuple[int, ...]:
    """The axes that a tap is averaged over, counted with the batch as 0.

    Args:
        graph: of the network.
        step: the tap.
        pool: "mean" for all positions, "time" for the first axis of them alone.

    Raises:
        ScheduleError: `pool` is neither.
    """
    if pool not in ("mean", "time"):
        raise ScheduleError(f"pool {pool!r} must be 'mean', 'time' or a function")
    rank = len(graph.shapes[step.outputs[0]])
    first = rank > 3 and _channels_first(graph, step)
    places = tuple(range(2, rank)) if first else tuple(range(1, rank - 1))
    return places[:1] if pool == "time" else places


def _channels_first(graph: Graph, step: Step) -> bool:
    """As the layer says, or the nearest before it that does."""
    made_by = {index: step for step in graph.steps for index in step.outputs}
    at: Step | None = step
    while at is not None:
        known = getattr(at.operation, "data_format", None)
        if known is not None:
            return bool(known == "channels_first")
        at = next((made_by[index] for index in at.inputs if index in made_by), None)
    return bool(keras.config.image_data_format() == "channels_first")


def _plain(name: str) -> str:
    return name.replace("/", "_").replace(" ", "_")


def projection_of(model: keras.Model) -> Projection | None:
    """The fixed layer of a model made by `read_out`, else None."""
    return next((x for x in flatten_layers(model) if isinstance(x, Projection)), None)


def adapt(model: keras.Model, x: Any, *, seed: int = 0) -> None:
    """Fit the fixed layer of a read-out: standardization and principal components.

    Args:
        model: from `read_out`.
        x: training samples, an array or anything that an integer array indexes; for several
            inputs a list of these, or a dict. At most 2,048 samples, drawn at random, are
            used.
        seed: of the draw.

    Raises:
        DataError: the model has no such layer, the samples do not fit it or are fewer than
            two, all the same, or not finite.

    Examples:
        >>> deep = unfreeze.read_out(base, classes=3)
        >>> unfreeze.adapt(deep, x)
    """
    layer = projection_of(model)
    if layer is None:
        raise DataError("adapt: the model has no read-out: make it with unfreeze.read_out")
    data = as_data((x, None), model, "adapt: x")
    assert isinstance(data, Rows)
    n = data.n
    if n < 2:
        raise DataError("adapt: one sample is too few to fit a projection to")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(n, SAMPLES, replace=False)) if n > SAMPLES else np.arange(n)
    # As if the layer were trained: what comes before it is the prefix.
    cut = inference_cut(flatten(model), {id(layer.kernel)})
    prefix = prefix_model(cut, model)
    values = np.concatenate(
        [_outputs(prefix, data, rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
    )
    if not np.isfinite(values).all():
        raise DataError("adapt: the network's outputs are not finite: is there NaN in the data?")
    kernel, bias = principal_components(values, layer.components, seed)
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)


def _outputs(prefix: Any, data: Rows, rows: np.ndarray) -> np.ndarray:
    # The last batch is filled up, so that the network is compiled for one shape.
    full = rows if len(rows) == BATCH else np.resize(rows, BATCH)
    (found,) = prefix.predict_on_batch(data.take(full)[0])
    return np.asarray(found)[: len(rows)]


def principal_components(
    values: np.ndarray, components: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The linear map that standardizes features and projects them.

    Args:
        values: (samples, numbers).
        components: of the result; those beyond the data's rank are 0.
        seed: of the randomized solver.

    Raises:
        DataError: all samples are the same.

    Each component is divided by the fourth root of its variance: half-way between
    plain components, in which the first few outweigh the rest, and whitened ones, in
    which the last few are noise.

    Returns:
        kernel (numbers, components) and bias (components,), float32. The results have mean
        0 and, on average over those that are not 0, variance 1.
    """
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    # In float32 a sum over so many samples would lose digits.
    mean = values.mean(axis=0, dtype=np.float64)
    standard = values - mean.astype(np.float32)
    deviation = standard.std(axis=0)
    # A unit that never or hardly ever fires would be blown up to noise.
    steady = deviation <= np.maximum(1e-4 * deviation.max(), 1e-6 * np.abs(mean))
    if steady.all():
        raise DataError("adapt: all samples give the network the same outputs")
    scale = np.where(steady, 0, 1 / np.where(steady, 1, deviation))
    standard *= scale
    wanted = min(components, len(values) - 1, values.shape[1])
    # On a busy machine several threads took 15 times as long as one.
    with threadpool_limits(1):
        found = PCA(wanted, svd_solver="randomized", random_state=seed).fit(standard)
    # Beyond the data's rank there is rounding, which new samples would blow up.
    kept = found.explained_variance_ > 1e-6 * found.explained_variance_[0]
    variance = found.explained_variance_[kept]
    divisor = variance**0.25 * np.sqrt(np.sqrt(variance).mean())
    kernel = np.zeros((values.shape[1], components), np.float32)
    kernel[:, : len(variance)] = scale[:, None] * found.components_[kept].T / divisor
    return kernel, -(mean @ kernel).astype(np.float32)
