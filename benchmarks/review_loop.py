"""What 30 labels of a review give: those that the model is least certain of, against random ones.

    python -m benchmarks.review_loop ANIMALS [--seeds 5] [--labels 30] [--out results.json]

ANIMALS is a folder with one subfolder per class. For each seed, 10 clips of each class are
labelled (8 to train on, 2 to choose by) and 10 others are the test set; what is left is the
pool. A run is trained with `--schedule probe`. Then the review's own code asks for clips of the
pool, and the folder of the recording answers. Once the clips are those that `uncertain` brings,
once they are drawn at random, and both times the run is trained again as the page does it
(without the gate, which takes most of the time and says nothing of which animal it is). Test
clips, seeds and the first run are the same in both.
"""

import argparse
import csv
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scipy import stats

import unfreeze
from unfreeze.files import write_json
from unfreeze.review.label_files import write_training_table
from unfreeze.review.review_session import ReviewSession
from unfreeze.search.embedding import embed

WAYS = ("uncertain", "random")
TRAINED, CHOSEN_BY, TESTED = 8, 2, 10


def deal(animals, folder, seed):
    """Write the first run's manifest; return the recordings of the pool with their classes."""
    rng = np.random.default_rng(seed)
    rows, pool = [], {}
    for place in sorted(path for path in animals.iterdir() if path.is_dir()):
        files = sorted(place.iterdir())
        files = [files[i] for i in rng.permutation(len(files))]
        parts = ["train"] * TRAINED + ["validation"] * CHOSEN_BY + ["test"] * TESTED
        # A copy must be in one part: the group is the content.
        rows += [(file, place.name, part) for file, part in zip(files, parts, strict=False)]
        pool |= dict.fromkeys(files[len(parts) :], place.name)
    contents = {}
    for file, label, part in rows:
        contents.setdefault(file.read_bytes(), (file, label, part))
    with (folder / "labels.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("path", "label", "split"))
        writer.writerows(contents.values())
    return pool


def answered(session, truth, way, count, seed):
    """Let a review ask, and answer by the folder of the recording."""
    rng = np.random.default_rng(seed)
    shuffled = iter(rng.permutation(np.flatnonzero(session._allowed)))
    for _ in range(count):
        if way == "uncertain":
            question = session.next("a", "uncertain")
            clip, asked = question.clip, question.asked
        else:
            clip, asked = int(next(shuffled)), session.labels[0]
        label = truth[session._first.place(clip)[0]]
        if label == asked:
            session.decide("a", clip, "yes", asked=asked, order=way)
        else:
            session.decide("a", clip, "other", asked=asked, label=label, order=way)


def one_seed(animals, folder, seed, count):
    """Accuracy on the test clips before and after, for either way."""
    truth = deal(animals, folder, seed)
    run = folder / "run"
    options = {"gate": False, "seed": seed}
    first = unfreeze.SoundClassifier.train(folder / "labels.csv", "probe", run, **options)
    index = embed(sorted(truth), folder / "index", run=run)
    scores = first.metrics["test"]
    found = {"clips": scores["clips"], "before": scores["accuracy"]}
    for way in WAYS:
        session = ReviewSession(run, index, folder / way)
        answered(session, truth, way, count, seed)
        table = folder / f"{way}.csv"
        write_training_table(table, session.store.decisions(), session.run_labels, False)
        found[f"{way}, classes"] = len(session.counts()["labels"])
        found["pool"] = session.counts()["all"]
        session.close()
        again = unfreeze.SoundClassifier.train(
            table, "probe", folder / f"run-{way}", add_to=run,
            annotated="partly", validation=0.0, test=0.0, even_if_worse=True, **options,
        )  # fmt: skip
        found[way] = again.metrics["test"]["accuracy"]
    return found


def interval(values):
    """Mean and 95 % interval of it over seeds, by Student's t."""
    values = np.asarray(values, float)
    spread = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - spread), float(values.mean() + spread)


def table(results):
    """The table of docs/review.md."""
    lines = ["| seed | before | 30 uncertain | 30 random |", "|---|---|---|---|"]
    for seed, row in results.items():
        numbers = " | ".join(f"{row[name]:.3f}" for name in ("before", *WAYS))
        lines.append(f"| {seed} | {numbers} |")
    rows = list(results.values())
    means = " | ".join(f"{np.mean([r[n] for r in rows]):.3f}" for n in ("before", *WAYS))
    lines.append(f"| mean | {means} |")
    if len(rows) > 1:
        for name, pairs in (
            ("uncertain - before", [r["uncertain"] - r["before"] for r in rows]),
            ("random - before", [r["random"] - r["before"] for r in rows]),
            ("uncertain - random", [r["uncertain"] - r["random"] for r in rows]),
        ):
            mean, low, high = interval(pairs)
            lines.append(f"{name}: {mean:+.3f} ({low:+.3f} to {high:+.3f})")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("animals", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = {}
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            results[seed] = one_seed(given.animals, Path(folder), seed, given.labels)
        print(seed, results[seed], flush=True)
        if given.out is not None:
            write_json(given.out, results)
    print(table(results))


if __name__ == "__main__":
    main()
