import os
import re
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
httpx = pytest.importorskip("httpx")

import forked  # noqa: E402
from serving import make_classifier  # noqa: E402
from unfreeze.cli.app import app  # noqa: E402
from unfreeze.errors import UnfreezeError  # noqa: E402
from unfreeze.serve import server  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved classifier, as `predict` and `serve` take it."""
    folder = tmp_path_factory.mktemp("model")
    make_classifier(folder / "data", ("high", "low", "noise")).save(folder / "toy.keras")
    return folder / "toy.keras"


def start(*words):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return forked.start("from unfreeze.cli import main; main()", "serve", *words, env=environment)


@pytest.mark.slow_on("tensorflow")
@pytest.mark.on_each_backend
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("0.0.0.0", marks=pytest.mark.slow)])
def test_it_serves_until_ctrl_c_and_ends_cleanly(model, tmp_path, host):
    sound = next((model.parent / "data").rglob("high_1.wav"))
    # Who lets others in, does so with a token here.
    more = ["--token"] * (host == "0.0.0.0")
    process = start(model, "--port", 0, "--host", host, "--max-mb", 1, "--max-seconds", 30, *more)
    try:
        first = process.stdout.readline().decode()
        assert first.startswith(f"{model} (3 classes) is at http://127.0.0.1:")
        url, _, token = re.search(r"http://\S+", first)[0].partition("/#")
        assert bool(token) is bool(more)
        headers = {"X-Unfreeze-Token": token} if token else {}
        assert httpx.get(f"{url}/labels").status_code == (403 if token else 200)
        limits = httpx.get(f"{url}/labels", headers=headers).json()
        assert (limits["max_mb"], limits["max_seconds"]) == (1.0, 30.0)
        files = {"file": sound.open("rb")}
        answer = httpx.post(f"{url}/predict", files=files, headers=headers, timeout=60)
        assert next(iter(answer.json()["classes"])) == "high"
        foreign = httpx.get(f"{url}/labels", headers={"Host": "evil.example", **headers})
        assert foreign.status_code == (400 if host == "127.0.0.1" else 200)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = (said.decode() for said in process.communicate(timeout=60))
    assert process.returncode == 0
    assert out.endswith("ended\n")
    assert ("without encryption" in err) is (host == "0.0.0.0")
    assert "without authentication" not in err
    assert "Traceback" not in err


def test_a_taken_port_is_said_before_keras_is_imported(tmp_path):
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('keras' in sys.modules))\n"
        "from unfreeze.cli import main\nmain()"
    )
    with server.bind("127.0.0.1", 0) as taken:
        port = server.address_of(taken)[1]
        words = ["serve", str(tmp_path / "none"), "--port", str(port)]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: Port {port} of 127.0.0.1 is in use")
    assert done.stderr.count("\n") == 1
    assert done.stdout == "False\n"


def test_a_run_that_is_not_there_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "none"), "--port", "0"])
    assert isinstance(result.exception, UnfreezeError)
    assert "does not exist" in str(result.exception)


def test_a_missing_extra_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "none"), "--port", "0"])
    assert isinstance(result.exception, UnfreezeError)
    assert "pip install 'unfreeze[serve]'" in str(result.exception)


def test_help_names_every_limit():
    shown = CliRunner().invoke(app, ["serve", "--help"]).output
    for option in ("--host", "--port", "--max-mb", "--max-seconds"):
        assert option in shown
