"""Intervals over groups and seeds, against what theory says."""

import numpy as np
import pytest

from unfreeze.pipeline.bootstrap import group_draws, interval, pooled, resampled


def test_shares():
    hits = np.array([[[1.0, 2.0], [0.0, 4.0]], [[2.0, 2.0], [2.0, 4.0]]])
    counts = np.array([[2.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(pooled(hits, counts), [0.7, 1.0])


def test_the_spread_is_that_of_group_means():
    rng = np.random.default_rng(0)
    # Accuracies of 40 groups around 0.7: one seed, so that only groups are drawn.
    values = rng.normal(0.7, 0.1, 40)
    drawn = resampled(100 * values[None, None], np.full((1, 40), 100.0), 4000)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.002)
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(40), rel=0.05)


def test_seeds_add_their_spread():
    # All groups agree; seeds differ by 0.2: the spread is that of two draws of two seeds.
    hits = np.array([[[6.0] * 30, [8.0] * 30]])
    drawn = resampled(hits, np.full((2, 30), 10.0), 4000)
    assert drawn.std() == pytest.approx(0.1 / np.sqrt(2), rel=0.05)


def test_differences_are_paired():
    rng = np.random.default_rng(1)
    first = rng.uniform(0, 90, (1, 3, 20))
    hits = np.concatenate([first, first + 5])
    drawn = resampled(hits, np.full((3, 20), 100.0))
    np.testing.assert_allclose(drawn[1] - drawn[0], 0.05)
    low, high = interval(drawn[1] - drawn[0])
    assert low == pytest.approx(0.05)
    assert high == pytest.approx(0.05)


def test_a_split_that_tests_a_group_in_one_seed_only():
    counts = np.array([[10.0, 0.0], [0.0, 10.0]])
    drawn = resampled(np.array([[[5.0, 0.0], [0.0, 10.0]]]), counts, 500)
    known = drawn[~np.isnan(drawn)]
    assert 0 < len(known) < 500
    assert known.min() == 0.5
    assert known.max() == 1.0
    assert interval(np.full(3, np.nan)) is None


def test_same_seed_same_draws():
    args = np.random.default_rng(2).uniform(0, 9, (1, 2, 5)), np.full((2, 5), 9.0)
    np.testing.assert_array_equal(resampled(*args, seed=3), resampled(*args, seed=3))
    assert (resampled(*args, seed=3) != resampled(*args, seed=4)).any()


def test_as_many_groups_are_drawn_as_there_are_each_as_often_as_another():
    drawn = np.stack(list(group_draws(7, 3000, seed=0)))
    assert drawn.shape == (3000, 7)
    np.testing.assert_array_equal(drawn.sum(axis=1), 7)
    np.testing.assert_allclose(drawn.mean(axis=0), 1.0, atol=0.06)
    # The seed alone decides: what shares it is paired.
    np.testing.assert_array_equal(np.stack(list(group_draws(7, 50, seed=0))), drawn[:50])
    assert (np.stack(list(group_draws(7, 50, seed=1))) != drawn[:50]).any()
