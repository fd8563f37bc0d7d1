"""`unfreeze train --progress`: what other programs see of a real training."""

import pytest
from typer.testing import CliRunner

import toy
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.run_progress import read_progress


@pytest.fixture
def train(tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    toy.write_sounds(tmp_path / "data", clips=6)

    def train(*more):
        words = ["train", tmp_path / "data", "--out", tmp_path / "run", "--backbone", "toy"]
        words += ["--progress", tmp_path / "p.json", "--quiet", *more]
        return CliRunner().invoke(app, [str(word) for word in words])

    return train


def test_all_epochs_of_all_stages_are_in_it(train, tmp_path):
    words = ("--schedule", "two_stage", "--epochs", "2", "--batch-size", "4")
    assert train(*words).exit_code == 0
    found = read_progress(tmp_path / "p.json")
    assert found["state"] == "finished"
    assert found["stages"] == [{"name": "head", "epochs": 2}, {"name": "all", "epochs": 2}]
    rows = [(row["stage"], row["epoch"]) for row in found["rows"]]
    assert rows == [("head", 1), ("head", 2), ("all", 1), ("all", 2)]
    assert all({"loss", "val_loss", "val_accuracy"} <= row.keys() for row in found["rows"])
    assert found["ended"].keys() == {"head", "all"}
    assert found["command"] == run_folder.read_config(tmp_path / "run")["command"]
    # A script that resumes until it is done sees the same.
    again = train(*words, "--resume")
    assert again.exit_code == 0
    assert "already holds this run" in again.output
    assert read_progress(tmp_path / "p.json")["rows"] == found["rows"]


def test_why_a_training_was_refused_is_in_it(train, tmp_path):
    assert train("--schedule", "two_stages").exception is not None
    found = read_progress(tmp_path / "p.json")
    assert found["state"] == "failed"
    assert "no schedule is named 'two_stages'" in found["cause"]


def test_the_file_is_not_in_the_runs_folder(train, tmp_path):
    refused = train("--progress", tmp_path / "run" / "p.json")
    assert isinstance(refused.exception, UnfreezeError)
    assert "give a file beside it" in str(refused.exception)
    assert not (tmp_path / "run").exists()
