"""A graph model for TensorFlow.js: `model.json` and the weights in shards of 4 MB.

We write the files ourselves, because the converter of TensorFlow.js cannot be installed
beside a current TensorFlow. The layout is its "graph-model" (from the sources of
tfjs-converter, Apache 2.0: `GraphModel`, `io/types.ts`): the graph as JSON, with its
constants moved to the shards, one after the other, and listed by name in a manifest.
The settings are `userDefinedMetadata`.

float16 stores the weights after the front end in half precision, int8 in 256 steps
between the smallest and the largest of each tensor; both are widened when loaded, and
computed with in single precision.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import graph_pb2

from unfreeze.audio.clip_model import FRONT_ENDS
from unfreeze.export.program import EXACT, INPUT, SMALL, FrozenGraph, Runner, as_function
from unfreeze.version import __version__

MODEL = "model.json"
_SHARD = 4 * 2**20


def write(graph: FrozenGraph, path: Path, quantize: str | None, clips: list[np.ndarray]) -> None:
    """Write the folder `path`."""
    path.mkdir()
    topology = graph_pb2.GraphDef()
    topology.CopyFrom(graph.graph_def)
    entries, pieces = [], []
    for node in topology.node:
        # Shapes that were inferred while tracing; no reader uses them.
        node.attr.pop("_output_shapes", None)
        if node.op == "Const":
            values = tf.make_ndarray(node.attr["value"].tensor)
            entry, data = _stored(node.name, values, quantize)
            entries.append(entry)
            pieces.append(data)
            shape = node.attr["value"].tensor.tensor_shape
            kept = {"dtype": node.attr["value"].tensor.dtype, "tensor_shape": shape}
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0).__class__(**kept))
    whole = b"".join(pieces)
    count = max(1, math.ceil(len(whole) / _SHARD))
    shards = [f"group1-shard{i + 1}of{count}.bin" for i in range(count)]
    for number, shard in enumerate(shards):
        (path / shard).write_bytes(whole[number * _SHARD : (number + 1) * _SHARD])
    _write_json(
        path,
        {
            "format": "graph-model",
            "generatedBy": f"unfreeze {__version__}",
            "convertedBy": f"unfreeze {__version__}",
            "signature": _signature(graph),
            "modelTopology": json_format.MessageToDict(topology),
            "weightsManifest": [{"paths": shards, "weights": entries}],
        },
    )


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Put labels and all other settings into `model.json`."""
    _write_json(path, {**_read_json(path), "userDefinedMetadata": {"unfreeze": settings}})


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that `write_settings` wrote."""
    return dict(_read_json(path)["userDefinedMetadata"]["unfreeze"])


def load(path: Path) -> Runner:
    """Read graph and weights back from the files, and run them with TensorFlow.

    This checks the files; TensorFlow.js itself does not run here.
    """
    described = _read_json(path)
    graph = json_format.ParseDict(described["modelTopology"], graph_pb2.GraphDef())
    group = described["weightsManifest"][0]
    data = b"".join((path / shard).read_bytes() for shard in group["paths"])
    values, at = {}, 0
    for entry in group["weights"]:
        values[entry["name"]], at = _widened(entry, data, at)
    for node in graph.node:
        if node.op == "Const":
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values[node.name]))
    signature = described["signature"]
    samples = int(signature["inputs"][INPUT]["tensorShape"]["dim"][1]["size"])
    read = FrozenGraph(graph, tuple(signature["outputs"]), None if samples < 0 else samples)
    serve = as_function(read)
    return lambda waveform: {name: x.numpy() for name, x in serve(tf.constant(waveform)).items()}


def _signature(graph: FrozenGraph) -> dict[str, Any]:
    def tensor(name: str, shape: tuple[int | None, ...]) -> dict[str, Any]:
        sizes = [{"size": str(-1 if size is None else size)} for size in shape]
        return {"name": f"{name}:0", "dtype": "DT_FLOAT", "tensorShape": {"dim": sizes}}

    function = as_function(graph).get_concrete_function().structured_outputs  # type: ignore[attr-defined]
    outputs = {name: tensor(name, tuple(function[name].shape)) for name in graph.outputs}
    return {"inputs": {INPUT: tensor(INPUT, graph.shape)}, "outputs": outputs}


def _stored(name: str, values: np.ndarray, quantize: str | None) -> tuple[dict[str, Any], bytes]:
    """An entry of the manifest, and the bytes that it describes."""
    if values.dtype.kind in "iu":
        values = values.astype(np.int32)  # TensorFlow.js has no other integers
    entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "dtype": str(values.dtype)}
    small = (
        values.dtype != np.float32
        or values.size < SMALL
        or any(part in name for part in FRONT_ENDS)
    )
    if quantize is None or small:
        return entry, np.ascontiguousarray(values).tobytes()
    if quantize == "float16" or any(part in name for part in EXACT):
        entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
        return entry, values.astype("<f2").tobytes()
    low, scale = float(values.min()), float(np.ptp(values)) / 255 or 1.0
    entry["quantization"] = {
        "dtype": "uint8", "min": low, "scale": scale, "original_dtype": "float32"
    }  # fmt: skip
    return entry, np.round((values - low) / scale).astype(np.uint8).tobytes()


def _widened(entry: dict[str, Any], data: bytes, at: int) -> tuple[np.ndarray, int]:
    """The values of an entry, and where the next one begins."""
    how = entry.get("quantization", {})
    kind = np.dtype(how.get("dtype", entry["dtype"]))
    count = math.prod(entry["shape"])
    values = np.frombuffer(data, kind, count, at).reshape(entry["shape"])
    if how:
        values = values.astype(np.float32)
    if "scale" in how:
        values = values * np.float32(how["scale"]) + np.float32(how["min"])
    return values, at + count * kind.itemsize


def _write_json(path: Path, described: Mapping[str, Any]) -> None:
    (path / MODEL).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / MODEL).read_text(encoding="utf-8")))
