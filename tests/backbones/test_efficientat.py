"""EfficientAT against the numbers of its reference, and its shape as others rely on it.

`efficientat_reference.npz` is from the reference's own code, with weights by a formula
(tools/efficientat_reference.py): the published weights are in reach of no test.
"""

import keras
import numpy as np
import pytest

import efficientat_made as made
from unfreeze.audio.front_ends import patches_of
from unfreeze.audio.logmel_windows_layer import LogMelPatches
from unfreeze.backbones import efficientat_spec
from unfreeze.backbones.efficientat import build_efficientat, efficientat_with_top
from unfreeze.backbones.efficientat_spec import FRONT_END, MN04, MN10
from unfreeze.backbones.weight_files import write_safetensors
from unfreeze.core.fit import fit
from unfreeze.core.graph import flatten
from unfreeze.core.groups import base_groups
from unfreeze.core.read_out import tap_points
from unfreeze.core.schedule import Schedule, Stage


@pytest.fixture(scope="module")
def reference():
    with np.load(made.NUMBERS) as numbers:
        return dict(numbers)


@pytest.fixture(scope="module")
def mel():
    """(3, 200, 128): the spectrograms of the sounds, as training computes them."""
    return np.concatenate([patches_of(sound, FRONT_END) for sound in made.sounds()])


def weights_file(reference, size, folder):
    short = size.name.removeprefix("efficientat-")
    state = made.state(reference[f"{short}_names"], reference[f"{short}_shapes"])
    file = folder / f"{size.name}.safetensors"
    write_safetensors(file, efficientat_spec.converted(state, size, "made"), {})
    return file


def test_spectrograms_are_those_of_the_reference(reference, mel):
    found = mel[:, list(made.FRAMES)]
    assert np.abs(reference["mel"]).max() > 2
    np.testing.assert_allclose(found, reference["mel"], atol=1e-4, rtol=0)


@pytest.mark.on_each_backend
def test_the_layer_of_exports_agrees(mel):
    found = keras.ops.convert_to_numpy(LogMelPatches(FRONT_END)(made.sounds()))
    np.testing.assert_allclose(found[:, 0], mel, atol=1e-5, rtol=0)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("size", [MN04, MN10], ids=lambda size: size.name)
def test_the_network_is_that_of_the_reference(reference, mel, size, tmp_path):
    model = efficientat_with_top(size, weights_file(reference, size, tmp_path))
    layers = [model.get_layer(name).output for name in ("logits", "embedding")]
    found = keras.Model(model.inputs, [*layers, model.output]).predict(mel, verbose=0)
    logits, embedding, scores = (np.asarray(x) for x in found)
    short = size.name.removeprefix("efficientat-")
    expected = reference[f"{short}_logits"]
    # The sounds differ by far more than the tolerance.
    assert expected.std(axis=0).mean() > 0.05
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(embedding, reference[f"{short}_embedding"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-expected)), atol=1e-4, rtol=0)


def test_structure():
    model = build_efficientat(MN04, weights=None)
    assert (model.input_shape, model.output_shape) == ((None, 200, 128), (None, 384))
    assert model.get_layer("block15_add").output.shape == (None, 7, 4, 64)
    assert build_efficientat(MN10, weights=None).output_shape == (None, 960)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert (kinds.count("Conv2D"), kinds.count("DepthwiseConv2D")) == (47, 15)
    assert kinds.count("BatchNormalization") == 46


def test_groups_and_taps_are_its_blocks():
    model = build_efficientat(MN04, weights=None)
    graph = flatten(model)
    assert [group.name for group in base_groups(graph)] == [f"block{i}" for i in range(17)]
    taps = {name: step.path for name, step in tap_points(graph, "auto").items()}
    assert taps["block16"] == "block16_conv_hard_swish"
    assert len(taps) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["top:1", "*"])
def test_it_trains_in_stages(reference, mel, trained, tmp_path):
    """One step of each stage; the audit would refuse a layer that moved or stood still."""
    base = build_efficientat(MN04, weights_file(reference, MN04, tmp_path))
    head = keras.layers.Dense(2, activation="softmax", name="transfer_output")(base.output)
    model = keras.Model(base.inputs, head)
    stages = (
        Stage("head", train="transfer_*", epochs=1, learning_rate=1e-3),
        Stage("next", train=["transfer_*", trained], epochs=1, learning_rate=1e-4),
    )
    x = np.concatenate([mel, mel[::-1]])
    result = fit(model, Schedule(stages), (x, np.arange(6) % 2), batch_size=3, verbose=0)
    moved = [row["layer"] for row in result.audit.as_list()[-1]["layers"] if row["moved"] > 0]
    assert "block16_conv" in moved
    assert ("block0_conv" in moved) == (trained == "*")
