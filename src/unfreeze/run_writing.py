"""What a training run writes into its folder, before the first epoch and after the last."""

import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras

from unfreeze import run_folder
from unfreeze.audio.manifest import Manifest
from unfreeze.backbones.registry import Backbone
from unfreeze.core.run import FitResult
from unfreeze.core.schedule import Schedule
from unfreeze.core.schedule_yaml import write_schedule
from unfreeze.errors import RunError
from unfreeze.files import atomic_path, write_json
from unfreeze.options import AUTO, TrainOptions
from unfreeze.report.comparison_plots import plot_accuracies
from unfreeze.report.plots import plot_confusion, plot_curves, plot_moved
from unfreeze.training_data import TrainingData
from unfreeze.version import __version__


def begin_run(options: TrainOptions, data: TrainingData, weights: Path, backbone: Backbone) -> None:
    """Write what is known before training, so that a broken run is known as such.

    Raises:
        RunError: the run is to be gone on with and is not the same.
    """
    out = options.out
    assert out is not None
    run_folder.sweep(out)
    manifest = data.manifest
    config = {
        "unfreeze": __version__,
        "command": command_line(options),
        "options": options.as_plain(),
        "labels": list(manifest.labels),
        "data": {
            "root": str(manifest.root),
            "fingerprint": manifest.fingerprint,
            "clips": len(manifest.clips),
        },
        "weights": {"file": str(weights), "sha256": backbone.weights.sha256},
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    if options.resume and (out / run_folder.CONFIG).is_file():
        run_folder.refuse_changes(out, config)
    else:
        run_folder.clear(out)
        run_folder.write_config(out, config)
    # Of a run that is gone on with, too: it may have been killed between these files.
    run_folder.write_table(out / run_folder.SPLITS, _split_rows(data))


def record_schedule(out: Path, schedule: Schedule) -> None:
    """Write the schedule as it is about to be run."""
    write_schedule(schedule, out / run_folder.SCHEDULE)


def _split_rows(data: TrainingData) -> list[dict[str, str]]:
    manifest = data.manifest
    part_of = {int(i): name for name, clips in data.parts().items() for i in clips}
    added = {int(i) for i in data.added}
    rows = []
    for number, clip in enumerate(manifest.clips):
        # Held-out corrected clips are test clips of the next run that adds to this one.
        part = "test" if part_of[number] == "corrected" else part_of[number]
        row = {
            "path": clip.path.relative_to(manifest.root).as_posix(),
            "label": clip.label,
            "group": clip.group,
            "split": part,
        }
        if data.corrections is not None:
            row["added"] = "yes" if number in added else "no"
        rows.append(row)
    return rows


def finish_run(
    out: Path, model: keras.Model, manifest: Manifest, result: FitResult, metrics: dict[str, Any]
) -> None:
    """Write the model, what its training was like and how good it is; the scores last.

    Raises:
        RunError: something cannot be written; tells how nothing is lost.
    """
    try:
        _finish(out, model, manifest, result, metrics)
    except OSError as error:
        kept = None if (out / run_folder.MODEL).is_file() else _rescue(model)
        raise RunError(
            f"the run is trained, but {out} cannot be written ({error.strerror or error}). Make "
            "room or give the rights, then the same command with --resume does the rest"
            + (f"; the model alone lies in {kept} meanwhile" if kept else "")
        ) from error


def _rescue(model: keras.Model) -> Path | None:
    """Put the model elsewhere; None where that does not work either."""
    try:
        file = Path(tempfile.mkdtemp(prefix="unfreeze-")) / run_folder.MODEL
        with atomic_path(file) as partial:
            model.save(partial)
    except OSError:
        return None
    return file


def _finish(
    out: Path, model: keras.Model, manifest: Manifest, result: FitResult, metrics: dict[str, Any]
) -> None:
    with atomic_path(out / run_folder.MODEL) as partial:
        model.save(partial)
    run_folder.write_table(out / run_folder.HISTORY, result.history)
    write_json(out / run_folder.AUDIT, {"format": 1, "stages": result.audit.as_list()})
    plot_curves(result.history, out / "curves.png")
    plot_moved(result.audit.as_list(), out / "moved.png")
    shown = metrics["test"] or metrics["validation"]
    if shown is not None:
        plot_confusion(shown["confusion"], manifest.labels, out / "confusion.png")
    if metrics.get("auto", {}).get("trials"):
        rows = [
            {"strategy": t["strategy"], "scores": {"test": t}} for t in metrics["auto"]["trials"]
        ]
        plot_accuracies(rows, False, out / "auto.png")
    run_folder.write_scores(out, metrics)
    shutil.rmtree(out / run_folder.STAGES, ignore_errors=True)


def command_line(options: TrainOptions) -> str:
    """The command line that repeats a run."""
    default = TrainOptions(options.data)
    words = ["unfreeze", "train", str(options.data), "--out", str(options.out)]
    words += ["--schedule", options.schedule_name]
    names = ("backbone", "weights", "epochs", "batch_size", "learning_rate", "group_regex")
    more = ("validation", "test", "max_bad", "background", "negative", "add_to")
    for name in (*names, *more):
        value = getattr(options, name)
        if value != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--seed", str(options.seed), *(["--strict"] if options.strict else [])]
    words += ["--budget", f"{options.budget:g}s"] if options.schedule == AUTO else []
    words += ["--keep-audioset"] if options.keep_audioset else []
    return shlex.join(words)
