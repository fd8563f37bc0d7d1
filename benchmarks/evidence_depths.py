"""The study of read-outs: the default, its parts and its rivals, on equal splits.

    python -m benchmarks.evidence_depths FOLDER [--only spoken-digits] [--part default]
        [--results benchmarks/evidence/depths]

FOLDER and the splits are those of `benchmarks.evidence`. Each run that has ended is kept
in the results folder and is not repeated. Parts:

    default     the default, its first stage alone, and twenty lines of scikit-learn:
                logistic regression, balanced, on the mean embedding of each clip, `C`
                chosen by the validation clips
    unbalanced  the same on animal sounds of which one class has 50 clips, the others 14 to 23
    peak        the second stage only above the peak of the split's depth profile
    start       the default's network, all of it trained from the start with a random head, in
                as many epochs as the default's second stage, and the default at other rates
    long        both with three times as many epochs, on two seeds
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.evidence import DATA, options_of, study
from unfreeze.audio.patches import clip_means
from unfreeze.cli.renew import OPTION
from unfreeze.compare import comparison_folder
from unfreeze.compare.strategies import read_strategy
from unfreeze.compare.summary import summarize
from unfreeze.compare.trial import prepare, run_trial
from unfreeze.compare.trial_splits import trial_splits
from unfreeze.pipeline.depth_profile import depth_profile
from unfreeze.pipeline.training_data import label_numbers

DEFAULT = ("probe_tune", "probe")
START = "benchmarks/evidence/from_start.yaml"
# The rates are screened on two seeds; the best of each side goes on to five, and on two
# seeds to three times as many epochs.
RATES = {"probe_tune": ("2e-4", "5e-4"), START: ("2e-4", "5e-4", "1e-3")}
LONG = "+epochs=60"
SEEDS, SCREEN_SEEDS = 5, 2
UNBALANCED, WHOLE = "unbalanced-animal-sounds", "bird"
PARTS = ("default", "unbalanced", "peak", "start", "long")
BASELINE = "logistic regression on embeddings"
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
BATCH = 256


def baseline(options):
    """Records of logistic regression on embeddings, as `compare` writes them for a strategy."""
    material, data = prepare(options.train, [], quiet)
    manifest = material.manifest
    labels, clips = label_numbers(manifest), np.arange(len(manifest.clips))
    began = time.perf_counter()
    view = material.store.patches(clips)
    network = material.backbone.build(weights=material.weights)
    patches = np.concatenate(
        [
            network.predict_on_batch(view[np.arange(at, min(at + BATCH, len(view)))])
            for at in range(0, len(view), BATCH)
        ]
    )
    embeddings = clip_means(patches, view.clip, len(clips))
    # As with a strategy's cache, the splits share it: each is charged its part.
    trials = list(trial_splits(data.manifest, options))
    shared = (time.perf_counter() - began) / len(trials)
    for trial in trials:
        began = time.perf_counter()
        train, held = trial.split.train, trial.split.validation
        models = [
            make_pipeline(
                StandardScaler(), LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
            ).fit(embeddings[train], labels[train])
            for c in CS
        ]
        best = max(models, key=lambda model: model.score(embeddings[held], labels[held]))
        seconds = round(shared + time.perf_counter() - began, 2)
        scores = {}
        for part, chosen in (("test", trial.split.test), ("seen", trial.seen)):
            if len(chosen):
                names = [manifest.clips[int(i)].group for i in chosen]
                groups = sorted(set(names))
                scores[part] = {
                    "truth": labels[chosen].tolist(),
                    "guess": best.predict(embeddings[chosen]).tolist(),
                    "group": [groups.index(name) for name in names],
                    "groups": groups,
                }
        yield {
            "strategy": BASELINE,
            "seed": trial.seed,
            "fold": trial.fold,
            "seconds": seconds,
            "epochs": {},
            "scores": scores,
        }


def scores_of(truth, guess):
    """Accuracy and balanced accuracy of guesses."""
    truth, guess = np.asarray(truth), np.asarray(guess)
    recalls = [np.mean(guess[truth == k] == k) for k in np.unique(truth)]
    return {
        "accuracy": float(np.mean(guess == truth)),
        "balanced_accuracy": float(np.mean(recalls)),
    }


def quiet(what, done, total):
    """Progress that nobody looks at."""


def default(asked):
    """The default, its first stage, and the baseline."""
    report(study(asked(DEFAULT, SEEDS)), asked(DEFAULT, SEEDS))
    options = asked(DEFAULT, SEEDS)
    records = list(baseline(options))
    text = json.dumps(records, separators=(",", ":")) + "\n"
    (options.out / "baseline.json").write_text(text)
    summary = summarize(records, [BASELINE], grouped="seen" in records[0]["scores"], planned=SEEDS)
    print_rows(summary.rows)
    tell(BASELINE, rows_of(records))


def tell(what, rows):
    """A line for each part of the splits."""
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == part]
        means = [np.mean([row[name] for row in own]) for name in ("accuracy", "balanced_accuracy")]
        print(f"  {what}: {part} {means[0]:.3f}, balanced {means[1]:.3f}", flush=True)


def report(summary, options):
    """Print a comparison with intervals, and balanced accuracies, which it does not hold."""
    print(f"\n{options.out.name}")
    print_rows(summary.rows)
    for line in summary.differences:
        print(f"  {line}")
    _, data = prepare(options.train, [], quiet)
    trials = trial_splits(data.manifest, options)
    for name in options.strategies:
        files = [comparison_folder.record_file(options.out, read_strategy(name), t) for t in trials]
        records = [json.loads(file.read_text()) for file in files]
        tell(name, rows_of(records))


def print_rows(rows):
    """A line for each strategy, with intervals."""
    for row in rows:
        scores = ", ".join(
            f"{part} {e.accuracy:.3f} [{e.interval[0]:.3f}, {e.interval[1]:.3f}]"
            for part, e in row.scores.items()
        )
        print(f"  {row.strategy}: {scores}, {row.seconds:.1f} s, {row.epochs:.0f} epochs")


def rows_of(records):
    """Scores by seed and part from the records of runs."""
    return [
        {"seed": r["seed"], "part": part, **scores_of(found["truth"], found["guess"])}
        for r in records
        for part, found in r["scores"].items()
    ]


def unbalanced(chosen):
    """The default and the baseline on a part of the animal sounds."""
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "animal-sounds"
        rng = np.random.default_rng(0)
        for place in sorted(p for p in (chosen.folder / "animal-sounds").iterdir() if p.is_dir()):
            files = sorted(place.iterdir())
            count = len(files) if place.name == WHOLE else int(rng.integers(14, 24))
            (folder / place.name).mkdir(parents=True)
            for file in rng.permutation(files)[: min(count, len(files))]:
                shutil.copy(file, folder / place.name)

        def asked(strategies, seeds):
            options = options_of(Path(room), chosen.results, "animal-sounds", strategies, seeds)
            return replace(options, out=chosen.results / UNBALANCED)

        default(asked)


def peak(asked):
    """The second stage only above the peak that each split's depth profile shows.

    Such a stage runs on a cache, and then without augmentation; on two seeds, also without
    a cache and with augmentation.
    """
    options = asked(DEFAULT, SEEDS)
    material, data = prepare(options.train, [], quiet)
    labels = label_numbers(material.manifest)
    records = {"cached": [], "augmented": []}
    for trial in trial_splits(data.manifest, options):
        train, held = (
            material.store.patches(p) for p in (trial.split.train, trial.split.validation)
        )
        network = material.backbone.build(weights=material.weights)
        profile = depth_profile(network, train, held, labels, seed=trial.seed)
        groups = [depth.group for depth in profile.groups]
        above = (
            len(groups) if profile.peak is None else len(groups) - groups.index(profile.peak) - 1
        )
        named = f"probe_tune+train=head|top:{above}" if above else "probe"
        cached = read_strategy(named)
        *solved, last = cached.schedule.stages
        strategies = {"cached": cached}
        if solved and trial.seed < SCREEN_SEEDS:
            stages = (*solved, replace(last, cache="never"))
            schedule = replace(cached.schedule, stages=stages)
            strategies["augmented"] = replace(cached, schedule=schedule)
        for kind, strategy in strategies.items():
            record = kept(material, options, trial, strategy)
            records[kind].append(record)
            what = f"{trial.name}, peak {profile.peak}, {named}, {kind}"
            tell(what, rows_of([record]))
    for kind, own in records.items():
        tell(f"above the peak, {kind}", rows_of(own))


def kept(material, options, trial, strategy):
    """The record of a run, which is made if there is none."""
    file = comparison_folder.record_file(options.out, strategy, trial)
    record = comparison_folder.read_record(file)
    if record is None:
        state = comparison_folder.current_folder(file)
        record = run_trial(material, trial, strategy, state)
        comparison_folder.write_record(file, record)
    return record


def start(asked):
    """Staged against everything from the start, each with its own best rate."""
    for base in RATES:
        best = best_rate(asked, base)
        report(study(asked((best,), SEEDS)), asked((best,), SEEDS))


def long(asked):
    """Both with three times as many epochs."""
    names = tuple(f"{best_rate(asked, base)}{LONG}" for base in RATES)
    report(study(asked(names, SCREEN_SEEDS)), asked(names, SCREEN_SEEDS))


def best_rate(asked, base):
    """The schedule with the rate that is best on the first seeds."""
    names = tuple(f"{base}+rate={rate}" for rate in RATES[base])
    summary = study(asked(names, SCREEN_SEEDS))
    return max(summary.rows, key=lambda row: row.scores["test"].accuracy).strategy


def main():
    """Run the study and print it."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--only", choices=sorted(DATA))
    options.add_argument("--part", choices=PARTS, action="append")
    options.add_argument(OPTION, help=argparse.SUPPRESS)
    options.add_argument(
        "--results", type=Path, default=Path(__file__).parent / "evidence" / "depths"
    )
    chosen = options.parse_args()
    for part in chosen.part or PARTS:
        if part == "unbalanced":
            unbalanced(chosen)
            continue
        for name in [chosen.only] if chosen.only else DATA:

            def asked(strategies, seeds, name=name):
                return options_of(chosen.folder, chosen.results, name, strategies, seeds)

            {"default": default, "peak": peak, "start": start, "long": long}[part](asked)


if __name__ == "__main__":
    main()
