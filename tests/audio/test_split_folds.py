"""Folds by group."""

import numpy as np
import pytest

from comparing import manifest, speakers
from unfreeze.audio.split import deal_folds
from unfreeze.errors import DataError


def test_folds_share_no_group_and_take_all():
    data = speakers(6)
    folds = deal_folds(data, 3, seed=0)
    assert sorted(np.unique(folds)) == [0, 1, 2]
    for name in {clip.group for clip in data.clips}:
        assert len({f for f, c in zip(folds, data.clips, strict=True) if c.group == name}) == 1
    assert np.bincount(folds).tolist() == [16, 16, 16]


def test_the_seed_divides_anew_and_repeats():
    data = speakers(12)
    first = deal_folds(data, 3, seed=0)
    np.testing.assert_array_equal(first, deal_folds(data, 3, seed=0))
    assert any((first != deal_folds(data, 3, seed=s)).any() for s in (1, 2, 3))


def test_too_few_groups():
    with pytest.raises(DataError, match="4 folds need as many groups, but there are 3"):
        deal_folds(speakers(3), 4, seed=0)
    with pytest.raises(DataError, match="at least 2"):
        deal_folds(manifest([("a", "x"), ("b", "y")]), 1, seed=0)
