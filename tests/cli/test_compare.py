"""`unfreeze compare` and `unfreeze tune` on the command line."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import toy
from comparing import record
from unfreeze.cli.app import app
from unfreeze.cli.arguments import read_seconds
from unfreeze.compare import trial
from unfreeze.compare.detector_scores import AP, Found
from unfreeze.errors import UnfreezeError


@pytest.fixture
def data(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)

    def fake(material, trial, strategy, run_dir=None, callbacks=(), judge=None):
        clips = [material.manifest.clips[int(i)] for i in trial.split.test]
        right = [strategy.name == "full"] * len(clips)
        made = record(strategy.name, trial.seed, right=right, groups=[c.group for c in clips])
        if judge is not None:
            found = 3 if strategy.name == "full" else 2
            counts = np.array([[[[4, 4, found, found]]]] * 2)
            names, labels = ("site0.wav", "site1.wav"), ("high",)
            plain = Found(labels, names, (1800.0, 1800.0), counts).as_plain()
            made |= {"detection": {AP: found / 4, **plain}}
        return made

    monkeypatch.setattr(trial, "run_trial", fake)
    return toy.write_sounds(tmp_path / "data")


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_comparison_is_shown_and_written(data, tmp_path):
    out = tmp_path / "out"
    found = call("compare", data, "-o", out, "--backbone", "toy", "--strategies", "head_only,full")
    assert found.exit_code == 0
    assert "full is better than head_only by" in found.output.replace("\n", " ")
    assert "The data have no groups" in found.output.replace("\n", " ")
    assert str(out / "report.html") in found.output.replace("\n", "")
    text = (out / "report.md").read_text()
    assert "| full | 1.000 [1.000, 1.000] | 1 | 5 |" in text


def test_detectors_are_ranked_by_what_they_find(data, tmp_path):
    for number in range(2):
        toy.write_annotated(tmp_path / "field", 10, name=f"site{number}")
    words = ["--backbone", "toy", "--strategies", "head_only,full", "--seeds", "1"]
    words += ["--detect", tmp_path / "field", "--annotations", tmp_path / "field"]
    found = call("compare", data, "-o", tmp_path / "out", *words)
    assert found.exit_code == 0, found.exception
    said = " ".join(found.output.split())
    assert "full, seed 0: test 1.000, mean AP 0.750" in said
    assert re.search(r"full 0\.562 .* 0\.750 .* 2\.0 ", said)
    assert "better than head_only by 31.2 points of mean average precision" in said
    config = (tmp_path / "out" / "config.yaml").read_text()
    assert re.search(r"detect: 2 recordings, \d+ sounds, [0-9a-f]{16}\n", config)


def test_what_of_the_tables_is_not_used_is_said(data, tmp_path):
    for number in range(2):
        toy.write_annotated(tmp_path / "field", 10, name=f"site{number}")
    (tmp_path / "field" / "other.wav").write_bytes((tmp_path / "field/site0.wav").read_bytes()[:-2])
    with (tmp_path / "field" / "site1.Table.1.selections.txt").open("a") as file:
        file.write("9\tSpectrogram 1\t1\t8.5\t9.5\t100\t5000\tkitty\n")
        file.write("10\tSpectrogram 1\t1\t5000\t5001\t100\t5000\tlow\n")
    words = ["--backbone", "toy", "--strategies", "full", "--seeds", "1"]
    words += ["--detect", tmp_path / "field", "--annotations", tmp_path / "field"]
    found = call("compare", data, "-o", tmp_path / "out", *words)
    assert found.exit_code == 0, found.exception
    said = " ".join(found.output.split())
    assert "no table of sounds names it or has its name." in said
    assert "none of the data's and not counted: kitty (1)." in said
    report = (tmp_path / "out" / "report.md").read_text()
    assert "other.wav is left out: no table of sounds names it or has its name.\n" in report
    assert "not counted: kitty (1)." in report
    assert "site1.wav: the sound at 5000 s lies behind its end, 1800.00 s" in report


def test_json_is_json(data, tmp_path):
    words = ["--backbone", "toy", "--strategies", "head_only,full", "--json", "--seeds", "2"]
    found = call("compare", data, "-o", tmp_path / "out", *words)
    plain = json.loads(found.stdout)
    assert [row["strategy"] for row in plain["rows"]] == ["full", "head_only"]
    assert plain["seeds"] == 2


def test_a_search_ends_with_the_command_that_uses_it(data, tmp_path):
    pytest.importorskip("optuna")
    out = tmp_path / "out"
    found = call("tune", data, "-o", out, "--backbone", "toy", "--trials", "2", "--seed", "3")
    assert found.exit_code == 0
    assert f"--schedule {out / 'best.yaml'} --seed 3" in found.output
    again = call("tune", data, "-o", out, "--backbone", "toy", "--trials", "2", "--seed", "3",
                 "--json")  # fmt: skip
    assert len(json.loads(again.stdout)["trials"]) == 2


@pytest.mark.parametrize("command", ["compare", "tune"])
def test_ctrl_c_says_how_to_go_on(command, data, tmp_path, monkeypatch):
    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "run_trial", stopped)
    found = call(command, data, "-o", tmp_path / "out", "--backbone", "toy")
    assert found.exit_code == 130
    assert "interrupted; run the same command again to continue" in found.output


def test_a_search_without_optuna_is_refused_at_once(data, tmp_path, monkeypatch):
    monkeypatch.setattr("unfreeze.cli.tune.find_spec", lambda name: None)
    found = call("tune", data, "-o", tmp_path / "out", "--backbone", "toy")
    assert "pip install 'unfreeze[tune]'" in str(found.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategies", "two_stag"], "Did you mean 'two_stage'"),
        (["--strategies", "full+rat=1"], "Did you mean 'rate'"),
        (["--budget", "soon"], "'soon' is not a time"),
        (["--folds", "2", "--holdout", "a"], "give one of them"),
        (["--detect", "."], "--annotations the tables of their sounds: give both"),
        (["--detect", ".", "--annotations", "nowhere"], "nowhere does not exist"),
    ],
)
def test_refused_at_once(data, tmp_path, words, message):
    found = call("compare", data, "-o", tmp_path / "out", "--backbone", "toy", *words)
    assert message in str(found.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5h", 5400), ("30m", 1800), (" 2 m ", 120)]
)
def test_times(text, seconds):
    assert read_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-3", "3d", "m", "1e9"])
def test_no_times(text):
    with pytest.raises(UnfreezeError, match="is not a time"):
        read_seconds(text)
