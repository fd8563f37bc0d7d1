"""What answers on clips say of a class."""

import pytest

from reviewing import write_index
from unfreeze.review.clip_decisions import ClipDecisions
from unfreeze.review.clip_pool import make_pool
from unfreeze.review.label_store import Answer, LabelStore


def said_of(said, label):
    """For each clip: + heard, - not heard, ? cannot be said, a dot where nothing is said."""
    signs = zip(*said.of_class(label), strict=True)
    return "".join("+" if a else "-" if b else "?" if c else "." for a, b, c in signs)


@pytest.mark.parametrize(("several", "cat"), [(False, "--.?-."), (True, "-?.?-.")])
def test_what_is_known_of_each_class(tmp_path, several, cat):
    pool = make_pool(write_index(tmp_path / "index", {"a.wav": 18.0}, several=several), 3.0)
    store, said = LabelStore(tmp_path / "review", {}), ClipDecisions(pool)

    def say(clip, answer, label, asked):
        given = Answer(*pool.place(clip), answer, label, asked, tab="a")
        said.add(store.decide(given, replace=True))

    say(0, "no", None, "cat")
    say(0, "no", None, "dog")
    say(1, "yes", "dog", "dog")
    say(2, "no", None, "dog")
    say(3, "no", None, "cat")
    say(3, "unsure", None, "cat")
    say(4, "other", "background", "dog")
    say(5, "no", None, "cat")
    say(5, "no", None, "dog")
    assert said.take_back(store.undo("a")) == [5]
    assert said_of(said, "cat") == cat
    assert said_of(said, "dog") == "-+-.-."
    assert [one.number for one in said.decisions()] == [2, 3, 4, 6, 7]
    # The history gives the same.
    again = ClipDecisions(pool)
    for one in store.history():
        again.add(one)
    assert said_of(again, "cat") == cat
    assert said_of(again, "dog") == "-+-.-."
