"""YAMNet's forward pass by OpenVINO. Args: folder, times, precision ("f32" or "bf16").

Throughput hint, and two requests of 64 patches at once: faster than one of 128.
"""

from pathlib import Path

import numpy as np
import openvino

from benchmarks.sides.forward import measured


def prepare(args):
    """A batch of 128 at a time."""
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(Path(args["folder"]) / "yamnet.onnx"),
        "CPU",
        {"INFERENCE_PRECISION_HINT": args["precision"], "PERFORMANCE_HINT": "THROUGHPUT"},
    )
    queue = openvino.AsyncInferQueue(compiled, 2)
    found = {}
    queue.set_callback(
        lambda request, part: found.__setitem__(part, request.get_output_tensor(0).data.copy())
    )

    def embed(x):
        half = len(x) // 2
        queue.start_async({0: x[:half]}, 0)
        queue.start_async({0: x[half:]}, 1)
        queue.wait_all()
        return np.concatenate([found[0], found[1]])

    return measured(args["folder"], embed, args["times"])
