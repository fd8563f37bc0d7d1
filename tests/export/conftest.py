"""Small classifiers to export, in every pitfall that labels and sounds have."""

import numpy as np
import pytest

import toy
import unfreeze


class Runs(dict):
    """Run folders by name, trained when they are first asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, name):
        classes = {"three": ("high", "low", "noise"), "two": ("high", "low")}[name]
        data = toy.write_sounds(self.folder / f"{name} data", clips=8, classes=classes)
        if name == "three":
            for old, new in zip(classes, ("Kuh & Kalb", "犬", "the cat's"), strict=True):
                (data / old).rename(data / new)
        # The toy's few patches give a projection of noise, which 8 bits cannot keep:
        # tests/export/test_exporter_real_sounds.py has read-outs in int8.
        plain = {"schedule": "two_stage", "taps": "none", "learning_rate": 0.005}
        settings = plain if name == "three" else {"schedule": "probe_tune"}
        with pytest.MonkeyPatch.context() as monkeypatch:
            toy.register(monkeypatch, self.folder)
            unfreeze.SoundClassifier.train(
                data, out=self.folder / name, backbone="toy", epochs=6, **settings
            )
        self[name] = self.folder / name
        return self[name]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Three odd labels with a trained backbone; two classes by a read-out."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def classifier(runs):
    return unfreeze.SoundClassifier.load(runs["three"])


@pytest.fixture(scope="session")
def sounds():
    """Shorter than a patch, exactly one, some more; two alike in a batch; silence."""
    rng = np.random.default_rng(4)
    lengths = ((1, 1), (1, 4000), (1, 15_600), (1, 15_601), (3, 40_000), (1, 100_000))
    made = [rng.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in lengths]
    return [*made, np.zeros((2, 20_000), np.float32)]


@pytest.fixture(autouse=True)
def _quick_speeds(monkeypatch):
    """Five calls are enough to fill the report."""
    monkeypatch.setattr("unfreeze.export.check._MEASURING", 0.0)
