"""A classifier of toy sounds and a recording with known events, for all tests of detection."""

import numpy as np
import pytest
import soundfile

import toy

LABELS = ("high", "low", "noise")


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """A model file that tells high tones, low tones and noise apart."""
    folder = tmp_path_factory.mktemp("toy_run")
    path = folder / "toy.keras"
    toy_model(toy.write_sounds(folder / "data", clips=12)).save(path)
    return path


@pytest.fixture(scope="session")
def classifier(toy_run):
    import unfreeze

    return unfreeze.SoundClassifier.load(toy_run)


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """The recording of `scene_samples`."""
    path = tmp_path_factory.mktemp("scene") / "scene.wav"
    soundfile.write(path, scene_samples(), toy.RATE)
    return path


def toy_model(data):
    """Logistic regression on each patch's mean spectrum: quick, and the same always."""
    import keras
    from sklearn.linear_model import LogisticRegression

    from unfreeze.audio.clip_model import PATCH_MODEL, clip_model
    from unfreeze.audio.decode import decode
    from unfreeze.audio.logmel import log_mel_frames
    from unfreeze.backbones.frontend import FrontEnd

    means, classes = [], []
    for number, label in enumerate(LABELS):
        for path in sorted((data / label).iterdir()):
            frames = log_mel_frames(decode(path), FrontEnd())
            means += [frames[:96].mean(axis=0), frames[:24].mean(axis=0)]
            classes += [number, number]
    learned = LogisticRegression(max_iter=1000).fit(np.stack(means), classes)
    x = patches = keras.Input((96, 64), name="patches")
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = keras.layers.Dense(3, "softmax", name="transfer_output")(x)
    model = keras.Model(patches, x, name=PATCH_MODEL)
    model.get_layer("transfer_output").set_weights([learned.coef_.T, learned.intercept_])
    return clip_model(model, FrontEnd(), LABELS)


def scene_samples(seconds=20):
    """Noise, with a high tone at 5 to 8 s and a low one at 12 to 14.5 s."""
    rng = np.random.default_rng(5)
    time = np.arange(seconds * toy.RATE) / toy.RATE
    sound = 0.3 * rng.normal(size=len(time))
    for start, end, pitch in ((5, 8, 3000), (12, 14.5, 250)):
        inside = (time >= start) & (time < end)
        sound[inside] = 0.3 * np.sin(6.283 * pitch * time[inside]) + 0.01 * sound[inside]
    return sound.clip(-1, 1)
