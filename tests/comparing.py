"""Manifests and records of made-up runs, for the tests of comparisons."""

from pathlib import Path

import numpy as np

from unfreeze.audio.manifest import Clip, Manifest


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
