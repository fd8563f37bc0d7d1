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
from unfreeze.picture import BLUE, GREY, VERMILLION, in_percent, page

HERE = Path(__file__).parent
SHOWN = {
    BASELINE: ("logistic regression on embeddings (scikit-learn)", GREY, "s"),
    "head_only": ("head alone, last layer", VERMILLION, "v"),
    "full": ("all layers from the start", VERMILLION, "D"),
    "two_stage": ("head, then all layers", VERMILLION, "^"),
    "probe": ("every depth, frozen: probe", BLUE, "o"),
    "probe_tune": ("then trained on: probe_tune, the default", BLUE, "P"),
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
                words, color, marker = SHOWN[strategy]
                score = row.scores["test"]
                low, high = score.interval
                error = [[score.accuracy - low], [high - score.accuracy]]
                axes.errorbar(
                    [row.seconds], [score.accuracy], yerr=error, fmt=marker, color=color,
                    elinewidth=1, capsize=2, markersize=7, label=words,
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
        handles, words = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=2, fontsize=8)
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
