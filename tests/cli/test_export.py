import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import toy
import unfreeze
from unfreeze.cli.app import app
from unfreeze.errors import ExportError

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli export")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        data = toy.write_sounds(folder / "data", clips=6)
        unfreeze.SoundClassifier.train(data, "head_only", folder / "run", backbone="toy", epochs=2)
    return folder / "run"


def call(*words, **env):
    return subprocess.run(
        [sys.executable, "-c", "from unfreeze.cli import main; main()", *map(str, words)],
        env={**os.environ, **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.needs_backend("tensorflow")
def test_the_command_tells_what_it_measured(run, tmp_path, monkeypatch):
    monkeypatch.setattr("unfreeze.export.check._MEASURING", 0.0)
    out = tmp_path / "web"
    words = ["export", str(run), "--format", "tfjs", "--out", str(out), "--embeddings"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    for text in ("3 test clips of the run", "largest difference", "front end", "times real time"):
        assert text in shown.output
    said = json.loads((tmp_path / "web.json").read_text())
    assert f"{said['bytes'] / 1e6:.1f} MB" in shown.output
    printed = CliRunner().invoke(app, [*words, "--overwrite", "--json"])
    assert json.loads(printed.stdout)["check"]["sounds"] == said["check"]["sounds"]


@pytest.mark.slow
def test_a_user_of_another_backend_gets_the_same_export(run, tmp_path):
    done = call(
        "export", run, "--format", "saved_model", "--out", tmp_path / "m", KERAS_BACKEND="torch"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "m" / "saved_model.pb").is_file()


@pytest.mark.needs_backend("torch")
def test_python_on_another_backend_is_told_which_one_to_use(run):
    with pytest.raises(ExportError, match="set KERAS_BACKEND=tensorflow"):
        unfreeze.export_model(run, "saved_model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "coreml"], "There is no export format 'coreml'"),
        (["--format", "tfjs", "--quantize", "int4"], "it supports float16 and int8"),
        (
            ["--format", "saved_model", "--quantize", "float16"],
            "use litert, onnx, openvino, tfjs for it",
        ),
    ],
)
def test_wrong_words_are_refused_with_the_cure(run, words, message):
    result = CliRunner().invoke(app, ["export", str(run), *words])
    assert isinstance(result.exception, ExportError)
    assert message in str(result.exception)


def test_a_length_is_a_number_or_any(run):
    result = CliRunner().invoke(app, ["export", str(run), "-f", "tfjs", "--length", "long"])
    assert result.exit_code == 2
    assert "neither a number of samples nor 'any'" in result.output
