"""YAMNet against Google's own graph, and its shape as others rely on it."""

import csv
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import soundfile

from unfreeze.audio.logmel import log_mel_frames, patch_starts
from unfreeze.backbones import weight_files, yamnet_spec
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.yamnet import build_yamnet, yamnet_with_top

FRONT = FrontEnd()
TIME = np.arange(48_000) / 16_000
LOUD = {
    "sine 440 Hz": np.sin(2 * np.pi * 440 * TIME),
    "sine 1 kHz": 0.5 * np.sin(2 * np.pi * 1_000 * TIME),
    "chirp": np.sin(2 * np.pi * (50 * TIME + 1_300 * TIME**2)),
}
# At full scale Google's float32 graph hears its own rounding in the bands
# without sound (see test_logmel); at -40 dB that is below 1e-4.
SIGNALS = {
    "silence": np.zeros(48_000),
    "white noise": np.random.default_rng(0).uniform(-1, 1, 48_000),
    **{f"{name} at -40 dB": 0.01 * wave for name, wave in LOUD.items()},
    "short": 0.1 * np.random.default_rng(1).standard_normal(5_000),
}


@pytest.fixture(scope="module")
def base(yamnet_weights):
    return build_yamnet(yamnet_weights)


@pytest.fixture(scope="module")
def top(yamnet_weights):
    return yamnet_with_top(yamnet_weights)


@pytest.fixture(scope="module")
def real_clip(shared_data):
    # A mono recording at 16 kHz: neither mixing nor resampling comes between.
    for path in sorted((shared_data / "animal-sounds").rglob("*.wav")):
        info = soundfile.info(path)
        if (info.samplerate, info.channels) == (16_000, 1) and info.duration > 1.5:
            return soundfile.read(path, dtype="float32")[0]
    pytest.fail("no recording at 16 kHz among the shared data")


def patches(frames):
    return np.stack([frames[row : row + 96] for row in patch_starts(len(frames), FRONT)])


def check_parity(waveform, google, base, top):
    scores, embeddings, log_mel = google(waveform)
    frames = log_mel_frames(waveform, FRONT)
    np.testing.assert_allclose(frames, log_mel, atol=1e-4, rtol=0)
    ours = base.predict(patches(frames), verbose=0)
    np.testing.assert_allclose(ours, embeddings, atol=1e-4, rtol=0)
    np.testing.assert_allclose(top.predict(patches(frames), verbose=0), scores, atol=1e-3, rtol=0)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("name", SIGNALS)
def test_parity_with_googles_graph(name, google_yamnet, base, top):
    check_parity(SIGNALS[name], google_yamnet, base, top)


@pytest.mark.on_each_backend
def test_parity_on_a_real_clip(real_clip, google_yamnet, base, top):
    check_parity(real_clip, google_yamnet, base, top)


@pytest.mark.parametrize("name", LOUD)
def test_network_parity_at_full_scale(name, google_yamnet, base, top):
    # From Google's own log-mel frames, so that only the network is compared.
    scores, embeddings, log_mel = google_yamnet(LOUD[name])
    ours = base.predict(patches(log_mel), verbose=0)
    np.testing.assert_allclose(ours, embeddings, atol=1e-4, rtol=0)
    np.testing.assert_allclose(top.predict(patches(log_mel), verbose=0), scores, atol=1e-4)
    # From the waveform, the graph's rounding in the spectrum comes on top.
    whole = top.predict(patches(log_mel_frames(LOUD[name], FRONT)), verbose=0)
    np.testing.assert_allclose(whole, scores, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("signal", "expected", "least"),
    [("silence", "Silence", 0.99), ("white noise", "White noise", 0.2)],
)
def test_top_class(signal, expected, least, top):
    scores = top.predict(patches(log_mel_frames(SIGNALS[signal], FRONT)), verbose=0).mean(axis=0)
    assert yamnet_spec.class_names()[int(scores.argmax())] == expected
    assert scores.max() > least


def test_class_names_are_those_of_the_published_map(yamnet_saved_model):
    with (yamnet_saved_model / "assets" / "yamnet_class_map.csv").open(newline="") as file:
        published = tuple(row["display_name"] for row in csv.DictReader(file))
    assert yamnet_spec.class_names() == published
    assert len(published) == 521


def test_the_package_holds_the_pinned_weights(yamnet_saved_model):
    found = weight_files.read_variables(
        yamnet_saved_model / yamnet_spec._DATA_FILE,
        yamnet_spec._layout(),
        yamnet_spec._DATA_SHA256,
    )
    assert weight_files.tensor_digest(found) == yamnet_spec.YAMNET_WEIGHTS.sha256


def test_structure():
    model = build_yamnet(weights=None)
    assert [tensor.name for tensor in model.inputs] == ["patches"]
    assert model.input_shape == (None, 96, 64)
    assert model.output_shape == (None, 1024)
    assert yamnet_with_top(weights=None).count_params() == 3_751_369
    assert model.count_params() == 3_751_369 - 1024 * 521 - 521
    names = [layer.name for layer in model.layers]
    expected = ["patches", "channel", "conv1", "conv1_bn", "conv1_relu"]
    for number in range(2, 15):
        for part in ("depthwise", "pointwise"):
            stem = f"block{number}_{part}"
            expected += [stem, f"{stem}_bn", f"{stem}_relu"]
    assert names == [*expected, "embedding"]
    assert model.get_layer("block13_pointwise_relu").output.shape == (None, 3, 2, 1024)


@pytest.mark.on_each_backend
def test_batch_norm_is_the_references():
    norms = [
        layer
        for layer in build_yamnet(weights=None).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 27
    for norm in norms:
        assert (norm.scale, norm.center, norm.epsilon, norm.momentum) == (False, True, 1e-4, 0.99)


def test_channels_first_settings_of_the_user_do_not_matter(yamnet_weights, base):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        other = build_yamnet(yamnet_weights)
    finally:
        keras.config.set_image_data_format(before)
    x = np.random.default_rng(0).normal(-4, 2, (2, 96, 64)).astype(np.float32)
    np.testing.assert_array_equal(other.predict(x, verbose=0), base.predict(x, verbose=0))


# Run in a process of its own: the backend is chosen when Keras is imported.
OTHER_BACKEND = """
import sys
import keras
import numpy as np
from unfreeze.audio.logmel_layer import LogMel
from unfreeze.backbones.yamnet import build_yamnet
expected = np.load(sys.argv[2])
patches = keras.ops.convert_to_numpy(LogMel()(expected["waveform"]))
np.testing.assert_allclose(patches, expected["patches"], atol=1e-4, rtol=0)
found = build_yamnet(sys.argv[1]).predict(expected["patches"][0], verbose=0)
np.testing.assert_allclose(found, expected["embedding"], atol=1e-4, rtol=0)
"""


@pytest.mark.parametrize(
    "backend",
    [
        # Each agrees with Google's graph, above: TensorFlow and PyTorch in every CI run.
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("tensorflow", "torch", "jax")
        if name != keras.backend.backend() and importlib.util.find_spec(name)
    ],
)
def test_other_backends_agree(backend, yamnet_weights, base, tmp_path):
    waveform = (SIGNALS["white noise"] * np.linspace(0, 1, 48_000)).astype(np.float32)
    windows = patches(log_mel_frames(waveform, FRONT))
    file = tmp_path / "expected.npz"
    np.savez(
        file,
        waveform=waveform[np.newaxis],
        patches=windows[np.newaxis],
        embedding=base.predict(windows, verbose=0),
    )
    done = subprocess.run(
        [sys.executable, "-c", OTHER_BACKEND, str(yamnet_weights), str(file)],
        env=os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
