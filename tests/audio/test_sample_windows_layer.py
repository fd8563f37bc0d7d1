"""The layers of sample windows and frozen networks give what the CPU gives."""

import keras
import numpy as np
import pytest

import networks
from unfreeze.audio.clip_model import front_end_layer
from unfreeze.audio.front_ends import patches_of
from unfreeze.audio.sample_windows_layer import FrozenNetwork, SamplePatches
from unfreeze.backbones.frontend import NetworkOutputs, SampleWindows
from unfreeze.backbones.registry import get_backbone
from unfreeze.errors import WeightsError

FRONT = SampleWindows(*(100, 40, 20), patch_frames=1, patch_hop=1, min_samples=40, smallest_hop=10)
WAVES = np.random.default_rng(0).normal(0, 0.1, (2, 20_011)).astype(np.float32)


@pytest.fixture
def frozen(tmp_path) -> NetworkOutputs:
    pytest.importorskip("onnxruntime")
    networks.write_onnx(tmp_path / "net.onnx")
    networks.write_card(tmp_path / "net.onnx", embedding="[embedding, scores]")
    front = get_backbone(str(tmp_path / "net.onnx")).front_end
    assert isinstance(front, NetworkOutputs)
    return front


@pytest.mark.on_each_backend
@pytest.mark.parametrize("samples", [10, 40, 61, 333])
def test_windows_are_those_of_the_cpu(samples):
    layer, waves = front_end_layer(FRONT), WAVES[:, :samples]
    assert isinstance(layer, SamplePatches)
    found = keras.ops.convert_to_numpy(layer(waves))
    np.testing.assert_array_equal(found, [patches_of(wave, FRONT) for wave in waves])
    assert layer.compute_output_shape((2, samples)) == found.shape
    assert layer.compute_output_shape((None, None)) == (None, None, 40)


@pytest.mark.on_each_backend
def test_a_frozen_network_runs_inside_of_a_saved_model(frozen, tmp_path):
    waveform = keras.Input((None,))
    layer = front_end_layer(frozen)
    assert isinstance(layer, FrozenNetwork)
    keras.Model(waveform, layer(waveform)).save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    wanted = np.stack([patches_of(wave, frozen) for wave in WAVES])
    found = keras.ops.convert_to_numpy(model(WAVES))
    np.testing.assert_allclose(found, wanted, 0, 1e-6)
    if keras.backend.backend() != "jax":
        np.testing.assert_allclose(model.predict(WAVES, verbose=0), wanted, 0, 1e-6)


def test_a_model_without_the_networks_file_says_so(frozen, tmp_path):
    model = keras.Sequential([keras.Input((None,)), front_end_layer(frozen)])
    (tmp_path / "net.onnx").unlink()
    with pytest.raises(WeightsError, match=r"there is none at .*net.onnx"):
        model(WAVES)


def test_the_window_must_be_whole_hops():
    with pytest.raises(ValueError, match="window must be a multiple of hop, got 40 and 30"):
        SamplePatches(SampleWindows(100, 40, 30))
