"""Clips with several labels, from the table to predictions, exports and events."""

import json

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import toy
import unfreeze
from unfreeze.audio.manifest import heard_table
from unfreeze.cli.app import app
from unfreeze.errors import DataError
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.pipeline.training_data import read_training_data

RATE = toy.RATE


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, place, pictures=True)
        data = toy.write_mixed(place / "data")
        trained = unfreeze.SoundClassifier.train(data, "probe", place / "run", backbone="toy")
        yield trained, data, place


def test_each_class_is_judged_by_itself(run):
    trained, data, place = run
    scores = trained.metrics["test"]
    assert scores["mean_average_precision"] > 0.75  # 0.45 by guessing
    assert scores["clips"] >= 9
    assert "accuracy" not in scores
    chances = trained.predict([data / f"{n}.wav" for n in range(60)])
    assert chances.shape == (60, 3)
    sums = chances.sum(axis=1)
    # Nothing is heard in some clips, and all three sounds in others.
    assert sums.min() < 0.5
    assert sums.max() > 1.5
    depths = trained.metrics["depths"]
    assert depths["score"] == "mean_average_precision"
    assert max(row["mean_average_precision"] for row in depths["groups"]) > 0.75
    assert depths == json.loads((place / "run" / "metrics.json").read_text())["depths"]
    assert (place / "run" / "depths.png").stat().st_size > 10_000
    assert (place / "run" / "classes.png").stat().st_size > 10_000
    assert not (place / "run" / "confusion.png").exists()


def test_a_saved_run_judges_alike(run):
    trained, data, place = run
    loaded = unfreeze.SoundClassifier.load(place / "run")
    assert loaded.multilabel
    assert loaded.clip_thresholds == pytest.approx(trained.clip_thresholds)
    wave = soundfile.read(data / "0.wav", dtype="float32")[0]
    assert loaded.model.predict(wave[None], verbose=0)[0] == pytest.approx(
        trained.predict(data / "0.wav"), abs=1e-4
    )


def test_evaluate_finds_the_same_scores_and_takes_single_labels(run):
    trained, data, place = run
    rows = [line.split(",") for line in (place / "run" / "splits.csv").read_text().splitlines()]
    test = [row for row in rows[1:] if "test" in row]
    table = "path,label\n" + "".join(f"{row[0]},{row[1]}\n" for row in test)
    (data / "test.csv").write_text(table)
    found = trained.evaluate(data / "test.csv")
    for name in ("mean_average_precision", "macro_f1", "micro_f1", "loss"):
        assert found[name] == pytest.approx(trained.metrics["test"][name], abs=1e-4)
    one = next(row for row in test if row[1] in trained.labels)
    (data / "one.csv").write_text(f"path,label\n{one[0]},{one[1]}\n")
    assert trained.evaluate(data / "one.csv")["clips"] == 1


def test_a_model_of_one_label_refuses_clips_with_several(run):
    _, data, place = run
    single = toy.write_sounds(place / "single", clips=4)
    other = unfreeze.SoundClassifier.train(single, "probe", backbone="toy")
    with pytest.raises(DataError, match="trained on clips with one"):
        other.evaluate(data)
    # On demand, folders with one class each are judged class by class, too.
    more = unfreeze.SoundClassifier.train(single, "probe", backbone="toy", multilabel=True)
    assert more.multilabel
    assert more.metrics["validation"]["multilabel"]


@pytest.mark.needs_backend("tensorflow")
def test_exports_give_the_same_scores(run, tmp_path):
    trained, data, _ = run
    exported = trained.export("onnx", tmp_path / "model.onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(exported.path))
    wave = soundfile.read(data / "1.wav", dtype="float32")[0][None]
    (found,) = session.run(None, {session.get_inputs()[0].name: wave})
    assert found[0] == pytest.approx(trained.predict(data / "1.wav"), abs=1e-4)
    settings = session.get_modelmeta().custom_metadata_map
    told = json.loads(next(iter(settings.values())))
    assert told["multilabel"] is True
    assert list(told["thresholds"].values()) == pytest.approx(trained.clip_thresholds, abs=1e-4)
    assert list(told["event_thresholds"].values()) == pytest.approx(trained.thresholds, abs=1e-4)


def test_events_of_several_classes_at_the_same_time(run, tmp_path):
    trained, _, _ = run
    ticks = np.arange(6 * RATE) / RATE
    wave = 0.2 * np.sin(6.283 * 250 * ticks) + 0.2 * np.sin(6.283 * 3000 * ticks)
    wave[: 2 * RATE] = 0
    soundfile.write(tmp_path / "long.wav", wave, RATE)
    events = trained.detect(tmp_path / "long.wav")
    heard = {event.label for event in events if event.start < 4 < event.end}
    assert {"high", "low"} <= heard
    assert all(event.end > 1.5 for event in events)


@pytest.mark.parametrize("schedule", ["two_stage", "probe_tune"])
def test_all_layers_train_too_and_unsure_labels_are_left_out(run, schedule, tmp_path):
    _, data, _ = run
    text = (data / "manifest.csv").read_text().replace(",high\n", ",high;low?\n")
    (data / "unsure.csv").write_text(text)
    inputs = read_training_data(TrainOptions(data / "unsure.csv", backbone="toy"))
    table = heard_table(inputs.manifest)
    assert set(np.unique(table)) == {-1.0, 0.0, 1.0}
    trained = unfreeze.SoundClassifier.train(
        data / "unsure.csv",
        schedule,
        backbone="toy",
        epochs=3,
        learning_rate=1e-3 if schedule == "two_stage" else None,
    )
    assert trained.metrics["validation"]["per_class"]["low"]["unknown"] >= 0
    assert trained.metrics["test"]["mean_average_precision"] > 0.4


def test_a_comparison_is_by_the_labels_of_clips(run, tmp_path):
    _, data, _ = run
    words = ["compare", str(data), "--out", str(tmp_path / "c"), "--backbone", "toy"]
    words += ["--strategies", "probe,head_only+epochs=1", "--seeds", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert report["score"] == "F1 of a clip's labels"
    assert "F1 of a clip's labels" in (tmp_path / "c" / "report.md").read_text()
    (record,) = (tmp_path / "c").rglob("probe*.json")
    scores = json.loads(record.read_text())["scores"]["test"]
    sets = [set(truth) for truth in scores["truth"]], [set(guess) for guess in scores["guess"]]
    for truth, guess, right in zip(*sets, scores["right"], strict=True):
        both = len(truth) + len(guess)
        assert right == pytest.approx(2 * len(truth & guess) / both if both else 1, abs=1e-6)
    best = {row["strategy"]: row["scores"]["test"]["accuracy"] for row in report["rows"]}
    assert best["probe"] == pytest.approx(np.mean(scores["right"]), abs=1e-6)


def test_the_command_line(run, tmp_path):
    _, data, place = run
    runner = CliRunner()
    shown = runner.invoke(app, ["evaluate", str(place / "run"), str(data / "manifest.csv")])
    assert shown.exit_code == 0, shown.output
    assert "mean average precision" in shown.output
    assert "from score" in shown.output
    found = runner.invoke(app, ["inspect", str(data), "--json"])
    report = json.loads(found.stdout)
    assert report["multilabel"]
    assert report["without_label"] > 0
    told = runner.invoke(
        app, ["inspect", str(data), "--depths", "--backbone", "toy", "--validation", "0.3"]
    )
    assert told.exit_code == 0, told.output
    lines = told.stdout[told.stdout.index("What each depth of the network knows") :].splitlines()
    assert lines[1].split() == ["layer", "group", "mAP"]
    assert 0.4 < float(lines[2].split()[1]) <= 1
    assert "mean average precision" in lines[-1]
