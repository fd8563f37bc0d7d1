"""Cosines by shifted bits: those of float64."""

import numpy as np
import pytest

from made_index import clustered, write_index
from unfreeze.search.likeness import cosines, in_blocks, likeness, unit


def test_cosines_are_those_of_float64_for_all_kinds_of_numbers():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 48)) * 10.0 ** rng.integers(-6, 4, size=(400, 1))
    rows = rows.astype(np.float16)
    # Among them numbers below the smallest normal one, the largest, both zeros.
    assert (np.abs(rows[rows != 0]) < 6e-5).any()
    rows[0, :4] = (65504, -65504, 0.0, -0.0)
    wanted = unit(rng.normal(size=(3, 48)).astype(np.float32))
    exact = rows.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    known = lengths > 1e-6
    expected = (exact @ wanted.T.astype(np.float64)).max(axis=1)[known] / lengths[known]
    found = cosines(rows, wanted.T.copy())
    np.testing.assert_allclose(found[known], expected, atol=2e-6)
    assert np.all(found[~known] == -np.inf)


def test_each_window_has_the_likeness_of_its_most_similar_example(tmp_path):
    # More than a thread reads at once, in three recordings.
    vectors = [clustered(n, seed=n) for n in (20_000, 7, 15_000)]
    vectors[1][3] = 0
    index = write_index(tmp_path / "index", vectors)
    examples = clustered(2, seed=5) * 7
    rows = np.concatenate(vectors).astype(np.float16).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    lengths[20_003] = 1
    each = rows @ unit(examples).T / lengths[:, None]
    found = likeness(index, examples)
    assert found[20_003] == -np.inf
    found[20_003] = 0
    np.testing.assert_allclose(found, each.max(axis=1), atol=1e-5)
    np.testing.assert_array_equal(likeness(index, examples, first=35_000), found[35_000:])


@pytest.mark.parametrize("rows", [range(0), range(5), range(3, 40_000)])
def test_blocks_cover_all_rows_in_order(rows):
    parts = in_blocks(rows, lambda first, end: list(range(first, end)))
    assert [row for part in parts for row in part] == list(rows)
