"""Which clips are shown, and first: what is right, what is wrong, what nobody knows."""

from pathlib import Path

import numpy as np
import pytest

from unfreeze.errors import RunError
from unfreeze.pipeline.predictions import Prediction
from unfreeze.report.clip_cards import Cards, cell_counts, choose_clips, judge

LABELS = ("cat", "dog", "owl")


def prediction(label, predicted, *scores, path="a.wav", **more):
    more = {"start": None, "end": None, **more}
    given = np.array(scores, np.float32)
    return Prediction(path, label, "g", "test", predicted, max(scores), given, **more)


def test_one_label_per_clip():
    rows = [
        prediction("cat", "cat", 0.6, 0.3, 0.1),
        prediction("cat", "dog", 0.1, 0.8, 0.1),
        prediction("dog", "dog", 0.0, 0.9, 0.1),
    ]
    right, wrong, sure = judge(rows, LABELS, None)
    assert (right.right, right.cells) == (True, ("c0-0",))
    assert (wrong.right, wrong.cells) == (False, ("c0-1",))
    assert wrong.weight == 0.8
    assert right.weight == pytest.approx(0.4)
    assert sure.weight == pytest.approx(0.1)


def test_several_labels_and_what_nobody_knows():
    rows = [
        prediction("cat;dog", "cat", 0.9, 0.3, 0.1),
        prediction("cat;owl?", "cat;owl", 0.9, 0.3, 0.9),
        prediction("", "dog", 0.1, 0.9, 0.4),
        prediction("", "", 0.1, 0.1, 0.4),
    ]
    missed, unsure, wrong, none = judge(rows, LABELS, [0.5, 0.5, 0.5])
    assert missed.cells == ("c0-found", "c1-missed")
    assert not missed.right
    assert missed.weight == pytest.approx(0.2)
    # Whether the owl is heard is not known, so naming it is no mistake.
    assert unsure.cells == ("c0-found",)
    assert unsure.right
    assert wrong.cells == ("c1-wrong",)
    assert (none.right, none.cells) == (True, ())
    counts = cell_counts([missed, unsure, wrong, none])
    assert counts == {"c0-found": 2, "c1-missed": 1, "c1-wrong": 1}


def test_the_most_frequent_mistakes_come_first_and_the_surest_get_pictures_first():
    rows = [
        prediction("cat", "owl", 0.0, 0.0, 0.99, path="lone.wav"),
        prediction("cat", "dog", 0.1, 0.6, 0.3, path="less.wav"),
        prediction("cat", "dog", 0.1, 0.8, 0.1, path="more.wav"),
        *(prediction("owl", "owl", 0.0, 0.0, 0.4 + n / 50, path=f"{n:02}.wav") for n in range(20)),
    ]
    shown = choose_clips(judge(rows, LABELS, None))
    assert [one.row.path for one in shown.mistakes] == ["more.wav", "less.wav", "lone.wav"]
    assert [one.row.path for one in shown.uncertain] == [f"{n:02}.wav" for n in range(12)]
    assert [one.row.path for one in shown.right["owl"]] == [f"{n:02}.wav" for n in range(12, 20)]
    assert [one.row.path for one in shown.by_need()][:3] == ["lone.wav", "more.wav", "less.wav"]
    assert shown.cells == {"c0-1", "c0-2", "c2-2"}


def test_no_more_cards_than_can_be_read():
    wrong = [prediction("cat", "dog", 0.1, 0.8, 0.1) for _ in range(500)]
    right = [prediction(x, x, 0.4, 0.3, 0.3) for x in LABELS for _ in range(500)]
    shown = choose_clips(judge([*wrong, *right], LABELS, None))
    assert len(shown.mistakes) == 200
    assert all(len(own) == 20 for own in shown.right.values())
    assert len(list(shown.by_need())) == 200 + 12 + 60


def test_a_card_says_what_was_taken_for_what_where():
    row = prediction("cat", "dog", 0.1, 0.8, 0.1, start=2.0, end=3.5)
    shown = choose_clips(judge([row], LABELS, None))
    cards = Cards(Path("/nowhere"), None, LABELS, several=False)
    mistakes = cards.sections(shown)[0].html
    assert "cat, taken for <span class='no'>dog</span>" in mistakes
    assert "test, 2.0 to 3.5 s" in mistakes
    assert "The recording is no longer there." in mistakes
    assert mistakes.count("<span id='c0-1'></span>") == 1


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(RunError, match="does not fit"):
        judge([prediction("bat", "dog", 0.1, 0.8, 0.1)], LABELS, None)
    with pytest.raises(RunError, match="does not fit"):
        judge([prediction("cat", "dog", 0.1, 0.8)], LABELS, [0.5, 0.5, 0.5])
