"""The reports of `evaluate --out`: clips, and events."""

import json

import pytest
import soundfile
from typer.testing import CliRunner

import toy
from html_reader import Reader
from reporting import rows_of
from toy_detection import classifier, scene, toy_run  # noqa: F401
from unfreeze.cli import evaluate
from unfreeze.cli.app import app
from unfreeze.errors import RunError
from unfreeze.report.evaluation_report import _PICTURES, EVENTS, write_evaluation_report


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_of_clips(toy_run, tmp_path):  # noqa: F811
    data, out = toy.write_sounds(tmp_path / "data", clips=4, seed=3), tmp_path / "out"
    (data / "high" / "high_0.wav").rename(data / "low" / "<b>wrong.wav")
    (data / "noise" / "broken.wav").write_bytes(b"none")
    done = call("evaluate", toy_run, data, "--out", out, "--max-bad", 0.2)
    assert done.exit_code == 0, done.output
    assert f"Look at it: {out / 'report.html'}" in done.output.replace("\n", " ")
    found = json.loads((out / "evaluation.json").read_text())
    scores = found["scores"]
    assert scores["clips"] == 12
    rows = rows_of(out / "predictions.csv")
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert scores["accuracy"] == pytest.approx(right / 12)
    assert right < 12
    reader = Reader((out / "report.html").read_text("utf-8"))
    assert f"{right} of 12 clips are right" in reader.words
    assert "low/<b>wrong.wav" in reader.words
    assert "noise/broken.wav" in reader.words
    assert len(reader.of("audio")) == 12
    assert write_evaluation_report(out).read_text("utf-8")
    # Another evaluation does not replace it.
    again = call("evaluate", toy_run, data, "--out", out, "--max-bad", 0.2)
    assert isinstance(again.exception, RunError)


def test_of_events(toy_run, scene, tmp_path):  # noqa: F811
    field, tables, out = tmp_path / "field", tmp_path / "tables", tmp_path / "out"
    field.mkdir()
    tables.mkdir()
    soundfile.write(field / "a.wav", *soundfile.read(scene))
    (tables / "a.txt").write_text(
        "0\t5\tnoise\n5\t8\thigh\n8\t12\tnoise\n12\t14.5\tlow\n16\t17\tlow\n"
    )
    done = call("evaluate", toy_run, field, "--annotations", tables, "--out", out)
    assert done.exit_code == 0, done.output
    scores = json.loads((out / EVENTS).read_text())
    reader = Reader((out / "report.html").read_text("utf-8"))
    recall = scores["overall"]["overlap"]["recall"]
    assert f"{100 * recall:.0f} % of the 5 true events are found" in reader.words
    for label, row in scores["per_class"].items():
        cells = reader.row(label)
        assert cells[1:3] == [str(row["true_events"]), str(row["found_events"])]
        assert cells[4] == f"{row['overlap']['recall']:.2f}"
    assert len(reader.of("img")) == 2
    assert all(picture["src"].startswith("data:image/png") for picture in reader.of("img"))
    assert (evaluate.SCORES, {evaluate.CURVES, evaluate.ALARMS}) == (EVENTS, set(_PICTURES))


def test_a_damaged_evaluation_is_refused(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"format": 1}')
    with pytest.raises(RunError, match="evaluate again"):
        write_evaluation_report(tmp_path)
    (tmp_path / "evaluation.json").unlink()
    with pytest.raises(RunError, match="cannot be read"):
        write_evaluation_report(tmp_path)
