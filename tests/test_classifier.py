import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import yaml

import toy
import unfreeze
from unfreeze.audio.decode import decode

FILES = {
    "config.yaml", "schedule.yaml", "splits.csv", "model.keras", "history.csv", "metrics.json",
    "audit.json", "curves.png", "confusion.png", "moved.png", "predictions.csv", "notes.json",
    "report.html",
}  # fmt: skip
EPOCHS = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on toy sounds with the toy backbone, shared by the tests of this file."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder, pictures=True, report=True)
        data = toy.write_sounds(folder / "data", clips=12)
        classifier = unfreeze.SoundClassifier.train(
            data,
            "two_stage",
            folder / "run",
            backbone="toy",
            epochs=EPOCHS,
            batch_size=4,
            learning_rate=0.01,
        )
    return classifier, folder / "run", data


def test_the_run_folder_is_complete_and_describes_itself(trained):
    _, run, data = trained
    assert {item.name for item in run.iterdir()} == FILES
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["unfreeze_run"] == 1
    assert config["labels"] == ["high", "low", "noise"]
    assert config["options"]["seed"] == 0
    assert config["options"]["data"] == str(data)
    assert config["command"].startswith("unfreeze train ")
    schedule = unfreeze.read_schedule(run / "schedule.yaml")
    assert [stage.epochs for stage in schedule] == [EPOCHS, EPOCHS]


@pytest.mark.on_each_backend
def test_scores_have_the_promised_form(trained):
    classifier, run, _ = trained
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics == classifier.metrics
    test = metrics["test"]
    assert test["accuracy"] >= 0.8
    assert set(test) >= {"balanced_accuracy", "macro_f1", "loss", "per_class", "confusion"}
    assert np.sum(test["confusion"]) == test["clips"] == 6
    low, high = test["intervals"]["accuracy"]
    assert 0 <= low <= test["accuracy"] <= high <= 1
    assert metrics["validation"]["clips"] == 6


@pytest.mark.on_each_backend
def test_the_audit_shows_that_the_base_stood_still_and_then_moved(trained):
    _, run, _ = trained
    head, everything = json.loads((run / "audit.json").read_text())["stages"]
    base = [row for row in head["layers"] if not row["layer"].startswith("transfer_")]
    assert len(base) == 4
    assert all(row["moved"] == 0.0 and row["max_abs"] == 0.0 for row in base)
    moved = {row["layer"]: row["moved"] for row in everything["layers"]}
    assert all(moved[f"block{i}_conv"] > 0 for i in (1, 2))


def test_the_splits_are_disjoint_and_complete(trained):
    _, run, data = trained
    rows = list(csv.DictReader((run / "splits.csv").open()))
    assert len(rows) == 36
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    assert all((data / row["path"]).is_file() for row in rows)


def test_history_has_a_row_an_epoch_and_one_best_a_stage(trained):
    _, run, _ = trained
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    for stage in ("head", "all"):
        mine = [row for row in rows if row["stage"] == stage]
        best = [row for row in mine if row["best"] == "True"]
        assert len(best) == 1
        assert float(best[0]["val_loss"]) == min(float(row["val_loss"]) for row in mine)


@pytest.mark.on_each_backend
def test_the_saved_model_is_the_fast_path_to_1e_4(trained):
    classifier, run, data = trained
    loaded = unfreeze.SoundClassifier.load(run)
    assert loaded.labels == classifier.labels
    for path in sorted(data.rglob("*.wav"))[::6]:
        waveform = decode(path)
        fast = loaded.predict(path)
        whole = np.asarray(loaded.model.predict(waveform[None], verbose=0))[0]
        assert fast.shape == (3,)
        assert fast.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(fast, whole, atol=1e-4)
        np.testing.assert_allclose(classifier.predict(waveform), fast, atol=1e-6)


def test_the_saved_model_loads_in_a_new_process_in_safe_mode(trained):
    classifier, run, data = trained
    path = sorted(data.rglob("*.wav"))[0]
    code = (
        "import sys, unfreeze, keras, soundfile\n"
        # Keras imported after us knows our layers.
        "assert keras.saving.get_registered_object('unfreeze>LogMel').__name__ == 'LogMel'\n"
        "model = keras.models.load_model(sys.argv[1], safe_mode=True)\n"
        "sound, rate = soundfile.read(sys.argv[2], dtype='float32')\n"
        "print(model.get_layer('clip_mean').labels, *model.predict(sound[None], verbose=0)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run / "model.keras"), str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    labels, numbers = done.stdout.strip().rsplit(")", 1)
    assert labels + ")" == str(classifier.labels)
    np.testing.assert_allclose(
        [float(x) for x in numbers.split()], classifier.predict(path), atol=1e-4
    )


@pytest.mark.on_each_backend
def test_predict_takes_lists_and_arrays(trained):
    classifier, _, data = trained
    paths = sorted(data.rglob("*.wav"))[:3]
    several = classifier.predict([paths[0], str(paths[1]), decode(paths[2])])
    assert several.shape == (3, 3)
    batch = classifier.predict(np.stack([np.zeros(16000, np.float32)] * 2))
    np.testing.assert_array_equal(batch[0], batch[1])
    assert classifier.predict([]).shape == (0, 3)


def test_predict_refuses_what_is_no_sound(trained, tmp_path):
    classifier, _, _ = trained
    with pytest.raises(unfreeze.DataError, match="NaN"):
        classifier.predict(np.full(16000, np.nan, np.float32))
    with pytest.raises(unfreeze.DataError, match="mono"):
        classifier.predict([np.zeros((2, 16000), np.float32)])
    text = tmp_path / "text.wav"
    text.write_text("hello")
    with pytest.raises(unfreeze.DataError, match=r"text\.wav"):
        classifier.predict(text)


def test_evaluate_scores_other_recordings(trained, tmp_path):
    classifier, _, _ = trained
    other = toy.write_sounds(tmp_path / "other", clips=3, seed=5)
    scores = classifier.evaluate(other)
    assert scores["clips"] == 9
    assert scores["accuracy"] >= 0.7
    assert scores["problems"] == []


def test_evaluate_takes_recordings_of_one_class(trained, tmp_path):
    classifier, _, _ = trained
    scores = classifier.evaluate(toy.write_sounds(tmp_path, clips=2, classes=("low",), seed=6))
    assert scores["clips"] == 2
    assert scores["per_class"]["low"]["support"] == 2


def test_evaluate_refuses_classes_it_does_not_know(trained, tmp_path):
    classifier, _, _ = trained
    toy.write_sounds(tmp_path, clips=1, classes=("high", "bell"))
    with pytest.raises(unfreeze.DataError, match="bell"):
        classifier.evaluate(tmp_path)


def test_save_writes_one_file_that_loads(trained, tmp_path):
    classifier, _, data = trained
    classifier.save(tmp_path / "mine.keras")
    path = sorted(data.rglob("*.wav"))[0]
    np.testing.assert_array_equal(
        unfreeze.SoundClassifier.load(tmp_path / "mine.keras").predict(path),
        classifier.predict(path),
    )


def test_load_refuses_what_is_no_run(tmp_path):
    with pytest.raises(unfreeze.RunError, match="does not exist"):
        unfreeze.SoundClassifier.load(tmp_path / "nowhere")
    with pytest.raises(unfreeze.RunError, match="not a run folder"):
        unfreeze.SoundClassifier.load(tmp_path)
    (tmp_path / "x.keras").write_text("no model")
    with pytest.raises(unfreeze.RunError, match=r"x\.keras"):
        unfreeze.SoundClassifier.load(tmp_path / "x.keras")


def test_the_same_seed_gives_the_same_weights_and_scores(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=5)
    first, second, other = (
        unfreeze.SoundClassifier.train(data, "head_only", backbone="toy", epochs=2, seed=seed)
        for seed in (1, 1, 2)
    )
    for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.metrics == second.metrics
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(first.model.get_weights(), other.model.get_weights(), strict=True)
    )


@pytest.mark.parametrize("schedule", ["classic", "gradual"])
def test_every_preset_trains(monkeypatch, tmp_path, schedule):
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=4)
    classifier = unfreeze.SoundClassifier.train(
        data, schedule, tmp_path / "run", backbone="toy", epochs=1
    )
    stages = json.loads((tmp_path / "run" / "audit.json").read_text())["stages"]
    assert stages[-1]["stage"] == "all"
    assert classifier.metrics["validation"]["clips"] >= 3


def test_one_unusable_file_does_not_cost_the_run(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=7)
    (data / "low" / "bad.wav").write_text("not a sound")
    soundfile.write(data / "low" / "silent.wav", np.zeros(16000), 16000)
    classifier = unfreeze.SoundClassifier.train(data, "head_only", backbone="toy", epochs=1)
    assert classifier.labels == ("high", "low", "noise")
    with pytest.raises(unfreeze.DataError, match=r"bad\.wav"):
        unfreeze.SoundClassifier.train(data, "head_only", backbone="toy", epochs=1, strict=True)
