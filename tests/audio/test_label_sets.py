import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.audio.label_sets import (
    changed,
    classes_in,
    classes_of,
    heard_in,
    is_set,
    read_set,
    set_text,
    split_labels,
    union,
    unsure_in,
)

NAMES = st.sets(st.sampled_from(["cat", "dog", "owl", "pond frog", "why"]))


@given(NAMES, NAMES)
def test_a_text_says_what_it_was_made_of(heard, unsure) -> None:
    text = set_text(heard, unsure)
    assert heard_in(text) == tuple(sorted(heard))
    assert unsure_in(text) == tuple(sorted(unsure - heard))
    assert is_set(text) == (len(heard | unsure) != 1 or not heard)
    assert classes_of(text, several=True) == heard_in(text)
    assert set(classes_in(text, several=True)) == heard | unsure
    assert read_set(split_labels(text), str) == text


@given(NAMES, NAMES, NAMES, NAMES)
def test_heard_in_one_is_heard_in_both(heard, unsure, others, more) -> None:
    both = union(set_text(heard, unsure), set_text(others, more))
    assert both == set_text(heard | others, unsure | more)
    assert both == union(set_text(others, more), set_text(heard, unsure))


def test_a_single_label_is_its_own_class() -> None:
    assert (heard_in("why?"), unsure_in("why?")) == (("why?",), ())
    assert classes_of("why?", several=False) == ("why?",)
    assert not is_set("why?")


def test_marks_of_what_is_not_sure_are_all_taken_off() -> None:
    assert read_set(["cat", "dog??", "owl ?"], str) == "cat;dog?;owl?"


def test_renaming() -> None:
    assert changed("cat;dog;owl?", {"cat": "dog", "dog": "dog", "owl": None}.get) == "dog"


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("cat;dog", ["cat", "dog"]),
        (" cat | dog ", ["cat", "dog"]),
        ("['cat', \"dog\"]", ["cat", "dog"]),
        ("['cat' 'dog']", ["cat", "dog"]),
        ("[cat, dog]", ["cat", "dog"]),
        ("['tree, top']", ["tree, top"]),
        ("[]", []),
        ("", []),
        ("cat, black", ["cat, black"]),
        ("cat,dog", ["cat", "dog"]),
        ("cat & dog", ["cat", "dog"]),
        ("cat+cow", ["cat+cow"]),
    ],
)
def test_what_a_cell_names(cell, parts) -> None:
    assert split_labels(cell, alone={"cat", "dog"}) == parts
