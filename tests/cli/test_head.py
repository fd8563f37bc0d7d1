"""`unfreeze head`: trains, says how good it is, and the run can be used."""

import csv
import json

from typer.testing import CliRunner

import toy
from unfreeze.cli.app import app


def test_a_head_is_trained_and_used(toy_run, tmp_path):
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
    again = CliRunner().invoke(app, [*words, str(tmp_path / "other"), "--json", "--seed", "1"])
    assert json.loads(again.stdout)["test"]["labels"] == ["high", "low", "noise"]
    found = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), str(files[0])])
    assert files[0].parent.name in found.stdout
