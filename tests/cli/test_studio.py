"""`unfreeze studio`, as a user calls it; and what is left when it is killed."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

import httpx

import toy
import toy_cli
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.run_progress import read_progress
from unfreeze.pipeline.saved_model import load_clip_model
from unfreeze.serve.json_requests import TOKEN_HEADER

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
REAL = [sys.executable, "-c", "from unfreeze.cli import main; main()"]


class Server:
    """`unfreeze studio` as a process of its own."""

    def __init__(self, program, folder, **env):
        words = [*program, "studio", str(folder), "--port", "0", "--no-browser"]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}
        )
        self.first = self.process.stdout.readline()
        found = re.fullmatch(r"(.+): (http://127\.0\.0\.1:\d+)/#(\S+)\n", self.first)
        assert found, self.first
        self.folder, self.url, self.token = found.groups()
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(self.url)
                return
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def ask(self, what, **content):
        answer = httpx.post(
            f"{self.url}/studio/{what}", json=content, headers={TOKEN_HEADER: self.token},
            timeout=120,
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, test, seconds=900):
        deadline = time.monotonic() + seconds
        while not test(state := self.ask("state")["training"]):
            assert time.monotonic() < deadline, state
            time.sleep(0.1)
        return state

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=120)
        return self.process.returncode, said


@pytest.fixture
def start():
    """Start servers; those that a failed test leaves are ended, which stops their trainings."""
    started = []

    def start(program, folder, **env):
        started.append(Server(program, folder, **env))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.end()


def test_it_serves_until_ctrl_c_and_two_do_not_share_a_folder(tmp_path, start):
    toy.write_sounds(tmp_path / "tones", clips=1)
    server = start(REAL, tmp_path)
    try:
        assert server.folder == str(tmp_path)
        line = server.process.stdout.readline()
        assert line == f"Runs are in {tmp_path / 'runs'}. Press Ctrl-C to stop.\n"
        assert server.ask("browse")["folders"][0]["name"] == "tones"
        second = CliRunner().invoke(app, ["studio", str(tmp_path), "--port", "0", "--no-browser"])
        assert isinstance(second.exception, UnfreezeError)
        assert str(second.exception).startswith("Another unfreeze studio is open for")
    finally:
        code, said = server.end()
    assert (code, said) == (0, "ended\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/none"], "does not exist: give a folder"),
        (["{tmp}/file"], "is a file: give a folder"),
        (["{tmp}", "--runs", "{tmp}/file/runs"], "give another folder with --runs"),
        (["{tmp}", "--host", "no such host"], "no such host or address"),
    ],
)
def test_bad_input_is_refused_with_its_cause(tmp_path, words, message):
    (tmp_path / "file").write_text("x")
    words = [word.format(tmp=tmp_path) for word in words]
    result = CliRunner().invoke(app, ["studio", *words, "--port", "0", "--no-browser"])
    assert isinstance(result.exception, UnfreezeError), result.output
    assert message in str(result.exception)


# Three programs that load Keras, and a training of some hundred epochs.
@pytest.mark.slow
@pytest.mark.needs_backend("torch")
def test_killed_in_training_nothing_is_lost(tmp_path, monkeypatch, start):
    lab = tmp_path / "lab"
    toy.write_sounds(lab / "tones", clips=6)
    # Sums of one thread have one order.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    env = {
        "UNFREEZE_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KERAS_BACKEND": keras.backend.backend(),
    }
    program = [sys.executable, toy_cli.__file__]
    chosen = {"data": "tones", "options": {"backbone": "toy", "schedule": "classic", "epochs": 100}}
    server = start(program, lab, **env)
    line = server.ask("plan", **chosen, name="one")["train"]
    server.ask("train", **chosen, name="one")
    server.until(lambda state: len(state.get("rows", ())) > 3)
    server.end(signal.SIGKILL)
    # The training does not notice; it waits here, as it is short. The next studio finds it.
    run, file = lab / "runs" / "one", lab / "runs" / ".studio" / "one.progress.json"
    os.kill(read_progress(file)["pid"], signal.SIGSTOP)
    server = start(program, lab, **env)
    state = server.ask("state")["training"]
    assert (state["name"], state["state"]) == ("one", "running")
    os.kill(read_progress(file)["pid"], signal.SIGKILL)
    state = server.until(lambda state: state["state"] != "running")
    assert state["state"] == "interrupted"
    server.end(signal.SIGKILL)
    # All is dead now, as after a power cut.
    assert run_folder.is_interrupted(run)
    server = start(program, lab, **env)
    assert server.ask("state")["training"]["state"] == "interrupted"
    server.ask("resume", name="one")
    server.until(lambda state: state["stage"] is not None and state["work"] is None)
    # Ctrl-C at the studio stops the training, too.
    code, said = server.end()
    assert code == 0
    assert "The training of one was stopped. To resume it: unfreeze studio " in said
    assert read_progress(file)["state"] == "interrupted"
    server = start(program, lab, **env)
    server.ask("resume", name="one")
    state = server.until(lambda state: state["state"] != "running")
    assert (state["state"], len(state["rows"])) == ("finished", 200)
    server.end()
    # The same model as without all that.
    words = shlex.split(line)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "whole")
    toy.register(monkeypatch, tmp_path)
    assert CliRunner().invoke(app, words).exit_code == 0
    models = [load_clip_model(path / "model.keras") for path in (run, tmp_path / "whole")]
    for one, two in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, two)
    assert Path(run / "metrics.json").read_text() == (tmp_path / "whole/metrics.json").read_text()
