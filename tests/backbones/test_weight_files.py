"""The three file formats end in the same tensors."""

import h5py
import numpy as np
import pytest
import safetensors.numpy

from unfreeze.backbones import weight_files, yamnet_spec
from unfreeze.backbones.pretrained_weights import load_tensors
from unfreeze.backbones.weight_files import tensor_digest
from unfreeze.backbones.yamnet import yamnet_with_top
from unfreeze.errors import WeightsError

SPEC = yamnet_spec.YAMNET_WEIGHTS


@pytest.fixture(scope="module")
def published(yamnet_weights):
    return load_tensors(yamnet_weights, yamnet_spec.YAMNET_WEIGHTS)


def write_like_google(path, tensors, root="/"):
    """Write the layout of Google's yamnet.h5.

    The real file cannot be had on every machine. This follows the layout that
    Keras used for it (attributes `layer_names` and `weight_names`, one group a
    layer) with the layer names of the reference's yamnet.py.
    """
    layers = {}
    for name in SPEC.shapes:
        layer, variable = name.rsplit("/", 1)
        layers.setdefault(layer, []).append(variable)
    with h5py.File(path, "w") as file:
        group = file.require_group(root)
        names = [b"input_1", b"reshape"]
        for name in names:
            group.require_group(name.decode()).attrs["weight_names"] = np.zeros(0, "S1")
        for layer, variables in layers.items():
            theirs = google_name(layer)
            names.append(theirs.encode())
            place = group.require_group(theirs)
            stored = []
            for variable in variables:
                kind = "depthwise_kernel" if layer.endswith("depthwise") else variable
                stored.append(f"{theirs}/{kind}:0")
                place[stored[-1]] = tensors[f"{layer}/{variable}"]
            place.attrs["weight_names"] = [name.encode() for name in stored]
        group.attrs["layer_names"] = names


def google_name(layer):
    if layer == "scores":
        return "logits"
    block, _, rest = layer.partition("_")
    number = block.removeprefix("block").removeprefix("conv")
    conv = {"depthwise": "depthwise_conv", "pointwise": "pointwise_conv"}
    kind = conv.get(rest.removesuffix("_bn"), "conv")
    return f"layer{number}/{kind}" + ("/bn" if rest.endswith("bn") else "")


@pytest.mark.parametrize("root", ["/", "model_weights"])
def test_googles_layout(root, published, tmp_path):
    file = tmp_path / "yamnet.h5"
    write_like_google(file, published, root)
    assert tensor_digest(weight_files.read_tensors(file, SPEC.shapes)) == SPEC.sha256


def test_keras_weights_file(yamnet_weights, tmp_path):
    file = tmp_path / "yamnet.weights.h5"
    yamnet_with_top(yamnet_weights).save_weights(file)
    assert tensor_digest(weight_files.read_tensors(file, SPEC.shapes)) == SPEC.sha256


def test_safetensors_with_metadata(published, tmp_path):
    file = tmp_path / "yamnet.safetensors"
    weight_files.write_safetensors(file, published, {"source": "a test"})
    assert tensor_digest(weight_files.read_tensors(file, SPEC.shapes)) == SPEC.sha256
    assert weight_files.read_metadata(file) == {"source": "a test"}
    assert [p.name for p in tmp_path.iterdir()] == ["yamnet.safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".h5", ".weights.h5"])
@pytest.mark.parametrize("kept", [0, 1_000])
def test_cut_off_files_are_refused(suffix, kept, tmp_path):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    if suffix == ".safetensors":
        safetensors.numpy.save_file({"a": np.zeros(2_000, np.float32)}, whole)
    else:
        with h5py.File(whole, "w") as file:
            file["a"] = np.zeros(2_000, np.float32)
    cut.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=rf"cut{suffix} cannot be read as weights"):
        weight_files.read_tensors(cut, SPEC.shapes)


def test_other_networks_are_refused(tmp_path):
    import keras

    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(WeightsError, match="saved from another model"):
        weight_files.read_tensors(tmp_path / "other.weights.h5", SPEC.shapes)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"kernel:0"]
        file["dense/kernel:0"] = np.zeros((3, 2))
    with pytest.raises(WeightsError, match="has 1 layers with weights, expected 55"):
        weight_files.read_tensors(tmp_path / "other.h5", SPEC.shapes)
    with h5py.File(tmp_path / "any.h5", "w") as file:
        file["numbers"] = np.zeros(3)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        weight_files.read_tensors(tmp_path / "any.h5", SPEC.shapes)


def test_unknown_suffix_and_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="There is no weights file at"):
        weight_files.read_tensors(tmp_path / "none.h5", SPEC.shapes)
    (tmp_path / "yamnet.pkl").write_bytes(b"x")
    with pytest.raises(WeightsError, match="unknown suffix"):
        weight_files.read_tensors(tmp_path / "yamnet.pkl", SPEC.shapes)
