"""`unfreeze compare`: run every strategy on the same splits, and keep each result.

All runs share the decoded audio, the patches and the outputs of frozen layers.
The order is trial by trial, so that whenever it ends, strategies have been
compared on the same splits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze import run_folder
from unfreeze.compare import folder
from unfreeze.compare.budget import Deadline, Pace, Share
from unfreeze.compare.options import CompareOptions, Strategy, read_strategy
from unfreeze.compare.prepare import prepare
from unfreeze.compare.report import write_report
from unfreeze.compare.splits import TrialSplit, has_groups, trial_splits
from unfreeze.compare.summary import Summary, summarize
from unfreeze.compare.trial import Material, Record, run_trial
from unfreeze.core.watch import StageCallback
from unfreeze.training_data import TrainingData


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


def compare(
    options: CompareOptions, listener: CompareListener | None = None, most: int | None = None
) -> Summary:
    """Compare strategies, or go on with a comparison that was broken off.

    Args:
        options: what to compare.
        listener: hears of progress.
        most: runs to do in this call; None for all.

    Returns:
        Means, differences and intervals; the same stands in the folder.

    Raises:
        UnfreezeError: anything that the user can mend, as early as it is known.
        EnoughRuns: `most` are done and others are left; the next call goes on.
    """
    listener = listener or CompareListener()
    strategies = [read_strategy(name, options.train.epochs) for name in options.strategies]
    folder.claim(options.out)
    with run_folder.locked(options.out):
        return _compare(options, strategies, listener, Share(most))


def _compare(
    options: CompareOptions,
    strategies: Sequence[Strategy],
    listener: CompareListener,
    share: Share,
) -> Summary:
    material, data = prepare(options.train, strategies, listener.on_progress)
    splits = trial_splits(data.manifest, options)
    folder.begin(options.out, _config(options, material))
    runs = [
        Run(strategy, trial, folder.record_file(options.out, strategy, trial))
        for trial in splits
        for strategy in strategies
    ]
    listener.on_begin(data, splits, len(runs))
    records = run_all(runs, material, options.budget, listener, share)
    names = [strategy.name for strategy in strategies]
    summary = summarize(records, names, grouped=has_groups(data.manifest), planned=len(runs))
    write_report(options.out, summary, records)
    return summary


def run_all(
    runs: Sequence[Run],
    material: Material,
    budget: float | None,
    listener: CompareListener,
    share: Share,
) -> list[Record]:
    """Do the runs that have no record yet, in order, while the budget lasts.

    Args:
        runs: all of them.
        material: what they share.
        budget: seconds from now after which none is begun, judged by how long
            runs of the same strategy took; None for no limit.
        listener: hears of progress.
        share: of this process.

    Returns:
        The records of all runs that have ended.

    Raises:
        EnoughRuns: the share is used up, and others are left.
    """
    clock = Deadline(budget)
    records = [folder.read_record(run.file) for run in runs]
    for record in records:
        if record is not None:
            listener.on_run_end(record)
    pace = Pace([record for record in records if record is not None])
    for place, run in enumerate(runs):
        if records[place] is not None:
            continue
        if clock.over(pace.seconds(run.strategy.name)):
            continue
        share.take()
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


def _config(options: CompareOptions, material: Material) -> dict[str, Any]:
    divided = options.folds or options.holdout
    return {
        **folder.shared_config(material, options.train),
        "kind": "comparison",
        **({"test": None} if divided else {}),
        "folds": options.folds,
        "holdout": list(options.holdout),
    }
