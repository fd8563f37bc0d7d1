"""The part of the study that judges the choices of `auto`."""

import json

import numpy as np
import pytest
from benchmarks import evidence_auto
from benchmarks.evidence_auto import MoreSeeds, accuracy, judge_auto

from comparing import record
from unfreeze.compare.options import CompareOptions
from unfreeze.compare.runner import compare
from unfreeze.core.presets import DEFAULT
from unfreeze.options import TrainOptions


@pytest.fixture
def study(sounds, faked, monkeypatch, tmp_path):
    """A study on two seeds that is through."""
    monkeypatch.setattr(evidence_auto, "run_trial", faked)
    train = TrainOptions(sounds, backbone="toy", test=0.3)
    options = CompareOptions(train, tmp_path / "out", (DEFAULT, "head_only", "full"), seeds=2)
    faked.skill = {"full": 1.0, DEFAULT: 0.5}
    compare(options)
    faked.calls.clear()
    return options


def test_a_choice_is_scored_by_the_studys_own_run(study, faked, tmp_path):
    told = []
    with pytest.raises(MoreSeeds):
        judge_auto(study, 60, told.append, a_seed_a_process=True)
    first = len(faked.calls)
    judged = judge_auto(study, 60, told.append, a_seed_a_process=True)
    assert [(one.seed, one.chosen, one.accuracy) for one in judged] == [
        (0, "full", 1.0),
        (1, "full", 1.0),
    ]
    assert all(0.4 < one.default < 0.6 for one in judged)
    assert told[-1].startswith("seed1: full, 1.000 (the default 0.5")
    # Trials only: what the study has run is not run again, by either process.
    names = [name for name, _, _ in faked.calls]
    assert {trial for _, trial, _ in faked.calls} == {"seed0", "seed1", "seed2"}
    assert len(names) == 2 * first
    kept = json.loads((tmp_path / "out" / "auto" / "choices.json").read_text())
    assert [one["chosen"] for one in kept] == ["full", "full"]
    faked.calls.clear()
    assert judge_auto(study, 60, told.append, a_seed_a_process=True) == judged
    assert faked.calls == []


def test_no_trial_sees_the_clips_that_the_study_tests_on(study, faked):
    compare(study)
    judge_auto(study, 60, lambda line: None, a_seed_a_process=False)
    half = len(faked.calls) // 2
    from unfreeze.compare.splits import trial_splits
    from unfreeze.training_data import read_training_data

    outer = trial_splits(read_training_data(study.train).manifest, study)
    for calls, trial in ((faked.calls[:half], outer[0]), (faked.calls[half:], outer[1])):
        assert len(calls) > 5
        used = {int(i) for _, _, s in calls for part in s.parts().values() for i in part}
        assert used <= {*trial.split.train.tolist(), *trial.split.validation.tolist()}
        assert not used & set(trial.split.test.tolist())


def test_a_choice_that_the_study_has_not_run_is_trained(study, faked):
    faked.skill["surgical:last"], faked.skill["full"] = 1.0, 0.5
    judged = judge_auto(study, 60, lambda line: None, a_seed_a_process=False)
    assert [one.chosen for one in judged] == ["surgical:last", "surgical:last"]
    assert [one.accuracy for one in judged] == [1.0, 1.0]
    assert len(list((study.out / "runs").glob("surgical-last-*.json"))) == 2


def test_accuracy_is_that_of_test_clips():
    found = record("full", right=np.array([True, True, False, True]), seen=[False])
    assert accuracy(found) == 0.75
