"""Pairs of trials, from the records that a choice leaves."""

import json

import pytest
from benchmarks.evidence_trials import pairs

from comparing import record


def test_pairs_are_of_equal_split(tmp_path):
    runs = tmp_path / "seed0" / "auto" / "runs"
    runs.mkdir(parents=True)
    rights = {("a", 0): 2, ("b", 0): 3, ("a", 1): 1, ("b", 1): 4, ("a", 2): 4, ("c", 2): 0}
    for (name, number), right in rights.items():
        made = record(name, number, right=[k < right for k in range(4)])
        (runs / f"{name}{number}.json").write_text(json.dumps(made))
    assert pairs(tmp_path, "a", "b") == {"seed0": pytest.approx([25.0, 75.0])}
