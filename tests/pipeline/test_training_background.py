"""Recordings of none of the classes: a class that takes probability and is no event."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import toy
import unfreeze
from unfreeze.audio.entries import is_quiet, quiet_labels
from unfreeze.cli.app import app
from unfreeze.detection.events import find_events

OPTIONS = {"backbone": "toy", "epochs": 25, "batch_size": 8, "learning_rate": 0.01}


def test_the_reserved_name_is_the_silent_class():
    assert quiet_labels(("Background", "background", "dog")) == ("background",)
    assert not is_quiet("background noise")


def test_a_silent_class_is_never_an_event():
    scores = np.tile([0.95, 0.05], (10, 1))
    scores[4:6] = [0.1, 0.9]
    found = find_events(scores, np.arange(10) * 0.48, 0.96, ("background", "dog"), 0.5)
    assert [event.label for event in found] == ["dog"]
    # Not even where another threshold is asked for.
    found = find_events(
        scores, np.arange(10) * 0.48, 0.96, ("background", "dog"), 0.01, merge=False
    )
    assert {event.label for event in found} == {"dog"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """High and low tones; noise of minutes as background, chirps as negatives."""
    folder = tmp_path_factory.mktemp("background")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        toy.write_sounds(folder / "data", clips=10, classes=("high", "low"))
        rng = np.random.default_rng(4)
        for number in range(6):
            write(folder / f"rain/day {number}/long.wav", 0.2 * rng.normal(size=16_000 * 40))
            time = np.arange(16_000) / 16_000
            chirp = 0.3 * np.sin(6.283 * (600 + 300 * time) * time)
            write(folder / f"chirps/{number}.wav", chirp + 0.01 * rng.normal(size=16_000))
        yield folder


def write(path, sound):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, 16_000)


@pytest.fixture(scope="module")
def trained(home):
    return unfreeze.SoundClassifier.train(
        home / "data", "head_only", home / "run",
        background=home / "rain", negative=home / "chirps", **OPTIONS,
    )  # fmt: skip


def test_background_is_one_class_divided_by_recording(home, trained):
    assert trained.labels == ("background", "high", "low")
    rows = list(csv.DictReader((home / "run" / "splits.csv").open()))
    quiet = [row for row in rows if row["label"] == "background"]
    # A row a file: pieces of a recording are in its part.
    assert len(quiet) == len({row["path"] for row in quiet}) == 12
    for kind in ("rain/", "chirps/"):
        assert "train" in {row["split"] for row in quiet if row["path"].startswith(kind)}
    assert {row["split"] for row in quiet} == {"train", "validation", "test"}


@pytest.mark.slow_on("tensorflow")
@pytest.mark.on_each_backend
def test_minutes_of_background_do_not_swamp_the_test(trained):
    test = trained.metrics["test"]
    support = {label: row["support"] for label, row in test["per_class"].items()}
    assert 1 <= support["background"] <= 2 * max(support["high"], support["low"])
    assert test["accuracy"] >= 0.8


def test_noise_gives_events_without_background_and_none_with_it(home, trained, tmp_path):
    plain = unfreeze.SoundClassifier.train(home / "data", "head_only", **OPTIONS)
    rng = np.random.default_rng(9)
    sound = 0.2 * rng.normal(size=16_000 * 20)
    time = np.arange(32_000) / 16_000
    sound[96_000:128_000] = 0.3 * np.sin(6.283 * 3000 * time)
    write(tmp_path / "field.wav", sound)
    events = trained.detect(tmp_path / "field.wav", min_score=0.5)
    assert [event.label for event in events] == ["high"]
    assert 5 <= events[0].start <= 7
    assert events[0].end <= 9
    without = plain.detect(tmp_path / "field.wav", min_score=0.5)
    # Without it the noise is taken for one of the classes.
    alarms = [event for event in without if event.start < 4 or event.end > 10]
    assert alarms


def test_predict_says_that_it_is_none_of_the_classes(home, trained):
    run, file = str(home / "run"), str(home / "rain/day 0/long.wav")
    line = CliRunner().invoke(app, ["predict", run, file]).stdout
    assert line.startswith(f"{file}: none of the classes: background ")
    line = CliRunner().invoke(app, ["predict", run, str(home / "data/high/high_0.wav")]).stdout
    assert "none of the classes" not in line


def test_a_class_folder_named_background_is_the_same(home, tmp_path):
    """No option needed: the name is the rule."""
    toy.write_sounds(tmp_path, clips=6, classes=("high", "noise"))
    (tmp_path / "noise").rename(tmp_path / "background")
    options = {**OPTIONS, "epochs": 8}
    classifier = unfreeze.SoundClassifier.train(tmp_path, "head_only", **options)
    events = classifier.detect(home / "rain/day 0/long.wav", min_score=0.01, merge=False)
    assert "background" in classifier.labels
    assert "background" not in {event.label for event in events}


def test_a_split_column_stays_and_background_is_divided_beside_it(home, tmp_path):
    toy.write_sounds(tmp_path / "d", clips=6, classes=("high", "low"))
    parts = ["train"] * 4 + ["validation", "test"]
    lines = [
        f"{label}/{label}_{n}.wav,{label},{parts[n]}" for label in ("high", "low") for n in range(6)
    ]
    (tmp_path / "d" / "manifest.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    unfreeze.SoundClassifier.train(
        tmp_path / "d", "head_only", tmp_path / "run",
        background=home / "rain", **{**OPTIONS, "epochs": 1},
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "run" / "splits.csv").open()))
    for row in rows:
        if row["label"] != "background":
            assert row["split"] == parts[int(Path(row["path"]).stem[-1])]
    quiet = [row["split"] for row in rows if row["label"] == "background"]
    assert len(quiet) == 6
    assert set(quiet) == {"train", "validation", "test"}
