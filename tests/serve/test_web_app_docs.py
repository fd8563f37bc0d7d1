"""docs/serve.md is run as it stands, against a server of this machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx")

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "serve.md"


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S)
    assert found
    return found


def run(words, folder, **options):
    env = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, timeout=60, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path, two_sounds):
    shutil.copy(two_sounds, tmp_path / "new.wav")
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_curl_examples(url, folder, classifier):
    lines = [line for block in blocks("sh") for line in block.splitlines() if "curl" in line]
    assert len(lines) == 4
    shell = [
        run(["sh", "-c", line.replace("http://127.0.0.1:8000", url)], folder) for line in lines
    ]
    plain, finer, labels, health = map(json.loads, shell)
    found = classifier.detect(folder / "new.wav", hop=0.24, min_score=0.3)
    assert [e["start"] for e in finer["events"]] == [e.start for e in found]
    assert plain["classes"] == finer["classes"]
    assert labels["labels"] == list(classifier.labels)
    assert health["status"] == "ok"
    # The answer that is shown has the form of a real one.
    assert set(json.loads(blocks("json")[0])) == set(plain)


def test_the_python_example(url, folder, classifier):
    (code,) = blocks("python")
    code = code.replace("http://127.0.0.1:8000", url)
    shown = run([sys.executable, "-c", code], folder).splitlines()
    events = classifier.detect(folder / "new.wav")
    assert shown == [f"{e.start:.2f} to {e.end:.2f} s: {e.label}" for e in events]
    (folder / "new.wav").write_text("no sound")
    assert run([sys.executable, "-c", code], folder).startswith(
        "new.wav: it holds text, not sound."
    )


def test_the_table_of_options_is_that_of_the_command():
    from unfreeze.cli.serve import serve
    from unfreeze.serve.upload import Limits

    table = dict(re.findall(r"^\| `(--[\w-]+)` \|.*\| `?([\w.]+)`? \|$", GUIDE.read_text(), re.M))
    names = ("host", "port", "max_mb", "max_seconds", "token")
    defaults = dict(zip(names, serve.__defaults__, strict=True))
    assert table == {
        f"--{k.replace('_', '-')}": "off" if v is False else str(v) for k, v in defaults.items()
    }
    limits = Limits()
    assert (limits.max_mb, limits.max_seconds) == (defaults["max_mb"], defaults["max_seconds"])
    assert f"{limits.places} requests are in the line" in GUIDE.read_text()
    assert f"nothing came for {limits.stall_seconds:g} s" in GUIDE.read_text()
    assert f"took more than {limits.upload_seconds / 60:g} minutes" in GUIDE.read_text()
