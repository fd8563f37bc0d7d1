"""Networks in ONNX and TFLite files: their shapes, their outputs, and what is refused."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import networks
from networks import BANDS, SAMPLES, expected, write_onnx, write_tflite
from unfreeze.backbones.frontend import NetworkOutputs, front_end_from
from unfreeze.backbones.network_file import (
    described_outputs,
    examine_network,
    find_network,
    open_network,
)
from unfreeze.errors import WeightsError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
WINDOWS = np.random.default_rng(0).normal(0, 0.1, (3, SAMPLES)).astype(np.float32)


def settings(file: Path, *outputs: str, samples: int = SAMPLES) -> NetworkOutputs:
    network = examine_network(file, "small", outputs, samples)
    return NetworkOutputs(
        *(networks.RATE, samples, samples // 2),
        min_samples=samples, patch_frames=1, patch_hop=1, network=network,
    )  # fmt: skip


def numbers(file: Path, *outputs: str) -> np.ndarray:
    return open_network(settings(file, *outputs))(WINDOWS)


def write_relay(file: Path, shape: tuple[int, ...]) -> None:
    """A network that gives what it takes."""
    from onnx import TensorProto, helper, save

    ends = [helper.make_tensor_value_info(x, TensorProto.FLOAT, list(shape)) for x in "xy"]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "relay", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(file))


@pytest.mark.parametrize(
    "shape",
    [
        (SAMPLES,),
        ("samples",),
        (1, SAMPLES),
        ("batch", SAMPLES),
        ("batch", "samples"),
        ("batch", 1, SAMPLES),
        ("batch", SAMPLES, 1),
        (1, "samples", 1),
    ],
)
def test_each_shape_of_samples_is_fed(shape, tmp_path):
    file = write_onnx(tmp_path / "small.onnx", shape)
    np.testing.assert_allclose(numbers(file, "embedding"), expected(WINDOWS)["embedding"], 1e-4)


def test_outputs_are_one_after_the_other_and_places_are_averaged(tmp_path):
    file = write_onnx(tmp_path / "small.onnx", outputs=("places", "scores"), double=True)
    front = settings(file, "scores", "places")
    assert front.network.sizes == (5, BANDS)
    assert front.patch_shape == (5 + BANDS,)
    found, wanted = open_network(front)(WINDOWS), expected(WINDOWS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :5], wanted["scores"], 1e-4, 1e-5)
    np.testing.assert_allclose(found[:, 5:], wanted["embedding"], 1e-4)


def test_a_tensor_inside_can_be_read_where_there_is_no_output_for_it(tmp_path):
    file = write_onnx(tmp_path / "small.onnx", outputs=("scores",))
    np.testing.assert_allclose(numbers(file, "embedding"), expected(WINDOWS)["embedding"], 1e-4)


def test_a_window_has_the_same_numbers_to_the_bit_whatever_comes_with_it(tmp_path):
    run = open_network(settings(write_onnx(tmp_path / "small.onnx"), "embedding"))
    whole = run(WINDOWS)
    for number, window in enumerate(WINDOWS):
        np.testing.assert_array_equal(run(window[None])[0], whole[number])


@pytest.mark.parametrize("shape", [(1, SAMPLES), (None, SAMPLES), (SAMPLES,), (None,)])
def test_tflite_files_of_each_shape(shape, tmp_path):
    pytest.importorskip("tensorflow")
    pytest.importorskip("ai_edge_litert")
    file = write_tflite(tmp_path / "small.tflite", shape)
    run = open_network(settings(file))
    wanted = expected(WINDOWS)["scores"]
    np.testing.assert_allclose(run(WINDOWS), wanted, 1e-3, 1e-5)
    # An interpreter is one set of tensors: threads must not mix them up.
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(run, [WINDOWS] * 8):
            np.testing.assert_allclose(found, wanted, 1e-3, 1e-5)


def test_tensors_inside_of_tflite_files(tmp_path):
    pytest.importorskip("tensorflow")
    pytest.importorskip("ai_edge_litert")
    file = write_tflite(tmp_path / "small.tflite")
    with pytest.raises(WeightsError, match=r"no output or other tensor 'embeding'") as caught:
        numbers(file, "embeding")
    inside = str(caught.value).partition("Did you mean '")[2].partition("'")[0]
    np.testing.assert_allclose(numbers(file, inside), expected(WINDOWS)["embedding"], 1e-3)


def test_the_only_output_needs_no_name_and_several_do(tmp_path):
    one = write_onnx(tmp_path / "one.onnx", outputs=("scores",))
    assert settings(one).network.outputs == ("scores",)
    two = write_onnx(tmp_path / "two.onnx")
    told = (
        r"two.onnx has 2 outputs: say .* `embedding: embedding`. It has embedding \(batch x 24\), "
        r"scores \(batch x 5\)"
    )
    with pytest.raises(WeightsError, match=told.replace("batch", "any")):
        settings(two)
    assert described_outputs(two) == "embedding (any x 24), scores (any x 5)"


@pytest.mark.parametrize(
    ("shape", "samples", "told"),
    [
        ((1, 9_000), SAMPLES, r"takes 9000 samples at once, but the window .* has 8000"),
        ((8, SAMPLES), SAMPLES, "takes 8 windows at once, always"),
        ((1, 96, 64), SAMPLES, r"shape \(1, 96, 64\), which is no waveform"),
        ((1, 96, 64, 1), SAMPLES, "which is no waveform"),
        (("batch", "samples"), 9_001, "fails on 9001 samples"),
    ],
)
def test_other_windows_are_refused(shape, samples, told, tmp_path):
    file = tmp_path / "small.onnx"
    if len(shape) > 2 or 9_000 in shape:
        write_relay(file, shape)
    else:
        write_onnx(file, shape, outputs=("embedding",))
    with pytest.raises(WeightsError, match=told):
        settings(file, samples=samples)


def test_a_misspelt_output_is_named_with_the_closest(tmp_path):
    told = r"no output or other tensor 'embeddings'.* Did you mean 'embedding'\? Its outputs are"
    with pytest.raises(WeightsError, match=told):
        settings(write_onnx(tmp_path / "small.onnx"), "embeddings")


def test_other_files_are_refused(tmp_path):
    for name in ("noise.onnx", "noise.tflite"):
        (tmp_path / name).write_bytes(b"noise" * 100)
        with pytest.raises(WeightsError, match=f"{name} cannot be opened as a network"):
            settings(tmp_path / name)
    with pytest.raises(WeightsError, match="cannot be read"):
        settings(tmp_path / "none.onnx")


def test_networks_that_take_other_things_than_samples_are_refused(tmp_path):
    from onnx import TensorProto, helper, save

    def write(name, inputs):
        given = [helper.make_tensor_value_info(x, kind, [1, SAMPLES]) for x, kind in inputs]
        out = helper.make_tensor_value_info("y", inputs[0][1], [1, SAMPLES])
        node = helper.make_node("Add", [inputs[0][0], inputs[-1][0]], ["y"])
        graph = helper.make_graph([node], "g", given, [out])
        imports = [helper.make_opsetid("", 17)]
        save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(tmp_path / name))
        return tmp_path / name

    two = write("two.onnx", [("a", TensorProto.FLOAT), ("b", TensorProto.FLOAT)])
    with pytest.raises(WeightsError, match=r"has 2 inputs \(a, b\)"):
        settings(two)
    whole = write("whole.onnx", [("a", TensorProto.INT32)])
    with pytest.raises(WeightsError, match="takes numbers of type int32"):
        settings(whole)


def test_a_missing_runtime_is_named_with_the_command(tmp_path, monkeypatch):
    file = write_onnx(tmp_path / "small.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WeightsError, match=r"needs onnxruntime .* pip install onnxruntime"):
        settings(file, "embedding")


def test_a_file_that_is_gone_moved_or_changed(tmp_path, monkeypatch):
    file = write_onnx(tmp_path / "small.onnx")
    front = front_end_from(settings(file, "embedding").as_plain())
    assert isinstance(front, NetworkOutputs)
    assert find_network(front.network) == file
    moved = file.rename(tmp_path / "moved.onnx")
    with pytest.raises(WeightsError, match=r"none at .*small.onnx: put it back there, or set UNF"):
        open_network(front)
    monkeypatch.setenv("UNFREEZE_SMALL_WEIGHTS", str(moved))
    assert open_network(front)(WINDOWS).shape == (3, BANDS)
    write_onnx(moved, opset=16)
    with pytest.raises(WeightsError, match=r"moved.onnx is not the network small as it was"):
        open_network(front)
    # Where the file lies makes no other features; another file does.
    other = replace(front, network=replace(front.network, file="/elsewhere.onnx"))
    assert other.identity == front.identity
    assert replace(front, network=replace(front.network, sha256="0")).identity != front.identity
