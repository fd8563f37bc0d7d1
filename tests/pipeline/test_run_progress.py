"""The file that says how far a training is."""

import json
import math
import os
import subprocess
import sys
import time

import pytest

from faults import no_large_files
from unfreeze.errors import DataError, RunError
from unfreeze.pipeline.run_progress import is_being_written, read_progress, recorded


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.progress.json"


def test_it_says_what_is_done_and_how_long_the_rest_takes(file, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with recorded(file, "unfreeze train x", resumes=False) as told:
        first = read_progress(file)
        assert (first["state"], first["pid"]) == ("running", os.getpid())
        assert first["command"] == "unfreeze train x"
        clock[0] += 10
        told.work("Log-mel", 10, 40)
        clock[0] += 20
        told.work("Log-mel", 30, 40)
        found = read_progress(file)
        # 20 in 20 s, and 10 are left.
        assert found["work"] == {"title": "Log-mel", "done": 30, "total": 40}
        assert found["left"] == pytest.approx(10)
        clock[0] += 1
        told.plan([("head", 5), ("all", 3)])
        told.stage("head")
        told.work("Frozen layers, once", 0, 0)
        clock[0] += 4
        told.epoch("head", 1, 5, {"loss": 2.0, "val_loss": math.nan})
        clock[0] += 2
        told.epoch("head", 2, 5, {"loss": 1.0})
        found = read_progress(file)
        assert found["rows"] == [
            {"stage": "head", "epoch": 1, "loss": 2.0},
            {"stage": "head", "epoch": 2, "loss": 1.0},
        ]
        assert found["stages"] == [{"name": "head", "epochs": 5}, {"name": "all", "epochs": 3}]
        # 2 in 6 s, and 3 are left.
        assert (found["stage"], found["work"], found["left"]) == ("head", None, pytest.approx(9))
        told.note("look here")
        told.end_stage("head", 2, "val_loss", 0.5)
    found = read_progress(file)
    assert (found["state"], found["cause"], found["left"]) == ("finished", None, None)
    assert found["ended"] == {"head": {"best_epoch": 2, "monitor": "val_loss", "value": 0.5}}
    assert found["notes"] == ["look here"]


def test_how_it_ended_is_kept_and_the_lock_is_free(file):
    with pytest.raises(KeyboardInterrupt), recorded(file, "c", resumes=False):
        assert is_being_written(file)
        raise KeyboardInterrupt
    assert read_progress(file)["state"] == "interrupted"
    assert not is_being_written(file)
    with pytest.raises(DataError), recorded(file, "c", resumes=False):
        raise DataError("a.wav is no sound")
    found = read_progress(file)
    assert (found["state"], found["cause"]) == ("failed", "a.wav is no sound")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_resumed_run_keeps_the_epochs_before_and_a_new_one_does_not(file):
    with recorded(file, "c", resumes=False) as told:
        told.stage("head")
        for number in (1, 2, 3):
            told.epoch("head", number, 9, {"loss": float(number)})
        told.end_stage("head", 3, "loss", math.inf)
    with recorded(file, "c", resumes=True) as told:
        # The state was saved after the second epoch: the third comes again.
        told.epoch("head", 3, 9, {"loss": 30.0})
        told.epoch("head", 4, 9, {"loss": 4.0})
    rows = read_progress(file)["rows"]
    assert [(row["epoch"], row["loss"]) for row in rows] == [(1, 1), (2, 2), (3, 30), (4, 4)]
    assert read_progress(file)["ended"]["head"]["value"] is None
    with recorded(file, "c", resumes=False):
        assert read_progress(file)["rows"] == []


def test_only_one_process_writes_it_and_a_killed_one_is_seen(file, tmp_path, monkeypatch):
    code = (
        "import sys, pathlib\nfrom unfreeze.pipeline.run_progress import recorded\n"
        "with recorded(pathlib.Path(sys.argv[1]), 'c', False):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "held\n"
        assert is_being_written(file)
        assert read_progress(file)["pid"] == process.pid
        monkeypatch.setattr("unfreeze.pipeline.run_progress._PATIENCE", 0.05)
        again = recorded(file, "c", resumes=False)
        with pytest.raises(RunError, match="another training is writing"), again:
            pass
        assert read_progress(file)["pid"] == process.pid
    finally:
        process.kill()
        process.communicate()
    assert not is_being_written(file)
    assert read_progress(file)["state"] == "running"


def test_a_full_disk_ends_no_training(file):
    with recorded(file, "c", resumes=False) as told:
        with no_large_files(10):
            for number in range(1, 4):
                told.epoch("head", number, 9, {"loss": 1.0})
                told.end_stage("head", number, "loss", 1.0)
        assert read_progress(file)["rows"] == []
        told.end_stage("head", 3, "loss", 1.0)
        assert len(read_progress(file)["rows"]) == 3
    again = recorded(file, "c", resumes=False)
    with no_large_files(10), pytest.raises(RunError, match="cannot be written"), again:
        pass


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"unfreeze_progress": 2}', "[" * 9000,
     '{"unfreeze_progress": 1, "pid": 9, "ended": {}, "rows": [1]}',
     '{"unfreeze_progress": 1, "pid": "9", "ended": {}, "rows": []}',
        '{"unfreeze_progress": 1, "pid": -1, "ended": {}, "rows": []}'],
)  # fmt: skip
def test_what_is_no_progress_file_is_none(file, text):
    file.write_text(text)
    assert read_progress(file) is None
    with recorded(file, "c", resumes=True):
        assert read_progress(file)["rows"] == []


def test_no_file_is_kept_where_none_is_asked_for(tmp_path):
    with recorded(None, "c", resumes=False) as told:
        assert told is None
    assert list(tmp_path.iterdir()) == []
    assert read_progress(tmp_path / "none") is None
    assert not is_being_written(tmp_path / "none")


def test_it_is_json_for_any_program(file):
    with recorded(file, "c", resumes=False):
        assert json.loads(file.read_text("utf-8"))["unfreeze_progress"] == 1
