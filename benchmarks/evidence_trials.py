"""What the trials of `auto` say of two strategies, pair by pair of equal split.

    python -m benchmarks.evidence_trials benchmarks/evidence/spoken-digits/auto-same-groups
        [--strategies two_stage,gradual]

FOLDER holds `seed0`, `seed1` ..., the folders of choices that the study makes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.evidence_auto import accuracy


def pairs(folder, first, second):
    """Differences in points, second less first: for each seed of the study those of its rounds."""
    found = {}
    for choice in sorted(folder.glob("seed*")):
        records = [json.loads(file.read_text()) for file in choice.glob("auto/runs/*.json")]
        by = {(r["strategy"], r["seed"]): accuracy(r) for r in records if "scores" in r}
        rounds = sorted({number for _, number in by})
        both = [n for n in rounds if (first, n) in by and (second, n) in by]
        if both:
            found[choice.name] = [100 * (by[second, n] - by[first, n]) for n in both]
    return found


def main():
    """Print the differences, and their mean over seeds with a t interval."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--strategies", default="two_stage,gradual")
    chosen = options.parse_args()
    found = pairs(chosen.folder, *chosen.strategies.split(","))
    for name, gaps in found.items():
        print(f"{name}: {np.mean(gaps):+.1f} points ({', '.join(f'{gap:+.1f}' for gap in gaps)})")
    means = np.array([np.mean(gaps) for gaps in found.values()])
    every = np.concatenate(list(found.values()))
    half = stats.t.ppf(0.975, len(means) - 1) * stats.sem(means) if len(means) > 1 else np.nan
    print(
        f"{(every > 0).sum()} of {len(every)} pairs in favour; mean over seeds {means.mean():+.1f} "
        f"[{means.mean() - half:.1f}, {means.mean() + half:.1f}]"
    )


if __name__ == "__main__":
    main()
