"""`unfreeze tune`: a search for the best two-stage schedule, on the training clips alone.

Optuna proposes (Akiba et al. 2019, "Optuna: A Next-generation Hyperparameter
Optimization Framework", KDD); a proposal is trained on inner splits by group and
judged on inner groups that it did not see. The test clips of the run that
`unfreeze train` would make with the same seed are in none of it.

A proposal depends on the seed and the results before it only, and each run is kept.
So a search that was broken off is played again from its records, at once, and goes on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze import run_folder
from unfreeze.audio.split import split_clips
from unfreeze.compare import folder
from unfreeze.compare.budget import Deadline, Share
from unfreeze.compare.inner import FOLDS, inner_split
from unfreeze.compare.options import Strategy, read_strategy
from unfreeze.compare.prepare import Progress, prepare
from unfreeze.compare.splits import TrialSplit
from unfreeze.compare.trial import Material, run_trial
from unfreeze.core.schedule import Schedule
from unfreeze.core.schedule_yaml import write_schedule
from unfreeze.errors import UnfreezeError
from unfreeze.files import write_json
from unfreeze.options import TrainOptions
from unfreeze.report.tuning_plot import plot_search
from unfreeze.run_reading import read_json

BEST, TABLE = "best.yaml", "tuning.json"
DEPTHS = ("head", "top:1", "top:25%", "top:50%", "all")
POLICIES = ("frozen", "affine", "train")
DECAYS = (1.0, 0.8, 0.65)
BATCHES = (16, 32, 64)
# The default first: what the search finds must beat it.
START = {
    "depth": "all",
    "head_rate": 1e-3,
    "batch_size": 32,
    "rate": 1e-4,
    "batch_norm": "frozen",
    "layer_decay": 1.0,
}


@dataclass(frozen=True)
class TuneOptions:
    """A search.

    Attributes:
        train: the data and how to read and divide them, as for the run to come;
            `epochs` is the most of each stage. Its schedule and out are not used.
        out: the folder of the search.
        trials: proposals to try.
        splits: inner splits that each is tried on.
        budget: seconds after which no proposal is begun; None for no limit.
    """

    train: TrainOptions
    out: Path
    trials: int = 30
    splits: int = 2
    budget: float | None = None

    def __post_init__(self) -> None:
        for name in ("trials", "splits"):
            if getattr(self, name) < 1:
                raise UnfreezeError(f"{name} is {getattr(self, name)}: at least 1 is needed")


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        schedule: the best, ready for `unfreeze train --schedule`.
        accuracy: its mean over the inner splits.
        start: the default's.
        rows: a row a proposal: `strategy`, `accuracy`, `loss`, `splits`, `pruned`.
    """

    schedule: Schedule
    accuracy: float
    start: float
    rows: tuple[dict[str, Any], ...]


def tune(
    options: TuneOptions,
    tell: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda what, done, total: None,
    most: int | None = None,
) -> Tuned:
    """Search for a schedule, or go on with a search that was broken off.

    Args:
        options: what to search on.
        tell: gets a line for each proposal.
        progress: called with a piece of work, what is done of it, and all.
        most: runs to do in this call; None for all.

    Raises:
        UnfreezeError: Optuna is not installed, or anything in the data or settings.
        EnoughRuns: `most` are done and others are left; the next call goes on.
    """
    optuna = _optuna()
    folder.claim(options.out)
    with run_folder.locked(options.out):
        material, data = prepare(options.train, [], progress)
        train = options.train
        outer = split_clips(
            data.manifest, validation=train.validation, test=train.test, seed=train.seed
        )
        splits = [inner_split(data.manifest, outer, number) for number in range(options.splits)]
        shared = folder.shared_config(material, train)
        own = {"kind": "tuning", "seed": train.seed, "inner_folds": FOLDS}
        folder.begin(options.out, {**shared, **own})
        rows = _search(optuna, options, material, splits, Share(most), tell, progress)
        return _finish(options, rows)


def read_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of the proposals that a search has judged so far."""
    file = out / TABLE
    if not file.is_file():
        return []
    return list(read_json(file, "delete it: it is made anew").get("trials", []))


def _search(
    optuna: Any,
    options: TuneOptions,
    material: Material,
    splits: list[TrialSplit],
    share: Share,
    tell: Callable[[str], None],
    progress: Progress,
) -> list[dict[str, Any]]:
    clock = Deadline(options.budget)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.enqueue_trial(START)
    rows: list[dict[str, Any]] = []
    for number in range(options.trials):
        if rows and clock.over():
            tell(f"the time is over after {number} of {options.trials} proposals")
            break
        progress("proposals", number, options.trials)
        # By number, so that a search that is played again proposes the same.
        study.sampler = optuna.samplers.TPESampler(seed=options.train.seed + number)
        trial = study.ask()
        strategy = read_strategy(_propose(trial), options.train.epochs)
        found: list[tuple[float, float | None]] = []
        for split in splits:
            found.append(_accuracy_and_loss(options.out, material, split, strategy, share))
            trial.report(float(np.mean([a for a, _ in found])), len(found))
            if len(found) < len(splits) and trial.should_prune():
                break
        accuracy = float(np.mean([a for a, _ in found]))
        losses = [loss for _, loss in found if loss is not None]
        pruned = len(found) < len(splits)
        state = optuna.trial.TrialState.PRUNED if pruned else None
        study.tell(trial, None if pruned else accuracy, state=state)
        rows.append(
            {
                "strategy": strategy.name,
                "accuracy": accuracy,
                "loss": float(np.mean(losses)) if len(losses) == len(found) else None,
                "splits": len(found),
                "pruned": pruned,
            }
        )
        more = ", given up after the first split" if pruned else ""
        tell(f"{number + 1}: {accuracy:.3f} {strategy.name}{more}")
        write_json(options.out / TABLE, {"format": 1, "trials": rows})
    progress("proposals", len(rows), len(rows))
    return rows


def _propose(trial: Any) -> str:
    """A schedule by name, from what Optuna chooses."""
    depth = trial.suggest_categorical("depth", DEPTHS)
    head_rate = trial.suggest_float("head_rate", 3e-4, 3e-3, log=True)
    size = trial.suggest_categorical("batch_size", BATCHES)
    if depth == "head":
        return f"head_only+rate={head_rate:.3g}+batch_size={size}"
    rate = trial.suggest_float("rate", 1e-5, 1e-3, log=True)
    policy = trial.suggest_categorical("batch_norm", POLICIES)
    decay = trial.suggest_categorical("layer_decay", DECAYS)
    text = f"two_stage+head_rate={head_rate:.3g}+rate={rate:.3g}+batch_norm={policy}"
    text += f"+batch_size={size}"
    text += f"+layer_decay={decay:g}" if decay < 1 else ""
    return text + ("" if depth == "all" else f"+train=head|{depth}")


def _accuracy_and_loss(
    out: Path, material: Material, split: TrialSplit, strategy: Strategy, share: Share
) -> tuple[float, float | None]:
    file = folder.record_file(out, strategy, split)
    record = folder.read_record(file)
    if record is None:
        share.take()
        record = run_trial(material, split, strategy, folder.current_folder(file))
        folder.write_record(file, record)
    if "error" in record:
        # Diverged: as bad as can be, and no reason to end the search.
        return 0.0, None
    scores = record["scores"]["test"]
    right = float(np.mean(np.equal(scores["truth"], scores["guess"])))
    return right, float(-np.mean(np.log(np.maximum(scores["likelihood"], 1e-7))))


def _finish(options: TuneOptions, rows: list[dict[str, Any]]) -> Tuned:
    whole = [row for row in rows if not row["pruned"]]
    # Accuracies of few clips are often equal: then the lower loss decides.
    best = max(whole, key=lambda row: (row["accuracy"], -(row["loss"] or math.inf)))
    schedule = read_strategy(best["strategy"], options.train.epochs).schedule
    write_schedule(schedule, options.out / BEST)
    plot_search([row["accuracy"] for row in rows], options.out / "tuning.png")
    return Tuned(schedule, best["accuracy"], rows[0]["accuracy"], tuple(rows))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UnfreezeError(
            "The search needs Optuna. Install it with: pip install 'unfreeze[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
