"""A run of `unfreeze train` that is broken off, and gone on with."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

import toy
import unfreeze
from unfreeze import run_folder
from unfreeze.core import checkpoint
from unfreeze.errors import RunError
from unfreeze.training import TrainListener

SETTINGS = {"backbone": "toy", "epochs": 4, "batch_size": 4, "learning_rate": 0.005}


class Killed(BaseException):
    pass


class Kill(TrainListener):
    def __init__(self, epochs):
        super().__init__()
        self.left = epochs

    def on_epoch_begin(self, epoch, logs=None):
        if self.left == 0:
            raise Killed
        self.left -= 1

    def on_scores(self, metrics):
        if self.left >= 0:
            raise Killed


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with toy sounds, and an unbroken run on them."""
    folder = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        monkeypatch.setattr(checkpoint.Checkpointer, "_is_time", lambda self: True)
        data = toy.write_sounds(folder / "data", clips=6)
        train(data, folder / "whole")
        yield folder


def train(data, out, **options):
    return unfreeze.SoundClassifier.train(data, "two_stage", out, **{**SETTINGS, **options})


def broken(place, out, epochs=2):
    with pytest.raises(Killed):
        train(place / "data", out, listener=Kill(epochs))
    return out


def history(run):
    with (run / run_folder.HISTORY).open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("epochs", [0, 2, 6])
def test_it_ends_as_if_it_had_not_been_broken_off(place, tmp_path, epochs):
    run = broken(place, tmp_path / "run", epochs)
    resumed = train(place / "data", run, resume=True)
    whole = unfreeze.SoundClassifier.load(place / "whole")
    for a, b in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert history(run) == history(place / "whole")
    for name in (run_folder.METRICS, run_folder.AUDIT, run_folder.SPLITS):
        assert (run / name).read_text() == (place / "whole" / name).read_text()
    assert {p.name for p in run.iterdir()} == {p.name for p in (place / "whole").iterdir()}


def test_a_run_broken_off_is_not_begun_anew_by_chance(place, tmp_path):
    run = broken(place, tmp_path / "run")
    with pytest.raises(RunError, match="broken off: go on with it with --resume"):
        train(place / "data", run)
    with pytest.raises(RunError, match="give one of them"):
        train(place / "data", run, resume=True, overwrite=True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": 1}, "options.seed was 0 and is 1"),
        ({"epochs": 5, "test": 0.2}, "options.epochs was 4 and is 5; options.test was 0.15 and"),
    ],
)
def test_a_changed_setting_is_refused_with_what_was_and_is(place, tmp_path, changed, told):
    run = broken(place, tmp_path / "run")
    with pytest.raises(RunError, match=told):
        train(place / "data", run, resume=True, **changed)
    train(place / "data", run, resume=True)


def test_changed_data_are_refused_and_moved_data_are_not(place, tmp_path):
    toy.write_sounds(tmp_path / "data", clips=6)
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(tmp_path / "data", run, listener=Kill(2))
    clip = tmp_path / "data" / "high" / "high_0.wav"
    kept = clip.read_bytes()
    clip.write_bytes(kept[:-400])
    with pytest.raises(RunError, match=r"data\.fingerprint was '\w+' and is '\w+'"):
        train(tmp_path / "data", run, resume=True)
    clip.write_bytes(kept)
    (tmp_path / "data").rename(tmp_path / "moved")
    train(tmp_path / "moved", run, resume=True)


def test_nothing_is_left_to_do_or_nothing_was_begun(place, tmp_path):
    with pytest.raises(RunError, match="finished run: there is nothing to go on with"):
        train(place / "data", place / "whole", resume=True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".partial-0123456789abcdef-config.yaml").touch()
    train(place / "data", tmp_path / "new", resume=True)
    assert not list((tmp_path / "new").glob(".*"))


def test_killed_between_its_first_files(place, tmp_path):
    run = broken(place, tmp_path / "run", 0)
    for name in (run_folder.SCHEDULE, run_folder.SPLITS):
        (run / name).unlink()
    train(place / "data", run, resume=True)
    for name in (run_folder.SCHEDULE, run_folder.SPLITS):
        assert (run / name).read_bytes() == (place / "whole" / name).read_bytes()


def test_two_processes_in_one_folder(place, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from unfreeze import run_folder\n"
        "with run_folder.locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="another process is training in"):
            train(place / "data", tmp_path / "run")
    finally:
        other.kill()
        other.wait()
    # A lock is let go when its holder dies, however that is.
    train(place / "data", tmp_path / "run", epochs=1)
    assert json.loads((tmp_path / "run" / run_folder.METRICS).read_text())["test"]


def test_the_command_in_the_config_does_not_resume(place, tmp_path):
    run = broken(place, tmp_path / "run")
    train(place / "data", run, resume=True)
    config = yaml.safe_load((run / run_folder.CONFIG).read_text())
    assert "--resume" not in config["command"]
    assert "resume" not in config["options"]
