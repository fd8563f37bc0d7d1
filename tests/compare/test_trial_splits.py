"""The splits of a comparison: nothing leaks, and all strategies share them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparing import manifest, speakers
from unfreeze.audio.split import Split
from unfreeze.compare.strategies import CompareOptions
from unfreeze.compare.trial_splits import has_groups, inner_split, trial_splits
from unfreeze.errors import DataError
from unfreeze.pipeline.train_options import TrainOptions


def splits(data, test=0.33, validation=0.15, **changes):
    train = TrainOptions(Path("data"), test=test, validation=validation)
    return trial_splits(data, CompareOptions(train, Path("out"), **changes))


def groups(data, clips):
    return {data.clips[int(i)].group for i in clips}


@given(st.integers(5, 9), st.integers(2, 6), st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_the_laws(count, takes, seeds):
    data = speakers(count, takes)
    found = splits(data, seeds=seeds)
    assert [trial.seed for trial in found] == list(range(seeds))
    for trial in found:
        split = trial.split
        every = np.concatenate([*split.parts().values(), trial.seen])
        assert sorted(every) == list(range(len(data.clips)))
        unseen = groups(data, split.test)
        assert not unseen & groups(data, np.concatenate([split.train, split.validation]))
        assert groups(data, trial.seen) <= groups(data, split.train)
        assert {data.clips[int(i)].label for i in split.train} == {"a", "b"}


def test_seen_is_the_share_of_validation_by_class():
    (trial,) = splits(speakers(6, 10), seeds=1)
    labels = [speakers(6, 10).clips[int(i)].label for i in trial.seen]
    trained = len(trial.split.train) + len(trial.seen)
    assert labels.count("a") == labels.count("b") == round(0.15 * trained / 2)


def test_folds_test_every_group_once_a_seed():
    data = speakers(6)
    found = splits(data, seeds=2, folds=3)
    assert [trial.name for trial in found][:4] == [
        "seed0-fold0", "seed0-fold1", "seed0-fold2", "seed1-fold0",
    ]  # fmt: skip
    tested = [i for trial in found[:3] for i in trial.split.test]
    assert sorted(tested) == list(range(len(data.clips)))


def test_holdout_is_the_test_part_in_every_run():
    data = speakers(6)
    for trial in splits(data, seeds=3, holdout=("s1", "s4")):
        assert groups(data, trial.split.test) == {"s1", "s4"}
    with pytest.raises(DataError, match=r"No clip is of group s9. The groups are s0, s1"):
        splits(data, holdout=("s9",))


def test_nothing_can_be_held_out_of_data_without_groups():
    data = manifest([(label, f"{label}{i}") for label in "ab" for i in range(20)])
    with pytest.raises(DataError, match="have no groups to hold out: add a `group` column"):
        splits(data, holdout=("nobody",))


def test_without_groups_nothing_is_seen():
    data = manifest([(label, f"{label}{i}") for label in "ab" for i in range(20)])
    assert not has_groups(data)
    assert has_groups(speakers())
    (trial,) = splits(data, seeds=1)
    assert not len(trial.seen)


def test_what_cannot_be_split():
    data = speakers(6)
    with pytest.raises(DataError, match="set --validation and --test above 0"):
        splits(data, validation=0.0)
    named = replace(data, clips=tuple(replace(c, split="train") for c in data.clips))
    with pytest.raises(DataError, match="leave out --folds"):
        splits(named, folds=2)


@given(st.integers(0, 4), st.integers(0, 4))
@settings(deadline=None, max_examples=25)
def test_an_inner_split_holds_no_test_clip(outer_seed, inner_seed):
    data = speakers(8)
    outer = splits(data, seeds=outer_seed + 1)[-1].split
    inner = inner_split(data, outer, inner_seed)
    every = np.concatenate(list(inner.split.parts().values()))
    pool = np.concatenate([outer.train, outer.validation])
    assert sorted(every) == sorted(pool)
    assert not set(every) & set(outer.test)
    assert not groups(data, inner.split.test) & groups(data, inner.split.train)


def test_inner_splits_in_a_row_test_each_group_once():
    # Of unlike sizes, as after clips were held out of some: one way of dividing fits best.
    sizes = {"s0": 16, "s1": 14, "s2": 14, "s3": 13, "t0": 16, "t1": 16}
    data = manifest([(label, s) for s, n in sizes.items() for label in "ab" for _ in range(n)])
    outer = splits(data, holdout=("t0", "t1"))[0].split
    found = [inner_split(data, outer, number) for number in range(8)]
    tested = [groups(data, trial.split.test) for trial in found]
    for four in (tested[:4], tested[4:]):
        assert all(len(names) == 1 for names in four)
        assert set().union(*four) == {"s0", "s1", "s2", "s3"}
    assert [trial.name for trial in found[:2]] == ["seed0", "seed1"]


def test_inner_splits_keep_a_class_of_few_groups_in_training():
    # Only two groups have "b": no trial may be without it.
    rows = [("a", f"s{k}") for k in range(6) for _ in range(4)]
    rows += [("b", name) for name in ("s0", "s1") for _ in range(4)]
    data = manifest(rows)
    pool = Split(np.arange(len(rows)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    for number in range(4):
        split = inner_split(data, pool, number).split
        assert {data.clips[i].label for i in split.train} == {"a", "b"}
        assert len(split.validation)
        assert len(split.test)


def test_inner_splits_want_three_groups():
    data = speakers(2)
    pool = Split(np.arange(len(data.clips)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="2 groups cannot be divided into 3 parts"):
        inner_split(data, pool, 0)
    data = speakers(3)
    pool = replace(pool, train=np.arange(len(data.clips)))
    tested = [groups(data, inner_split(data, pool, number).split.test) for number in range(3)]
    assert sorted(tested, key=str) == [{"s0"}, {"s1"}, {"s2"}]
