"""Manifests and records of made-up runs, and runs that answer at once, for tests of comparisons."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import toy
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.compare import trial


def manifest(rows) -> Manifest:
    """Of (label, group) rows; each clip has content of its own."""
    clips = tuple(
        Clip(Path(f"/data/{i:04}.wav"), label, group, None, 1.0, 16_000, 1, f"content{i}")
        for i, (label, group) in enumerate(rows)
    )
    labels = tuple(sorted({clip.label for clip in clips}))
    return Manifest(Path("/data"), clips, labels, (), "fingerprint")


def speakers(count=6, takes=4, labels=("a", "b")) -> Manifest:
    """Each speaker says each label some times."""
    return manifest(
        [(label, f"s{s}") for s in range(count) for label in labels for _ in range(takes)]
    )


def record(strategy, seed=0, fold=None, *, right, groups=None, seen=None, seconds=1.0):
    """What a run leaves: `right` and `seen` are rows of booleans a clip."""

    def part(hits, names):
        hits = np.asarray(hits, bool)
        names = list(names or [f"g{i}" for i in range(len(hits))])
        known = sorted(set(names))
        return {
            "truth": [0] * len(hits),
            "guess": (~hits).astype(int).tolist(),
            "likelihood": np.where(hits, 0.9, 0.1).tolist(),
            "group": [known.index(name) for name in names],
            "groups": known,
        }

    scores = {"test": part(right, groups)}
    if seen is not None:
        scores["seen"] = part(seen, groups)
    return {
        "strategy": strategy,
        "seed": seed,
        "fold": fold,
        "seconds": seconds,
        "wall_seconds": seconds,
        "epochs": {"head": 3, "all": 2},
        "scores": scores,
        "moved": [
            {"layer": "conv", "group": "block1", "moved": 0.1 * (seed + 1), "statistics": None},
            {"layer": "bn", "group": "block1", "moved": 0.0, "statistics": 0.0},
            {"layer": "dense", "group": "head", "moved": 0.5, "statistics": None},
        ],
    }


@pytest.fixture(scope="session")
def kept_sounds(tmp_path_factory):
    """The sounds of `sounds`, and the caches of all runs on them: decoded once."""
    folder = tmp_path_factory.mktemp("sounds")
    toy.write_sounds(folder / "data", clips=12)
    return folder


@pytest.fixture
def sounds(monkeypatch, tmp_path, kept_sounds):
    """A folder with one subfolder per class, read by the toy backbone."""
    toy.register(monkeypatch, kept_sounds)
    return shutil.copytree(kept_sounds / "data", tmp_path / "data")


class Faked:
    """Stands for `run_trial`: strategies are right as often as `skill` says.

    Attributes:
        calls: (strategy, trial, test clips) of each run.
        skill: share of clips that are right, by strategy; others 0.5.
        stop_after: raises KeyboardInterrupt after so many runs.
    """

    def __init__(self):
        self.calls, self.skill, self.stop_after, self.seconds = [], {}, None, 1.0

    def __call__(self, material, trial, strategy, run_dir=None, callbacks=(), judge=None):
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
    monkeypatch.setattr(trial, "run_trial", fake)
    return fake
