"""A disk that is full while a run writes: the training is not lost to it."""

import errno
import json
import shutil

import numpy as np
import pytest

from faults import cut, flip, leavings, no_large_files
from small_runs import TWO, assert_same_weights, make, run, whole
from unfreeze.core import run_state
from unfreeze.core.array_files import read_arrays, write_arrays
from unfreeze.core.callbacks import StageCallback
from unfreeze.errors import RunError

pytestmark = pytest.mark.slow_on("jax")


class Full(StageCallback):
    """The disk is full from the first epoch of a stage on; keeps the notes."""

    def __init__(self, stage):
        super().__init__()
        self.stage, self.texts, self.limit = stage, [], no_large_files(900)

    def on_stage_begin(self, plan):
        self.waits = plan.stage == self.stage

    def on_train_begin(self, logs=None):
        if self.waits:
            self.limit.__enter__()

    def on_note(self, text):
        self.texts.append(text)


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(run_state.Checkpointer, "_is_time", lambda self: True)


@pytest.mark.parametrize(("stage", "recorded"), [("head", 0), ("all", 1)])
def test_the_run_goes_on_and_says_what_it_cannot_keep(stage, recorded, tmp_path):
    model = make()
    full = Full(stage)
    try:
        run(model, TWO, run_dir=tmp_path, callbacks=[full])
    finally:
        full.limit.__exit__(None, None, None)
    assert_same_weights(whole(TWO).model, model)
    told = [note for note in full.texts if "could not be saved" in note]
    # Once for all checkpoints, once for the stage; then nothing more is tried.
    assert [note.split(" could not")[0] for note in told] == [
        "the state within the stage",
        f"stage {stage!r}",
    ]
    assert leavings(tmp_path) == []
    record = json.loads((tmp_path / "fit.json").read_text())
    assert len(record["stages"]) == recorded
    # With room again, it goes on from what was kept.
    again = make()
    run(again, TWO, run_dir=tmp_path)
    assert_same_weights(whole(TWO).model, again)


def test_a_run_that_cannot_even_begin_is_an_error(tmp_path):
    with no_large_files(900), pytest.raises(OSError, match=r"File too large"):
        run(make(), TWO, run_dir=tmp_path)
    assert leavings(tmp_path) == []
    assert not (tmp_path / "fit.json").exists()


@pytest.mark.parametrize("number", [0, 1])
def test_damaged_weights_of_a_stage_are_named_with_the_cure(number, tmp_path):
    class Stop(StageCallback):
        def on_stage_end(self, result):
            self.ended = True

        def wants_to_stop(self):
            return number == 0 or hasattr(self, "ended")

    with pytest.raises(KeyboardInterrupt):
        run(make(), TWO.with_changes(cache="never"), run_dir=tmp_path, callbacks=[Stop()])
    file = tmp_path / f"stage_{number}.safetensors"
    sound = file.read_bytes()
    told = rf"stage_{number}\.safetensors cannot be read .*delete .*fit\.json to start afresh"
    for damage in (flip, cut):
        file.write_bytes(sound)
        damage(file)
        with pytest.raises(RunError, match=told):
            run(make(), TWO.with_changes(cache="never"), run_dir=tmp_path)
    (tmp_path / "fit.json").unlink()
    run(make(), TWO.with_changes(cache="never"), run_dir=tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run; to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    run(make(), TWO, run_dir=folder)
    return folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda r: r["stages"][0].update(weights="../stage_1.safetensors"),
            "have an unexpected name",
        ),
        (lambda r: r["stages"][0].update(weights="/etc/passwd"), "have an unexpected name"),
        (lambda r: r["stages"][0].update(rows=3), "cannot be read"),
        (lambda r: r["run"].pop("seed"), "'seed'"),
        (lambda r: r.update(run=[1]), "cannot be read"),
        (lambda r: r.update(format=1), "format 1, this version reads 2"),
    ],
)
def test_a_record_that_was_changed_by_hand_is_refused(change, told, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "fit.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    with pytest.raises(RunError, match=told) as error:
        run(make(), TWO, run_dir=tmp_path, seed=None)
    assert "to start afresh" in str(error.value)


def test_leavings_of_killed_processes_are_removed(tmp_path):
    for name in (".partial-0-fit.json", ".tmpAb1Cd2"):
        (tmp_path / name).write_text("half")
    (tmp_path / "mine.txt").touch()
    run(make(), TWO, run_dir=tmp_path)
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {
        "fit.json",
        "mine.txt",
        *(f"stage_{i}.safetensors" for i in range(3)),
    }


ARRAYS = {
    "a": np.arange(6, dtype="float32").reshape(2, 3),
    "b": np.array(7, "int64"),
    "c": np.zeros((0, 4), "float64"),
}


def test_arrays_come_back_and_any_changed_bit_is_seen(tmp_path):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    arrays = {**ARRAYS, "d": np.array([1.5, -2], bfloat16), "e": np.array([True, False])}
    file = tmp_path / "f.safetensors"
    write_arrays(file, arrays, "a text")
    found, text = read_arrays(file)
    assert text == "a text"
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(found[name], value)
    # The last 29 bytes are numbers: each counts.
    content = file.read_bytes()
    for place in range(-24, 0):
        file.write_bytes(content)
        flip(file, place)
        with pytest.raises(ValueError, match="checksum"):
            read_arrays(file)


def test_arrays_that_cannot_be_written_are_an_error_of_the_system(tmp_path):
    file = tmp_path / "f.safetensors"
    with no_large_files(900), pytest.raises(OSError, match="too large") as error:
        write_arrays(file, {"a": np.zeros(9000)})
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(file))
    assert list(tmp_path.iterdir()) == []
