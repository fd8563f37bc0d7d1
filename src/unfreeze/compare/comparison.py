"""`unfreeze compare`: run every strategy on the same splits, and write the report.

All runs share the decoded audio, the patches and the outputs of frozen layers. They
go split by split, so that whenever a comparison stops, all strategies have been
compared on the same splits. The report is written as JSON, as text, as pictures and as a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unfreeze.audio.manifest import Manifest
from unfreeze.backbones.registry import get_backbone
from unfreeze.compare import comparison_folder
from unfreeze.compare import trial as trials
from unfreeze.compare.budget import Deadline, Pace, Share
from unfreeze.compare.detector_scores import ALARMS, F1, Judge, MakeJudge
from unfreeze.compare.strategies import CompareOptions, Strategy, read_strategy
from unfreeze.compare.summary import Estimate, Summary, summarize, verdict
from unfreeze.compare.trial import Record, prepare
from unfreeze.compare.trial_splits import TrialSplit, has_groups, trial_splits
from unfreeze.core.callbacks import StageCallback
from unfreeze.files import write_json, write_text
from unfreeze.pipeline.patch_training import Material
from unfreeze.pipeline.training_data import TrainingData
from unfreeze.report.comparison_plots import (
    plot_accuracies,
    plot_costs,
    plot_detection,
    plot_distances,
)
from unfreeze.report.comparison_report import (
    RECORDINGS,
    part_words,
    score_words,
    write_comparison_report,
)


def write_report(out: Path, summary: Summary, records: Sequence[Record]) -> None:
    """Write `comparison.json`, `report.md`, the pictures and, last, `report.html`."""
    plain = summary.as_plain()
    pictures = list[str]()
    if summary.rows:
        if summary.ranked_by == RECORDINGS:
            plot_detection(plain["rows"], out / "detection.png")
            pictures.append("detection.png")
        plot_accuracies(plain["rows"], summary.grouped, out / "accuracy.png", summary.score)
        plot_costs(plain["rows"], summary.grouped, out / "cost.png", summary.score)
        plot_distances(plain["rows"], records, out / "moved.png")
        pictures += ["accuracy.png", "cost.png", "moved.png"]
    write_text(out / comparison_folder.REPORT, _text(summary, pictures))
    write_json(out / comparison_folder.RESULT, plain)
    write_comparison_report(out)


def _text(summary: Summary, pictures: Sequence[str]) -> str:
    lines = ["# Which strategy is best on these data", ""]
    lines += [f"- {line}" for line in verdict(summary)]
    lines += ["", *(f"- {note}" for note in summary.notes)] if summary.notes else []
    if summary.rows:
        parts = list(summary.rows[0].scores)
        heads = [
            f"{score_words(part, summary.score)} {part_words(part, summary.grouped)}"
            for part in parts
        ]
        if summary.ranked_by == RECORDINGS:
            heads += ["F1 of events", "false alarms an hour"]
        lines += ["", "| strategy | " + " | ".join(heads) + " | seconds per run | epochs |"]
        lines += ["|---" * (len(heads) + 3) + "|"]
        for row in summary.rows:
            cells = [_cell(row.scores[part]) for part in parts]
            if row.detection is not None:
                cells += [_cell(row.detection[F1]), _cell(row.detection[ALARMS], digits=1)]
            end = f"{row.seconds:.0f} | {row.epochs:.0f} |"
            lines.append(f"| {row.strategy} | " + " | ".join(cells) + f" | {end}")
        kind = "groups" if summary.grouped else "clips"
        lines += [
            "",
            f"Means over {summary.runs} runs, {summary.seeds} seeds, {summary.groups} test {kind}"
            f"{_searched(summary)}. "
            f"Brackets: 95 % intervals, bootstrap over {kind} and seeds; differences are paired. "
            "Seconds exclude work that all runs share. The score of the best strategy is "
            "slightly too high, because the best was chosen by the same scores.",
        ]
    for picture in pictures:
        lines += ["", f"![]({picture})"]
    return "\n".join(lines) + "\n"


def _searched(summary: Summary) -> str:
    if not summary.recordings:
        return ""
    noun = "recording" if summary.recordings == 1 else "recordings"
    return f", {summary.recordings} annotated {noun}, which are drawn where they are scored"


def _cell(estimate: Estimate, digits: int = 3) -> str:
    if estimate.interval is None:
        return f"{estimate.accuracy:.{digits}f}"
    low, high = estimate.interval
    return f"{estimate.accuracy:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


class CompareListener(StageCallback):
    """Notified of the progress of a comparison; override any of the methods."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Progress before training: `what` is "reading", "weights" or "features"."""

    def on_begin(self, data: TrainingData, splits: Sequence[TrialSplit], runs: int) -> None:
        """Everything is ready; `runs` is the number of runs in all."""

    def on_run_begin(self, strategy: str, trial: str, done: int, left: float | None) -> None:
        """A run begins; `left` is the estimated seconds for all remaining runs."""

    def on_run_end(self, record: Record) -> None:
        """A run has finished, now or before a restart."""


@dataclass(frozen=True, eq=False)
class Run:
    """One of the runs of a comparison."""

    strategy: Strategy
    trial: TrialSplit
    file: Path


def compare(
    options: CompareOptions,
    listener: CompareListener | None = None,
    most: int | None = None,
    make_judge: MakeJudge | None = None,
) -> Summary:
    """Compare strategies, or resume a comparison that was interrupted.

    Args:
        options: what to compare.
        listener: notified of progress.
        most: maximum number of runs in this call; None for all.
        make_judge: finds, for the data, annotated recordings that the models search; strategies
            are then ranked as detectors.

    Returns:
        Means, differences and intervals; the folder holds the same.

    Raises:
        UnfreezeError: anything that the user can correct, as early as possible.
        EnoughRuns: `most` runs are done and others remain; the next call resumes.
    """
    listener = listener or CompareListener()
    strategies = [read_strategy(name, options.train.epochs) for name in options.strategies]
    with comparison_folder.held(options.out):
        return _compare(options, strategies, listener, Share(most), make_judge)


def _compare(
    options: CompareOptions,
    strategies: Sequence[Strategy],
    listener: CompareListener,
    share: Share,
    make_judge: MakeJudge | None,
) -> Summary:
    judges: list[Judge] = []
    train = options.train

    def find_judge(manifest: Manifest) -> None:
        if make_judge is not None:
            front = get_backbone(train.backbone, train.slow_down, train.channel).front_end
            judges.append(make_judge(manifest, front))

    material, data = prepare(train, strategies, listener.on_progress, find_judge)
    judge = judges[0] if judges else None
    splits = trial_splits(data.manifest, options)
    comparison_folder.begin(options.out, _config(options, material, judge))
    runs = [
        Run(strategy, trial, comparison_folder.record_file(options.out, strategy, trial))
        for trial in splits
        for strategy in strategies
    ]
    listener.on_begin(data, splits, len(runs))
    records = run_all(runs, material, options.budget, listener, share, judge)
    names = [strategy.name for strategy in strategies]
    summary = summarize(records, names, grouped=has_groups(data.manifest), planned=len(runs))
    if judge is not None:
        found = next((record["detection"] for record in records if "detection" in record), None)
        lengths = dict(zip(found["recordings"], found["seconds"], strict=True)) if found else {}
        summary = replace(summary, notes=(*summary.notes, *judge.notes(lengths)))
    write_report(options.out, summary, records)
    return summary


def run_all(
    runs: Sequence[Run],
    material: Material,
    budget: float | None,
    listener: CompareListener,
    share: Share,
    judge: Judge | None = None,
) -> list[Record]:
    """Do the runs that have no record yet, in order, within the budget.

    Args:
        runs: all of them.
        material: the inputs that they share.
        budget: seconds from now; no run is started that would probably exceed it,
            judged by earlier runs of the same strategy. None for no limit.
        listener: notified of progress.
        share: number of runs for this process.
        judge: annotated recordings that the models search.

    Returns:
        The records of all finished runs.

    Raises:
        EnoughRuns: the share is used up, and other runs remain.
    """
    clock = Deadline(budget)
    records = [comparison_folder.read_record(run.file) for run in runs]
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
        state = comparison_folder.current_folder(run.file)
        record = trials.run_trial(material, run.trial, run.strategy, state, [listener], judge)
        comparison_folder.write_record(run.file, record)
        records[place] = record
        pace.add(record)
        listener.on_run_end(record)
    return [record for record in records if record is not None]


def _config(options: CompareOptions, material: Material, judge: Judge | None) -> dict[str, Any]:
    divided = options.folds or options.holdout
    return {
        **comparison_folder.shared_config(material, options.train),
        "kind": "comparison",
        **({"test": None} if divided else {}),
        "folds": options.folds,
        "holdout": list(options.holdout),
        "detect": None if judge is None else judge.described,
    }
