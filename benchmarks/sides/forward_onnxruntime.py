"""YAMNet's forward pass by ONNX Runtime, float32. Args: folder, times."""

from pathlib import Path

import onnxruntime

from benchmarks.sides.forward import measured


def prepare(args):
    """A batch of 128 at a time."""
    session = onnxruntime.InferenceSession(
        Path(args["folder"]) / "yamnet.onnx", providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return measured(args["folder"], lambda x: session.run(None, {name: x})[0], args["times"])
