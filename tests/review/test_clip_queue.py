"""The orders in which clips are asked."""

from pathlib import Path

import numpy as np
import pytest

from unfreeze.review.clip_pool import Pool
from unfreeze.review.clip_queue import (
    draw_sample,
    next_alike,
    next_for_quota,
    next_uncertain,
)

LABELS = ("background", "cat", "dog")


def make(scores):
    scores = np.array(scores, np.float16)
    count = len(scores)
    starts = 3.0 * np.arange(count)
    return Pool(
        (Path("/a.wav"),), np.zeros(count, np.int32), starts, starts + 3, LABELS, scores,
        np.arange(count + 1),
    )  # fmt: skip


POOL = make([
    [0.0, 0.9, 0.1],
    [0.1, 0.45, 0.44],
    [0.0, 0.2, 0.8],
    [0.9, 0.04, 0.06],
    [0.1, 0.5, 0.3],
])  # fmt: skip
ALL = np.ones(5, bool)


def in_turn(choose):
    """Ask until nothing is left."""
    free, asked = ALL.copy(), []
    while (clip := choose(free)) is not None:
        asked.append(clip)
        free[clip] = False
    return asked


def test_the_smallest_margin_comes_first():
    assert in_turn(lambda free: next_uncertain(POOL, free)) == [1, 4, 2, 0, 3]
    assert in_turn(lambda free: next_uncertain(POOL, free, 2)) == [2, 3]


def test_the_class_with_the_fewest_labels_comes_first():
    confirmed = {"cat": 0, "dog": 0}

    def choose(free):
        clip = next_for_quota(POOL, free, confirmed)
        if clip is not None:
            confirmed[LABELS[POOL.likeliest()[clip]]] += 1
        return clip

    assert in_turn(choose) == [0, 2, 4, 3, 1]
    assert next_for_quota(POOL, ALL, {"cat": 9}, 1) == 0
    assert next_for_quota(POOL, ALL, {"cat": 9}) == 2


def test_what_is_most_alike_comes_first():
    alike = np.array([0.1, 0.9, 1.0, -0.2, 0.9])
    assert in_turn(lambda free: next_alike(alike, free)) == [2, 1, 4, 0, 3]


def test_a_sample_is_drawn_from_strata_of_score():
    scores = np.random.default_rng(0).random(400)
    among = np.arange(400) % 4 > 0
    sample = draw_sample(scores, among, 7)
    assert [len(part) for part in sample.strata] == [150, 75, 37, 38]
    assert sorted(np.concatenate(sample.strata)) == list(np.flatnonzero(among))
    for lower, upper in zip(sample.strata, sample.strata[1:], strict=False):
        assert scores[lower].max() <= scores[upper].min()
    again = draw_sample(scores, among, 7)
    for one, other in zip(sample.strata, again.strata, strict=True):
        assert np.array_equal(one, other)


def test_strata_are_asked_alike_and_in_their_order():
    sample = draw_sample(np.arange(80.0), np.ones(80, bool), 0)
    known, asked = np.zeros(80, bool), []
    for _ in range(20):
        clip = sample.next(known, np.ones(80, bool))
        known[clip] = True
        asked.append(clip)
    assert [len(part) for part in sample.known_part(known)] == [5, 5, 5, 5]
    for part in sample.strata:
        assert [clip for clip in asked if clip in part] == part[:5].tolist()


def test_a_clip_that_is_shown_elsewhere_only_waits():
    sample = draw_sample(np.arange(80.0), np.ones(80, bool), 0)
    first = sample.strata[0]
    known, free = np.zeros(80, bool), np.ones(80, bool)
    free[first[0]] = False
    assert sample.next(known, free) == first[1]
    known[first[1]] = True
    # It counts only once all before it are known.
    assert len(sample.known_part(known)[0]) == 0
    known[first[0]] = True
    assert len(sample.known_part(known)[0]) == 2


def test_what_was_decided_before_keeps_its_place():
    sample = draw_sample(np.arange(8.0), np.ones(8, bool), 0)
    known = np.ones(8, bool)
    assert sample.next(known, np.ones(8, bool)) is None
    assert sum(len(part) for part in sample.known_part(known)) == 8


def test_equal_scores_are_dealt_by_chance():
    sample = draw_sample(np.zeros(1000), np.ones(1000, bool), 0)
    assert sample.strata[0].mean() == pytest.approx(500, abs=40)
