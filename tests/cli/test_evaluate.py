"""`unfreeze evaluate`: as a classifier of clips, and with --annotations as a detector."""

import json
import re
import shutil

import pytest
import soundfile
from typer.main import get_command
from typer.testing import CliRunner

import toy
from toy_detection import scene_samples
from unfreeze.cli.app import app
from unfreeze.cli.evaluate import ALARMS, CURVES, SCORES
from unfreeze.detection.event_scoring import Rules
from unfreeze.errors import DataError, RunError, UnfreezeError


def call(*words):
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


@pytest.fixture
def field(scene, tmp_path):
    """Two recordings, and a folder with a table of each: Audacity's and Raven's."""
    folder, tables = tmp_path / "field", tmp_path / "tables"
    folder.mkdir()
    tables.mkdir()
    shutil.copy(scene, folder / "a.wav")
    soundfile.write(folder / "b.flac", scene_samples()[: 9 * toy.RATE], toy.RATE)
    (tables / "a.txt").write_text(
        "0\t5\tnoise\n5\t8\thigh\n8\t12\tnoise\n12\t14.5\tlow\n14.5\t20\tnoise\n16\t17\tfox\n"
    )
    (tables / "b.Table.1.selections.txt").write_text(
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tSpecies\n"
        "1\tSpectrogram 1\t1\t5.0\t8.0\thigh\n"
    )
    return folder, tables


def test_events_are_compared_with_annotations(toy_run, field):
    folder, tables = field
    result = call(toy_run, folder, "--annotations", tables)
    assert result.exit_code == 0, result.output
    text = re.sub(r"\s+", " ", result.stdout)
    assert "6 true events" in text
    assert "of 2 recordings" in text
    assert re.search(r"high 2 2 1\.000 1\.000 1\.000 1\.000 1\.000 0\.50 0\.0", text)
    assert "note: The model does not know these annotated classes, not counted: fox (1)" in text


def test_json_has_every_number(toy_run, field):
    folder, tables = field
    result = call(toy_run, folder, "--annotations", tables, "--json")
    found = json.loads(result.stdout)
    assert found["rules"]["collar"] == 0.5
    assert found["unknown_classes"] == {"fox": 1}
    assert found["annotated"] == "fully"
    assert set(found["curves"]["per_class"]) == {"high", "low", "noise"}


def test_one_recording_with_one_table(toy_run, field):
    folder, tables = field
    result = call(toy_run, folder / "a.wav", "--annotations", tables / "a.txt", "--json")
    assert json.loads(result.stdout)["true_events"] == 5


def test_options_reach_the_search_and_the_rules(toy_run, field):
    folder, tables = field
    words = ["--hop", 0.24, "--window", 1.92, "--min-score", 0.7, "--smooth", "--share", 0.3]
    words += ["--iou", 0.6, "--collar", 0.2, "--segment", 0.5, "--annotated", "partly", "--json"]
    found = json.loads(call(toy_run, folder, "--annotations", tables, *words).stdout)
    thresholds = dict.fromkeys(("high", "low", "noise"), 0.7)
    settings = {"hop": 0.24, "window": 1.92, "smooth": True, "thresholds": thresholds}
    assert found["settings"] == settings
    rules = {key: found["rules"][key] for key in ("share", "iou", "collar", "segment")}
    assert rules == {"share": 0.3, "iou": 0.6, "collar": 0.2, "segment": 0.5}
    assert found["annotated"] == "partly"
    assert found["false_alarms"]["per_hour"] is None


def test_scores_and_pictures_are_written_into_a_new_folder(toy_run, field, tmp_path):
    folder, tables = field
    words = [toy_run, folder, "--annotations", tables, "--out", tmp_path / "scores"]
    result = call(*words, "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "scores" / SCORES).read_text())
    written = {file.name for file in (tmp_path / "scores").iterdir()}
    assert written == {SCORES, CURVES, ALARMS, "report.html"}
    again = call(*words)
    assert isinstance(again.exception, RunError)
    assert "is not empty" in str(again.exception)
    # Nobody knows the false alarms of an hour: there is no picture of them.
    partly = [*words[:-1], tmp_path / "partly", "--annotated", "partly"]
    assert "Written to" in call(*partly).stdout
    assert {file.name for file in (tmp_path / "partly").iterdir()} == {
        *(SCORES, CURVES, "report.html")
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hop", "0.24"], "--hop is for events: give the tables of the true ones"),
        (["--min-score", "0.5"], "--min-score is for events"),
        (["--smooth"], "--smooth is for events"),
        (["--collar", "0.2"], "--collar is for events"),
        (["--annotations", "TABLES", "--group-regex", "(a)"], "--group-regex is for whole clips"),
        (["--annotations", "TABLES", "--annotated", "wholly"], "annotated is 'wholly': it must"),
        (["--annotations", "TABLES", "--iou", "0"], "iou is 0: give one above 0"),
        (["--annotations", "TABLES", "--hop", "5"], "hop of 5 s cannot be used"),
        (["--annotations", "nowhere"], "nowhere does not exist"),
    ],
)
def test_options_that_cannot_work_are_refused(toy_run, field, words, message):
    folder, tables = field
    words = [str(tables) if word == "TABLES" else word for word in words]
    error = call(toy_run, folder, *words).exception
    assert isinstance(error, UnfreezeError)
    assert message in str(error)


def test_a_recording_that_cannot_be_read_is_reported(toy_run, field):
    folder, tables = field
    (folder / "c.wav").write_bytes(b"RIFF")
    (tables / "c.txt").write_text("1\t2\thigh\n")
    words = [toy_run, folder, "--annotations", tables]
    assert isinstance(call(*words).exception, DataError)
    result = call(*words, "--max-bad", 0.5)
    assert result.exit_code == 0
    assert "left out: " in result.stdout
    assert "c.wav" in result.stdout
    assert "--max-bad" not in result.stdout


def test_clips_are_scored_without_annotations(toy_run, tmp_path):
    data = toy.write_sounds(tmp_path / "data", clips=3)
    found = json.loads(call(toy_run, data, "--json").stdout)
    assert found["accuracy"] == 1.0
    assert "accuracy" in call(toy_run, data, "--annotated", "fully").stdout


def test_the_help_has_the_defaults_of_the_rules():
    options = {option.name: option for option in get_command(app).commands["evaluate"].params}
    for name, value in vars(Rules()).items():
        assert options[name].show_default == f"{value:g}"
