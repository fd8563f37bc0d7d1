"""`unfreeze search`: each kind of query, each format, and what is refused."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import toy
from toy_detection import scene_samples
from unfreeze.cli.app import app


def call(*words):
    return CliRunner().invoke(app, ["search", *map(str, words)])


def places(*words):
    """The places as rows of CSV."""
    done = call(*words, "--format", "csv")
    assert done.exit_code == 0, done.output
    return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Recordings with a high tone at 5 to 8 s and a low one at 12 to 14.5 s of the first."""
    folder = tmp_path_factory.mktemp("searched") / "field"
    folder.mkdir()
    soundfile.write(folder / "scene.wav", scene_samples(), toy.RATE)
    soundfile.write(folder / "later.wav", scene_samples()[3 * toy.RATE :], toy.RATE)
    ticks = np.arange(2 * toy.RATE) / toy.RATE
    tone = 0.3 * np.sin(6.283 * 3000 * ticks)
    soundfile.write(folder.parent / "call.wav", tone, toy.RATE)
    return folder.parent


@pytest.fixture(scope="module")
def index(home, toy_run):
    from unfreeze.search.embedding import embed

    embed(sorted((home / "field").iterdir()), home / "index", run=toy_run)
    return home / "index"


def test_what_is_like_a_clip_is_found_in_each_recording(index, home):
    rows = places(index, "--like", home / "call.wav", "--top", 2)
    found = {row["file"].rsplit("/", 1)[-1]: row for row in rows}
    assert found.keys() == {"scene.wav", "later.wav"}
    for name, start in (("scene.wav", 5), ("later.wav", 2)):
        row = found[name]
        assert row["label"] == "like"
        assert float(row["score"]) > 0.9
        assert start - 0.97 < float(row["start"]) < float(row["end"]) < start + 3.97


def test_a_part_of_a_recording_is_an_example_and_not_a_result(index, home):
    part = f"{home}/field/scene.wav@0:12-0:14.5"
    rows = places(index, "--like", part, "--top", 1)
    assert [row["file"].rsplit("/", 1)[-1] for row in rows] == ["later.wav"]
    assert abs(float(rows[0]["start"]) - 9) <= 0.97


def test_a_class_and_what_is_uncertain_need_no_network(index):
    rows = places(index, "--class", "low", "--top", 2)
    assert {row["label"] for row in rows} == {"low"}
    for row, start in zip(sorted(rows, key=lambda row: row["file"]), (9, 12), strict=True):
        assert start - 0.97 < float(row["start"]) < float(row["end"]) < start + 3.47
    done = call(index, "--uncertain", "--top", 3)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)


def test_unlike_a_folder_is_what_is_in_none_of_its_recordings(index, home):
    known = home / "known"
    shutil.rmtree(known, ignore_errors=True)
    known.mkdir()
    rng = np.random.default_rng(0)
    noise = (0.3 * rng.normal(size=4 * toy.RATE)).clip(-1, 1)
    soundfile.write(known / "noise.wav", noise, toy.RATE)
    shutil.copy(home / "call.wav", known / "call.wav")
    rows = places(index, "--unlike", known, "--top", 2)
    # The low tone: noise and the high one are there.
    for row, start in zip(sorted(rows, key=lambda row: row["file"]), (9, 12), strict=True):
        assert start - 0.97 < float(row["start"]) < start + 2.5
    # One that cannot be read does not end the search.
    (known / "broken.wav").write_bytes(b"RIFF and no more")
    done = call(index, "--unlike", known, "--top", 2, "--format", "jsonl")
    assert done.exit_code == 0
    assert "warning: left out: " in done.stderr
    assert "broken.wav" in done.stderr
    assert [json.loads(line)["start"] for line in done.stdout.splitlines()] == [
        float(row["start"]) for row in rows
    ]


def test_formats_are_those_of_events(index, home, tmp_path):
    clip = home / "call.wav"
    done = call(index, "--like", clip, "--top", 3, "--format", "jsonl")
    first = json.loads(done.stdout.splitlines()[0])
    assert first.keys() == {"file", "start", "end", "label", "score"}
    raven = call(index, "--like", clip, "--format", "raven")
    assert "give a folder with --out" in str(raven.exception)
    out = tmp_path / "tables"
    done = call(index, "--like", clip, "--top", 4, "--format", "raven", "--out", out)
    assert done.exit_code == 0, done.output
    tables = sorted(path.name for path in out.iterdir())
    assert tables == ["later.wav.selections.txt", "scene.wav.selections.txt"]
    rows = (out / tables[1]).read_text().splitlines()
    assert rows[0].startswith("Selection\tView")
    assert rows[1].split("\t")[7:9] == ["scene.wav", "like"]
    again = call(index, "--like", clip, "--format", "raven", "--out", out)
    assert "is not empty" in str(again.exception)
    done = call(index, "--like", clip, "--format", "csv", "--out", tmp_path / "places.csv")
    assert (tmp_path / "places.csv").read_text().startswith("file,start,end,label,score\n")


def test_what_cannot_be_asked_is_refused(index, home):
    clip = home / "call.wav"
    for words, said in (
        ((), "You asked for nothing: give one of --like"),
        (("--like", clip, "--uncertain"), "You asked for --like and --uncertain"),
        (("--class", "lwo"), "Did you mean 'low'?"),
        (("--like", "none.wav"), "none.wav does not exist"),
        (("--like", f"{clip}@3-2"), "does not end after it starts"),
        (("--like", f"{clip}@1.2.3-4"), "'1.2.3' is no time"),
        (("--like", f"{clip}@50-60"), "is empty from there on"),
        (("--uncertain", "--approximate"), "--approximate is for --like"),
        (("--like", clip, "--approximate"), "has nothing for an approximate search"),
        (("--uncertain", "--format", "txt"), "There is no format 'txt'"),
        (("--uncertain", "--out", "x"), "A table is only printed"),
    ):
        assert said in str(call(index, *words).exception), words
    assert "does not exist" in str(call(home / "nothing", "--uncertain").exception)


def test_a_recording_that_is_gone_is_told(index, home, tmp_path, toy_run):
    from unfreeze.search.embedding import embed

    moved = shutil.copy(home / "field" / "scene.wav", tmp_path / "moved.wav")
    embed([tmp_path / "moved.wav"], tmp_path / "index", run=toy_run)
    (tmp_path / "moved.wav").unlink()
    done = call(tmp_path / "index", "--class", "high")
    assert f"warning: {moved} is no longer there" in done.stderr
    assert done.exit_code == 0
