"""A small backbone with small sounds, and runs that are made up at once."""

import numpy as np
import pytest

import toy
from comparing import record
from unfreeze.compare import auto, runner, tune


@pytest.fixture
def sounds(monkeypatch, tmp_path):
    """A folder a class, read by the toy backbone."""
    toy.register(monkeypatch, tmp_path)
    return toy.write_sounds(tmp_path / "data", clips=12)


class Faked:
    """Stands for `run_trial`: strategies are right as often as `skill` says.

    Attributes:
        calls: (strategy, trial, test clips) of each run.
        skill: share of clips that are right, by strategy; others 0.5.
        stop_after: raises KeyboardInterrupt after so many runs.
    """

    def __init__(self):
        self.calls, self.skill, self.stop_after, self.seconds = [], {}, None, 1.0

    def __call__(self, material, trial, strategy, run_dir=None, callbacks=()):
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append((strategy.name, trial.name, trial.split))
        clips = [material.manifest.clips[int(i)] for i in trial.split.test]
        rng = np.random.default_rng(abs(hash((trial.seed, len(clips)))) % 1000)
        right = rng.permutation(len(clips)) < self.skill.get(strategy.name, 0.5) * len(clips)
        return record(
            strategy.name, trial.seed, trial.fold, right=right, groups=[c.group for c in clips],
            seconds=self.seconds,
        )  # fmt: skip


@pytest.fixture
def faked(monkeypatch):
    """No training: `run_trial` answers at once."""
    fake = Faked()
    for module in (runner, auto, tune):
        monkeypatch.setattr(module, "run_trial", fake)
    return fake
