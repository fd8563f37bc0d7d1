"""The study of schedules for a head on the last layer: docs/evidence.md tells of it.

    python -m benchmarks.evidence FOLDER [--quick] [--only spoken-digits]
        [--results benchmarks/evidence]

FOLDER holds the data sets `spoken-digits/manifest.csv` and `animal-sounds/`. All
strategies are screened on 2 seeds; then the best six by accuracy on the test
part, and the named baselines, go on to 5 seeds. Each run that has ended is
kept in the results folder and is not repeated: stop it when you like, start it again.
`--quick` compares four strategies on 2 seeds with few epochs, in a folder of its own.
"""

import argparse
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from unfreeze.cli.compare_display import run_line
from unfreeze.cli.renew import OPTION, renew, runs_a_process
from unfreeze.compare.budget import EnoughRuns
from unfreeze.compare.comparison import CompareListener, compare
from unfreeze.compare.strategies import CompareOptions
from unfreeze.compare.summary import verdict
from unfreeze.core.estimate import in_words
from unfreeze.pipeline.train_options import TrainOptions, default_of

# 100 epochs of classic's second stage, which nothing ends early, would take longer than
# all the rest; its best epoch is kept, and comes sooner.
CLASSIC = "classic+epochs=20"
BASELINES = ("head_only", "full", CLASSIC, "two_stage", "gradual")
RATES = ("1e-3", "3e-4", "1e-4", "3e-5")
GRID = tuple(
    "two_stage" if (policy, rate) == ("frozen", "1e-4")
    else f"two_stage+batch_norm={policy}+rate={rate}"
    for policy in ("frozen", "affine", "train")
    for rate in RATES
)  # fmt: skip
OTHERS = ("surgical:first", "surgical:last", "two_stage+fuse=off", "two_stage+layer_decay=0.8")
SCREEN = tuple(dict.fromkeys((*BASELINES, *GRID, *OTHERS)))
QUICK = ("head_only", "full+epochs=4", "two_stage+epochs=4", "surgical:last+epochs=4")
SCREEN_SEEDS, FINAL_SEEDS, CARRIED = 2, 5, 6


@dataclass(frozen=True)
class DataSet:
    """Where it lies in the folder, and which share of it is tested."""

    path: str
    test: float


# Two of six speakers; a usual share of clips.
DATA = {
    "spoken-digits": DataSet("spoken-digits/manifest.csv", 0.33),
    "animal-sounds": DataSet("animal-sounds", default_of("test")),
}


class Lines(CompareListener):
    """A line a run, and the time left."""

    def __init__(self):
        super().__init__()
        self.running = False

    def on_run_begin(self, strategy, trial, done, left):
        self.running = True
        time = "" if left is None else f", about {in_words(left)} left"
        print(f"{done} runs done{time}: {strategy}, {trial}", flush=True)

    def on_run_end(self, record):
        if self.running:
            print(f"  {run_line(record)}", flush=True)


# As in version 0.1.0: the classic head on the embedding, the sounds as they are.
PLAIN = {"taps": "none", "augment": "none", "class_weight": "none"}


def options_of(folder, results, name, strategies, seeds, **settings):
    """The comparison on a data set."""
    chosen = DATA[name]
    train = TrainOptions(folder / chosen.path, test=chosen.test, **settings)
    return CompareOptions(train, results / name, strategies, seeds)


def study(options):
    """Compare strategies on a data set, or go on with it."""
    try:
        return compare(options, Lines(), runs_a_process())
    except EnoughRuns:
        return renew(None)


def main():
    """Screen, carry the best on, print the verdicts."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--only", choices=sorted(DATA))
    options.add_argument("--screen", action="store_true", help="leave out the 5 seeds")
    options.add_argument(OPTION, help=argparse.SUPPRESS)
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "evidence")
    chosen = options.parse_args()
    results = chosen.results / "quick" if chosen.quick else chosen.results
    for name in [chosen.only] if chosen.only else DATA:
        asked = partial(options_of, chosen.folder, results, name, **PLAIN)
        summary = study(asked(QUICK if chosen.quick else SCREEN, SCREEN_SEEDS))
        if not (chosen.quick or chosen.screen):
            best = [row.strategy for row in summary.rows[:CARRIED]]
            final = asked(tuple(dict.fromkeys((*BASELINES, *best))), FINAL_SEEDS)
            summary = study(final)
        print(f"\n{name}")
        for row in summary.rows:
            scores = ", ".join(f"{part} {e.accuracy:.3f}" for part, e in row.scores.items())
            print(f"  {row.strategy}: {scores}, {row.seconds:.0f} s, {row.epochs:.0f} epochs")
        for line in (*verdict(summary), *summary.notes):
            print(f"  {line}")


if __name__ == "__main__":
    main()
