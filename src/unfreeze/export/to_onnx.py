"""ONNX, by tf2onnx: standard operations only; the settings are in `metadata_props`.

float16 stores the weights in half precision and computes in single: ONNX Runtime
widens them once, when it loads. int8 is static quantization by ONNX Runtime of
pointwise convolutions and dense layers after the front end; depthwise ones have few
weights, lose the most accuracy and are not quantized.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tf2onnx
from onnx import TensorProto, helper, numpy_helper

from unfreeze.export.program import EXACT, INPUT, SMALL, FrozenGraph, Runner

SETTINGS = "unfreeze"
OPSET = 17


def write(graph: FrozenGraph, path: Path, quantize: str | None, clips: list[np.ndarray]) -> None:
    """Write the file `path`; `clips` (1, samples) are for calibration (int8)."""
    model = convert(graph)
    if quantize == "float16":
        _store_half(model)
    onnx.save(model, path)
    if quantize == "int8":
        quantize_file(path, path, clips)


def convert(
    graph: FrozenGraph,
    opset: int = OPSET,
    given: str = INPUT,
    axes: tuple[str, ...] = ("sounds", "samples"),
) -> Any:
    """The graph as an ONNX model with our names for inputs and outputs.

    Args:
        graph: the graph.
        opset: the version of ONNX' operations.
        given: the name of the input.
        axes: names of the input's first axes, where they are of any length.
    """
    ours = {f"{INPUT}:0": given, **{f"{name}:0": name for name in graph.outputs}}
    with _quiet():
        model, _ = tf2onnx.convert.from_graph_def(
            graph.graph_def,
            name="sound_classifier",
            input_names=[f"{INPUT}:0"],
            output_names=[f"{name}:0" for name in graph.outputs],
            tensors_to_rename=ours,
            opset=opset,
        )
    _whole_number_sizes(model)
    if graph.samples is None:
        sizes = model.graph.input[0].type.tensor_type.shape.dim
        for size, name in zip(sizes, axes, strict=False):
            size.dim_param = name
        for output in model.graph.output:
            output.type.tensor_type.shape.dim[0].dim_param = axes[0]
    onnx.checker.check_model(model)
    return model


def quantize_file(source: Path, target: Path, clips: list[np.ndarray]) -> None:
    """Write the int8 form of an ONNX file.

    The range of activations is the moving average over the clips; the widest range of
    all would leave too few steps for ordinary sounds.

    Args:
        source: a file that `write` has written.
        target: may be the same.
        clips: (1, samples) each.
    """
    from onnxruntime import quantization

    model = onnx.load(source)
    skipped = [
        node.name
        for node in model.graph.node
        if any(part in node.name for part in EXACT) or _is_depthwise(node)
    ]

    class Clips(quantization.CalibrationDataReader):
        """Returns the clips one after the other."""

        rows = iter(clips)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next clip; None at the end."""
            clip = next(self.rows, None)
            return None if clip is None else {INPUT: clip}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        result = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            str(source),
            str(result),
            Clips(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=skipped,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # Processors without VNNI saturate sums of 8 by 8 bits: a file that is right on one
            # machine was 0.9 off on another. With weights of 7 bits it is the same on all
            # (ONNX Runtime's guide, "Quantize ONNX models").
            reduce_range=True,
            extra_options={"CalibMovingAverage": True},
        )
        target.write_bytes(result.read_bytes())


def write_settings(path: Path, settings: Mapping[str, Any], name: str = SETTINGS) -> None:
    """Put labels and all other settings into the file, as one JSON text."""
    model = onnx.load(path)
    helper.set_model_props(model, {name: json.dumps(settings, ensure_ascii=False)})
    onnx.save(model, path)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that `write_settings` wrote."""
    props = {item.key: item.value for item in onnx.load(path).metadata_props}
    return dict(json.loads(props[SETTINGS]))


def load(path: Path) -> Runner:
    """Load with ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return lambda waveform: dict(zip(names, session.run(None, {INPUT: waveform}), strict=True))


def _whole_number_sizes(model: Any) -> None:
    """Let `Max` compare sizes as int32, which they are.

    tf2onnx converts the ends of slices to float32 for it, which is off by one above
    2**24 samples; in bfloat16, which OpenVINO prefers on some processors, above 256.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Max":
            continue
        casts = [made_by[name] for name in node.input if name in made_by]
        if not casts or any(not _casts_to(cast, TensorProto.FLOAT) for cast in casts):
            continue
        for cast in casts:
            cast.attribute[0].i = TensorProto.INT32
        for place, name in enumerate(node.input):
            if name in constants:
                values = numpy_helper.to_array(constants[name]).astype(np.int32)
                node.input[place] = f"{name}_int32"
                if node.input[place] not in constants:
                    whole = numpy_helper.from_array(values, node.input[place])
                    model.graph.initializer.append(whole)
                    constants[whole.name] = whole
    read = {name for node in model.graph.node for name in node.input}
    for item in list(model.graph.initializer):
        if item.name not in read:
            model.graph.initializer.remove(item)


def _casts_to(node: Any, kind: int) -> bool:
    return bool(node.op_type == "Cast" and node.attribute[0].i == kind)


def _store_half(model: Any) -> None:
    """Store large constants in float16; a `Cast` widens each where it is used."""
    casts = []
    for item in model.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        name, stored = item.name, f"{item.name}_float16"
        item.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(
            helper.make_node("Cast", [stored], [name], f"{name}_wide", to=TensorProto.FLOAT)
        )
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)


def _is_depthwise(node: Any) -> bool:
    return node.op_type == "Conv" and any(
        item.name == "group" and item.i > 1 for item in node.attribute
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence both packages, which log every step to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
