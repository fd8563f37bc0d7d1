"""`unfreeze report`: finds out by itself what a folder holds."""

import json

import pytest
from typer.testing import CliRunner

from html_reader import Reader
from reporting import made, own  # noqa: F401
from unfreeze.cli.app import app
from unfreeze.compare.tuning import TABLE
from unfreeze.errors import RunError


def call(folder):
    return CliRunner().invoke(app, ["report", str(folder)])


def test_a_run_and_an_evaluation(own):  # noqa: F811
    done = call(own / "run")
    assert done.output == f"Written to {own / 'run' / 'report.html'}\n"
    reader = Reader((own / "run" / "report.html").read_text("utf-8"))
    assert "Report of a training run" in reader.words
    metrics = json.loads((own / "run" / "metrics.json").read_text())
    (own / "eval").mkdir()
    found = {"run": "somewhere", "root": str(own / "data"), "unfreeze": "0.2", "front_end": {}}
    found["scores"] = {**metrics["test"], "problems": []}
    (own / "eval" / "evaluation.json").write_text(json.dumps(found))
    assert call(own / "eval").exit_code == 0
    reader = Reader((own / "eval" / "report.html").read_text("utf-8"))
    assert "Report of an evaluation" in reader.words


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / TABLE).write_text("{}")
    for folder, said in (
        (tmp_path, "not a run folder"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "search", "holds a search"),
    ):
        done = call(folder)
        assert isinstance(done.exception, RunError)
        with pytest.raises(RunError, match=said):
            raise done.exception
