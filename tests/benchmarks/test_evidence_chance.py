"""What is chance in the study, on made-up accuracies."""

import json

import numpy as np
import pytest
from benchmarks.evidence_chance import accuracies, chance

from comparing import record


def test_strategies_that_differ_by_chance_alone(monkeypatch):
    rng = np.random.default_rng(0)
    tables = [70 + 9 * rng.normal(size=5) + 3 * rng.normal(size=(8, 5)) for _ in range(200)]
    found = [chance(table) for table in tables[:3]]
    # Those decide about `best` alone, which is only looked at in the first three.
    monkeypatch.setattr("benchmarks.evidence_chance.DRAWS", 10)
    found += [chance(table) for table in tables[3:]]
    assert np.sqrt(np.mean([one["residual"] ** 2 for one in found])) == pytest.approx(3, rel=0.05)
    # The mean of the largest of eight standard normal numbers is 1.4236.
    for one in found[:3]:
        assert one["best"] == pytest.approx(1.4236 * one["residual"] / np.sqrt(5), rel=0.01)
    # Of F with 7 and 28 degrees of freedom: 28 / 26.
    assert np.mean([one["f"] for one in found]) == pytest.approx(28 / 26, rel=0.15)


def test_strategies_that_do_differ():
    noise = np.array([[1.0, -1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
    table = np.array([[60.0], [70.0], [80.0]]) + np.array([0.0, 5.0, -5.0]) + noise
    found = chance(table)
    assert found["residual"] == pytest.approx(np.sqrt(6 / 4))
    assert found["f"] == pytest.approx(3 * 100 / 1.5)


def test_strategies_with_fewer_seeds_and_those_left_out_do_not_count(tmp_path):
    right = np.arange(10) < 7
    (tmp_path / "runs").mkdir()
    runs = [("a", 0), ("a", 1), ("b", 1), ("b", 0), ("c", 0), ("d", 0), ("d", 1)]
    for number, (name, seed) in enumerate(runs):
        made = record(name, seed, right=np.roll(right, seed), groups=["g"] * 10)
        (tmp_path / "runs" / f"{number}.json").write_text(json.dumps(made))
    assert accuracies(tmp_path, ("d",)) == {"a": [70.0, 70.0], "b": [70.0, 70.0]}
