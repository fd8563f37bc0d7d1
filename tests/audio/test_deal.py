import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.deal import deal

SHARES, RANKS = (0.7, 0.15, 0.15), (0, 2, 1)
UNITS = st.lists(
    st.dictionaries(st.integers(0, 4), st.integers(1, 20), min_size=1), min_size=3, max_size=30
)


def clips_by_part(units: list[dict[int, int]], parts: np.ndarray) -> np.ndarray:
    table = np.zeros((3, 5), dtype=int)
    for unit, part in zip(units, parts, strict=True):
        for label, clips in unit.items():
            table[part, label] += clips
    return table


@given(UNITS, st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_every_part_has_units_and_the_first_has_every_class(
    units: list[dict[int, int]], seed: int
) -> None:
    parts = deal(units, SHARES, RANKS, seed)
    assert set(parts) == {0, 1, 2}
    everything = clips_by_part(units, parts)
    held = everything.sum(axis=0) > 0
    # With three units of different classes all three parts cannot have all.
    if all(len(unit) == held.sum() for unit in units):
        assert (everything[:, held] > 0).all()
    np.testing.assert_array_equal(parts, deal(units, SHARES, RANKS, seed))


@given(st.lists(st.integers(0, 3), min_size=40, max_size=200), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_single_clips_come_as_near_to_the_shares_as_they_can(labels: list[int], seed: int) -> None:
    units = [{label: 1} for label in labels]
    table = clips_by_part(units, deal(units, SHARES, RANKS, seed))
    for label, clips in Counter(labels).items():
        for part, share in enumerate(SHARES):
            assert abs(table[part, label] - share * clips) <= 1.5
    for part, share in enumerate(SHARES):
        assert abs(table[part].sum() - share * len(labels)) <= 3


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (20, (14, 3, 3))],
)
def test_a_rare_class_goes_first_to_training_then_to_test(
    count: int, expected: tuple[int, int, int]
) -> None:
    units = [{0: 1}] * count + [{1: 1}] * 60
    for seed in range(5):
        table = clips_by_part(units, deal(units, SHARES, RANKS, seed))
        assert tuple(table[:, 0]) == expected


def test_six_equal_speakers() -> None:
    units = [dict.fromkeys(range(5), 16)] * 6
    seen = set()
    for seed in range(20):
        parts = deal(units, SHARES, RANKS, seed)
        assert Counter(parts.tolist()) == {0: 4, 1: 1, 2: 1}
        seen.add(tuple(parts))
    assert len(seen) > 5


def cost(units: list[dict[int, int]], parts: tuple[int, ...]) -> float:
    # The distance from the shares alone, each class and the whole alike.
    table = clips_by_part(units, np.array(parts)).astype(float)
    table = np.concatenate([table, table.sum(axis=1, keepdims=True)], axis=1)
    weights = np.array([1.0] * 5 + [5.0])
    return float((((table / table.sum(axis=0)).T - np.array(SHARES)) ** 2).sum(axis=1) @ weights)


def test_few_units_are_dealt_nearly_as_well_as_possible() -> None:
    rng = np.random.default_rng(0)
    losses = []
    for seed in range(12):
        # All units hold all classes, so that no penalty hides the distance.
        units = [{k: int(n) for k, n in enumerate(rng.integers(1, 30, 5))} for _ in range(7)]
        got = cost(units, tuple(deal(units, SHARES, RANKS, seed)))
        choices = itertools.product(range(3), repeat=7)
        best = min(cost(units, c) for c in choices if len(set(c)) == 3)
        losses.append(got - best)
    assert min(losses) >= -1e-9
    assert np.mean(losses) < 0.05


def test_one_huge_unit_does_not_fill_a_small_part() -> None:
    units = [{0: 500}] + [{0: 10}] * 50
    table = clips_by_part(units, deal(units, SHARES, RANKS, 0))
    assert table[:, 0].tolist() == [700, 150, 150]
