"""The terminal's display of a comparison: progress, one line per run, and the result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from unfreeze.cli.sentences import say
from unfreeze.cli.terminal import WORK, Asked, bars
from unfreeze.compare.comparison import CompareListener
from unfreeze.compare.detector_scores import ALARMS, AP, F1
from unfreeze.compare.summary import Estimate, Summary, rightness, verdict
from unfreeze.compare.trial_splits import TrialSplit, has_groups
from unfreeze.core.estimate import in_words
from unfreeze.pipeline.training_data import TrainingData
from unfreeze.report.comparison_report import RECORDINGS, part_words
from unfreeze.report.tables import three_digits


class CompareDisplay(CompareListener):
    """Shows a comparison: a bar for all runs, one for the current run, and a line per run.

    Args:
        shown: False draws nothing.
        renewed: the comparison continues in a new process, which does not introduce it again.

    Attributes:
        asked: the requests of signals.
    """

    def __init__(self, shown: bool, renewed: bool = False) -> None:
        super().__init__()
        self.shown, self.renewed = shown, renewed
        self.asked = Asked()
        self.progress = bars(shown)
        self._work: dict[str, Any] = {}
        self._runs: Any = None
        self._stage: Any = None
        self._bar: Any = None
        self._name = ""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Move the bar of work before training."""
        if what not in self._work:
            self._work[what] = self.progress.add_task(WORK.get(what, what), total=None)
        self.progress.update(self._work[what], completed=done, total=total or None)

    def on_begin(self, data: TrainingData, splits: Sequence[TrialSplit], runs: int) -> None:
        """Show the data, the splits and the number of runs."""
        for task in self._work.values():
            self.progress.remove_task(task)
        self._runs = self.progress.add_task("Runs", total=runs)
        if self.renewed:
            return
        manifest, first = data.manifest, splits[0]
        groups = len({clip.group for clip in manifest.clips})
        sizes = [len(first.split.train), len(first.split.validation), len(first.split.test)]
        self._say(f"{len(manifest.clips)} clips, {len(manifest.labels)} classes, {groups} groups")
        words = f"train {sizes[0]}, validation {sizes[1]}"
        if has_groups(manifest):
            unseen = {manifest.clips[int(i)].group for i in first.split.test}
            words += (
                f", unseen groups {sizes[2]} ({len(unseen)} groups), seen groups {len(first.seen)}"
            )
        else:
            words += f", test {sizes[2]}"
        self._say(f"{len(splits)} splits, {runs} runs; clips of the first: {words}")

    def on_run_begin(self, strategy: str, trial: str, done: int, left: float | None) -> None:
        """Show the run's name and the time left."""
        text = "Runs" if left is None else f"Runs (about {in_words(left)} left)"
        self.progress.update(self._runs, description=text)
        self._bar = self.progress.add_task(f"{strategy}, {trial}", total=None)
        self._name = f"{strategy}, {trial}"

    def on_stage_begin(self, plan: Any) -> None:
        """Remember the stage."""
        self._stage = plan

    def on_train_begin(self, logs: Any = None) -> None:
        """From here on, a signal lets the current step finish."""
        self.asked.in_step = True

    def on_train_end(self, logs: Any = None) -> None:
        """From here on, a signal stops at once."""
        self.asked.in_step = False

    def wants_to_stop(self) -> bool:
        """Whether a signal has requested it."""
        return self.asked.to_stop

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar of the run."""
        text = f"{self._name}: {self._stage.stage}"
        accuracy = (logs or {}).get("val_accuracy")
        text += "" if accuracy is None else f", validation {float(accuracy):.3f}"
        self.progress.update(
            self._bar, description=text, completed=epoch + 1, total=self._stage.epochs
        )

    def on_run_end(self, record: dict[str, Any]) -> None:
        """Print a line with the result."""
        if self._bar is not None:
            self.progress.remove_task(self._bar)
            self._bar = None
            self._say(run_line(record))
        self.progress.advance(self._runs)

    def show(self, summary: Summary, out: Path, quiet: bool) -> None:
        """Print the table, the verdict, and the path of the report."""
        console = Console(highlight=False)
        if summary.rows:
            console.print(summary_table(summary))
        for line in verdict(summary):
            say(console, line)
        for note in summary.notes:
            say(console, note, "yellow")
        if not quiet:
            console.print(
                f"\nTables and pictures: {out / 'report.html'}", markup=False, soft_wrap=True
            )

    def _say(self, text: str) -> None:
        if self.shown:
            say(self.progress.console, text)


def run_line(record: dict[str, Any]) -> str:
    """A run's result on one line."""
    where = f"seed {record['seed']}"
    where += "" if record["fold"] is None else f", fold {record['fold']}"
    if "error" in record:
        return f"{record['strategy']}, {where}: diverged"
    scores = [
        f"{'test' if part == 'test' else 'seen groups'} {np.mean(rightness(found)):.3f}"
        for part, found in record["scores"].items()
    ]
    if "detection" in record:
        found = record["detection"]
        scores.append(f"mean AP {three_digits(found[AP])}")
    epochs = "+".join(str(n) for n in record["epochs"].values())
    return (
        f"{record['strategy']}, {where}: {', '.join(scores)} "
        f"({epochs} epochs, {record['wall_seconds']:.0f} s)"
    )


def summary_table(summary: Summary) -> Table:
    """One row per strategy, the best first."""
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column("strategy", no_wrap=True)
    parts = list(summary.rows[0].scores)
    searched = summary.ranked_by == RECORDINGS
    for part in parts:
        words = part_words(part, summary.grouped).removeprefix("on ")
        table.add_column("mean AP" if part == RECORDINGS else words, justify="right")
    for name in ("F1 of events", "false alarms/h") if searched else ():
        table.add_column(name, justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("epochs", justify="right")
    for row in summary.rows:
        cells = [_cell(row.scores[part]) for part in parts]
        if row.detection is not None:
            cells += [_cell(row.detection[F1]), f"{row.detection[ALARMS].accuracy:.1f}"]
        table.add_row(row.strategy, *cells, f"{row.seconds:.0f}", f"{row.epochs:.0f}")
    return table


def _cell(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.accuracy:.3f}"
    low, high = estimate.interval
    return f"{estimate.accuracy:.3f} [{low:.2f}, {high:.2f}]"
