"""Keras models of the user's own as backbones: their shapes, their layers, and what is refused."""

from pathlib import Path

import keras
import numpy as np
import pytest

import networks
from unfreeze.backbones.frontend import NetworkFile, NetworkOutputs
from unfreeze.backbones.keras_backbone import build_outputs
from unfreeze.backbones.registry import Backbone, get_backbone
from unfreeze.core.keras_file import VARIABLE
from unfreeze.core.read_out import read_out
from unfreeze.errors import RunError, UnfreezeError, WeightsError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_networks.py").write_text(networks.MODULE)
    return folder


def record(folder: Path, model: str, front_end: str = "log-mel", **more: str) -> Backbone:
    said = {"model": model, "sample_rate": 16_000, "window": 0.96, "front_end": front_end, **more}
    card = folder / "card.yaml"
    card.write_text("".join(f"{key}: {value}\n" for key, value in said.items()))
    return get_backbone(str(card))


PATCHES = np.random.default_rng(0).normal(size=(2, 96, 64)).astype(np.float32)


def values(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


@pytest.mark.on_each_backend
def test_patches_get_the_axis_of_channels_that_the_model_wants(folder):
    import sys

    plain = record(folder, "own_networks:build", embedding="vector").build()
    assert plain.input.shape == (None, 96, 64)
    own = sys.modules["own_networks"].build()
    wanted = keras.Model(own.inputs[0], own.get_layer("vector").output)
    np.testing.assert_allclose(values(plain, PATCHES), values(wanted, PATCHES[..., None]), 1e-5)
    color = record(folder, "own_networks:color", embedding="vector").build()
    own = sys.modules["own_networks"].build(3)
    wanted = keras.Model(own.inputs[0], own.get_layer("vector").output)
    threefold = np.repeat(PATCHES[..., None], 3, axis=3)
    np.testing.assert_allclose(values(color, PATCHES), values(wanted, threefold), 1e-5, 1e-6)


def test_layers_of_a_model_within_the_model_are_layers_of_the_network(folder):
    """As people write it: `keras.applications` in a model of one's own."""
    model = record(folder, "own_networks:nested").build()
    names = [layer.name for layer in model.layers]
    kinds = ("conv", "bn", "relu")
    wanted = [f"block{number}_{kind}" for number in (1, 2) for kind in kinds]
    assert [name for name in names if name.startswith("block")] == wanted
    import sys

    own = sys.modules["own_networks"].nested()
    np.testing.assert_allclose(values(model, PATCHES), values(own, PATCHES), 1e-5, 1e-6)
    read = read_out(model, classes=2, pool="time")
    assert {"tap_block1", "tap_block2"} <= {layer.name for layer in read.layers}


@pytest.mark.on_each_backend
def test_a_network_of_samples_without_a_fixed_length_is_pooled(folder):
    model = record(folder, "own_networks:raw", "waveform").build()
    assert model.input.shape == (None, 15_360)
    assert model.output.shape == (None, 8)
    assert [layer.name for layer in model.layers][-1] == "embedding_pool"


def test_a_saved_model_is_loaded(folder):
    import own_networks

    saved = own_networks.build(None)
    saved.save(folder / "saved.keras")
    found = record(folder, "saved.keras", embedding="vector")
    assert found.weights.sha256
    assert not found.is_frozen
    model = found.build()
    wanted = keras.Model(saved.inputs[0], saved.get_layer("vector").output)
    np.testing.assert_allclose(values(model, PATCHES), values(wanted, PATCHES), 1e-6)
    assert [layer.name for layer in model.layers][2] == "block1_conv"


def test_layers_of_the_users_own_must_be_named(folder, monkeypatch):
    import own_networks

    with pytest.raises(RunError, match=rf"has a Mine, .*: {VARIABLE}=own_networks:Mine"):
        record(folder, "own_networks:foreign").build()
    own_networks.foreign().save(folder / "foreign.keras")
    with pytest.raises(RunError, match=rf"belongs neither .*: {VARIABLE}=own_networks:Mine"):
        record(folder, "foreign.keras").build()
    monkeypatch.setenv(VARIABLE, "own_networks:Mine")
    monkeypatch.syspath_prepend(str(folder))
    for model in ("own_networks:foreign", "foreign.keras"):
        built = record(folder, model).build()
        np.testing.assert_array_equal(values(built, PATCHES), 2 * PATCHES.reshape(2, -1))


def test_a_layer_that_keras_cannot_make_again_is_refused(folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "own_networks:Closed")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(WeightsError, match=r"from its own configuration \(.*units.*get_config"):
        record(folder, "own_networks:closed").build()


@pytest.mark.parametrize(
    ("model", "more", "told"),
    [
        ("own_networks:biuld", {}, r"own_networks has no biuld. Did you mean 'build'"),
        ("own_netwroks:build", {}, "own_netwroks cannot be imported"),
        ("own_networks:number", {}, "number is neither a class nor a function"),
        ("own_networks:needs_more", {}, "must be callable without arguments"),
        ("own_networks:nothing", {}, "must return a functional or Sequential .* not a str"),
        ("own_networks:build", {"embedding": "vektor"}, r"no layer 'vektor'.*mean 'vector'"),
        ("own_networks:build", {"window": "1.92"}, r"shape \(96, 64, 1\), and .* \(192, 64\)"),
    ],
)
def test_what_does_not_fit_is_refused(model, more, told, folder):
    with pytest.raises(UnfreezeError, match=told):
        record(folder, model, **more).build()


def test_weights_of_another_file_are_refused(folder):
    from unfreeze.backbones.pretrained_weights import fetch_weights, resolve_weights, status

    spec = record(folder, "own_networks:build").weights
    assert resolve_weights(spec) == folder / "card.yaml"
    assert status(spec).present
    for call in (lambda: resolve_weights(spec, path="x.h5"), lambda: fetch_weights(spec)):
        with pytest.raises(WeightsError, match="there is no other file of weights to give"):
            call()


def test_outputs_of_a_frozen_network_are_handed_on():
    network = NetworkFile("net", "net.onnx", "0", ("a/b", "c"), (2, 3))
    front = NetworkOutputs(window=100, network=network)
    model = build_outputs(front)
    numbers = np.arange(10, dtype=np.float32).reshape(2, 5)
    np.testing.assert_array_equal(values(model, numbers), numbers)
    part = keras.Model(model.inputs[0], model.get_layer("c").output)
    np.testing.assert_array_equal(values(part, numbers), numbers[:, 2:])
    assert model.count_params() == 0
