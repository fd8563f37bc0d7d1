"""How many clips have a call: coverage of the interval, and what a sample cannot say."""

import numpy as np
import pytest

from unfreeze.review.call_density import Stratum, estimate_density
from unfreeze.review.clip_queue import draw_sample


@pytest.mark.parametrize("share", [0.002, 0.05, 0.5])
@pytest.mark.parametrize("asked", [5, 25])
def test_the_interval_holds_the_truth(share, asked):
    """In 150 drawn populations of 2,000 clips, with scores that know something of calls."""
    rng, inside, errors = np.random.default_rng(0), 0, []
    for number in range(150):
        truth = rng.random(2000) < share
        scores = rng.normal(size=2000) + 1.5 * truth
        strata = []
        for part in draw_sample(scores, np.ones(2000, bool), number).strata:
            found = int(truth[part[:asked]].sum())
            strata.append(Stratum(len(part), found, asked - found))
        density = estimate_density("dog", strata, number)
        inside += density.low <= truth.sum() <= density.high
        errors.append((density.estimate - truth.sum()) / 2000)
    assert inside / 150 >= 0.92
    assert abs(np.mean(errors)) < 0.02


def test_what_was_heard_to_its_end_is_certain():
    strata = [Stratum(10, 4, 6), Stratum(5, 5, 0)]
    density = estimate_density("dog", strata)
    assert (density.estimate, density.low, density.high) == (9.0, 9.0, 9.0)
    assert (density.clips, density.known, density.found) == (15, 15, 9)


def test_strata_count_by_their_sizes():
    strata = [Stratum(1000, 0, 20), Stratum(100, 10, 10)]
    density = estimate_density("dog", strata)
    assert density.estimate == 50.0
    assert 30 < density.low < 50 < density.high < 200


def test_without_a_call_there_may_be_none():
    density = estimate_density("dog", [Stratum(1000, 0, 20), Stratum(100, 0, 20)])
    assert (density.estimate, density.low) == (0.0, 0.0)
    assert 5 < density.high < 200


def test_unsure_clips_are_left_out_and_told():
    density = estimate_density("dog", [Stratum(100, 5, 5, 10)])
    assert (density.estimate, density.unsure) == (50.0, 10)
    assert (density.low_unsure, density.high_unsure) == (25.0, 75.0)


def test_too_little_gives_no_estimate():
    assert estimate_density("dog", [Stratum(100, 3, 3), Stratum(50, 1, 1)]) is None
    assert estimate_density("dog", [Stratum(100, 20, 20), Stratum(50, 0, 0)]) is None
    assert estimate_density("dog", [Stratum(3, 1, 2)]).estimate == 1.0
