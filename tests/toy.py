"""A small backbone and a small sound set, so that the whole road is tested in seconds."""

import numpy as np
import soundfile

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.registry import BACKBONES, Backbone
from unfreeze.backbones.weight_files import WeightsSpec, tensor_digest, write_safetensors

RATE = 16_000
# A backbone has a file of weights. That of the toy is looked up, verified and not used:
# its layers are drawn from seeds of their own.
_TENSORS = {"toy/none": np.zeros(1, np.float32)}
_WEIGHTS = WeightsSpec("toy", {"toy/none": (1,)}, tensor_digest(_TENSORS), sources=())


def build_toy(weights=None, progress=None):
    """Two convolutions with BatchNorm and a mean, on patches of 96 x 64."""
    import keras

    layers, seed = keras.layers, keras.initializers.GlorotUniform
    x = patches = keras.Input((96, 64), name="patches")
    x = layers.Reshape((96, 64, 1), name="image")(x)
    x = layers.Rescaling(0.4, 1.6, name="scale")(x)  # log-mel is about -7 to 1
    for number, filters in ((1, 8), (2, 16)):
        x = layers.Conv2D(
            filters, 5, 4, "same", kernel_initializer=seed(seed=number), name=f"block{number}_conv"
        )(x)
        x = layers.BatchNormalization(name=f"block{number}_bn")(x)
        x = layers.ReLU(name=f"block{number}_relu")(x)
    # The mean over time alone: pitch is what tells the toy sounds apart.
    x = layers.AveragePooling2D((6, 1), name="over_time")(x)
    x = layers.Flatten(name="embedding")(x)
    return keras.Model(patches, x, name="toy")


def register(monkeypatch, folder, pictures=False):
    """Make `toy` a backbone, with its file of weights and all caches in `folder`.

    Runs draw no pictures unless asked to: those take a quarter of the time that training takes.
    """
    monkeypatch.setenv("UNFREEZE_CACHE", str(folder / "cache"))
    weights = folder / "toy.safetensors"
    write_safetensors(weights, _TENSORS, {})
    monkeypatch.setenv(_WEIGHTS.env, str(weights))
    toy = Backbone("toy", "for tests", "Apache-2.0", FrontEnd(), 64, _WEIGHTS, build_toy)
    monkeypatch.setitem(BACKBONES, "toy", toy)
    # The same to the bit, as the tests of core show, and traced in half the time.
    monkeypatch.setattr("unfreeze.core.stage_fit._STEPS", 1)
    if not pictures:
        monkeypatch.setattr("unfreeze.planning._draw", lambda *run: None)


def write_sounds(folder, clips=8, classes=("high", "low", "noise"), seed=0):
    """A folder a class: high tones, low tones, noise; each clip of its own pitch and length."""
    rng = np.random.default_rng(seed)
    for label in classes:
        for number in range(clips):
            time = np.arange(int(RATE * rng.uniform(0.5, 1.6))) / RATE
            pitch = {"high": rng.uniform(2000, 4000), "low": rng.uniform(150, 400)}.get(label)
            clean = rng.normal(size=len(time)) if pitch is None else np.sin(6.283 * pitch * time)
            sound = 0.3 * clean + 0.01 * rng.normal(size=len(time))
            (folder / label).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / label / f"{label}_{number}.wav", sound, RATE)
    return folder
