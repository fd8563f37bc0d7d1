"""A run of `unfreeze train` that is interrupted, or whose disk, cache or memory fails."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

import toy
import unfreeze
from faults import flip, leavings, no_large_files
from unfreeze.core import run_state
from unfreeze.errors import RunError, Stopped, UnfreezeError
from unfreeze.pipeline import run_folder, run_writing
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.pipeline.training import TrainListener

SETTINGS = {"backbone": "toy", "epochs": 3, "batch_size": 4, "learning_rate": 0.005}


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
        monkeypatch.setattr(run_state.Checkpointer, "_is_time", lambda self: True)
        data = toy.write_sounds(folder / "data", clips=6)
        train(data, folder / "whole")
        yield folder


def train(data, out, listener=None, schedule="two_stage", **options):
    settings = TrainOptions(data, schedule, out, **{**SETTINGS, **options})
    return unfreeze.SoundClassifier.from_options(settings, listener)


def broken(place, out, epochs=2):
    with pytest.raises(Killed):
        train(place / "data", out, listener=Kill(epochs))
    return out


@pytest.fixture(scope="module")
def killed(place):
    """A run killed after its second epoch; to be copied."""
    return broken(place, place / "killed")


def same(place, classifier):
    whole = unfreeze.SoundClassifier.load(place / "whole")
    pairs = zip(classifier.model.get_weights(), whole.model.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def history(run):
    with (run / run_folder.HISTORY).open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("epochs", [0, 2, 4])
def test_it_ends_as_if_it_had_not_been_broken_off(place, killed, tmp_path, epochs):
    run = tmp_path / "run"
    shutil.copytree(killed, run) if epochs == 2 else broken(place, run, epochs)
    assert same(place, train(place / "data", run, resume=True))
    assert history(run) == history(place / "whole")
    for name in (run_folder.METRICS, run_folder.AUDIT, run_folder.SPLITS):
        assert (run / name).read_text() == (place / "whole" / name).read_text()
    assert {p.name for p in run.iterdir()} == {p.name for p in (place / "whole").iterdir()}
    # The command that is kept makes the run anew.
    config = yaml.safe_load((run / run_folder.CONFIG).read_text())
    assert "--resume" not in config["command"]
    assert "resume" not in config["options"]


def test_a_run_broken_off_goes_on_only_when_asked_for_and_with_its_own_settings(
    place, killed, tmp_path
):
    run = shutil.copytree(killed, tmp_path / "run")
    with pytest.raises(RunError, match="an interrupted run: resume it with --resume"):
        train(place / "data", run)
    with pytest.raises(RunError, match="give one of them"):
        train(place / "data", run, resume=True, overwrite=True)
    for changed, told in (
        ({"seed": 1}, "options.seed was 0 and is 1"),
        ({"epochs": 5, "test": 0.2}, "options.epochs was 3 and is 5; options.test was 0.15 and"),
    ):
        with pytest.raises(RunError, match=told):
            train(place / "data", run, resume=True, **changed)
    # Nothing of it was touched, so that it ends as above.
    assert contents(run) == contents(killed)


def contents(run):
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_changed_data_are_refused_and_moved_data_are_not(place, killed, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")
    moved = shutil.copytree(place / "data", tmp_path / "moved")
    clip = moved / "high" / "high_0.wav"
    kept = clip.read_bytes()
    clip.write_bytes(kept[:-400])
    with pytest.raises(RunError, match=r"data\.fingerprint was '\w+' and is '\w+'"):
        train(moved, run, resume=True)
    clip.write_bytes(kept)
    assert same(place, train(moved, run, resume=True))


def test_nothing_is_left_to_do_or_nothing_was_begun(place, tmp_path):
    with pytest.raises(RunError, match="finished run: there is nothing to resume"):
        train(place / "data", place / "whole", resume=True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".partial-0123456789abcdef-config.yaml").touch()
    train(place / "data", tmp_path / "new", resume=True, schedule="head_only", epochs=1)
    assert not list((tmp_path / "new").glob(".*"))


def test_killed_between_its_first_files(place, tmp_path):
    run, short = tmp_path / "run", {"schedule": "head_only", "epochs": 1}
    with pytest.raises(Killed):
        train(place / "data", run, listener=Kill(0), **short)
    before = contents(run)
    for name in (run_folder.SCHEDULE, run_folder.SPLITS):
        (run / name).unlink()
    train(place / "data", run, resume=True, **short)
    for name in (run_folder.SCHEDULE, run_folder.SPLITS):
        assert (run / name).read_bytes() == before[name]


def test_two_processes_in_one_folder(place, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from unfreeze import output_folder\n"
        "with output_folder.locked(Path(sys.argv[1])):\n"
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
        with pytest.raises(RunError, match="Another process is writing to"):
            train(place / "data", tmp_path / "run")
    finally:
        other.kill()
        other.wait()
    # A lock is let go when its holder dies, however that is.
    train(place / "data", tmp_path / "run", schedule="head_only", epochs=1)
    assert json.loads((tmp_path / "run" / run_folder.METRICS).read_text())["test"]


# A disk, a cache or memory that fails: what is earned is kept, and said.


class At(TrainListener):
    """Does something when a stage begins to train."""

    def __init__(self, stage, act):
        super().__init__()
        self.stage, self.act, self.now, self.notes = stage, act, "", []

    def on_stage_begin(self, plan):
        self.now = plan.stage

    def on_train_begin(self, logs=None):
        if self.now == self.stage:
            self.act()

    def on_note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize("stage", [pytest.param("head", marks=pytest.mark.slow), "all"])
def test_a_disk_that_is_full_to_the_end_loses_nothing(stage, place, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    run, limit = tmp_path / "run", no_large_files(3000)
    # The rescue goes to another disk: here, to one without the limit.
    original = run_writing._rescue

    def rescue(model):
        limit.__exit__(None, None, None)
        return original(model)

    monkeypatch.setattr(run_writing, "_rescue", rescue)
    with pytest.raises(RunError) as error:
        train(place / "data", run, listener=At(stage, limit.__enter__))
    told = str(error.value)
    assert "The run is trained, but" in told
    assert "repeat the command with --resume" in told
    assert leavings(run) == []
    assert not (run / "model.keras").exists()
    (rescued,) = (tmp_path / "elsewhere").glob("unfreeze-*/model.keras")
    assert str(rescued) in told
    assert same(place, unfreeze.SoundClassifier.load(rescued))
    # With room again: to the same end as if the disk had never been full.
    assert same(place, train(place / "data", run, resume=True))
    for name in (run_folder.METRICS, run_folder.AUDIT, run_folder.SPLITS):
        assert (run / name).read_bytes() == (place / "whole" / name).read_bytes()


def test_where_nothing_can_be_written_at_all_it_is_said_before_any_work(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written .*another --out"):
        train(place / "data", tmp_path / "file" / "run")


def test_a_cache_folder_that_is_removed_meanwhile(place, tmp_path):
    kept = shutil.copytree(place / "cache", tmp_path / "kept")
    try:
        run = train(
            place / "data",
            tmp_path / "run",
            listener=At("head", lambda: shutil.rmtree(place / "cache")),
        )
    finally:
        shutil.rmtree(place / "cache", ignore_errors=True)
        shutil.copytree(kept, place / "cache")
    assert same(place, run)


def test_a_cache_that_was_damaged_between_two_runs(place, tmp_path):
    for file in place.glob("cache/*/*/*"):
        if file.suffix in (".bin", ".f32"):
            flip(file)
    listener = At("", print)
    assert same(place, train(place / "data", tmp_path / "run", listener=listener))
    assert any("the earlier cache was damaged" in note for note in listener.notes)
    again = At("", print)
    assert same(place, train(place / "data", tmp_path / "again", listener=again))
    assert any("'head': reused" in note for note in again.notes)


def test_memory_that_runs_out_keeps_the_run(place, tmp_path):
    def greedy():
        raise MemoryError("7 TiB")

    with pytest.raises(UnfreezeError, match=r"not enough memory .*7 TiB"):
        train(place / "data", tmp_path / "run", listener=At("all", greedy))
    assert same(place, train(place / "data", tmp_path / "run", resume=True))


def test_a_listener_can_stop_a_run(place, tmp_path):
    class Stop(TrainListener):
        def wants_to_stop(self):
            return True

    with pytest.raises(Stopped):
        train(place / "data", tmp_path / "run", listener=Stop())
    assert run_folder.is_interrupted(tmp_path / "run")
    assert same(place, train(place / "data", tmp_path / "run", resume=True))
    assert not run_folder.is_interrupted(tmp_path / "run")
