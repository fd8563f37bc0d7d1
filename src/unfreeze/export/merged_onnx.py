"""One ONNX file of a frozen network and the head that was trained on it.

The file has three parts: ours before the network, which cuts a waveform into windows; the
network's own graph, as published, inside of a `Scan`, which runs it window by window as
training did; and ours behind it, the head. What the network computes beside the outputs that
are read is left out. All parts must be of one version of ONNX' operations: ours are written in
the network's where that is possible, and converted where it is not.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from unfreeze.audio.clip_model import ClipMean, PatchRows, head_input, parts_of
from unfreeze.audio.sample_windows_layer import SamplePatches
from unfreeze.backbones.frontend import NetworkOutputs, SampleWindows
from unfreeze.backbones.network_file import find_network, network_shape
from unfreeze.errors import ExportError, show
from unfreeze.export.program import EMBEDDINGS, INPUT, PROBABILITIES, FrozenGraph, freeze
from unfreeze.export.to_onnx import convert

# Versions of ONNX' operations that tf2onnx writes.
_OLDEST, _NEWEST = 13, 18
_FRONT, _NETWORK, _HEAD = "front_", "network_", "head_"
# From this version on, `ReduceMean` takes its axes as an input.
_AXES_ARE_INPUTS = 18
# Tensors between the parts.
_WINDOW, _NUMBERS = "window", "numbers"


def head_graph(model: keras.Model, samples: int | None, embeddings: bool) -> FrozenGraph:
    """The head of a clip model, from (sounds, windows, numbers) to the outputs of an export.

    Args:
        model: the clip model.
        samples: the fixed length of the export's input, or None.
        embeddings: also output what the head reads.
    """
    patches, front_end, labels = parts_of(model)
    outputs = [patches.outputs[0], *([head_input(patches)] if embeddings else [])]
    inner = keras.Model(patches.inputs[0], outputs)
    numbers = keras.Input((None, *front_end.patch_shape), name=_NUMBERS)
    given = inner(PatchRows(name="patch_rows")(numbers))
    scores, *rest = given if isinstance(given, list | tuple) else [given]
    means = [ClipMean(labels, name="clip_mean")(scores, numbers)]
    for values in rest:
        places = [str(i) for i in range(values.shape[-1])]
        means.append(ClipMean(places, name="embedding_mean")(values, numbers))
    names = (PROBABILITIES, EMBEDDINGS)[: len(means)]
    shape = (None, None, *front_end.patch_shape)
    return freeze(keras.Model(numbers, means), samples, shape, names)


def windows_graph(front_end: SampleWindows, samples: int | None) -> FrozenGraph:
    """The graph from a waveform to its windows, (sounds, windows, window)."""
    kept = {key: getattr(front_end, key) for key in SampleWindows.__dataclass_fields__}
    waveform = keras.Input((None,), dtype="float32", name=INPUT)
    windows = SamplePatches(SampleWindows(**kept))(waveform)
    return freeze(keras.Model(waveform, windows), samples, None, (_WINDOW,))


def write_merged(head: FrozenGraph, front_end: NetworkOutputs, path: Path) -> None:
    """Write the file `path`.

    Args:
        head: from `head_graph`.
        front_end: names the network.
        path: of the file.

    Raises:
        ExportError: the parts cannot be joined.
        WeightsError: the network's file is gone or has changed.
    """
    file = find_network(front_end.network)
    try:
        network = _up_to_date(onnx.load(str(file)))
        version = _version(network)
        front = _prefixed(windows_graph(front_end, head.samples), version, _FRONT)
        behind = _prefixed(head, version, _HEAD)
        merged = _joined(front, network, behind, front_end, head)
        onnx.save(merged, str(path))
    except (ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ExportError(
            f"{show(file)} and the head cannot be joined in one ONNX file: {reason}"
        ) from error


def _version(model: Any) -> int:
    return int(next(x.version for x in model.opset_import if x.domain in ("", "ai.onnx")))


def _up_to_date(network: Any) -> Any:
    """The network in a version that ours can be written in."""
    if _version(network) >= _OLDEST:
        return network
    return version_converter.convert_version(network, _OLDEST)


def _prefixed(graph: FrozenGraph, version: int, prefix: str) -> Any:
    model = convert(graph, min(version, _NEWEST))
    if version > _NEWEST:
        model = version_converter.convert_version(model, version)
    return compose.add_prefix(model, prefix)


def _joined(
    front: Any, network: Any, behind: Any, front_end: NetworkOutputs, head: FrozenGraph
) -> Any:
    network = compose.add_prefix(network, _NETWORK)
    scan = _scan(network, front_end)
    size, window = front_end.frame_values, front_end.window
    cut = front.graph.output[0].name
    between = [
        helper.make_node("Reshape", [cut, "rows_shape"], ["rows"]),
        scan,
        helper.make_node("Shape", [cut], ["cut_shape"]),
        helper.make_node("Gather", ["cut_shape", "first_two"], ["cut_sizes"], axis=0),
        helper.make_node("Concat", ["cut_sizes", "size"], ["numbers_shape"], axis=0),
        helper.make_node("Reshape", ["found", "numbers_shape"], [behind.graph.input[0].name]),
    ]
    constants = {
        "rows_shape": [-1, window],
        "first_two": [0, 1],
        "size": [size],
    }
    named = {front.graph.input[0].name: INPUT}
    named |= {_HEAD + name: name for name in head.outputs}
    nodes = [*_renamed(front.graph.node, named), *between, *_renamed(behind.graph.node, named)]
    fixed = head.samples is not None
    shape = [1, head.samples] if fixed else ["sounds", "samples"]
    sounds = 1 if fixed else "sounds"
    outputs = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [sounds, item.type.tensor_type.shape.dim[-1].dim_value]
        )
        for name, item in zip(head.outputs, behind.graph.output, strict=True)
    ]
    graph = helper.make_graph(
        nodes,
        "sound_classifier",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        outputs,
        [
            *front.graph.initializer,
            *behind.graph.initializer,
            *(_whole(name, values) for name, values in constants.items()),
        ],
    )
    imports = {item.domain: item for part in (front, behind, network) for item in part.opset_import}
    merged = helper.make_model(
        graph,
        opset_imports=list(imports.values()),
        functions=list(network.functions),
        ir_version=max(part.ir_version for part in (front, behind, network)),
    )
    onnx.checker.check_model(merged)
    return merged


def _scan(network: Any, front_end: NetworkOutputs) -> Any:
    """The network, from windows (n, window) to numbers (n, numbers), window by window."""
    source, described = network.graph, front_end.network
    stored = {item.name for item in (*source.initializer, *source.sparse_initializer)}
    given = next(item for item in source.input if item.name not in stored)
    fed = network_shape(front_end)
    kind = given.type.tensor_type.elem_type
    wanted = [_NETWORK + name for name in described.outputs]
    nodes = [
        helper.make_node("Cast", [_WINDOW], ["typed"], to=kind),
        helper.make_node("Reshape", ["typed", "fed_shape"], [given.name]),
        *_needed(source.node, wanted),
    ]
    constants, means = [_whole("fed_shape", fed)], []
    for number, (name, size) in enumerate(zip(wanted, described.sizes, strict=True)):
        places, mean = f"places_{number}", f"mean_{number}"
        constants.append(_whole(f"{places}_shape", [-1, size]))
        nodes += [
            helper.make_node("Cast", [name], [f"{places}_value"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", [f"{places}_value", f"{places}_shape"], [places]),
            _mean_over_places(places, mean, _version(network)),
        ]
        means.append(mean)
    if _version(network) >= _AXES_ARE_INPUTS:
        constants.append(_whole("first_axis", [0]))
    nodes.append(helper.make_node("Concat", means, [_NUMBERS], axis=0))
    read = {name for node in nodes for name in _reads(node)}
    body = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(_WINDOW, TensorProto.FLOAT, [front_end.window])],
        [helper.make_tensor_value_info(_NUMBERS, TensorProto.FLOAT, [front_end.frame_values])],
        [*(item for item in source.initializer if item.name in read), *constants],
    )
    body.sparse_initializer.extend(source.sparse_initializer)
    return helper.make_node("Scan", ["rows"], ["found"], body=body, num_scan_inputs=1)


def _mean_over_places(places: str, mean: str, version: int) -> Any:
    if version >= _AXES_ARE_INPUTS:
        return helper.make_node("ReduceMean", [places, "first_axis"], [mean], keepdims=0)
    return helper.make_node("ReduceMean", [places], [mean], axes=[0], keepdims=0)


def _needed(nodes: Sequence[Any], wanted: Iterable[str]) -> list[Any]:
    """The nodes that some tensors depend on, in their order."""
    names, kept = set(wanted), []
    for node in reversed(nodes):
        if names.intersection(node.output):
            kept.append(node)
            names |= _reads(node)
    return kept[::-1]


def _reads(node: Any) -> set[str]:
    """What a node reads, the graphs inside of it included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            names |= {name for inner in graph.node for name in _reads(inner)}
            names |= {item.name for item in graph.output}
    return names


def _renamed(nodes: Sequence[Any], names: dict[str, str]) -> list[Any]:
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    return list(nodes)


def _whole(name: str, values: Sequence[int]) -> Any:
    return numpy_helper.from_array(np.array(values, np.int64), name)
