"""`unfreeze weights` as a user runs it."""

import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from unfreeze.backbones import pretrained_weights as store
from unfreeze.backbones import yamnet_spec
from unfreeze.cli.weights import weights
from unfreeze.errors import UnfreezeError, WeightsError

APP = typer.Typer()
APP.command()(weights)
SPEC = yamnet_spec.YAMNET_WEIGHTS
SHA256 = SPEC.sha256


@pytest.fixture
def run(tmp_path, monkeypatch, yamnet_weights):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNFREEZE_YAMNET_WEIGHTS", raising=False)
    return lambda *arguments: CliRunner().invoke(APP, [str(a) for a in arguments])


def test_empty_cache_is_shown_with_the_cure(run, tmp_path):
    result = run()
    assert result.exit_code == 0
    assert f"{tmp_path / 'cache' / 'weights' / 'yamnet.safetensors'} (missing)" in result.output
    assert "unfreeze weights --fetch" in result.output


def test_own_file_is_kept_and_then_found(run, yamnet_weights):
    assert run("--path", yamnet_weights).exit_code == 0
    report = json.loads(run("--verify", "--json").output)
    assert report["path"] == str(store.cached_path(SPEC))
    assert report["source"] == f"file {yamnet_weights}"
    assert (report["present"], report["verified"], report["sha256"]) == (True, True, SHA256)
    assert json.loads(run("--json").output)["verified"] is None


def test_fetch_leaves_right_weights_alone(run, yamnet_weights, monkeypatch):
    run("--path", yamnet_weights)
    monkeypatch.setattr(store, "fetch_weights", lambda *a, **k: pytest.fail("fetched again"))
    result = run("--fetch")
    assert result.exit_code == 0
    assert f"sha256 of the tensors {SHA256}" in result.output


def test_fetch_replaces_damaged_weights(run, yamnet_weights, monkeypatch):
    run("--path", yamnet_weights)
    store.cached_path(SPEC).write_bytes(yamnet_weights.read_bytes()[:-4])
    monkeypatch.setattr(
        store,
        "fetch_weights",
        lambda *a, progress: progress(1, 2) or store.install_file(yamnet_weights, SPEC),
    )
    assert run("--fetch").exit_code == 0
    assert store.verify(store.cached_path(SPEC), SPEC) == SHA256


def test_verify_fails_on_missing_and_damaged_weights(run, yamnet_weights):
    assert isinstance(run("--verify").exception, WeightsError)
    run("--path", yamnet_weights)
    store.cached_path(SPEC).write_bytes(yamnet_weights.read_bytes()[:-4])
    assert isinstance(run("--verify").exception, WeightsError)


def test_an_unknown_backbone_is_refused(run):
    error = run("--backbone", "vggish").exception
    assert isinstance(error, UnfreezeError)
    assert "known: yamnet" in str(error)


def test_answers_without_keras():
    code = (
        "import sys, typer; from typer.testing import CliRunner\n"
        "from unfreeze.cli.weights import weights\n"
        "app = typer.Typer(); app.command()(weights)\n"
        "result = CliRunner().invoke(app, []); assert result.exit_code == 0, result.output\n"
        "sys.exit('keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False)
    assert done.returncode == 0
