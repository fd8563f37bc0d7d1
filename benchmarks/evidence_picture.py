"""Draws what the studies found: accuracy against the seconds that it takes.

    python -m benchmarks.evidence_picture [--out docs/images/accuracy-against-seconds.png]

It reads the records of `benchmarks.evidence` and `benchmarks.evidence_depths` and trains nothing.
"""

import argparse
import json
from pathlib import Path

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.evidence import DATA
from benchmarks.evidence_depths import BASELINE
from unfreeze.compare.summary import summarize
from unfreeze.picture import BLUE, GREY, INK, VERMILLION, in_percent, page

HERE = Path(__file__).parent
# Where a name is written, from its point: right of it, or left.
SHOWN = {
    BASELINE: ("logistic regression\non embeddings (scikit-learn)", GREY),
    "probe": ("every depth, frozen,\nhead solved: probe", BLUE),
    "probe_tune": ("then trained on:\nprobe_tune, the default", BLUE),
    "head_only": ("head alone", VERMILLION),
    "two_stage": ("head, then all layers", VERMILLION),
    "full": ("all layers from\nthe start", VERMILLION),
}
TITLES = {
    "spoken-digits": "spoken digits, unseen speakers",
    "animal-sounds": "animal sounds, held-out clips",
}


def rows_of(name, results):
    """The rows of a data set, by strategy: mean, interval, and mean seconds of a run."""
    depths = results / "depths" / name
    records = json.loads((depths / "baseline.json").read_text("utf-8"))
    for folder in (depths, results / name):
        records += [
            json.loads(file.read_text("utf-8")) for file in (folder / "runs").glob("*.json")
        ]
    rows = {}
    for strategy in SHOWN:
        own = [record for record in records if record["strategy"] == strategy]
        found = summarize(own, [strategy], grouped="seen" in own[0]["scores"], planned=len(own))
        rows[strategy] = found.rows[0]
    return rows


def draw(results, out):
    """A panel for each data set."""
    with page(out, 9.5, 4.6) as figure:
        for axes, name in zip(figure.subplots(1, len(DATA)), DATA, strict=True):
            for strategy, row in rows_of(name, results).items():
                words, color = SHOWN[strategy]
                score = row.scores["test"]
                low, high = score.interval
                error = [[score.accuracy - low], [high - score.accuracy]]
                axes.errorbar(
                    [row.seconds], [score.accuracy], yerr=error, fmt="o", color=color,
                    ecolor=color, elinewidth=1, capsize=2,
                )  # fmt: skip
                right = row.seconds < 20
                axes.annotate(
                    words, (row.seconds, score.accuracy), (7 if right else -7, 0),
                    textcoords="offset points", va="center", ha="left" if right else "right",
                    fontsize=8, color=INK,
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_xlim(0.3, 1000)
            axes.xaxis.set_major_locator(LogLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            in_percent(axes.yaxis)
            axes.grid()
            axes.set_title(TITLES[name], fontsize=10)
            axes.set_xlabel("seconds for a run on 2 cores, features at hand")
        figure.axes[0].set_ylabel("accuracy, 95 % interval over groups and seeds")


def main():
    """Draw it."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--results", type=Path, default=HERE / "evidence")
    options.add_argument(
        "--out", type=Path, default=HERE.parent / "docs/images/accuracy-against-seconds.png"
    )
    chosen = options.parse_args()
    draw(chosen.results, chosen.out)


if __name__ == "__main__":
    main()
