import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from unfreeze.errors import did_you_mean, show


def test_common_names_stay_as_they_are() -> None:
    assert show(Path("Wald/Größe 1 – ホタル.wav")) == "Wald/Größe 1 – ホタル.wav"


def test_newlines_escapes_and_foreign_bytes_become_visible() -> None:
    assert show("a\nb\x1b[31m.wav") == "a\\nb\\x1b[31m.wav"
    assert show(os.fsdecode(b"caf\xe9.wav")) == "caf\\xe9.wav"
    assert show("\ud83d") == "\\ud83d"


@given(st.text(st.characters(categories=["Cs", "Cc", "L", "S", "P", "Z"])))
def test_any_name_is_one_printable_utf8_line(name: str) -> None:
    shown = show(name)
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown


def test_the_closest_known_word_is_named() -> None:
    assert did_you_mean("epoch", ["name", "epochs", "epoch_rate"]) == " Did you mean 'epochs'?"
    assert did_you_mean("two_stag", {"full": 1, "two_stage": 2}) == " Did you mean 'two_stage'?"


def test_nothing_is_guessed_where_no_word_is_close() -> None:
    assert did_you_mean("zzz", ["name", "epochs"]) == ""
    assert did_you_mean("name", []) == ""


def test_a_known_word_from_outside_is_shown_on_one_line() -> None:
    assert did_you_mean("label", ["la\nbel"]) == " Did you mean 'la\\\\nbel'?"
