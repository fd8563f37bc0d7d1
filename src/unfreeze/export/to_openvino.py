"""OpenVINO's own format: an `.xml` with the graph, and a `.bin` with the weights beside it.

The settings are in the model's runtime information. float16 stores the weights
in half precision. int8 is made by ONNX Runtime's quantizer and then converted:
both run the same quantized operations.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from unfreeze.export.program import FrozenGraph, Runner, save

SETTINGS = "unfreeze"
# Otherwise OpenVINO computes in bfloat16 if the processor can: off by 0.01 and more.
PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}


def write(graph: FrozenGraph, path: Path, quantize: str | None, clips: list[np.ndarray]) -> None:
    """Write `path` and the `.bin` beside it; `clips` (1, samples) are for calibration (int8)."""
    with tempfile.TemporaryDirectory() as folder:
        if quantize == "int8":
            from unfreeze.export import to_onnx

            source = Path(folder) / "int8.onnx"
            to_onnx.write(graph, source, quantize, clips)
            model = ov.convert_model(source)
        else:
            save(graph, folder)
            model = ov.convert_model(folder)
        ov.save_model(model, path, compress_to_fp16=quantize == "float16")


def weights_file(path: Path) -> Path:
    """The `.bin` that belongs to an `.xml`."""
    return path.with_suffix(".bin")


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Put labels and all other settings into the `.xml`, as one JSON text."""
    model = ov.Core().read_model(path)
    model.set_rt_info(json.dumps(settings, ensure_ascii=False), SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        ov.serialize(model, copy, weights_file(copy))
        path.write_bytes(copy.read_bytes())
        weights_file(path).write_bytes(weights_file(copy).read_bytes())


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that `write_settings` wrote."""
    text = ov.Core().read_model(path).get_rt_info(SETTINGS).astype(str)
    return dict(json.loads(text))


def load(path: Path) -> Runner:
    """Load on the CPU, in single precision."""
    model = ov.Core().compile_model(path, "CPU", PRECISE)

    def run(waveform: np.ndarray) -> dict[str, np.ndarray]:
        given = model(waveform)
        return {output.any_name: np.array(given[output]) for output in model.outputs}

    return run
