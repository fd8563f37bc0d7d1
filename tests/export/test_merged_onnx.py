"""One ONNX file of a frozen network and its head: equal to the model, and needing nothing else."""

import json

import numpy as np
import pytest

import networks
from networks import SAMPLES
from unfreeze import SoundClassifier
from unfreeze.audio.clip_model import clip_model, patch_model
from unfreeze.audio.front_ends import patches_of
from unfreeze.backbones.registry import get_backbone
from unfreeze.core.read_out import adapt
from unfreeze.errors import ExportError, WeightsError

pytest.importorskip("tensorflow")
pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
from unfreeze.export.merged_onnx import _needed, head_graph, write_merged
from unfreeze.export.program import FrozenGraph

pytestmark = pytest.mark.needs_backend("tensorflow")
RNG = np.random.default_rng(0)


def classifier(file, **card) -> SoundClassifier:
    """A head that nobody has trained on a frozen network."""
    backbone = get_backbone(str(networks.write_card(file, **card)))
    taps = backbone.taps.split(",")
    model = patch_model(backbone.build(), 3, seed=0, taps=taps, front_end=backbone.front_end)
    noise = RNG.normal(0, 0.1, 40 * SAMPLES).astype(np.float32)
    adapt(model, patches_of(noise, backbone.front_end))
    whole = clip_model(model, backbone.front_end, ("a", "b", "c"), notice="Only for tests.")
    return SoundClassifier(whole)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("merged")


@pytest.fixture(scope="module")
def made(folder) -> SoundClassifier:
    file = networks.write_onnx(folder / "net.onnx", outputs=("scores", "places"))
    return classifier(file, embedding="[scores, places]")


@pytest.fixture(scope="module")
def head(made) -> FrozenGraph:
    return head_graph(made.model, None, False)


def run(path, *waves):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"waveform": np.stack(waves)})


WAVE = RNG.normal(0, 0.1, 3 * SAMPLES + 77).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "opset", "double"),
    [
        ((SAMPLES,), 17, False),
        ((1, SAMPLES), 11, False),
        (("batch", "samples"), 13, True),
        ((1, 1, SAMPLES), 18, False),
        (("batch", SAMPLES, 1), 20, False),
    ],
)
def test_each_kind_of_network_is_joined_with_the_head(shape, opset, double, made, head, tmp_path):
    file = networks.write_onnx(tmp_path / "x.onnx", shape, ("scores", "places"), opset, double)
    front = get_backbone(str(networks.write_card(file, embedding="[scores, places]"))).front_end
    write_merged(head, front, tmp_path / "both.onnx")
    (found,) = run(tmp_path / "both.onnx", WAVE, 0.5 * WAVE)
    wanted = made.predict([WAVE, 0.5 * WAVE])
    np.testing.assert_allclose(found, wanted, 0, 1e-5)


def test_the_export_is_checked_and_needs_nothing_else(made, folder, tmp_path):
    import onnx

    done = made.export("onnx", tmp_path / "both.onnx", embeddings=True, length=len(WAVE))
    check = done.details["check"]
    assert check["largest_difference"] < 1e-5
    assert check["hard_sounds"]["largest_difference"] < 1e-5
    assert check["embedding_difference"] < 1e-5
    assert done.details["input"]["waveform"] == [1, len(WAVE)]
    assert done.details["licence"] == "Only for tests."
    assert str(folder) not in json.dumps(done.details)
    wanted = made.predict(WAVE)
    kept = (folder / "net.onnx").rename(folder / "kept.onnx")
    try:
        scores, embedding = run(done.path, WAVE)
        np.testing.assert_allclose(scores[0], wanted, 0, 1e-5)
        assert embedding.shape == (1, done.details["outputs"]["embeddings"][1])
        with pytest.raises(WeightsError, match="there is none at"):
            made.export("onnx", tmp_path / "again.onnx")
    finally:
        kept.rename(folder / "net.onnx")
    (scan,) = (node for node in onnx.load(str(done.path)).graph.node if node.op_type == "Scan")
    assert "network_cut" in {node.name for node in scan.attribute[0].g.node}


def test_what_is_not_read_is_left_out(folder):
    import onnx

    nodes = onnx.load(str(folder / "net.onnx")).graph.node
    assert [node.op_type for node in _needed(nodes, ["places"])] == ["Reshape", "MatMul", "Abs"]
    assert [node.op_type for node in _needed(nodes, ["scores"])] == [x.op_type for x in nodes]


def test_what_cannot_hold_the_network_is_refused(made, tmp_path):
    for format in ("saved_model", "litert", "tfjs"):
        with pytest.raises(ExportError, match=r"cannot hold net, which is a file .* to ONNX"):
            made.export(format, tmp_path / "x.tflite")
    with pytest.raises(ExportError, match="net is exported as it is: leave out --quantize"):
        made.export("onnx", tmp_path / "x.onnx", quantize="int8")
    pytest.importorskip("ai_edge_litert")
    made = classifier(networks.write_tflite(tmp_path / "lite.tflite"))
    with pytest.raises(ExportError, match=r"lite is a TFLite file .* if tf2onnx can convert it"):
        made.export("onnx", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
