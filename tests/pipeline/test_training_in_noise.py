"""`--in-noise`, from sounds to a model that is silent where nothing is heard."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import soundfile

import toy
import unfreeze
from unfreeze.audio.entries import BACKGROUND, check_label
from unfreeze.audio.made_background import make_background
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.noisy_patches import make_bank
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError
from unfreeze.pipeline.in_noise import COLUMNS, column_of, column_weights, like_classes, merged
from unfreeze.pipeline.training import TrainListener
from unfreeze.pipeline.training_data import build_features
from unfreeze.planning import complete_options

OPTIONS = {"backbone": "toy", "schedule": "probe"}
# Hertz of the tones, by the second of the recording in which they begin.
TONES = {6: 3000, 15: 250, 26: 2500, 33: 300}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in-noise")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        # Further background makes thresholds more exact; it takes half of the time.
        toy.little_background(monkeypatch, trained=20, held=12, more=(6, 6))
        toy.write_sounds(folder / "data", clips=40, classes=("high", "low"))
        rng = np.random.default_rng(9)
        noise = np.concatenate([level * rng.normal(size=16_000 * 20) for level in (0.003, 0.1)])
        soundfile.write(folder / "noise.wav", noise, 16_000)
        time = np.arange(16_000) / 16_000
        for second, pitch in TONES.items():
            noise[second * 16_000 :][:16_000] += 0.3 * np.sin(6.283 * pitch * time)
        soundfile.write(folder / "tones.wav", noise, 16_000)
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    return unfreeze.SoundClassifier.train(home / "data", out=home / "run", in_noise=True, **OPTIONS)


def total(events):
    return sum(event.end - event.start for event in events)


def test_it_is_silent_in_noise_and_hears_sounds_in_it(home, trained):
    assert trained.labels == (BACKGROUND, "high", "low")
    assert total(trained.detect(home / "noise.wav")) <= 2
    right = {(at, "high" if pitch > 1000 else "low") for at, pitch in TONES.items()}
    near = {(at + step, label) for at, label in right for step in (-1, 0, 1)}

    def heard(**settings):
        return {(round(e.start), e.label) for e in trained.detect(home / "tones.wav", **settings)}

    # Thresholds that let little through miss the tones in the louder noise.
    own = heard()
    assert {(6, "high"), (15, "low")} <= {
        (at + step, name) for at, name in own for step in (-1, 0, 1)
    }
    assert len(own - near) <= 1
    assert len(heard(min_score=0.3) & near) >= 3
    # Without it, the same noise is full of tones.
    plain = unfreeze.SoundClassifier.train(home / "data", **OPTIONS)
    assert plain.labels == ("high", "low")
    assert total(plain.detect(home / "noise.wav")) > 30


@pytest.mark.slow_on("tensorflow")
@pytest.mark.on_each_backend
def test_clips_are_scored_as_without_it(home, trained):
    test = trained.metrics["test"]
    assert test["clips"] == 12
    assert test["accuracy"] >= 11 / 12
    # Background is no clip's class.
    assert test["per_class"][BACKGROUND]["support"] == 0
    assert set(trained.metrics["thresholds"]) == {BACKGROUND, "high", "low"}
    chances = trained.predict(home / "data/high/high_3.wav")
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    assert trained.labels[int(chances.argmax())] == "high"
    assert trained.heard(trained.predict(home / "noise.wav")) == ()


@pytest.mark.slow
def test_the_run_loads_and_repeats_to_the_bit(home, trained):
    assert "in_noise: true" in (home / "run" / "config.yaml").read_text()
    loaded = unfreeze.SoundClassifier.load(home / "run")
    assert loaded.labels == trained.labels
    assert not loaded.multilabel
    wave = soundfile.read(home / "tones.wav", dtype="float32")[0]
    assert loaded.model.predict(wave[None], verbose=0)[0] == pytest.approx(
        trained.predict(home / "tones.wav"), abs=1e-4
    )
    again = unfreeze.SoundClassifier.train(home / "data", in_noise=True, **OPTIONS)
    for one, other in zip(trained.model.weights, again.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert again.metrics["thresholds"] == trained.metrics["thresholds"]


def test_a_kind_that_sounds_like_a_class_is_left_out(home):
    rng = np.random.default_rng(5)
    for label, kind in (("drizzle", "rain"), ("mains", "hum"), ("whistle", "")):
        for number in range(20):
            sound = toy_whistle(rng) if not kind else make_background(kind, 2, rng)
            (home / "alike" / label).mkdir(parents=True, exist_ok=True)
            soundfile.write(home / "alike" / label / f"{number}.wav", sound, 16_000)
    manifest = read_manifest(home / "alike")
    store = build_features(manifest, FrontEnd())
    train = store.patches(np.arange(len(manifest.clips)))
    bank = make_bank(FrontEnd(), 20, np.random.default_rng(0))
    found = like_classes(manifest, train, bank, rng, FrontEnd())
    assert (found["rain"], found["hum"]) == ("drizzle", "mains")
    assert "whistle" not in found.values()


def toy_whistle(rng):
    time = np.arange(32_000) / 16_000
    sweep = np.sin(6.283 * (1500 * time + rng.uniform(300, 700) * np.sin(4 * time)))
    return 0.3 * sweep + 0.01 * rng.normal(size=len(time))


def test_a_class_of_silence_keeps_its_name(home):
    class Told(Exception):
        pass

    class Notes(TrainListener):
        def on_summary(self, summary):
            self.notes = summary.notes
            raise Told  # before the training, which would show nothing more

    data = toy.write_sounds(home / "quiet", clips=12, classes=("high", "silence"))
    listener = Notes()
    options = complete_options(data, in_noise=True, **OPTIONS)
    with pytest.raises(Told):
        unfreeze.SoundClassifier.from_options(options, listener)
    assert (
        "The computed background 'silence' sounds like your class 'silence', so it is not used."
        in listener.notes
    )


def test_clips_with_several_labels_keep_their_classes(home):
    data = toy.write_mixed(home / "mixed")
    found = unfreeze.SoundClassifier.train(data, in_noise=True, **OPTIONS)
    assert found.multilabel
    assert found.labels == ("high", "low", "noise")
    assert found.metrics["test"]["mean_average_precision"] > 0.7
    assert set(found.metrics["thresholds"]) == {"high", "low", "noise"}


@pytest.mark.on_each_backend
def test_probabilities_of_all_kinds_are_added():
    given = keras.Input((3 + COLUMNS,))
    model = keras.Model(given, keras.layers.Softmax()(given))
    whole = merged(model, ("cat", BACKGROUND, "dog"), (BACKGROUND, "cat", "dog"))
    logits = np.random.default_rng(0).normal(size=(5, 3 + COLUMNS)).astype(np.float32)
    parts, sums = model.predict(logits, verbose=0), whole.predict(logits, verbose=0)
    np.testing.assert_allclose(sums[:, 1:], parts[:, [0, 2]], atol=1e-6)
    np.testing.assert_allclose(sums[:, 0], parts[:, [1, *range(3, 3 + COLUMNS)]].sum(1), atol=1e-6)


def test_background_does_not_outweigh_a_few_classes(home):
    manifest = read_manifest(home / "data")
    weights = column_weights(manifest)
    assert len(weights) == COLUMNS == 9
    assert sum(weights.values()) == pytest.approx(2)
    many = replace(manifest, labels=tuple("abcdefghijkl"))
    assert set(column_weights(many).values()) == {1.0}
    # Trained on few clips, too, the classes are heard.
    few = unfreeze.SoundClassifier.train(
        toy.write_sounds(home / "few", clips=24, classes=("high", "low")), in_noise=True, **OPTIONS
    )
    confusion = np.array(few.metrics["test"]["confusion"])
    assert confusion.sum() >= 6
    assert confusion[1:, 0].sum() <= 1


def test_no_class_has_the_name_of_a_column():
    with pytest.raises(DataError, match="cannot be printed"):
        check_label(column_of("rain"), "here")


def test_clips_can_be_added(home, trained, tmp_path):
    toy.write_sounds(tmp_path / "more", clips=6, classes=("high", "low"), seed=5)
    added = unfreeze.SoundClassifier.train(tmp_path / "more", add_to=home / "run")
    assert added.labels == trained.labels
    change = added.metrics["change"]["test"]
    assert change["clips"] == 12
    assert change["before"]["accuracy"] == trained.metrics["test"]["accuracy"]
