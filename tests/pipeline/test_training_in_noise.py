"""`--in-noise`, from sounds to a model that is silent where nothing is heard."""

import json

import keras
import numpy as np
import pytest
import soundfile

import toy
import unfreeze
from unfreeze.audio.entries import BACKGROUND
from unfreeze.pipeline.in_noise import COLUMNS, merged

OPTIONS = {"backbone": "toy", "schedule": "probe"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in-noise")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        toy.write_sounds(folder / "data", clips=20, classes=("high", "low"))
        rng = np.random.default_rng(9)
        noise = np.concatenate([
            level * np.convolve(rng.normal(size=16_000 * 20), kernel, "same")
            for level in (0.003, 0.1)
            for kernel in ([1.0], np.ones(30) / 6)
        ])  # fmt: skip
        soundfile.write(folder / "noise.wav", noise, 16_000)
        time = np.arange(16_000) / 16_000
        found = noise.copy()
        for second, pitch in ((6, 3000), (15, 250), (26, 2500), (33, 300)):
            found[second * 16_000 : (second + 1) * 16_000] += 0.3 * np.sin(6.283 * pitch * time)
        soundfile.write(folder / "found.wav", found, 16_000)
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    return unfreeze.SoundClassifier.train(home / "data", out=home / "run", in_noise=True, **OPTIONS)


def test_it_is_silent_in_noise_and_hears_sounds_in_it(home, trained):
    assert trained.labels == (BACKGROUND, "high", "low")
    assert trained.detect(home / "noise.wav") == []
    heard = [(round(e.start), e.label) for e in trained.detect(home / "found.wav")]
    assert [label for _, label in heard] == ["high", "low", "high", "low"]
    assert all(abs(at - true) <= 1 for (at, _), true in zip(heard, (6, 15, 26, 33), strict=True))
    # Without it, the same noise is full of tones.
    plain = unfreeze.SoundClassifier.train(home / "data", **OPTIONS)
    assert plain.labels == ("high", "low")
    assert sum(e.end - e.start for e in plain.detect(home / "noise.wav")) > 20


def test_clips_are_scored_as_without_it(home, trained):
    test = trained.metrics["test"]
    assert test["clips"] == 6
    assert test["accuracy"] == 1.0
    # Background is no clip's class, and none is taken for it.
    assert test["per_class"][BACKGROUND]["support"] == 0
    assert set(trained.metrics["thresholds"]) == {BACKGROUND, "high", "low"}
    chances = trained.predict(home / "data/high/high_3.wav")
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    assert trained.labels[int(chances.argmax())] == "high"
    assert trained.heard(trained.predict(home / "noise.wav")) == ()


def test_the_run_loads_and_repeats_to_the_bit(home, trained):
    loaded = unfreeze.SoundClassifier.load(home / "run")
    assert loaded.labels == trained.labels
    assert not loaded.multilabel
    wave = soundfile.read(home / "found.wav", dtype="float32")[0]
    assert loaded.model.predict(wave[None], verbose=0)[0] == pytest.approx(
        trained.predict(home / "found.wav"), abs=1e-4
    )
    again = unfreeze.SoundClassifier.train(home / "data", in_noise=True, **OPTIONS)
    for one, other in zip(trained.model.weights, again.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert again.metrics["thresholds"] == trained.metrics["thresholds"]


def test_a_kind_that_sounds_like_a_class_is_left_out(home):
    from unfreeze.pipeline.training import TrainListener

    class Notes(TrainListener):
        def on_summary(self, summary):
            self.notes = summary.notes

    data = toy.write_sounds(home / "three", clips=20)
    listener = Notes()
    found = unfreeze.SoundClassifier.train(data, in_noise=True, listener=listener, **OPTIONS)
    said = [note for note in listener.notes if "sounds like your class" in note]
    assert any("coloured noise sounds like your class 'noise'" in note for note in said)
    assert not any("hum" in note or "'low'" in note for note in said)
    assert found.metrics["test"]["accuracy"] == 1.0


def test_clips_with_several_labels_keep_their_classes(home):
    data = toy.write_mixed(home / "mixed")
    found = unfreeze.SoundClassifier.train(data, in_noise=True, **OPTIONS)
    assert found.multilabel
    assert found.labels == ("high", "low", "noise")
    assert found.metrics["test"]["mean_average_precision"] > 0.7
    assert set(found.metrics["thresholds"]) == {"high", "low", "noise"}


def test_the_run_says_how_it_was_trained(home, trained):
    assert "in_noise: true" in (home / "run" / "config.yaml").read_text()
    assert json.loads((home / "run" / "metrics.json").read_text())["test"]["accuracy"] == 1.0


def test_probabilities_of_all_kinds_are_added():
    given = keras.Input((3 + COLUMNS,))
    model = keras.Model(given, keras.layers.Softmax()(given))
    whole, names = merged(model, ("cat", BACKGROUND, "dog"))
    assert names == (BACKGROUND, "cat", "dog")
    logits = np.random.default_rng(0).normal(size=(5, 3 + COLUMNS)).astype(np.float32)
    parts, sums = model.predict(logits, verbose=0), whole.predict(logits, verbose=0)
    np.testing.assert_allclose(sums[:, 1:], parts[:, [0, 2]], atol=1e-6)
    np.testing.assert_allclose(sums[:, 0], parts[:, [1, *range(3, 3 + COLUMNS)]].sum(1), atol=1e-6)
