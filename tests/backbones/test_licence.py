"""Licences of weights: shown first, accepted once, and remembered."""

import dataclasses
import json

import pytest

from unfreeze.backbones import licence
from unfreeze.backbones.birdnet_spec import BIRDNET_WEIGHTS, LICENCE
from unfreeze.backbones.pretrained_weights import resolve_weights, settle_licence
from unfreeze.backbones.yamnet_spec import YAMNET_WEIGHTS
from unfreeze.errors import WeightsError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path))
    monkeypatch.delenv(licence.VARIABLE, raising=False)
    return tmp_path


def test_before_it_is_accepted_nothing_is_looked_for_and_the_message_says_how():
    with pytest.raises(WeightsError) as refused:
        resolve_weights(BIRDNET_WEIGHTS, fetch=False)
    text = str(refused.value)
    assert text.startswith("Licence of the weights of BirdNET 2.4: CC BY-NC-SA 4.0 (https://")
    for part in ("not for commercial use", "Cornell", "--accept-licence", "accept_licence=True"):
        assert part in text
    assert "UNFREEZE_ACCEPT_LICENCE=birdnet" in text


def test_an_acceptance_is_remembered_and_comes_before_the_search_for_weights(cache):
    with pytest.raises(WeightsError, match="Could not find"):
        resolve_weights(BIRDNET_WEIGHTS, fetch=False, accept_licence=True)
    settle_licence(BIRDNET_WEIGHTS, False)
    kept = json.loads((cache / "licences" / "birdnet.json").read_text())
    assert kept["accepted"]["name"] == "CC BY-NC-SA 4.0"


def test_another_text_must_be_accepted_again(cache):
    licence.accept("birdnet", LICENCE, cache)
    assert licence.is_accepted("birdnet", LICENCE, cache)
    stricter = dataclasses.replace(LICENCE, terms=(*LICENCE.terms, "send us a cake"))
    assert not licence.is_accepted("birdnet", stricter, cache)


def test_a_damaged_record_is_no_acceptance(cache):
    licence.accept("birdnet", LICENCE, cache)
    (cache / "licences" / "birdnet.json").write_text("{")
    assert not licence.is_accepted("birdnet", LICENCE, cache)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [("birdnet", True), ("perch, birdnet", True), ("bird", False), ("", False)],
)
def test_the_variable_names_backbones(value, accepted, cache, monkeypatch):
    monkeypatch.setenv(licence.VARIABLE, value)
    assert licence.is_accepted("birdnet", LICENCE, cache) is accepted


def test_a_licence_that_asks_nothing_needs_nothing(cache):
    settle_licence(YAMNET_WEIGHTS, True)
    settle_licence(YAMNET_WEIGHTS, False)
    assert not (cache / "licences").exists()


def test_a_cache_that_cannot_be_written_is_named(cache):
    (cache / "licences").write_text("a file")
    with pytest.raises(WeightsError, match="Set UNFREEZE_CACHE"):
        settle_licence(BIRDNET_WEIGHTS, True)


def test_the_notice_names_licence_authors_and_changes():
    text = LICENCE.notice()
    assert "\n" not in text
    for part in ("CC BY-NC-SA 4.0", LICENCE.url, "Cornell", "not for commercial use", "Changed:"):
        assert part in text
