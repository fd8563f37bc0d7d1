"""The terminal's display of a training run: progress bars, and lines that stay."""

import json as json_module
import shlex
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from unfreeze.cli.sentences import say
from unfreeze.cli.terminal import WORK, Asked, bars
from unfreeze.pipeline.run_folder import REPORT
from unfreeze.pipeline.run_progress import ProgressFile
from unfreeze.pipeline.thresholds import COUNTS
from unfreeze.pipeline.training import Summary, TrainListener
from unfreeze.report.tables import (
    audit_table,
    change_table,
    class_table,
    corrections_line,
    metrics_table,
    plan_table,
    threshold_table,
)


class TrainDisplay(TrainListener):
    """Shows a training run: bars while it works, tables when a part is done.

    Args:
        quiet: show only the scores.
        json: print the scores as JSON, and nothing else on standard output.
        out: the run folder, to name at the end.
        asked: the requests of signals.
        told: the file that other programs watch, if there is one.

    Attributes:
        begun: whether trials or a stage have started, so that the run folder is this run's.
    """

    def __init__(
        self,
        quiet: bool,
        json: bool,
        out: Path | None,
        asked: Asked,
        told: ProgressFile | None = None,
    ) -> None:
        super().__init__()
        self.quiet, self.json, self.out = quiet, json, out
        self.asked, self.told = asked, told
        self.begun = False
        self.shown = not (quiet or json)
        self.console = Console(highlight=False)
        self.progress = bars(self.shown)
        self.began = time.perf_counter()
        self._tasks: dict[str, Any] = {}
        self._stage: Any = None
        self._example = "FILE"

    def on_progress(self, what: str, done: int, total: int) -> None:
        """Move the bar of work before training."""
        # Trials are kept in the run's folder, like stages.
        self.begun = self.begun or what == "trials"
        self._work(what, WORK.get(what, what), done, total)

    def on_summary(self, summary: Summary) -> None:
        """Show the data and the plan."""
        self._clear()
        manifest, split = summary.manifest, summary.split
        if len(split.test):
            self._example = shlex.quote(str(manifest.clips[split.test[0]].path))
        hours = sum(clip.seconds for clip in manifest.clips) / 3600
        length = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
        bad = sum(problem.fatal for problem in manifest.problems)
        self._say(f"{len(manifest.clips)} clips, {length}, {len(manifest.labels)} classes")
        counts = [f"{name} {len(clips)}" for name, clips in split.parts().items()]
        counts += [f"corrected, held out {summary.corrected}"] if summary.corrections else []
        patches = f"{sum(summary.patches.values()):,} patches"
        self._say(f"split: {', '.join(counts)} clips; {patches}")
        if bad:
            self._say(f"{bad} files are left out; `unfreeze inspect` lists them", "yellow")
        if summary.corrections is not None:
            self._say(corrections_line(summary.corrections.as_plain()))
        if self.told is not None:
            self.told.plan([(stage.stage, stage.epochs) for stage in summary.plans])
        for note in summary.notes:
            self._note(note, "yellow")
        if self.shown:
            self.progress.console.print()
            title = f"schedule {summary.schedule.name}"
            self.progress.console.print(plan_table(summary.plans, title))
            self.progress.console.print()

    def on_note(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        self._note(text, "dim")

    def on_stage_begin(self, plan: Any) -> None:
        """Start the stage's bar."""
        self._clear()
        self._stage = plan
        self.begun = True
        if self.told is not None:
            self.told.stage(plan.stage)

    def on_train_begin(self, logs: Any = None) -> None:
        """From here on, a signal lets the current step finish."""
        self.asked.in_step = True

    def on_train_end(self, logs: Any = None) -> None:
        """From here on, a signal stops at once."""
        self.asked.in_step = False

    def wants_to_stop(self) -> bool:
        """Whether a signal has requested it."""
        return self.asked.to_stop

    def on_cache(self, what: str, done: int, total: int) -> None:
        """Move the bar of the frozen prefix."""
        self._work(f"cache {what}", f"Frozen layers, once ({what})", done, total)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Show the bar before the first epoch ends."""
        if epoch == 0 and self._stage is not None:
            self._clear()
            self._move(self._stage.stage, f"{self._stage.stage}: epoch 1", 0, self._stage.epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar and show loss and accuracy."""
        values = logs or {}
        shown = [f"{self._stage.stage}: epoch {epoch + 1}"]
        for name, label in (("loss", "loss"), ("accuracy", "acc")):
            pair = [values.get(name), values.get(f"val_{name}")]
            if pair[0] is not None:
                texts = [f"{float(v):.3f}" for v in pair if v is not None]
                shown.append(f"{label} {' / '.join(texts)}")
        self._move(self._stage.stage, "  ".join(shown), epoch + 1, self._stage.epochs)
        if self.told is not None:
            self.told.epoch(self._stage.stage, epoch + 1, self._stage.epochs, values)

    def on_stage_end(self, result: Any) -> None:
        """Show the result of the stage and what it moved."""
        self._clear()
        if self.told is not None:
            self.told.end_stage(
                result.stage, result.best_epoch, result.monitor, float(result.best_value)
            )
        row = result.rows[result.best_epoch - 1]
        names = dict.fromkeys(
            (
                *(result.monitor, "val_loss", "val_mean_average_precision"),
                *("val_clip_accuracy", "val_accuracy"),
            )
        )
        reached = ", ".join(f"{name} {row[name]:.4g}" for name in names if name in row)
        plan = self._stage
        if plan.solve:
            tried = f", the best of {result.epochs}" if result.epochs > 1 else ""
            kept = f"solved with C {row['C']:g}{tried}"
        elif plan.keep == "last":
            kept = f"the last of {result.epochs} epochs is kept"
        else:
            kept = f"best of {result.epochs} epochs is {result.best_epoch}"
        self._say(f"stage {result.stage}: {kept} ({reached}), {result.seconds:.1f} s", "bold")
        if self.shown:
            self.progress.console.print(audit_table([result.audit.as_dict()]))
            self.progress.console.print()

    def on_scores(self, metrics: dict[str, Any]) -> None:
        """Show the scores and the path of the results."""
        self._clear()
        self.progress.stop()
        if self.json:
            self.console.print_json(json_module.dumps(metrics))
            return
        part = "test" if metrics["test"] is not None else "validation"
        scores = metrics[part]
        if scores is None:
            self._say("no clips were held out: nothing was tested", "yellow")
        else:
            title = "Test: clips not used to train or choose" if part == "test" else "Validation"
            self.console.print(metrics_table(scores, title))
            if self.shown:
                self.console.print()
                self.console.print(class_table(scores, limit=12))
        if self.shown and "depths" in metrics:
            say(self.console, f"\n{metrics['depths']['summary']}")
        if "change" in metrics:
            self.console.print()
            self.console.print(change_table(metrics["change"]))
        self._say_thresholds(metrics)
        if self.shown and not metrics["background"]:
            say(
                self.console,
                "\nTrained without background: in long recordings, noise would be called one of "
                "the classes. For those, repeat the command without --no-gate.",
            )
        if self.shown and self.out is not None:
            self.console.print(
                f"\n{time.perf_counter() - self.began:.0f} s in all. "
                f"Model, scores and pictures: {self.out}\n"
                f"Look and listen: {self.out / REPORT}\n"
                f"Try it: unfreeze predict {shlex.quote(str(self.out))} {self._example}",
                markup=False,
                soft_wrap=True,
            )

    def _say_thresholds(self, metrics: dict[str, Any]) -> None:
        """Show from which scores classes are heard, where that is for long recordings."""
        counted = metrics.get(COUNTS)
        if not self.shown or not counted or not counted["hours_of_background"]:
            return
        hours = counted["hours_of_background"]
        title = f"In long recordings: thresholds for {metrics['threshold_wish']}"
        self.console.print()
        self.console.print(threshold_table(metrics["threshold_choices"], title, limit=12))
        say(
            self.console,
            f"Estimated on validation clips and {60 * hours:.0f} minutes of background. Choose "
            "others with predict --precision or --max-false-alarms.",
            "dim",
        )

    def _work(self, key: str, title: str, done: int, total: int) -> None:
        """Show work that is no training."""
        self._move(key, title, done, total)
        if self.told is not None:
            self.told.work(title, done, total)

    def _note(self, text: str, style: str) -> None:
        self._say(text, style)
        if self.told is not None:
            self.told.note(text)

    def _move(self, key: str, title: str, done: int, total: int) -> None:
        if key not in self._tasks:
            self._tasks[key] = self.progress.add_task(title, total=total or None)
        self.progress.update(
            self._tasks[key], description=title, completed=done, total=total or None
        )

    def _clear(self) -> None:
        for task in self._tasks.values():
            self.progress.remove_task(task)
        self._tasks.clear()

    def _say(self, text: str, style: str = "") -> None:
        if self.shown:
            say(self.progress.console, text, style or None)
