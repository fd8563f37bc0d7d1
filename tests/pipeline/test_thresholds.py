import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.errors import RunError, UnfreezeError
from unfreeze.pipeline.thresholds import (
    LEVELS,
    at_thresholds,
    choose,
    count,
    counts_of,
    false_alarms,
    rate_interval,
)
from unfreeze.pipeline.wish import FLOOR, Wish

LABELS = ("background", "cat", "dog")


def drawn(seed, sounds=60, background=40, spread=1.5):
    """Sounds of two classes and background, with scores that mostly, but not always, tell."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([rng.integers(1, 3, sounds), np.zeros(background, int)])
    table = np.eye(3)[truth]
    logits = 3 * table - 1.5 + spread * rng.normal(size=table.shape)
    peaks = 1 / (1 + np.exp(-logits))
    return table, peaks, count(LABELS, table, peaks, np.full(len(table), 3.6), sounds)


def test_counting_by_hand():
    table = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, -1]])
    peaks = np.array([[0, 0.9, 0.2], [0, 0.6, 0.9], [0, 0, 0.3], [1, 0.7, 0], [1, 0, 0], [0, 1, 1]])
    counts = count(LABELS, table, peaks, np.full(6, 1800.0), 3)
    at = int(np.searchsorted(LEVELS, 0.5))
    assert counts.there.tolist() == [1, 1, 2]
    assert counts.found[:, at].tolist() == [1, 1, 1]
    # For the dog the last sound is unknown; the cat is not in it.
    assert counts.wrong[:, at].tolist() == [1, 3, 0]
    # Background are the fourth and the fifth; that the class of background is heard is no alarm.
    assert counts.alarms[:, at].tolist() == [0, 1, 0]
    assert counts.hours == 1.0
    assert counts.independent == 3 / 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_the_wished_precision_costs_as_little_recall_as_it_can(seed, precision):
    table, peaks, counts = drawn(seed)
    for number, choice in enumerate(choose(counts, Wish(precision=precision))):
        there = table[:, number] > 0.5

        def measured(level, there=there, number=number):
            taken = peaks[:, number] >= level
            return (taken & there).sum(), (taken & there).sum() / max(taken.sum(), 1)

        able = [measured(level) for level in LEVELS if measured(level)[0]]
        enough = [found for found, share in able if share >= precision]
        assert choice.granted == bool(enough)
        found, share = measured(choice.threshold - 1e-6)
        if enough:
            assert share >= precision - 1e-9
            assert found == max(enough)
        else:
            assert share == pytest.approx(max(share for _, share in able))
        assert choice.recall == pytest.approx(found / there.sum())
        assert choice.precision == pytest.approx(share)
        assert choice.precision_interval[0] <= share <= choice.precision_interval[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_without_a_wish_f1_is_best_among_precise_thresholds(seed):
    _, _, counts = drawn(seed)
    for number, choice in enumerate(choose(counts, Wish())):
        found, wrong = counts.found[number], counts.wrong[number]
        f1 = 2 * found / (found + wrong + counts.there[number])
        precise = (found > 0) & (found >= FLOOR * (found + wrong) - 1e-9)
        best = f1[precise].max() if precise.any() else f1.max()
        own = 2 * choice.precision * choice.recall / (choice.precision + choice.recall)
        assert own == pytest.approx(best)
        assert not precise.any() or choice.precision >= FLOOR - 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 400))
def test_false_alarms_stay_within_the_wish(seed, rate):
    _, peaks, counts = drawn(seed, spread=3.0)
    assert counts.hours == pytest.approx(0.04)
    chosen = choose(counts, Wish(max_false_alarms=rate))
    total, (low, high) = false_alarms(counts, chosen)
    least = counts.alarms[:, -1].sum() / counts.hours
    assert total <= max(rate, least) + 1e-9
    assert low <= total <= high
    # As counted from the scores themselves.
    levels = [choice.threshold - 1e-6 for choice in chosen]
    alarms = (peaks[60:, 1:] >= levels[1:]).sum()
    assert total == pytest.approx(alarms / counts.hours)
    # A stricter wish never lowers a threshold.
    fewer = choose(counts, Wish(max_false_alarms=rate / 2))
    assert all(a.threshold <= b.threshold for a, b in zip(chosen, fewer, strict=True))


def test_the_first_threshold_to_rise_is_that_which_loses_least():
    # Both alarm once; the cat's sounds are well above, the dog's are not.
    table = np.eye(3)[[1, 1, 2, 2, 0, 0]]
    peaks = np.array(
        [[0, 0.99, 0], [0, 0.99, 0], [0, 0, 0.6], [0, 0, 0.6], [0, 0.6, 0], [0, 0, 0.6]]
    )
    counts = count(LABELS, table, peaks, np.full(6, 1800.0), 4)
    _, cat, dog = choose(counts, Wish(max_false_alarms=1))
    assert cat.threshold > 0.6 > dog.threshold
    assert (cat.recall, dog.recall) == (1, 1)
    assert cat.false_alarms == 0
    assert dog.false_alarms == 1


def test_the_exact_interval_of_a_rate():
    # From tables of the Poisson distribution.
    assert rate_interval(0, 1.0) == pytest.approx((0, 3.689), abs=1e-3)
    assert rate_interval(10, 1.0) == pytest.approx((4.795, 18.390), abs=1e-3)
    assert rate_interval(10, 0.5) == pytest.approx((9.590, 36.780), abs=2e-3)


def test_noisy_copies_do_not_make_intervals_narrower():
    table, peaks, once = drawn(3, background=0)
    thrice = count(LABELS, np.tile(table, (3, 1)), np.tile(peaks, (3, 1)), np.ones(180), 60)
    for a, b in zip(choose(once, Wish()), choose(thrice, Wish()), strict=True):
        assert a == b


def test_a_class_without_sounds_or_without_scores():
    table = np.eye(3)[[1, 1, 0]]
    peaks = np.array([[0.9, 0.01, 0.0], [0.9, 0.02, 0.0], [0.9, 0.0, 0.0]])
    counts = count(LABELS, table, peaks, np.ones(3), 2)
    _, cat, dog = choose(counts, Wish(precision=0.9))
    assert (cat.threshold, cat.recall, cat.precision, cat.granted) == (0.5, 0, None, False)
    assert (dog.threshold, dog.recall, dog.recall_interval) == (0.5, None, None)


def test_the_counts_are_kept():
    _, _, counts = drawn(1)
    metrics = json.loads(json.dumps({"threshold_counts": counts.as_plain()}))
    again = counts_of(metrics, LABELS)
    for wish in (Wish(), Wish(precision=0.95), Wish(max_false_alarms=20)):
        assert choose(again, wish) == choose(counts, wish)
    own = [choice.threshold for choice in choose(counts, Wish())]
    assert at_thresholds(again, own) == choose(counts, Wish())
    assert counts_of(None, LABELS) is counts_of({"threshold_counts": None}, LABELS) is None
    metrics["threshold_counts"]["classes"]["cat"]["found"].pop()
    with pytest.raises(RunError, match=r"`threshold_counts` in metrics.json are damaged"):
        counts_of(metrics, LABELS)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"precision": 1.0}, "A precision of 1 cannot be promised: give one above 0 and below 1"),
        ({"precision": float("nan")}, "A precision of nan cannot be promised"),
        ({"max_false_alarms": -1.0}, "-1 false alarms an hour cannot be wished for"),
        ({"max_false_alarms": float("inf")}, "inf false alarms an hour cannot"),
        ({"precision": 0.9, "max_false_alarms": 1.0}, "both wished for: leave out one"),
    ],
)
def test_what_cannot_be_wished_for(wish, message):
    with pytest.raises(UnfreezeError, match=message):
        Wish(**wish)


def test_alarms_without_background_are_not_known():
    _, _, counts = drawn(1, background=0)
    with pytest.raises(UnfreezeError, match="trained without background"):
        choose(counts, Wish(max_false_alarms=1))
    assert all(choice.false_alarms is None for choice in choose(counts, Wish()))
