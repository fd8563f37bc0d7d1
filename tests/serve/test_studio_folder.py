"""What the studio finds in its folder, and what it refuses to look at."""

import json
import shutil
import sys

import pytest

import toy
from unfreeze.errors import DataError, RunError
from unfreeze.pipeline import run_folder
from unfreeze.serve.studio_folder import (
    RunList,
    class_folder,
    keep_recording,
    list_folder,
    open_folder,
)

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return toy.write_sounds(tmp_path_factory.mktemp("sounds"), clips=2, classes=("high", "low"))


@pytest.fixture
def lab(tmp_path, sounds):
    """A folder with data, a table of labels and a file that is neither."""
    root = tmp_path / "lab"
    shutil.copytree(sounds, root / "tones")
    (root / "labels.csv").write_text("path,label\ntones/high/high_0.wav,high\n")
    (root / "notes.pdf").write_bytes(b"x")
    (root / ".hidden").mkdir()
    return open_folder(root)


def test_folders_and_tables_are_listed_with_what_they_hold(lab):
    (lab.runs / "one").mkdir(parents=True)
    top = list_folder(lab, "")
    assert top["folders"] == [{"name": "tones", "path": "tones", "holds": "2 folders"}]
    assert top["tables"] == [{"name": "labels.csv", "path": "labels.csv"}]
    assert (top["holds"], top["usable"], top["above"]) == ("1 folder", False, [])
    inner = list_folder(lab, "tones")
    assert inner["usable"]
    assert [one["holds"] for one in inner["folders"]] == ["2 recordings", "2 recordings"]
    deep = list_folder(lab, "tones/high")
    assert [one["path"] for one in deep["above"]] == ["tones", "tones/high"]
    assert lab.data("tones") == lab.root / "tones"
    assert lab.data("labels.csv") == lab.root / "labels.csv"


def test_very_many_entries_are_not_all_listed(tmp_path, monkeypatch):
    for number in range(12):
        (tmp_path / f"{number:02}").mkdir()
    monkeypatch.setattr("unfreeze.serve.studio_folder._MOST_LISTED", 10)
    found = list_folder(open_folder(tmp_path), "")
    assert (len(found["folders"]), found["left_out"]) == (10, 2)


@pytest.mark.parametrize(
    "name",
    ["..", "../lab", "tones/../..", "/etc", "/", "tones/\0", "a" * 5000, "none", "tones/none"],
)
def test_a_name_that_leads_elsewhere_is_refused(lab, name):
    for look in (lab.place, lab.data, lambda name: list_folder(lab, name)):
        with pytest.raises(DataError):
            look(name)


@links
def test_links_that_lead_out_are_neither_listed_nor_followed(lab, tmp_path, sounds):
    (lab.root / "out").symlink_to(tmp_path)
    (lab.root / "etc").symlink_to("/etc")
    (lab.root / "in").symlink_to(lab.root / "tones")
    assert [one["name"] for one in list_folder(lab, "")["folders"]] == ["in", "tones"]
    for name in ("out", "etc", "out/other", "etc/hosts"):
        with pytest.raises(DataError, match="is not in"):
            lab.place(name)
    assert lab.place("in") == lab.root / "in"
    # A link inside of the data.
    (lab.root / "tones" / "far").symlink_to(sounds / "high")
    with pytest.raises(DataError, match="is outside of"):
        lab.data("tones")


def test_a_table_that_names_recordings_outside_is_refused(lab, sounds):
    table = lab.root / "far.csv"
    table.write_text(f"path,label\n{sounds / 'high' / 'high_0.wav'},high\n")
    with pytest.raises(DataError, match="is outside of"):
        lab.data("far.csv")


def test_runs_are_in_the_folder_or_beside_it(tmp_path, sounds):
    assert open_folder(tmp_path).runs == tmp_path / "runs"
    data = shutil.copytree(sounds, tmp_path / "data")
    # In it they would be a class.
    beside = open_folder(data)
    assert beside.runs == tmp_path / "data-runs"
    assert beside.data("") == data
    (data / "runs").mkdir()
    inside = open_folder(data)
    assert inside.runs == data / "runs"
    with pytest.raises(DataError, match="holds the runs, too"):
        inside.data("")
    assert open_folder(data, tmp_path / "mine").runs == tmp_path / "mine"
    for wrong in (tmp_path / "none", data / "high" / "high_0.wav"):
        with pytest.raises(DataError, match="give a folder"):
            open_folder(wrong)


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a\\b", "x" * 70, "a ", "-x", "a\n"])
def test_names_of_runs_are_plain(lab, name):
    for look in (lab.run, lab.new_run):
        with pytest.raises(RunError):
            look(name)


def test_a_run_is_one_that_is_there(lab, tmp_path):
    with pytest.raises(RunError, match="no run"):
        lab.run("one")
    run_folder.write_config(lab.runs / "one", {"command": "c"})
    assert lab.run("one") == lab.runs / "one"
    if sys.platform != "win32":
        (lab.runs / "two").symlink_to(lab.runs / "one")
        with pytest.raises(RunError, match="no run"):
            lab.run("two")


def test_the_list_of_runs_says_how_each_stands(lab):
    runs = RunList(lab)
    assert runs.rows() == []
    for name in ("done", "stopped", "odd"):
        run_folder.write_config(
            lab.runs / name, {"command": "c", "options": {"data": "/d"}, "labels": ["a", "b"]}
        )
    run_folder.write_scores(lab.runs / "done", {"test": {"accuracy": 0.75}})
    (lab.runs / "odd" / "config.yaml").write_text("unfreeze_run: 9\n")
    (lab.runs / "empty").mkdir()
    rows = {row["name"]: row for row in runs.rows()}
    assert {name: row["state"] for name, row in rows.items()} == {
        "done": "finished", "stopped": "interrupted", "odd": "damaged",
    }  # fmt: skip
    assert (rows["done"]["part"], rows["done"]["value"]) == ("test", 0.75)
    assert (rows["done"]["classes"], rows["done"]["report"]) == (2, False)
    assert "has format 9" in rows["odd"]["cause"]
    # It is read again when it has changed.
    run_folder.write_scores(lab.runs / "stopped", {"validation": {"mean_average_precision": 0.5}})
    row = next(row for row in runs.rows() if row["name"] == "stopped")
    assert (row["state"], row["score"], row["part"]) == (
        "finished", "mean_average_precision", "validation",
    )  # fmt: skip
    assert json.dumps(runs.rows())


@links
def test_a_run_with_a_link_that_leads_out_is_damaged(lab):
    run_folder.write_config(lab.runs / "one", {"command": "c"})
    (lab.runs / "one" / "report.html").symlink_to("/etc/hosts")
    (row,) = RunList(lab).rows()
    assert row["state"] == "damaged"
    assert "leads out" in row["cause"]


def test_a_dropped_file_gets_a_folder_and_replaces_nothing(lab, sounds, tmp_path):
    new = sounds / "high" / "high_0.wav"
    place = class_folder(lab, "more", "owl")
    assert place == lab.root / "more" / "owl"
    assert not place.exists()
    first = keep_recording(new, "call.wav", place)
    assert first == (place / "call.wav", True)
    assert first[0].read_bytes() == new.read_bytes()
    assert keep_recording(new, "call.wav", place) == (place / "call.wav", False)
    other = sounds / "high" / "high_1.wav"
    assert keep_recording(other, "call.wav", place) == (place / "call 2.wav", True)
    assert first[0].read_bytes() == new.read_bytes()
    long = keep_recording(new, f"{'é' * 300}.wav", place)[0]
    assert (long.suffix, len(long.name.encode()) <= 150) == (".wav", True)
    odd = keep_recording(new, '..a:b?"c.wav', place)[0]
    assert odd == place / "a_b__c.wav"
    assert sorted(path.name[0] for path in place.iterdir()) == ["a", "c", "c", "é"]


@pytest.mark.parametrize(
    ("folder", "label", "words"),
    [
        ("..", "owl", "is not in"),
        ("../x", "owl", "is not in"),
        ("/tmp", "owl", "is not in"),
        ("new/../..", "owl", "is not in|cannot be"),
        ("tones", "..", "cannot be the name of a class"),
        ("tones", "a/b", "cannot be the name of a class"),
        ("tones", ".git", "cannot be the name of a class"),
        ("tones", "", "label is empty"),
        ("tones", "a;b", "several"),
        ("tones", "a\nb", "cannot be printed"),
        ("tones", "x" * 101, "cannot be the name of a class"),
        (".new", "owl", "cannot be the name of a folder"),
        ("labels.csv", "owl", "is a file"),
        ("", "owl", "holds the runs"),
        ("runs", "owl", "holds the runs"),
        ("runs/one", "owl", "holds the runs"),
    ],
)
def test_a_dropped_file_goes_nowhere_else(lab, folder, label, words):
    with pytest.raises(DataError, match=words):
        class_folder(lab, folder, label)


@links
def test_a_class_that_is_a_link_out_gets_no_files(lab, tmp_path):
    (lab.root / "tones" / "owl").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads out"):
        class_folder(lab, "tones", "owl")
