"""The strategies that five seeds cannot tell apart, on as many seeds as a bigger machine allows.

    KERAS_BACKEND=torch python -m benchmarks.evidence_seeds FOLDER --data spoken-digits
        --strategies two_stage,gradual,full --seeds 5:45 --processes 12 --out rows.jsonl
        [--study benchmarks/evidence]

The seeds begin where those of the study end: what the study looked at to choose
strategies says nothing here. Several processes share the machine and its GPU. A run
is a line of the file: what is there is not repeated, and `--minutes` ends it early. The
table counts the seeds that all strategies have done; with `--study` those of the
study, too.
"""

import argparse
import json
import os
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import cache
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.evidence import PLAIN, options_of
from unfreeze.compare.comparison import CompareListener
from unfreeze.compare.strategies import read_strategy
from unfreeze.compare.trial import prepare, run_trial
from unfreeze.compare.trial_splits import trial_splits
from unfreeze.pipeline.bootstrap import interval, pooled, resampled
from unfreeze.pipeline.run_folder import read_json

KEPT = ("seconds", "epochs", "best_stage", "validation")


@cache
def ready(folder, data, seeds):
    """Features, weights and the splits of so many seeds, once a process."""
    options = options_of(folder, Path("unused"), data, ("head_only",), seeds, **PLAIN)
    material, read = prepare(options.train, (), CompareListener().on_progress)
    return material, trial_splits(read.manifest, options)


def run_one(folder, data, seed, name, seeds):
    """Train a strategy on the split of a seed, and score it: a row."""
    material, trials = ready(folder, data, seeds)
    record = run_trial(material, trials[seed], read_strategy(name))
    row = {"data": data, "strategy": name, "seed": seed, "backend": keras.backend.backend()}
    if "error" in record:
        return {**row, "error": record["error"]}
    scores = {part: counted(found) for part, found in record["scores"].items()}
    return {**row, **{key: record[key] for key in KEPT}, "scores": scores}


def counted(found):
    """Clips of a part by group: how many there are, and how many of them are right."""
    right = np.equal(found["truth"], found["guess"])
    members = [np.equal(found["group"], place) for place in range(len(found["groups"]))]
    return {
        "groups": found["groups"],
        "clips": [int(own.sum()) for own in members],
        "right": [int(right[own].sum()) for own in members],
    }


def read_rows(file):
    """The rows that are there; a last line that was cut short is left out."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def study_rows(folder, data):
    """The runs of the study on a data set, as rows."""
    records = [read_json(file, "run the study again") for file in sorted(folder.glob("*.json"))]
    return [
        {
            "data": data,
            "strategy": record["strategy"],
            "seed": record["seed"],
            "scores": {part: counted(found) for part, found in record["scores"].items()},
        }
        for record in records
        if "scores" in record
    ]


def run_all(runs, processes, seconds, file):
    """Do the runs in order, some at a time, each a line of the file; those at the end are lost."""
    end = time.monotonic() + seconds
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    left, running = list(runs), set()
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    with file.open("a") as out:
        while (left or running) and time.monotonic() < end:
            while left and len(running) < processes:
                running.add(pool.submit(run_one, *left.pop(0)))
            done, running = wait(running, end - time.monotonic(), FIRST_COMPLETED)
            for future in done:
                print(json.dumps(future.result()), file=out, flush=True)
    for process in list(pool._processes.values()) if running else ():
        process.kill()
    pool.shutdown(wait=not running, cancel_futures=True)


def tables(rows, strategies, part):
    """Right clips (strategies, seeds, groups) and clips (seeds, groups) of seeds that all did."""
    by = {(row["strategy"], row["seed"]): row["scores"][part] for row in rows if "scores" in row}
    seeds = sorted({s for _, s in by if all((name, s) in by for name in strategies)})
    names = sorted({group for seed in seeds for group in by[strategies[0], seed]["groups"]})
    hits = np.zeros((len(strategies), len(seeds), len(names)))
    counts = np.zeros((len(seeds), len(names)))
    for y, seed in enumerate(seeds):
        for x, strategy in enumerate(strategies):
            scores = by[strategy, seed]
            places = [names.index(group) for group in scores["groups"]]
            hits[x, y, places] = scores["right"]
            counts[y, places] = scores["clips"]
    return hits, counts


def lines(rows, strategies, part):
    """Accuracy, and the paired difference from the first strategy, in points."""
    hits, counts = tables(rows, strategies, part)
    if not counts.size:
        return
    yield f"{part}: {len(counts)} seeds, {counts.shape[1]} groups"
    means, drawn = pooled(hits, counts), resampled(hits, counts)
    by_seed = hits.sum(axis=2) / counts.sum(axis=1)
    for x, name in enumerate(strategies):
        low, high = interval(drawn[x])
        text = f"  {name}: {means[x]:.3f} [{low:.3f}, {high:.3f}]"
        if x and len(counts) > 1:
            gaps = 100 * (by_seed[x] - by_seed[0])
            low, high = interval(100 * (drawn[x] - drawn[0]))
            text += (
                f", {gaps.mean():+.1f} [{low:.1f}, {high:.1f}] from {strategies[0]}, standard "
                f"deviation from seed to seed {gaps.std(ddof=1):.1f}"
            )
        yield text


def main():
    """Run what is not there yet, and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--data", required=True)
    options.add_argument("--strategies", default="two_stage,gradual,full")
    options.add_argument("--seeds", default="5:45", help="the first, and the one after the last")
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("--minutes", type=float, default=1e4)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--study", type=Path, help="the study's results, to count with these")
    chosen = options.parse_args()
    strategies = tuple(chosen.strategies.split(","))
    first, stop = map(int, chosen.seeds.split(":"))
    known = {(row["data"], row["strategy"], row["seed"]) for row in read_rows(chosen.out)}
    runs = [
        (chosen.folder, chosen.data, seed, name, stop)
        for seed in range(first, stop)
        for name in strategies
        if (chosen.data, name, seed) not in known
    ]
    if runs:
        # Before the others are there: they find the features ready.
        ready(chosen.folder, chosen.data, stop)
        run_all(runs, chosen.processes, 60 * chosen.minutes, chosen.out)
    rows = [row for row in read_rows(chosen.out) if row["data"] == chosen.data]
    if chosen.study:
        rows += study_rows(chosen.study / chosen.data / "runs", chosen.data)
    for part in ("test", "seen"):
        if any(part in row.get("scores", {}) for row in rows):
            print(*lines(rows, strategies, part), sep="\n", flush=True)


if __name__ == "__main__":
    main()
