"""LiteRT (TensorFlow Lite): built-in operations only; the settings are a zip archive in it.

By its metadata standard, a `.tflite` file may end in a zip archive of "associated
files", which readers of the model ignore. int8 is made by LiteRT's own quantizer, for
convolutions and dense layers after the front end.
"""

import contextlib
import io
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from unfreeze.export.program import EXACT, INPUT, FrozenGraph, Runner, save

SETTINGS, LABELS = "unfreeze.json", "labels.txt"
_QUANTIZED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def write(graph: FrozenGraph, path: Path, quantize: str | None, clips: list[np.ndarray]) -> None:
    """Write the file `path`; `clips` (1, samples) are for calibration (int8)."""
    with tempfile.TemporaryDirectory() as folder:
        save(graph, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        path.write_bytes(converter.convert())
    if quantize == "int8":
        path.write_bytes(_quantized(path, clips))


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Append labels and all other settings as a zip archive."""
    _cut_archive(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(SETTINGS, json.dumps(settings, ensure_ascii=False, indent=2))
        archive.writestr(LABELS, "".join(f"{label}\n" for label in settings["labels"]))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that `write_settings` wrote."""
    with zipfile.ZipFile(path) as archive:
        return dict(json.loads(archive.read(SETTINGS)))


def load(path: Path) -> Runner:
    """Load with LiteRT's interpreter, on all cores."""
    from ai_edge_litert.interpreter import Interpreter

    serve = Interpreter(str(path), num_threads=os.cpu_count()).get_signature_runner()
    return lambda waveform: dict(serve(waveform=waveform))


def _cut_archive(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        start = min(item.header_offset for item in archive.infolist())
    os.truncate(path, start)


def _quantized(path: Path, clips: list[np.ndarray]) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer

    tensor, grain = qtyping.TensorQuantizationConfig, qtyping.QuantGranularity
    config = qtyping.OpQuantizationConfig(
        activation_tensor_config=tensor(num_bits=8, symmetric=False, granularity=grain.TENSORWISE),
        weight_tensor_config=tensor(num_bits=8, symmetric=True, granularity=grain.CHANNELWISE),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )
    # The quantizer prints bars and a table, and warns of the memory for calibration.
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        work = quantizer.Quantizer(str(path))
        for operation in _QUANTIZED:
            work.update_quantization_recipe(
                # Matches the names of an operation's outputs; log-mel in 8 bits would be noise.
                regex=f"^(?!.*({'|'.join(EXACT)})).*",
                operation_name=qtyping.TFLOperationName[operation],
                op_config=config,
            )
        ranges = work.calibrate({"serving_default": [{INPUT: clip} for clip in clips]})
        return bytes(work.quantize(ranges).quantized_model)
