"""The search: better than where it began, repeatable, and resumed."""

import json

import pytest

import networks
from unfreeze.compare import trial
from unfreeze.compare.budget import EnoughRuns
from unfreeze.compare.tuning import TuneOptions, tune
from unfreeze.core.schedule_file import read_schedule
from unfreeze.errors import RunError, UnfreezeError
from unfreeze.pipeline.train_options import TrainOptions

pytest.importorskip("optuna")


def search(sounds, out, trials=12, seed=0, tell=lambda text: None, **changes):
    train = TrainOptions(sounds, backbone="toy", seed=seed)
    return tune(TuneOptions(train, out, trials, **{"splits": 2, **changes}), tell)


class Skilled:
    """Training the top alone is right; other depths are poor, the rate hardly matters."""

    def get(self, name, other):
        return 1.0 if "top:1" in name else 0.6 if "+rate=" in name else 0.3


def test_a_frozen_network_is_refused_at_once(tmp_path):
    pytest.importorskip("onnxruntime")
    file = networks.write_onnx(tmp_path / "net.onnx", outputs=("scores",))
    train = TrainOptions(tmp_path / "none", backbone=str(networks.write_card(file)))
    with pytest.raises(UnfreezeError, match="a search tries schedules that train it"):
        tune(TuneOptions(train, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_it_finds_what_is_better(sounds, tmp_path, faked):
    faked.skill = Skilled()
    found = search(sounds, tmp_path / "out", trials=25)
    assert found.start == pytest.approx(0.6, abs=0.15)
    assert found.accuracy == 1.0
    assert found.schedule.stages[1].train == ["head", "top:1"]
    best = read_schedule(tmp_path / "out" / "best.yaml")
    assert best.stages == found.schedule.stages
    rows = json.loads((tmp_path / "out" / "tuning.json").read_text())["trials"]
    assert len(rows) == 25
    assert rows[0]["strategy"].startswith("two_stage+head_rate=0.001+rate=0.0001")
    tops = [i for i, row in enumerate(rows) if "top:1" in row["strategy"]]
    # Having found it, the search stays near: more often in the second half.
    assert sum(i >= 13 for i in tops) > sum(i < 13 for i in tops)


def test_a_search_broken_off_ends_as_one_that_was_not(sounds, tmp_path, faked):
    faked.skill = Skilled()
    whole = search(sounds, tmp_path / "whole")
    calls = len(faked.calls)
    faked.stop_after = calls + 7
    with pytest.raises(KeyboardInterrupt):
        search(sounds, tmp_path / "broken")
    faked.stop_after = None
    again = search(sounds, tmp_path / "broken")
    assert again.rows == whole.rows
    assert len(faked.calls) == 2 * calls


class Scattered:
    """Any share, as the name happens to fall."""

    def get(self, name, other):
        return sum(map(ord, name)) % 11 / 10


def test_proposals_that_are_poor_on_the_first_split_are_given_up(sounds, tmp_path, faked):
    faked.skill = Scattered()
    lines = []
    found = search(sounds, tmp_path / "out", trials=20, tell=lines.append)
    pruned = [row for row in found.rows if row["pruned"]]
    assert pruned
    assert all(row["splits"] == 1 for row in pruned)
    assert sum("stopped after the first split" in line for line in lines) == len(pruned)


def test_diverged_is_the_worst_and_ends_nothing(sounds, tmp_path, faked, monkeypatch):
    def diverge(material, trial, strategy, run_dir=None, callbacks=()):
        if "head_rate=0.001+" in strategy.name:
            return faked(material, trial, strategy, run_dir)
        failed = {"strategy": strategy.name, "seed": trial.seed, "fold": None}
        return {**failed, "error": "the loss was not finite"}

    monkeypatch.setattr(trial, "run_trial", diverge)
    found = search(sounds, tmp_path / "out", trials=3)
    assert [row["accuracy"] for row in found.rows[1:]] == [0.0, 0.0]
    assert found.rows[1]["loss"] is None
    assert found.accuracy == found.start


def test_time_is_over(sounds, tmp_path, faked):
    lines = []
    found = search(sounds, tmp_path / "out", budget=1e-6, tell=lines.append)
    assert len(found.rows) == 1
    assert lines[-1] == "the time is up after 1 of 12 proposals"


def test_refused(sounds, tmp_path, faked):
    with pytest.raises(UnfreezeError, match="trials is 0"):
        search(sounds, tmp_path / "out", trials=0)
    search(sounds, tmp_path / "out", trials=1)
    with pytest.raises(RunError, match="seed was 0 and is 1"):
        search(sounds, tmp_path / "out", trials=1, seed=1)


def test_a_process_does_its_share_and_the_next_goes_on(sounds, tmp_path, faked):
    train = TrainOptions(sounds, backbone="toy")
    options = TuneOptions(train, tmp_path / "out", trials=3, splits=2)
    with pytest.raises(EnoughRuns):
        tune(options, most=3)
    assert len(faked.calls) == 3
    assert len(tune(options, most=3).rows) == 3
    assert len(faked.calls) == 6
