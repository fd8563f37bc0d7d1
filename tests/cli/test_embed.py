"""`unfreeze embed`: an index, resumed and added to, and what it says."""

import shutil
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

import toy
from toy_detection import scene_samples
from unfreeze.cli.app import app
from unfreeze.search.index_folder import open_index


def call(*words):
    return CliRunner().invoke(app, ["embed", *map(str, words)])


@pytest.fixture
def field(tmp_path):
    folder = tmp_path / "field"
    folder.mkdir()
    for number, seconds in enumerate((6, 9, 4)):
        samples = scene_samples()[: seconds * toy.RATE]
        soundfile.write(folder / f"{number}.wav", samples, toy.RATE)
    return folder


def test_it_makes_an_index_adds_to_it_and_says_what_changed(field, toy_run, tmp_path):
    out = tmp_path / "index"
    done = call(field, "--out", out, "--run", toy_run)
    assert done.exit_code == 0, done.output
    assert "3 recordings, 0.01 h, embedded in" in done.stderr
    assert "holds 3 recordings, 22 windows of 64 numbers (a run's classes)" in done.stderr
    shutil.copy(field / "0.wav", field / "3.wav")
    (field / "1.wav").unlink()
    soundfile.write(field / "2.wav", scene_samples()[: 5 * toy.RATE], toy.RATE)
    again = call(field, "--out", out)
    assert again.exit_code == 0
    assert "1 of 3 recordings are in the index already" in again.stderr
    assert "2 recordings, 0.00 h, embedded" in again.stderr
    assert "1.wav is in the index and is no longer there" in again.stderr
    assert len(open_index(out).recordings) == 4


def test_an_unreadable_file_is_reported_and_the_others_are_added(field, toy_run, tmp_path):
    (field / "text.wav").write_text("no sound")
    done = call(field, "--out", tmp_path / "index", "--run", toy_run)
    assert done.exit_code == 1
    assert "error:" in done.stderr
    assert "text.wav" in done.stderr
    assert "holds 3 recordings" in done.stderr


def test_with_approximate_it_makes_a_graph(field, toy_run, tmp_path):
    pytest.importorskip("usearch")
    out = tmp_path / "index"
    assert call(field, "--out", out, "--run", toy_run, "--approximate").exit_code == 0
    before = (out / "neighbours.usearch").read_bytes()
    assert call(field, "--out", out, "--approximate").exit_code == 0
    assert (out / "neighbours.usearch").read_bytes() == before
    shutil.copy(field / "0.wav", field / "3.wav")
    assert call(field, "--out", out, "--approximate").exit_code == 0
    assert (out / "neighbours.usearch").read_bytes() != before


def test_what_cannot_be_used_is_one_message(field, toy_run, tmp_path):
    for words, said in (
        ((field, "--out", toy_run, "--run", toy_run), "is a file"),
        ((field, "--out", field, "--run", toy_run), "holds no unfreeze index"),
        ((field, "--out", tmp_path / "i", "--run", tmp_path), "it is not a run folder"),
        ((tmp_path / "no", "--out", tmp_path / "i", "--run", toy_run), "does not exist"),
    ):
        done = call(*words)
        assert said in str(done.exception), words
    assert not Path(tmp_path / "i").exists()
