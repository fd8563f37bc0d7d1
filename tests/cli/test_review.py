"""`unfreeze review`, as a user calls it."""

import csv
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

import httpx

import forked
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError
from unfreeze.review.label_store import Answer, LabelStore
from unfreeze.serve.json_requests import TOKEN_HEADER


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_a_page_of_recordings_is_served_and_its_labels_are_exported(reviewed, tmp_path):
    folder, _ = reviewed
    out = tmp_path / "review"
    words = [folder / "run", folder / "field", "--length", "2", "--out", out]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import toy_cli; toy_cli.main()"
    server = forked.start(code, "review", *words, "--port", "0", "--no-browser", env=environment)
    try:
        first = server.stdout.readline().decode()
        found = re.fullmatch(r"32 clips to review: (http://127\.0\.0\.1:\d+)/#(\S+)\n", first)
        assert found, first
        url, token = found.groups()

        def ask(what, **content):
            answer = httpx.post(
                f"{url}/review/{what}", json={"tab": "a", **content},
                headers={TOKEN_HEADER: token}, timeout=60,
            )  # fmt: skip
            return answer.raise_for_status().json()

        deadline = time.monotonic() + 60
        while True:
            try:
                question = ask("next", order="quota")["question"]
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        ask("decide", clip=question["clip"], answer="yes", asked=question["asked"])
    finally:
        server.send_signal(signal.SIGINT)
        said, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    assert said.endswith(b"ended\n")
    told = call("review", *words, "--export", "csv")
    assert told.exit_code == 0, told.output
    assert told.output.endswith(f"1 clips in {out / 'labels.csv'}\n")
    (row,) = csv.DictReader((out / "labels.csv").open())
    assert (row["label"], Path(row["recording"]).name) == (
        question["asked"], question["recording"],
    )  # fmt: skip


def test_an_index_is_reviewed_as_it_is(reviewed, tmp_path):
    folder, _ = reviewed
    out = tmp_path / "review"
    words = ("review", folder / "run", folder / "index", "--length", "2", "--out", out)
    told = call(*words, "--export", "folders")
    assert told.output == f"0 clips in {out / 'clips'}\n"
    assert not (out / "index").exists()
    store = LabelStore(out, {"run": str(folder / "run"), "length": 2.0})
    place = folder / "field" / "field-0.wav", 2.0, 4.0
    store.decide(Answer(*place, "yes", "high", "high"))
    assert call(*words, "--export", "folders").output == f"1 clips in {out / 'clips-2'}\n"
    assert [path.parent.name for path in (out / "clips-2").glob("*/*.wav")] == ["high"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{home}/run", "{home}/none"], "none does not exist"),
        (["{home}/data", "{home}/index"], "not a run folder"),
        (["{home}/run", "{home}/index", "{home}/field"], "is an index: give it alone"),
        (["{home}/run", "{home}/index", "--length", "60"], "give a --length"),
        (["{home}/run", "{home}/index", "--export", "xml"], "csv, raven, folders"),
        (["{home}/run", "{home}/index", "--out", "{home}/data"], "holds no review"),
        (["{home}/run", "{home}/data/high", "--length", "2"], "There is no clip to review"),
    ],
)
def test_bad_input_is_refused_with_its_cause(reviewed, tmp_path, words, message):
    words = [word.format(home=reviewed[0], tmp=tmp_path) for word in words]
    words += [] if "--out" in words else ["--out", str(tmp_path / "o")]
    words += [] if "--export" in words else ["--export", "csv"]
    result = call("review", *words)
    assert isinstance(result.exception, UnfreezeError), result.output
    assert message in str(result.exception)
