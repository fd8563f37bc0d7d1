"""Test accuracy of the presets on a data set, over seeds.

    python -m benchmarks.accuracy DATA [--schedules head_only,two_stage] [--seeds 0]
        [--epochs N] [--out results.json]

Each run splits by group (a `group` column, or the clip itself), so test clips
are of groups that no training saw. Results are added to the JSON file as they
come, and runs that are in it are not repeated.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from unfreeze.files import write_json
from unfreeze.options import TrainOptions
from unfreeze.training import train_classifier


def main():
    """Train, collect, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--schedules", default="head_only,two_stage,classic,full")
    options.add_argument("--seeds", default="0")
    options.add_argument("--epochs", type=int)
    options.add_argument("--test", type=float, default=TrainOptions.test)
    options.add_argument("--validation", type=float, default=TrainOptions.validation)
    options.add_argument("--out", type=Path, default=Path("accuracy.json"))
    chosen = options.parse_args()
    found = json.loads(chosen.out.read_text()) if chosen.out.is_file() else {}
    for seed in (int(s) for s in chosen.seeds.split(",")):
        for schedule in chosen.schedules.split(","):
            key = f"{chosen.data.name} {schedule} seed {seed} epochs {chosen.epochs}"
            if key not in found:
                began = time.perf_counter()
                trained = train_classifier(
                    TrainOptions(
                        chosen.data, schedule=schedule, seed=seed, epochs=chosen.epochs,
                        test=chosen.test, validation=chosen.validation,
                    )
                )  # fmt: skip
                test = trained.metrics["test"]
                found[key] = {
                    "accuracy": test["accuracy"],
                    "interval": test["intervals"]["accuracy"],
                    "macro_f1": test["macro_f1"],
                    "validation": trained.metrics["validation"]["accuracy"],
                    "best_stage": trained.result.best_stage,
                    "epochs": {s.stage: s.epochs for s in trained.result.stages},
                    "seconds": round(time.perf_counter() - began, 1),
                }
                write_json(chosen.out, found)
            row = found[key]
            low, high = row["interval"]
            print(
                f"{key}: test {row['accuracy']:.3f} [{low:.3f}, {high:.3f}], validation "
                f"{row['validation']:.3f}, {row['epochs']}, {row['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
