"""`unfreeze compare`: run every strategy on the same splits, and keep each result.

All runs share the decoded audio, the patches and the outputs of frozen layers.
The order is trial by trial, so that whenever it ends, strategies have been
compared on the same splits.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from unfreeze import run_folder
from unfreeze.backbones.registry import get_backbone
from unfreeze.backbones.weights import resolve_weights
from unfreeze.compare import folder
from unfreeze.compare.options import CompareOptions, Strategy, read_strategy
from unfreeze.compare.report import write_report
from unfreeze.compare.splits import TrialSplit, has_groups, trial_splits
from unfreeze.compare.summary import Summary, summarize
from unfreeze.compare.trial import Material, Record, new_model, run_trial
from unfreeze.core.graph import flatten
from unfreeze.core.select import check
from unfreeze.core.watch import StageCallback
from unfreeze.features import build_features
from unfreeze.training_data import TrainingData, read_training_data


class CompareListener(StageCallback):
    """Hears of a comparison; all methods may be overridden, none must."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Work before training: `what` is "reading", "weights" or "features"."""

    def on_begin(self, data: TrainingData, splits: Sequence[TrialSplit], runs: int) -> None:
        """Everything is ready; so many runs are to be done in all."""

    def on_run_begin(self, strategy: str, trial: str, done: int, left: float | None) -> None:
        """A run begins; `left` is the seconds that all runs that are left may take."""

    def on_run_end(self, record: Record) -> None:
        """A run has ended, now or in an earlier start."""


@dataclass(frozen=True, eq=False)
class Run:
    """One of the runs of a comparison."""

    strategy: Strategy
    trial: TrialSplit
    file: Path


def compare(options: CompareOptions, listener: CompareListener | None = None) -> Summary:
    """Compare strategies, or go on with a comparison that was broken off.

    Args:
        options: what to compare.
        listener: hears of progress.

    Returns:
        Means, differences and intervals; the same stands in the folder.

    Raises:
        UnfreezeError: anything that the user can mend, as early as it is known.
    """
    listener = listener or CompareListener()
    strategies = [read_strategy(name, options.train.epochs) for name in options.strategies]
    folder.claim(options.out)
    with run_folder.locked(options.out):
        return _compare(options, strategies, listener)


def _compare(
    options: CompareOptions, strategies: Sequence[Strategy], listener: CompareListener
) -> Summary:
    material, data = prepare(options, strategies, listener)
    splits = trial_splits(data.manifest, options)
    folder.begin(options.out, _config(options, material))
    runs = [
        Run(strategy, trial, folder.record_file(options.out, strategy, trial))
        for trial in splits
        for strategy in strategies
    ]
    listener.on_begin(data, splits, len(runs))
    records = run_all(runs, material, options.budget, listener)
    names = [strategy.name for strategy in strategies]
    summary = summarize(records, names, grouped=has_groups(data.manifest), planned=len(runs))
    write_report(options.out, summary, records)
    return summary


def prepare(
    options: CompareOptions, strategies: Sequence[Strategy], listener: CompareListener
) -> tuple[Material, TrainingData]:
    """Read the data and make the features; each strategy is checked before that.

    Raises:
        UnfreezeError: the data, the weights or a strategy cannot be used.
    """
    backbone = get_backbone(options.train.backbone)
    data = read_training_data(
        options.train, lambda done, total: listener.on_progress("reading", done, total)
    )
    weights = resolve_weights(
        backbone.name,
        path=options.train.weights,
        progress=lambda done, total: listener.on_progress("weights", done, total),
    )
    graph = flatten(new_model(backbone, weights, len(data.manifest.labels), 0))
    for strategy in strategies:
        check(graph, strategy.schedule)
    store = build_features(
        data.manifest,
        backbone.front_end,
        lambda done, total: listener.on_progress("features", done, total),
    )
    return Material(data.manifest, store, backbone, weights), data


def run_all(
    runs: Sequence[Run], material: Material, budget: float | None, listener: CompareListener
) -> list[Record]:
    """Do the runs that have no record yet, in order, while the budget lasts.

    Args:
        runs: all of them.
        material: what they share.
        budget: seconds from now after which none is begun, judged by how long
            runs of the same strategy took; None for no limit.
        listener: hears of progress.

    Returns:
        The records of all runs that have ended.
    """
    began = time.monotonic()
    records = [folder.read_record(run.file) for run in runs]
    for record in records:
        if record is not None:
            listener.on_run_end(record)
    pace = Pace([record for record in records if record is not None])
    for place, run in enumerate(runs):
        if records[place] is not None:
            continue
        needed = pace.seconds(run.strategy.name)
        if budget is not None and time.monotonic() - began + (needed or 0.0) > budget:
            continue
        left = pace.left([r.strategy.name for r, x in zip(runs, records, strict=True) if x is None])
        done = sum(record is not None for record in records)
        listener.on_run_begin(run.strategy.name, run.trial.name, done, left)
        state = folder.current_folder(run.file)
        record = run_trial(material, run.trial, run.strategy, state, [listener])
        folder.write_record(run.file, record)
        records[place] = record
        pace.add(record)
        listener.on_run_end(record)
    return [record for record in records if record is not None]


class Pace:
    """How long runs take, from those that have ended."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._seconds: dict[str, list[float]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Learn from a run."""
        if "wall_seconds" in record:
            self._seconds.setdefault(record["strategy"], []).append(record["wall_seconds"])

    def seconds(self, strategy: str) -> float | None:
        """Of a run of a strategy; the mean over all if none has ended, None before the first."""
        known = self._seconds.get(strategy) or [s for each in self._seconds.values() for s in each]
        return sum(known) / len(known) if known else None

    def left(self, strategies: Sequence[str]) -> float | None:
        """Of all runs that are left; None before the first has ended."""
        times = [self.seconds(strategy) for strategy in strategies]
        return None if any(t is None for t in times) else float(sum(t for t in times if t))


def _config(options: CompareOptions, material: Material) -> dict[str, Any]:
    train, manifest = options.train, material.manifest
    return {
        "data": {"fingerprint": manifest.fingerprint, "clips": len(manifest.clips)},
        "labels": list(manifest.labels),
        "backbone": material.backbone.name,
        "weights": material.backbone.weights.sha256,
        "validation": train.validation,
        "test": train.test if not (options.folds or options.holdout) else None,
        "folds": options.folds,
        "holdout": list(options.holdout),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
