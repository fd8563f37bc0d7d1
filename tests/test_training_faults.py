"""A training whose disk, cache or memory fails: what is earned is kept, and said."""

import shutil

import numpy as np
import pytest

import toy
import unfreeze
from faults import flip, leavings, no_large_files
from unfreeze import run_folder, run_writing
from unfreeze.core import checkpoint
from unfreeze.errors import RunError, Stopped, UnfreezeError
from unfreeze.training import TrainListener

SETTINGS = {"backbone": "toy", "epochs": 3, "batch_size": 4, "learning_rate": 0.005}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with toy sounds, and an unbroken run on them."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        monkeypatch.setattr(checkpoint.Checkpointer, "_is_time", lambda self: True)
        toy.write_sounds(folder / "data", clips=6)
        train(folder, folder / "whole")
        yield folder


def train(place, out, **options):
    return unfreeze.SoundClassifier.train(
        place / "data", "two_stage", out, **{**SETTINGS, **options}
    )


def same(place, classifier):
    whole = unfreeze.SoundClassifier.load(place / "whole")
    pairs = zip(classifier.model.get_weights(), whole.model.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


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


@pytest.mark.parametrize("stage", ["head", "all"])
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
        train(place, run, listener=At(stage, limit.__enter__))
    told = str(error.value)
    assert "the run is trained, but" in told
    assert "the same command with --resume does the rest" in told
    assert leavings(run) == []
    assert not (run / "model.keras").exists()
    (rescued,) = (tmp_path / "elsewhere").glob("unfreeze-*/model.keras")
    assert str(rescued) in told
    assert same(place, unfreeze.SoundClassifier.load(rescued))
    # With room again: to the same end as if the disk had never been full.
    assert same(place, train(place, run, resume=True))
    for name in (run_folder.METRICS, run_folder.AUDIT, run_folder.SPLITS):
        assert (run / name).read_bytes() == (place / "whole" / name).read_bytes()


def test_where_nothing_can_be_written_at_all_it_is_said_before_any_work(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written .*another folder with --out"):
        train(place, tmp_path / "file" / "run")


def test_a_cache_folder_that_is_removed_meanwhile(place, tmp_path):
    kept = shutil.copytree(place / "cache", tmp_path / "kept")
    try:
        run = train(
            place,
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
    assert same(place, train(place, tmp_path / "run", listener=listener))
    assert any("what was there was damaged" in note for note in listener.notes)
    again = At("", print)
    assert same(place, train(place, tmp_path / "again", listener=again))
    assert any("'head': reused" in note for note in again.notes)


def test_memory_that_runs_out_keeps_the_run(place, tmp_path):
    def greedy():
        raise MemoryError("7 TiB")

    with pytest.raises(UnfreezeError, match=r"not enough memory .*7 TiB"):
        train(place, tmp_path / "run", listener=At("all", greedy))
    assert same(place, train(place, tmp_path / "run", resume=True))


def test_a_listener_can_stop_a_run(place, tmp_path):
    class Stop(TrainListener):
        def wants_to_stop(self):
            return True

    with pytest.raises(Stopped):
        train(place, tmp_path / "run", listener=Stop())
    assert run_folder.is_broken_off(tmp_path / "run")
    assert same(place, train(place, tmp_path / "run", resume=True))
    assert not run_folder.is_broken_off(tmp_path / "run")
