"""BirdNET against the published TFLite file, and its shape as others rely on it."""

import importlib.util
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import soundfile
import soxr

from unfreeze.audio.front_ends import patches_of
from unfreeze.backbones import birdnet_spec
from unfreeze.backbones.birdnet import birdnet_with_top, build_birdnet
from unfreeze.core.fit import fit
from unfreeze.core.graph import flatten
from unfreeze.core.groups import base_groups, find_groups
from unfreeze.core.read_out import tap_points
from unfreeze.core.schedule import Schedule, Stage

FRONT = birdnet_spec.FRONT_END
RNG = np.random.default_rng(0)
TIME = np.arange(144_000) / 48_000
SIGNALS = {
    "noise": RNG.normal(scale=0.1, size=144_000),
    "silence": np.zeros(144_000),
    "tone": np.sin(2 * np.pi * 1_000 * TIME),
    "short": 0.1 * RNG.normal(size=30_000),
}
# Clips of several rates: where a recording holds no sound above half of its own, the powers
# of BirdNET show every rounding.
CLIPS = ("dog/dog_178.wav", "cat/cat_102.wav", "chicken/tavuk_10.wav", "lion/aslan_42.wav")


@pytest.fixture(scope="module")
def published(birdnet_folder):
    """The TFLite file in its own runtime: a window in, (6522,) logits out."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    runner = litert.Interpreter(str(birdnet_folder / birdnet_spec.MODEL_FILE), num_threads=1)
    runner.allocate_tensors()
    (given,), (asked,) = runner.get_input_details(), runner.get_output_details()

    def run(window):
        runner.set_tensor(given["index"], window[None].astype(np.float32))
        runner.invoke()
        return runner.get_tensor(asked["index"])[0].copy()

    return run


@pytest.fixture(scope="module")
def weights(birdnet_folder, tmp_path_factory):
    """The published weights, as they are kept."""
    from unfreeze.backbones.weight_files import write_safetensors

    file = tmp_path_factory.mktemp("birdnet") / "birdnet.safetensors"
    tensors = birdnet_spec.read_published(birdnet_folder / birdnet_spec.MODEL_FILE)
    write_safetensors(file, tensors, {})
    return file


@pytest.fixture(scope="module")
def logits(weights):
    """From patches to logits and scores, in one pass."""
    model = birdnet_with_top(weights)
    return keras.Model(model.inputs, [model.get_layer("logits").output, model.output])


def check_parity(sound, published, logits):
    sound = sound.astype(np.float32)[:144_000]
    expected = published(np.pad(sound, (0, 144_000 - len(sound))))
    found, scores = (np.asarray(x)[0] for x in logits.predict(patches_of(sound, FRONT), verbose=0))
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-expected)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SIGNALS)
def test_parity_with_the_published_file(name, published, logits):
    check_parity(SIGNALS[name], published, logits)


@pytest.mark.parametrize("name", CLIPS)
def test_parity_on_real_clips(name, shared_data, published, logits):
    samples, rate = soundfile.read(shared_data / "animal-sounds" / name, always_2d=True)
    check_parity(soxr.resample(samples.mean(axis=1), rate, 48_000), published, logits)


def test_structure():
    model = build_birdnet(weights=None)
    assert (model.input_shape, model.output_shape) == ((None, 511, 96, 2), (None, 1024))
    assert model.count_params() == 6_070_844
    kinds = [type(layer).__name__ for layer in model.layers]
    # Besides the published 61 and 16: two norms of one scale and offset a channel.
    assert (kinds.count("Conv2D"), kinds.count("DepthwiseConv2D")) == (61, 18)
    assert "BatchNormalization" not in kinds
    assert model.get_layer("block16_add").output.shape == (None, 8, 3, 192)
    assert birdnet_with_top(weights=None).count_params() == 12_755_894


def test_groups_and_taps_are_its_blocks():
    model = build_birdnet(weights=None)
    graph = flatten(model)
    assert [group.name for group in base_groups(graph)] == [f"block{i}" for i in range(18)]
    taps = {name: step.path for name, step in tap_points(graph, "auto").items()}
    assert taps == {
        "block2": "block2_add",
        "block5": "block5_add",
        "block8": "block8_project",
        "block11": "block11_add",
        "block14": "block14_add",
        "block17": "block17_relu",
    }
    headed = keras.Model(model.inputs, keras.layers.Dense(3, name="transfer_output")(model.output))
    assert [group.name for group in find_groups(flatten(headed))][-2:] == ["block17", "head"]


# Run in a process of its own: the backend is chosen when Keras is imported.
OTHER_BACKEND = """
import sys
import numpy as np
from unfreeze.backbones.birdnet import birdnet_with_top
expected = np.load(sys.argv[2])
found = birdnet_with_top(sys.argv[1]).predict(expected["patches"], verbose=0)
np.testing.assert_allclose(found, expected["scores"], atol=1e-4, rtol=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    [
        name
        for name in ("tensorflow", "torch", "jax")
        if name != keras.backend.backend() and importlib.util.find_spec(name)
    ],
)
def test_other_backends_agree(backend, weights, published, tmp_path):
    sounds = [sound.astype(np.float32) for sound in SIGNALS.values()]
    rows = [published(np.pad(sound, (0, 144_000 - len(sound)))) for sound in sounds]
    file = tmp_path / "expected.npz"
    patches = np.concatenate([patches_of(sound, FRONT) for sound in sounds])
    np.savez(file, patches=patches, scores=1 / (1 + np.exp(-np.stack(rows))))
    done = subprocess.run(
        [sys.executable, "-c", OTHER_BACKEND, str(weights), str(file)],
        env=os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["top:1", "*"])
def test_it_trains_in_stages(trained):
    """One step of each stage; the audit would refuse a layer that moved or stood still."""
    base = build_birdnet(weights=None)
    rng = np.random.default_rng(5)
    for layer in base.layers:
        # He's start, and the same in each run: with Keras' own the gradients fade on the way down.
        for kernel in layer.weights[:1]:
            fan_in = math.prod(kernel.shape[:-1])
            if "depthwise" in layer.name:
                fan_in = math.prod(kernel.shape[:2])
            kernel.assign(rng.normal(0, math.sqrt(2 / fan_in), kernel.shape))
    head = keras.layers.Dense(2, activation="softmax", name="transfer_output")(base.output)
    model = keras.Model(base.inputs, head)
    stages = (
        Stage("head", train="transfer_*", epochs=1, learning_rate=1e-3),
        Stage("next", train=["transfer_*", trained], epochs=1, learning_rate=1e-4),
    )
    x = rng.uniform(0, 3, (8, *FRONT.patch_shape)).astype(np.float32)
    result = fit(model, Schedule(stages), (x, np.arange(8) % 2), batch_size=4, verbose=0)
    moved = [row["layer"] for row in result.audit.as_list()[-1]["layers"] if row["moved"] > 0]
    assert "block17_conv" in moved
    assert ("block0_conv" in moved) == (trained == "*")
