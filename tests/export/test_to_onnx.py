import numpy as np
import pytest

import unfreeze
from unfreeze.export.program import freeze, with_outputs

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
pytestmark = pytest.mark.needs_backend("tensorflow")


def test_sizes_are_whole_numbers_throughout(runs, tmp_path):
    """In float32 a sample count is off by one above 2**24, in bfloat16 above 256."""
    from onnx import TensorProto

    from unfreeze.export.to_onnx import convert

    classifier = unfreeze.SoundClassifier.load(runs["three"])
    model = convert(freeze(with_outputs(classifier.model, False), None))
    casts = [node.attribute[0].i for node in model.graph.node if node.op_type == "Cast"]
    assert casts
    assert set(casts) <= {TensorProto.INT32, TensorProto.INT64}
    assert {item.domain for item in model.opset_import} <= {"", "ai.onnx.ml"}


def test_float16_halves_the_file_and_keeps_inputs_and_outputs_in_float32(runs, tmp_path):
    from unfreeze.export.to_onnx import load, write

    classifier = unfreeze.SoundClassifier.load(runs["three"])
    graph = freeze(with_outputs(classifier.model, False), 15_600)
    half, single = tmp_path / "half.onnx", tmp_path / "single.onnx"
    write(graph, half, "float16", [])
    write(graph, single, None, [])
    assert half.stat().st_size < 0.55 * single.stat().st_size
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 15_600)).astype(np.float32)
    given, wanted = (load(path)(sound)["probabilities"] for path in (half, single))
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, wanted, atol=5e-3)
