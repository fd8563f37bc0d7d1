"""Processes of the studio: a training that outlives it, and errands that do not."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fake_train import FAKE
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.run_progress import read_progress
from unfreeze.serve.studio_jobs import TIED_PROGRAM, Errands, Training

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM")


@pytest.fixture
def home(tmp_path):
    return tmp_path / "runs" / ".studio"


@pytest.fixture
def training(home):
    made = Training(home, FAKE)
    yield made
    made.close()


def words(home, name="one", *more):
    run = home.parent / name
    return run, ["train", str(home.parent.parent), "--out", str(run), *more]


def until(training, test, seconds=60):
    """Wait until the state passes a test; return it."""
    deadline = time.monotonic() + seconds
    while True:
        state = training.state()
        if test(state):
            return state
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


def has_ended(state):
    return state["state"] != "running"


def has_rows(state):
    return len(state.get("rows", ())) > 2


def test_a_training_is_watched_to_its_end(training, home, monkeypatch):
    monkeypatch.setenv("FAKE_EPOCHS", "8")
    assert training.state() is None
    training.start(*words(home), resumes=False)
    assert training.name() == "one"
    seen = until(training, has_rows)
    assert (seen["state"], seen["stage"], seen["stopping"]) == ("running", "head", False)
    assert seen["command"].startswith("unfreeze train ")
    state = until(training, has_ended)
    assert (state["state"], state["cause"], len(state["rows"])) == ("finished", None, 8)
    assert state["log"] == "training\n"
    assert training.name() is None


def test_only_one_runs_at_a_time(training, home):
    training.start(*words(home), resumes=False)
    with pytest.raises(UnfreezeError, match="the training of one is under way"):
        training.start(*words(home, "two"), resumes=False)
    assert not (home / "two.log").exists()
    with pytest.raises(UnfreezeError, match="no training of two"):
        training.stop("two")


def test_it_is_stopped_as_by_ctrl_c_and_resumed(training, home, monkeypatch):
    training.start(*words(home), resumes=False)
    until(training, has_rows)
    training.stop("one")
    state = until(training, has_ended)
    assert (state["state"], state["cause"], state["stopping"]) == ("interrupted", None, True)
    done = len(state["rows"])
    assert 2 < done < 600
    assert run_folder.is_interrupted(home.parent / "one")
    monkeypatch.setenv("FAKE_EPOCHS", str(done + 2))
    training.start(*words(home, "one", "--resume"), resumes=True)
    state = until(training, has_ended)
    assert state["state"] == "finished"
    assert [row["epoch"] for row in state["rows"]] == list(range(1, done + 3))


def test_another_studio_finds_it_running_and_stops_it(training, home):
    training.start(*words(home), resumes=False)
    until(training, has_rows)
    # As after a kill: the process lives, and the new studio did not start it.
    other = Training(home, FAKE)
    assert other.name() == "one"
    assert other.state()["state"] == "running"
    with pytest.raises(UnfreezeError, match="under way"):
        other.start(*words(home, "two"), resumes=False)
    other.stop("one")
    assert until(other, has_ended)["state"] == "interrupted"
    assert Training(home, FAKE).state()["state"] == "interrupted"


def test_a_killed_training_can_be_resumed_and_one_that_fails_says_why(training, home, monkeypatch):
    training.start(*words(home), resumes=False)
    pid = until(training, has_rows)["pid"]
    os.kill(pid, signal.SIGKILL)
    state = until(training, has_ended)
    assert (state["state"], state["cause"]) == ("interrupted", "training")
    monkeypatch.setenv("FAKE_ERROR", "a.wav is no sound")
    training.start(*words(home, "bad"), resumes=False)
    state = until(training, has_ended)
    assert (state["state"], state["cause"]) == ("failed", "a.wav is no sound")
    assert state["rows"] == []


def test_one_that_ends_without_a_word_has_failed(home):
    training = Training(home, (sys.executable, "-c", "raise SystemExit('error: no such thing')"))
    training.start(*words(home), resumes=False)
    state = until(training, has_ended)
    assert (state["state"], state["cause"]) == ("failed", "no such thing")
    with pytest.raises(UnfreezeError, match="cannot be started"):
        Training(home, ("/no/such/program",)).start(*words(home), resumes=False)


def test_what_an_earlier_run_of_the_name_left_is_not_shown(training, home, monkeypatch):
    monkeypatch.setenv("FAKE_ERROR", "first")
    training.start(*words(home), resumes=False)
    until(training, has_ended)
    monkeypatch.delenv("FAKE_ERROR")
    training.start(*words(home), resumes=False)
    assert training.state()["state"] == "running"
    assert training.state().get("cause") is None


def test_closing_stops_it(training, home):
    training.start(*words(home), resumes=False)
    until(training, has_rows)
    assert training.close() == "one"
    assert read_progress(home / "one.progress.json")["state"] == "interrupted"
    assert training.close() is None


def test_an_errand_returns_what_was_printed_or_why_it_failed(tmp_path):
    errands = Errands()
    done = errands.call(["weights", "--help"])
    assert (done.code, done.cause) == (0, None)
    assert "Usage" in done.out
    failed = errands.call(["inspect", str(tmp_path / "none")])
    assert failed.code == 2
    assert "does not exist" in failed.cause
    # That it is tied to this process does not show.
    assert "Python" not in failed.cause
    slow = Errands((sys.executable, "-c", "import time; time.sleep(60)"), seconds=0.3)
    assert slow.call([]).cause == "it took more than 0.3 s and was ended"


def test_errands_end_with_whoever_started_them(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "from unfreeze.serve.studio_jobs import TIED_PROGRAM\n"
        "*start, tie = TIED_PROGRAM\n"
        "assert 'from unfreeze' in tie\n"
        "program = [*start, tie.partition('from unfreeze')[0] + 'import time; time.sleep(120)']\n"
        "child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,\n"
        "    start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(120)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert _lives(child)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert TIED_PROGRAM[0] == sys.executable


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    # Without a parent that asks, an ended process stays as a name.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


FAKE_ERRAND = """
import json, sys, time
if sys.argv[1] == "serve":
    print("run (2 classes) is at http://127.0.0.1:1234", flush=True)
    time.sleep(60)
if "onnx" in sys.argv:
    sys.exit("error: onnx is not installed")
time.sleep(0.3)
print(json.dumps({"file": "model.tflite", "bytes": 12, "check": {"top_class_agreement": 1.0}}))
"""


def test_an_export_and_a_page_to_listen_on():
    errands = Errands((sys.executable, "-c", FAKE_ERRAND))
    assert errands.exported() is errands.listening() is None
    errands.export("one", "litert", ["export"], "unfreeze export")
    with pytest.raises(UnfreezeError, match="the export of one is under way"):
        errands.export("two", "litert", ["export"], "unfreeze export")
    done = _until(errands.exported, lambda told: told["state"] != "running")
    assert (done["state"], done["file"], done["bytes"]) == ("finished", "model.tflite", 12)
    errands.export("two", "onnx", ["export", "onnx"], "unfreeze export")
    failed = _until(errands.exported, lambda told: told["state"] != "running")
    assert (failed["state"], failed["cause"]) == ("failed", "onnx is not installed")
    errands.listen("one", ["serve"], "unfreeze serve one")
    page = _until(errands.listening, lambda told: told["url"])
    assert (page["run"], page["url"]) == ("one", "http://127.0.0.1:1234")
    threads = threading.active_count()
    errands.listen("one", ["serve"], "unfreeze serve one")
    assert threading.active_count() == threads
    errands.close()
    assert _until(errands.listening, lambda told: told["state"] == "failed")["url"] is None


def _until(look, test, seconds=20):
    deadline = time.monotonic() + seconds
    while not test(look()):
        assert time.monotonic() < deadline, look()
        time.sleep(0.02)
    return look()
