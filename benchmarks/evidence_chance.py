"""How far below the best in hindsight a strategy is when all are equally good.

    python -m benchmarks.evidence_chance STUDY [--without head_only,classic+epochs=20]

STUDY is a folder of the study's results. What strategy and seed do not explain in
accuracies on the test clips (the residuals of a two-way analysis of variance) is
chance. Of strategies that differ by chance alone the best is above any one named
before by the number printed here; F says whether theirs differ by more (its mean
is about 1 if they do not).
"""

import argparse
from pathlib import Path

import numpy as np

from unfreeze.pipeline.run_folder import read_json

DRAWS = 100_000


def accuracy(record):
    """Of the test clips of a run that did not diverge."""
    found = record["scores"]["test"]
    return float(np.mean(np.equal(found["truth"], found["guess"])))


def accuracies(folder, without=()):
    """By strategy, on the seeds that all of those with most seeds have done, in points."""
    found = {}
    for file in sorted((folder / "runs").glob("*.json")):
        record = read_json(file, "run the study again")
        if "scores" in record and record["strategy"] not in without:
            found.setdefault(record["strategy"], {})[record["seed"]] = 100 * accuracy(record)
    most = max(len(own) for own in found.values())
    return {
        name: [own[seed] for seed in sorted(own)] for name, own in found.items() if len(own) == most
    }


def chance(table):
    """What is chance in accuracies (strategies, seeds).

    Returns:
        `residual`, the standard deviation of a run that neither strategy nor seed
        explains; `best`, how far the best mean is above that of one named before, on
        average, if all strategies are equally good; `f`, the variance of the means
        over what that would give.
    """
    table = np.asarray(table, np.float64)
    strategies, seeds = table.shape
    means = table.mean(axis=1)
    left = table - means[:, None] - table.mean(axis=0) + table.mean()
    residual = float(np.sqrt((left**2).sum() / ((strategies - 1) * (seeds - 1))))
    drawn = np.random.default_rng(0).normal(size=(DRAWS, strategies))
    best = float((drawn.max(axis=1) - drawn[:, 0]).mean()) * residual / np.sqrt(seeds)
    return {"residual": residual, "best": best, "f": seeds * means.var(ddof=1) / residual**2}


def main():
    """Read, reckon, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("study", type=Path)
    options.add_argument("--without", default="")
    chosen = options.parse_args()
    rows = accuracies(chosen.study, chosen.without.split(","))
    found = chance(list(rows.values()))
    best = max(np.mean(row) for row in rows.values())
    for name, row in sorted(rows.items(), key=lambda item: -np.mean(item[1])):
        print(f"  {name}: {np.mean(row):.1f}, {np.mean(row) - best:.1f} from the best")
    print(
        f"{len(rows)} strategies; a run varies by {found['residual']:.1f} points that neither "
        f"strategy nor seed explains.\nIf they were equally good, one named before would be "
        f"{found['best']:.1f} points below the best of them on average. F = {found['f']:.2f}"
    )


if __name__ == "__main__":
    main()
