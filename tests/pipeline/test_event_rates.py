"""Precision, recall, F1 and average precision of counts."""

import numpy as np
import pytest

from unfreeze.pipeline.event_rates import (
    average_precision,
    average_precisions,
    best_precision,
    mean_known,
    polyphonic_score,
    rates,
)


def test_rates_say_none_where_there_is_nothing():
    nothing = {"precision": None, "recall": None, "f1": None}
    assert rates(np.array([0, 0, 0, 0])) == nothing
    assert rates(np.array([0, 2, 0, 0])) == {"precision": 0.0, "recall": None, "f1": 0.0}
    assert rates(np.array([2, 0, 0, 0])) == {"precision": None, "recall": 0.0, "f1": 0.0}
    assert rates(np.array([4, 4, 2, 3])) == {"precision": 0.75, "recall": 0.5, "f1": 0.6}
    assert mean_known([None, 0.5, 1.0]) == 0.75
    assert mean_known([None]) is None


def test_average_precision_by_hand():
    swept = np.array([[4, 10, 4, 4], [4, 4, 2, 3], [4, 5, 3, 3], [4, 1, 1, 1], [4, 0, 0, 0]])
    # Recall 1/4 at 1; to 1/2 at 0.75; to 3/4 at 0.6, where fewer would be 0.4; to 1 at 0.4.
    assert average_precision(swept) == pytest.approx(0.25 * (1 + 0.75 + 0.6 + 0.4))
    assert average_precision(np.array([[4, 0, 0, 0]])) == 0.0
    assert average_precision(np.array([[0, 3, 0, 0]])) is None
    recall, precision = best_precision(np.array([0.5, 0.75, np.nan]), np.array([0.2, 0.4, 1.0]))
    assert (recall.tolist(), precision.tolist()) == ([0, 0.5, 0.75], [0.4, 0.4, 0.4])
    assert [len(part) for part in best_precision(np.array([np.nan]), np.array([1.0]))] == [0, 0]


def test_average_precisions_of_many_classes_are_those_of_each():
    rng = np.random.default_rng(2)
    true = rng.integers(0, 4, (3, 5, 1))
    found = rng.integers(0, 9, (3, 5, 12))
    hit, right = np.minimum(rng.integers(0, 5, (2, 3, 5, 12)), [true + 0 * found, found])
    counts = np.stack([true + 0 * found, found, hit, right], axis=-1)
    areas = average_precisions(counts)
    assert areas.shape == (3, 5)
    for place in np.ndindex(3, 5):
        alone = counts[place]
        if not alone[0, 0]:
            assert np.isnan(areas[place])
            continue
        some = alone[alone[:, 1] > 0]
        recall, precision = best_precision(some[:, 2] / some[:, 0], some[:, 3] / some[:, 1])
        assert areas[place] == pytest.approx((np.diff(recall) * precision[1:]).sum())
    assert np.isnan(areas).any()
    assert (areas > 0).any()


def test_the_polyphonic_score_by_hand():
    # Recall by false alarms in two hours: 1/2 at none, 1 from 20 (10 an hour) on.
    cat = [[4, 24, 4, 4], [4, 2, 2, 2], [4, 0, 0, 0]]
    # None without alarms, 1/2 from 5 an hour on; more than 100 an hour are too many.
    dog = [[2, 302, 2, 2], [2, 11, 1, 1], [2, 5, 0, 5]]
    nothing_there = [[0, 50, 0, 0]] * 3
    counts = np.array([cat, dog, nothing_there])
    # Mean less spread of (1/2, 0), (1/2, 1/2), (1, 1/2): 0, 1/2, 1/2.
    assert polyphonic_score(counts, 2.0) == pytest.approx(0.95 * 0.5)
    assert polyphonic_score(counts[:1], 2.0) == pytest.approx(0.1 * 0.5 + 0.9)
    assert polyphonic_score(counts[2:], 2.0) is None
