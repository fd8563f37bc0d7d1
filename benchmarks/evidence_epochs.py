"""Which epoch to keep, and when to end: rules for it, judged on clips that they do not see.

    python -m benchmarks.evidence_epochs FOLDER [--only spoken-digits] [--seeds 5]
        [--epochs 40] [--strategy two_stage+monitor=val_loss] [--out FILE]

The second stage of a strategy is trained on for a fixed number of epochs on the
splits of the study, whatever the validation clips say; after each epoch the
scores on validation and test clips are kept. Then each rule is played on
them: it sees the validation clips alone, ends the stage by its patience, and names
an epoch; its score is the accuracy of that epoch on the test clips. The learning
rate falls with the validation loss in all of them, as in the strategy.
"""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.evidence import DATA
from unfreeze.audio.background_clips import cut_quiet
from unfreeze.compare.comparison import CompareListener
from unfreeze.compare.strategies import CompareOptions, read_strategy
from unfreeze.compare.trial import prepare
from unfreeze.compare.trial_splits import trial_splits
from unfreeze.core.callbacks import StageCallback
from unfreeze.files import write_json
from unfreeze.pipeline.calibration import fit_temperature, with_temperature
from unfreeze.pipeline.inference import view_scores
from unfreeze.pipeline.patch_training import fit_patches, new_model
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.pipeline.training_data import label_numbers

PATIENCES = (5, 8, 12, 100)


class Probabilities(StageCallback):
    """Keeps a row an epoch: losses, and what validation and test clips got."""

    def __init__(self, model, manifest, parts):
        super().__init__()
        self.whole, self.manifest, self.parts = model, manifest, parts
        self.rows, self.stage = [], None

    def on_stage_begin(self, plan):
        self.stage = plan.stage

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        row = {"stage": self.stage, "epoch": epoch + 1, "patch_loss": float(logs["val_loss"])}
        row["patch_accuracy"] = float(logs["val_accuracy"])
        truth = label_numbers(self.manifest)
        for part in ("validation", "test"):
            view = self.parts[part]
            clips = np.unique(view.clip)
            found = view_scores(self.whole, view, len(self.manifest.clips))[0][clips]
            row[part] = clip_numbers(found, truth[clips])
        self.rows.append(row)


def clip_numbers(found, truth):
    """Accuracy and losses of clips; `tempered` is the loss once confidence is set right."""
    tempered = with_temperature(found, fit_temperature(truth, found))
    return {
        "accuracy": float((found.argmax(axis=1) == truth).mean()),
        "loss": nll(found, truth),
        "tempered": nll(tempered, truth),
    }


def nll(found, truth):
    """Mean negative log-likelihood of the truth."""
    return float(-np.log(np.maximum(found[np.arange(len(truth)), truth], 1e-7)).mean())


@dataclass(frozen=True)
class Rule:
    """What an epoch is judged by: smaller is better, ties go to the earlier."""

    name: str
    key: Callable[[dict], tuple]


RULES = (
    Rule("loss of patches", lambda row: (row["patch_loss"],)),
    Rule("accuracy of patches", lambda row: (-row["patch_accuracy"],)),
    Rule("accuracy of patches, then loss", lambda row: (-row["patch_accuracy"], row["patch_loss"])),
    Rule("loss of clips", lambda row: (row["validation"]["loss"],)),
    Rule("accuracy of clips", lambda row: (-row["validation"]["accuracy"],)),
    Rule(
        "accuracy of clips, then loss",
        lambda row: (-row["validation"]["accuracy"], row["validation"]["loss"]),
    ),
    Rule("tempered loss of clips", lambda row: (row["validation"]["tempered"],)),
    Rule("the last epoch", lambda row: (-row["epoch"],)),
)


def play(rows, rule, patience):
    """The row that a rule keeps of a stage, and the epochs that it trains."""
    best, waited = None, 0
    for row in rows:
        if best is None or rule.key(row) < rule.key(best):
            best, waited = row, 0
        else:
            waited += 1
        if waited >= patience:
            return best, row["epoch"]
    return best, rows[-1]["epoch"]


def run(material, trial, strategy):
    """Train on one split, and give all rows."""
    views = {name: material.store.patches(clips) for name, clips in trial.split.parts().items()}
    cut = cut_quiet(material.manifest, trial.split, views, material.backbone.front_end)
    model = new_model(material.backbone, material.weights, len(cut.manifest.labels), trial.seed)
    watch = Probabilities(model, cut.manifest, cut.parts)
    fit_patches(model, strategy.schedule, cut.manifest, cut.parts, trial.seed, callbacks=[watch])
    return watch.rows


def main():
    """Train, play the rules, print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--only", choices=sorted(DATA), default="spoken-digits")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--epochs", type=int, default=40)
    options.add_argument("--strategy", default="two_stage+monitor=val_loss")
    options.add_argument("--out", type=Path, help="a JSON file; seeds in it are not repeated")
    chosen = options.parse_args()
    strategy = read_strategy(f"{chosen.strategy}+epochs={chosen.epochs}")
    stages = [*strategy.schedule.stages]
    stages[-1] = replace(stages[-1], until=None)
    strategy = replace(strategy, schedule=replace(strategy.schedule, stages=tuple(stages)))
    data = DATA[chosen.only]
    study = CompareOptions(
        TrainOptions(chosen.folder / data.path, test=data.test), Path(), seeds=chosen.seeds
    )
    known = {}
    if chosen.out is not None and chosen.out.is_file():
        known = json.loads(chosen.out.read_text())
    material, read = prepare(study.train, [strategy], CompareListener().on_progress)
    for trial in trial_splits(read.manifest, study):
        if trial.name not in known:
            known[trial.name] = run(material, trial, strategy)
            print(f"{trial.name}: {len(known[trial.name])} epochs", flush=True)
            if chosen.out is not None:
                write_json(chosen.out, known)
    last = stages[-1].name
    found = [[row for row in rows if row["stage"] == last] for rows in known.values()]
    best = [max(row["test"]["accuracy"] for row in rows) for rows in found]
    print(f"the best epoch in hindsight: {np.mean(best):.3f}")
    for rule in RULES:
        for patience in PATIENCES:
            kept, epochs = zip(*(play(rows, rule, patience) for rows in found), strict=True)
            scores = [row["test"]["accuracy"] for row in kept]
            each = " ".join(f"{s:.3f}" for s in scores)
            print(
                f"{rule.name}, patience {patience}: {np.mean(scores):.3f} ({each}), "
                f"{np.mean(epochs):.0f} epochs"
            )


if __name__ == "__main__":
    main()
