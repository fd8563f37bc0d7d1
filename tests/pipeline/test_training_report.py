"""A run writes predictions and a report; nothing that goes wrong with them loses the run."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import toy
import unfreeze
from html_reader import Reader
from reporting import rows_of
from unfreeze.cli.app import app
from unfreeze.pipeline.training import TrainListener

OPTIONS = {"schedule": "probe", "backbone": "toy", "validation": 0.25, "test": 0.25}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder, report=True)
        data = toy.write_sounds(folder / "data", clips=10)
        (data / "low" / "silent.wav").write_bytes(b"none")
        toy.write_sounds(folder / "new", clips=2, seed=5)
        unfreeze.SoundClassifier.train(data, out=folder / "run", max_bad=0.1, **OPTIONS)
        yield folder


def test_predictions_are_those_of_the_model(home):
    run = unfreeze.SoundClassifier.load(home / "run")
    rows = rows_of(home / "run" / "predictions.csv")
    splits = {row["path"]: row for row in rows_of(home / "run" / "splits.csv")}
    held = [path for path, row in splits.items() if row["split"] != "train"]
    assert sorted(row["path"] for row in rows) == sorted(held)
    scores = run.predict([home / "data" / row["path"] for row in rows])
    for row, own in zip(rows, scores, strict=True):
        assert [float(row[f"score_{label}"]) for label in run.labels] == pytest.approx(
            own, abs=2e-4
        )
        assert row["predicted"] == run.labels[own.argmax()]
        assert float(row["score"]) == pytest.approx(own.max(), abs=2e-4)
        same = splits[row["path"]]
        assert [row[k] for k in ("label", "group", "split")] == [
            same[k] for k in ("label", "group", "split")
        ]
    test = [row for row in rows if row["split"] == "test"]
    right = np.mean([row["label"] == row["predicted"] for row in test])
    assert right == pytest.approx(run.metrics["test"]["accuracy"])


def test_the_report_stands_beside_them(home):
    reader = Reader((home / "run" / "report.html").read_text("utf-8"))
    metrics = json.loads((home / "run" / "metrics.json").read_text())
    right = np.trace(metrics["test"]["confusion"])
    assert f"{right} of {metrics['test']['clips']} test clips are right" in reader.words
    assert len(reader.of("audio")) == metrics["test"]["clips"]
    assert "low/silent.wav" in reader.words
    about = json.loads((home / "run" / "notes.json").read_text())
    assert [p["path"] for p in about["problems"] if p["fatal"]] == ["low/silent.wav"]
    assert about["hours"] == pytest.approx(30 * 1.05 / 3600, rel=0.15)


def test_a_report_that_fails_loses_nothing(home, monkeypatch):
    def fail(*run):
        raise RuntimeError("no ink")

    told = []
    listener = TrainListener()
    listener.on_note = told.append
    monkeypatch.setattr("unfreeze.planning._report", fail)
    options = unfreeze.TrainOptions(home / "data", out=home / "failed", max_bad=0.1, **OPTIONS)
    trained = unfreeze.SoundClassifier.from_options(options, listener)
    assert trained.metrics["test"]["clips"] > 0
    assert not (home / "failed" / "report.html").exists()
    again = f"unfreeze report {home / 'failed'}"
    said = f"The report could not be written (no ink). Try again with `{again}`"
    assert said in told
    # All else is the same, to the byte.
    for name in ("predictions.csv", "metrics.json", "notes.json", "splits.csv"):
        assert (home / "failed" / name).read_bytes() == (home / "run" / name).read_bytes()
    done = CliRunner().invoke(app, ["report", str(home / "failed")])
    assert done.output == f"Written to {home / 'failed' / 'report.html'}\n"
    assert (home / "failed" / "report.html").stat().st_size > 50_000


def test_resuming_a_finished_run_writes_a_report_that_is_missing(home):
    shutil.copytree(home / "run", home / "again")
    (home / "again" / "report.html").unlink()
    words = ["--schedule", "probe", "--backbone", "toy", "--validation", "0.25", "--test", "0.25"]
    words += ["--out", str(home / "again"), "--max-bad", "0.1", "--resume", "--json"]
    done = CliRunner().invoke(app, ["train", str(home / "data"), *words])
    assert done.exit_code == 0
    assert (home / "again" / "report.html").is_file()


def test_a_run_that_adds_to_another_reports_both(home):
    unfreeze.SoundClassifier.train(
        home / "new", add_to=home / "run", out=home / "both", even_if_worse=True
    )
    reader = Reader((home / "both" / "report.html").read_text("utf-8"))
    metrics = json.loads((home / "both" / "metrics.json").read_text())
    before, after = (metrics["change"]["test"][k]["accuracy"] for k in ("before", "after"))
    assert reader.row("test clips of that run: accuracy")[1:3] == [f"{before:.3f}", f"{after:.3f}"]
    parts = {row["split"] for row in rows_of(home / "both" / "predictions.csv")}
    assert parts >= {"validation", "test"}
