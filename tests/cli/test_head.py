"""`unfreeze head`: trains, says how good it is, and the run can be used."""

import csv
import json

from typer.testing import CliRunner

import toy
from unfreeze.cli.app import app


def test_a_head_is_trained_and_used(toy_run, tmp_path, monkeypatch):
    toy.little_background(monkeypatch)
    from unfreeze.search.embedding import embed

    sounds = toy.write_sounds(tmp_path / "sounds", clips=8, seed=3)
    files = sorted(sounds.rglob("*.wav"))
    embed(files, tmp_path / "index", run=toy_run)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((f, f.parent.name) for f in files)])
    words = ["head", str(tmp_path / "index"), str(tmp_path / "labels.csv"), "--out"]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "test: accuracy 1.00 (95 % interval" in done.stdout
    assert "in the index" not in done.stderr
    # What is left out, and labels that may no longer be right, are said.
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("/nowhere/new.wav,low\n")
    with files[1].open("ab") as file:
        file.write(b"more")
    again = CliRunner().invoke(
        app, [*words, str(tmp_path / "other"), "--json", "--seed", "1", "--no-gate"]
    )
    assert json.loads(again.stdout)["test"]["labels"] == ["high", "low", "noise"]
    assert (
        "note: 1 places are of 1 recordings that are not in the index, such as /no" in again.stderr
    )
    assert f"note: 1 recordings have changed since they were embedded, such as {files[1]}" in (
        again.stderr
    )
    found = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), str(files[0])])
    assert files[0].parent.name in found.stdout
