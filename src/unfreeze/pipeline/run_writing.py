"""The files that a training run writes into its folder: before the first epoch, and last."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.manifest import Manifest
from unfreeze.core.fit import FitResult
from unfreeze.core.schedule import Schedule
from unfreeze.core.schedule_file import write_schedule
from unfreeze.errors import RunError, show
from unfreeze.files import write_json, write_text
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.in_noise import labels_with_background
from unfreeze.pipeline.predictions import write_predictions
from unfreeze.pipeline.run_plan import described
from unfreeze.pipeline.saved_model import write_clip_model
from unfreeze.pipeline.train_options import TrainOptions, command_line
from unfreeze.pipeline.training_data import Inputs, TrainingData
from unfreeze.version import __version__

# Writes the pictures of a run: folder, result, metrics, labels.
Draw = Callable[[Path, FitResult, Mapping[str, Any], Sequence[str]], None]


def begin_run(options: TrainOptions, inputs: Inputs) -> None:
    """Write what is known before training, so that an interrupted run is recognized.

    Raises:
        RunError: the run to be resumed is not the same.
    """
    out = options.out
    assert out is not None
    run_folder.sweep(out)
    manifest, notice = inputs.data.manifest, inputs.backbone.notice
    card = inputs.backbone.card
    config = {
        "unfreeze": __version__,
        "command": command_line(options),
        **described(options),
        # Those of the data: whether a gate adds background is known once there is one.
        "labels": list(labels_with_background(manifest, options.in_noise)),
        # Not said of others, so that interrupted runs of earlier versions can be resumed.
        **({"multilabel": True} if manifest.several else {}),
        "data": {
            "root": str(manifest.root),
            "fingerprint": manifest.fingerprint,
            "clips": len(manifest.clips),
        },
        "weights": {"file": str(inputs.weights), "sha256": inputs.backbone.weights.sha256},
        **({} if card is None else {"card": card.as_plain()}),
        **({"licence": notice} if notice else {}),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    if options.resume and (out / run_folder.CONFIG).is_file():
        run_folder.refuse_changes(out, config)
    else:
        run_folder.clear(out)
        run_folder.write_config(out, config)
    if notice:
        write_text(out / run_folder.LICENCE, notice + "\n")
    # For a resumed run, too: it may have been killed between these files.
    run_folder.write_table(out / run_folder.SPLITS, _split_rows(inputs.data))


def record_schedule(out: Path, schedule: Schedule) -> None:
    """Write the schedule that is about to run."""
    write_schedule(schedule, out / run_folder.SCHEDULE)


_BOUNDS = ("start", "end", "low", "high")


def _split_rows(data: TrainingData) -> list[dict[str, str]]:
    manifest = data.manifest
    part_of = {int(i): name for name, clips in data.parts().items() for i in clips}
    added = {int(i) for i in data.added}
    sounds = any(clip.start is not None for clip in manifest.clips)
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
        if sounds:
            row |= {name: _number(getattr(clip, name)) for name in _BOUNDS}
        if data.corrections is not None:
            row["added"] = "yes" if number in added else "no"
        rows.append(row)
    return rows


def _number(value: float | None) -> str:
    """To the microsecond, without zeros at the end."""
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, eq=False)
class Tested:
    """What a run was tested on, beside the scores.

    Attributes:
        manifest: the clips, and the files that were left out.
        parts: for each part that was scored the numbers of its clips, and their scores
            (clips, classes).
        thresholds: (classes,) from which each class is predicted, where a clip may have
            several labels.
        notes: what the user should know of the run, one sentence each.
    """

    manifest: Manifest
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]]
    thresholds: Sequence[float] | None
    notes: Sequence[str]

    def about(self) -> dict[str, Any]:
        """What `notes.json` holds."""
        manifest = self.manifest
        return {
            "format": 1,
            "notes": list(self.notes),
            "hours": sum(clip.seconds for clip in manifest.clips) / 3600,
            "problems": [
                {"path": show(p.path), "rule": p.rule, "cause": p.cause, "fatal": p.fatal}
                for p in manifest.problems
            ],
        }


def finish_run(
    out: Path,
    model: keras.Model,
    result: FitResult,
    metrics: dict[str, Any],
    labels: Sequence[str],
    tested: Tested,
    draw: Draw,
) -> None:
    """Write the model, the history of its training and its scores; the scores last.

    Args:
        out: the run's folder.
        model: the clip model.
        result: of the training.
        metrics: all scores.
        labels: name of each class.
        tested: what it was tested on.
        draw: writes the pictures.

    Raises:
        RunError: something cannot be written; the message says how to keep the result.
    """
    try:
        write_clip_model(model, out / run_folder.MODEL)
        run_folder.write_table(out / run_folder.HISTORY, result.history)
        write_json(out / run_folder.AUDIT, {"format": 1, "stages": result.audit.as_list()})
        draw(out, result, metrics, labels)
        if tested.parts:
            write_predictions(out, tested.manifest, tested.parts, labels, tested.thresholds)
        write_json(out / run_folder.NOTES, tested.about())
        run_folder.write_scores(out, metrics)
        shutil.rmtree(out / run_folder.STAGES, ignore_errors=True)
    except OSError as error:
        kept = None if (out / run_folder.MODEL).is_file() else _rescue(model)
        raise RunError(
            f"The run is trained, but {out} cannot be written ({error.strerror or error}). Free "
            "disk space or correct the permissions, then repeat the command with --resume"
            + (f"; until then, a copy of the model is in {kept}" if kept else "")
        ) from error


def _rescue(model: keras.Model) -> Path | None:
    """Write the model elsewhere; None if that fails, too."""
    try:
        file = Path(tempfile.mkdtemp(prefix="unfreeze-")) / run_folder.MODEL
        write_clip_model(model, file)
    except OSError:
        return None
    return file
