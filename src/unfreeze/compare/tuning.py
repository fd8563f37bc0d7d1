"""`unfreeze tune`: a search for the best two-stage schedule, on the training clips alone.

Optuna proposes schedules (Akiba et al. 2019, "Optuna: A Next-generation Hyperparameter
Optimization Framework", KDD). Each is trained on inner splits by group and scored on
inner groups that it was not trained on. The clips that `unfreeze train` would test on
with the same seed are never used. A proposal depends only on the seed and the earlier
results, and each run is kept: an interrupted search repeats its proposals from the
records, at once, and continues.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.split import split_clips
from unfreeze.backbones.registry import get_backbone
from unfreeze.compare import comparison_folder
from unfreeze.compare import trial as trials
from unfreeze.compare.budget import Deadline, Share
from unfreeze.compare.strategies import Strategy, read_strategy
from unfreeze.compare.summary import rightness
from unfreeze.compare.trial import prepare
from unfreeze.compare.trial_splits import FOLDS, TrialSplit, inner_split
from unfreeze.core.schedule import Schedule
from unfreeze.core.schedule_file import write_schedule
from unfreeze.errors import UnfreezeError
from unfreeze.files import write_json
from unfreeze.pipeline.patch_training import Material
from unfreeze.pipeline.run_folder import read_json
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.pipeline.training_data import NamedProgress
from unfreeze.report.comparison_plots import plot_search

BEST, TABLE = "best.yaml", "tuning.json"
DEPTHS = ("head", "top:1", "top:25%", "top:50%", "all")
POLICIES = ("frozen", "affine", "train")
DECAYS = (1.0, 0.8, 0.65)
BATCHES = (16, 32, 64)
# The preset `two_stage` comes first: the result of the search must beat it.
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
        train: the data and how to read and divide them, as for the later run;
            `epochs` is the maximum per stage. Its schedule and out are not used.
        out: the folder of the search.
        trials: number of proposals to try.
        splits: number of inner splits to try each on.
        budget: seconds after which no proposal is started; None for no limit.
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
        schedule: the best, for `unfreeze train --schedule`.
        accuracy: its mean over the inner splits.
        start: the accuracy of the first proposal, `two_stage`.
        rows: one row per proposal: `strategy`, `accuracy`, `loss`, `splits`, `pruned`.
    """

    schedule: Schedule
    accuracy: float
    start: float
    rows: tuple[dict[str, Any], ...]


def tune(
    options: TuneOptions,
    tell: Callable[[str], None] = lambda text: None,
    progress: NamedProgress = lambda what, done, total: None,
    most: int | None = None,
) -> Tuned:
    """Search for a schedule, or resume a search that was interrupted.

    Args:
        options: what to search on.
        tell: called with one line per proposal.
        progress: called as progress(what, done, total).
        most: maximum number of runs in this call; None for all.

    Raises:
        UnfreezeError: Optuna is not installed, or the data or settings cannot be used.
        EnoughRuns: `most` runs are done and others remain; the next call resumes.
    """
    optuna = _optuna()
    if get_backbone(options.train.backbone).is_frozen:
        raise UnfreezeError(
            f"{options.train.backbone} is a frozen network in a file of its own, and a search "
            "tries schedules that train it: use `unfreeze compare --strategies probe,head_only`"
        )
    with comparison_folder.held(options.out):
        material, data = prepare(options.train, [], progress)
        train = options.train
        outer = split_clips(
            data.manifest, validation=train.validation, test=train.test, seed=train.seed
        )
        splits = [inner_split(data.manifest, outer, number) for number in range(options.splits)]
        shared = comparison_folder.shared_config(material, train)
        own = {"kind": "tuning", "seed": train.seed, "inner_folds": FOLDS}
        comparison_folder.begin(options.out, {**shared, **own})
        rows = _search(optuna, options, material, splits, Share(most), tell, progress)
        return _finish(options, rows)


def read_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of the proposals that a search has scored so far."""
    file = out / TABLE
    if not file.is_file():
        return []
    return list(read_json(file, "delete it: the search writes it again").get("trials", []))


def _search(
    optuna: Any,
    options: TuneOptions,
    material: Material,
    splits: list[TrialSplit],
    share: Share,
    tell: Callable[[str], None],
    progress: NamedProgress,
) -> list[dict[str, Any]]:
    clock = Deadline(options.budget)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.enqueue_trial(START)
    rows: list[dict[str, Any]] = []
    for number in range(options.trials):
        if rows and clock.over():
            tell(f"the time is up after {number} of {options.trials} proposals")
            break
        progress("proposals", number, options.trials)
        # By number, so that a resumed search makes the same proposals.
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
        more = ", stopped after the first split" if pruned else ""
        tell(f"{number + 1}: {accuracy:.3f} {strategy.name}{more}")
        write_json(options.out / TABLE, {"format": 1, "trials": rows})
    progress("proposals", len(rows), len(rows))
    return rows


def _propose(trial: Any) -> str:
    """The name of a schedule, from values that Optuna chooses."""
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
    file = comparison_folder.record_file(out, strategy, split)
    record = comparison_folder.read_record(file)
    if record is None:
        share.take()
        record = trials.run_trial(material, split, strategy, comparison_folder.current_folder(file))
        comparison_folder.write_record(file, record)
    if "error" in record:
        # Diverged: the worst possible score, but the search continues.
        return 0.0, None
    scores = record["scores"]["test"]
    right = float(np.mean(rightness(scores)))
    return right, float(-np.mean(np.log(np.maximum(scores["likelihood"], 1e-7))))


def _finish(options: TuneOptions, rows: list[dict[str, Any]]) -> Tuned:
    whole = [row for row in rows if not row["pruned"]]
    # With few clips, accuracies are often equal: then the lower loss decides.
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
