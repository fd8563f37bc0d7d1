"""Verdicts from made-up runs, whose truth is known."""

import json
import re

import numpy as np
import pytest

from comparing import record
from unfreeze.compare.summary import summarize, verdict


def runs(strategy, accuracy, seeds=3, groups=20, clips=10, seen=None, **more):
    """Each group has the same share right."""
    names = [f"g{g}" for g in range(groups) for _ in range(clips)]
    row = (np.arange(groups * clips) % clips) < round(accuracy * clips)
    held = None if seen is None else (np.arange(groups * clips) % clips) < round(seen * clips)
    return [
        record(strategy, seed, right=row, groups=names, seen=held, **more) for seed in range(seeds)
    ]


def test_a_clear_winner():
    records = runs("poor", 0.5, seen=0.8) + runs("good", 0.7, seen=0.8)
    found = summarize(records, ["poor", "good"], grouped=True, planned=6)
    assert [row.strategy for row in found.rows] == ["good", "poor"]
    assert found.rows[0].scores["test"].accuracy == pytest.approx(0.7)
    (test, seen) = found.differences
    assert (test.best, test.other, test.part) == ("good", "poor", "test")
    assert test.value == pytest.approx(0.2)
    assert test.told_apart
    assert not seen.told_apart
    assert verdict(found) == (
        "good is better than poor by 20.0 points [20.0, 20.0] on unseen groups; on new clips of "
        "the trained groups there is no clear difference (+0.0 [0.0, 0.0]).",
    )
    assert (found.groups, found.seeds, found.runs) == (20, 3, 6)
    assert found.notes == ()


def test_what_cannot_be_told_apart_goes_by_cost():
    names = [f"g{g}" for g in range(10) for _ in range(4)]
    records = []
    for seed in range(3):
        # Each is better in half of the groups.
        first = np.repeat(np.arange(10) % 2 == 0, 4)
        records.append(record("slow", seed, right=first, groups=names, seconds=90))
        records.append(record("fast", seed, right=~first, groups=names, seconds=9))
    found = summarize(records, ["slow", "fast"], grouped=True, planned=6)
    assert not found.differences[0].told_apart
    lines = verdict(found)
    assert re.match("(slow|fast) is not clearly better than (slow|fast) on unseen groups", lines[0])
    assert lines[1] == "The cheapest that is not clearly worse than the best: fast (9 s per run)."


def test_only_splits_that_all_have_done_count():
    records = runs("a", 1.0) + runs("b", 0.5)[:2]
    found = summarize(records, ["a", "b"], grouped=True, planned=6)
    assert (found.runs, found.seeds) == (4, 2)
    assert any("4 of 6 runs count" in note for note in found.notes)
    nothing = summarize(records[:1], ["a", "b"], grouped=True, planned=6)
    assert nothing.rows == ()
    assert "nothing to compare yet" in verdict(nothing)[0]


def test_folds_of_a_seed_are_pooled():
    parts = [(["x"] * 4, [1, 1, 1, 1]), (["y"] * 2, [0, 0])]
    records = [
        record("a", 0, fold, right=right, groups=names) for fold, (names, right) in enumerate(parts)
    ]
    found = summarize(records, ["a"], grouped=True, planned=2)
    assert found.rows[0].scores["test"].accuracy == pytest.approx(4 / 6)
    assert found.groups == 2
    assert found.seeds == 1
    assert verdict(found) == ("a has 66.7 % accuracy on unseen groups.",)


def test_a_strategy_that_diverged_is_named_and_not_ranked():
    records = runs("a", 0.9) + runs("b", 0.5)
    records.append({"strategy": "c", "seed": 0, "fold": None, "error": "the loss was not finite"})
    found = summarize(records, ["a", "b", "c"], grouped=True, planned=9)
    assert [row.strategy for row in found.rows] == ["a", "b"]
    assert found.failed == {"c": "the loss was not finite"}
    assert "c diverged: the loss was not finite" in found.notes


def test_notes_warn_of_little():
    few = summarize(runs("a", 0.9, seeds=1, groups=2), ["a"], grouped=True, planned=1)
    assert any("only 2 test groups" in note for note in few.notes)
    assert any("1 seed:" in note for note in few.notes)
    none = summarize(runs("a", 0.9), ["a"], grouped=False, planned=3)
    assert any("no groups" in note for note in none.notes)


def test_plain_is_json():
    found = summarize(runs("a", 0.9) + runs("b", 0.8), ["a", "b"], grouped=True, planned=6)
    plain = json.loads(json.dumps(found.as_plain(), allow_nan=False))
    assert plain["differences"][0]["told_apart"] is True
    assert plain["rows"][0]["scores"]["test"]["interval"] == [0.9, 0.9]
    assert plain["verdict"] == list(verdict(found))
