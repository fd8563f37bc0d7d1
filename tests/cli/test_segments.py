"""`unfreeze segments` and `unfreeze train --add-to`, as a user calls them."""

import json
import shlex
import shutil

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

import toy
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run, and three long recordings with high and low tones in noise."""
    folder = tmp_path_factory.mktemp("segments")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        toy.write_sounds(folder / "data", clips=8)
        words = [
            "--backbone",
            "toy",
            "--epochs",
            "12",
            "--learning-rate",
            "0.01",
            "--batch-size",
            "4",
        ]
        words = ["train", str(folder / "data"), "--out", str(folder / "run"), *words]
        assert CliRunner().invoke(app, [*words, "--schedule", "head_only"]).exit_code == 0
        rng = np.random.default_rng(1)
        (folder / "field" / "deep").mkdir(parents=True)
        for name in ("a", "b", "c", "deep/d"):
            time = np.arange(22_050 * 8) / 22_050
            sound = 0.1 * rng.normal(size=(len(time), 2))
            for begin, pitch in ((1, rng.uniform(2200, 3500)), (5, rng.uniform(180, 350))):
                span = slice(22_050 * begin, 22_050 * (begin + 2))
                sound[span] = 0.3 * np.sin(6.283 * pitch * time[span])[:, None]
            soundfile.write(folder / "field" / f"{name}.flac", sound, 22_050)
        yield folder


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.slow_on("tensorflow")
@pytest.mark.on_each_backend
def test_clips_are_cut_corrected_and_learned_from(home, tmp_path):
    out = tmp_path / "my clips"
    told = call(
        "segments", home / "run", home / "field", "--out", out, "--per-class", "2", "--length", "1"
    )
    assert told.exit_code == 0, told.output
    clips = sorted(out.glob("*/*.flac"))
    assert 2 <= len(clips) <= 6
    for clip in clips:
        info = soundfile.info(clip)
        assert (info.samplerate, info.channels, info.frames) == (22_050, 2, 22_050)
    found = json.loads((out / "segments.json").read_text())
    assert found["unfreeze_segments"] == 1
    assert sorted(row["file"] for row in found["segments"]) == [
        path.relative_to(out).as_posix() for path in clips
    ]
    # The last line is the next command; NEW is for the user to name.
    last = told.output.splitlines()[-1]
    words = [str(tmp_path / "new") if word == "NEW" else word for word in shlex.split(last)]
    (out / "hum").mkdir()
    moved = sorted((out / "low").glob("*.flac"))
    assert moved
    for clip in moved:
        shutil.move(clip, out / "hum" / clip.name)
    done = call(*words[1:])
    assert done.exit_code == 0, done.output
    assert f"low -> hum: {len(moved)}" in done.output
    assert "new classes: hum" in done.output
    assert "old test clips" in done.output
    config = yaml.safe_load((tmp_path / "new" / "config.yaml").read_text())
    assert config["labels"] == ["high", "hum", "low", "noise"]
    # The command in the config repeats the run.
    first = (tmp_path / "new" / "metrics.json").read_text()
    assert call(*shlex.split(config["command"])[1:], "--overwrite").exit_code == 0
    assert (tmp_path / "new" / "metrics.json").read_text() == first


def test_the_least_sure_come_first_when_asked_for(home, tmp_path):
    words = ("segments", home / "run", home / "field", "--recursive", "--out", tmp_path / "o")
    told = call(*words, "--uncertain", "--length", "0.5", "--per-class", "3", "--json")
    report = json.loads(told.stdout)
    assert report["recordings"] == 4
    assert max(report["clips"].values()) == 3
    rows = json.loads((tmp_path / "o" / "segments.json").read_text())["segments"]
    for label in report["clips"]:
        margins = [row["margin"] for row in rows if row["label"] == label]
        assert margins == sorted(margins)
    assert all(row["file"].split("/")[1][3:6] == "_m0" for row in rows)


def test_a_file_that_cannot_be_read_is_reported_and_the_rest_is_done(home, tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    told = call(
        "segments", home / "run", tmp_path / "bad.wav", home / "field/a.flac", "-o", tmp_path / "o"
    )
    assert told.exit_code == 1
    assert told.stderr.count("bad.wav") == 1
    assert list((tmp_path / "o").glob("*/*.flac"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["segments", "{home}/run", "{home}/no.wav", "--out", "{tmp}/o"], "no.wav does not exist"),
        (["segments", "{home}/run", "{home}/data", "--out", "{tmp}/o"], "--recursive"),
        (["segments", "{home}/data", "{home}/field", "--out", "{tmp}/o"], "not a run folder"),
        (["segments", "{home}/run", "{home}/field", "--out", "{home}/data"], "is not empty"),
        (
            ["train", "{home}/data", "--out", "{tmp}/o", "--add-to", "{home}/field"],
            "not a run folder",
        ),
        (["train", "{home}/data", "--out", "{tmp}/o", "--add-to", "{home}/run"], "already"),
        (["train", "{home}/data", "--out", "{tmp}/o", "--negative", "{home}/none"], "--negative"),
        (["train", "{home}/data", "--out", "{tmp}/o", "--background", "{home}/data"], "twice"),
        (
            ["train", "{home}/data", "-o", "{tmp}/o", "--keep-audioset", "--backbone", "toy"],
            "has no classes of its own",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_cause(home, tmp_path, words, message):
    result = call(*[word.format(home=home, tmp=tmp_path) for word in words])
    assert isinstance(result.exception, UnfreezeError), result.output
    assert message in str(result.exception)
    assert not (tmp_path / "o").exists()
