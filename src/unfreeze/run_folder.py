"""The folder of a training run: what lies where, and how it is written and read.

Layout (all written atomically):

    config.yaml    format version, all settings, the command that repeats the run
    schedule.yaml  the schedule as it was run; can be edited and run again
    splits.csv     each clip with its label, group and part; is itself a manifest
    model.keras    waveform in, class probabilities out, labels inside
    history.csv    a row an epoch
    metrics.json   scores on the test and validation clips; of a run that adds to another
                   also `corrected` and `change` (see docs/review.md)
    audit.json     what each stage moved
    *.png          curves, confusion (test), moved
    stages/        the engine's own state while the run is not finished

A folder is a run if it has a `config.yaml` of ours; it is finished if it has
`metrics.json`, which is written last.
"""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unfreeze.errors import RunError
from unfreeze.files import write_json, write_text

FORMAT = 1
CONFIG, MODEL, METRICS, AUDIT = "config.yaml", "model.keras", "metrics.json", "audit.json"
HISTORY, SCHEDULE, SPLITS, STAGES = "history.csv", "schedule.yaml", "splits.csv", "stages"


def claim(out: Path, overwrite: bool) -> None:
    """Make sure that a run may be written to `out`, before any work.

    Raises:
        RunError: there is a run already and `overwrite` is off, or a file or
            folder that is no run of ours, which is never removed.
    """
    if out.is_file():
        raise RunError(f"{out} is a file: give a folder that does not exist yet")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / CONFIG).is_file():
        raise RunError(
            f"{out} is not empty and holds no run of unfreeze: give another folder with --out"
        )
    state = "a finished run" if (out / METRICS).is_file() else "a run that was broken off"
    if not overwrite:
        raise RunError(
            f"{out} holds {state}: give another folder with --out, or replace it with --overwrite"
        )


def clear(out: Path) -> None:
    """Remove the run that `claim` allowed to be overwritten; the folder stays."""
    if (out / CONFIG).is_file():
        # The config goes last, so that a half-cleared folder is still known as a run.
        for item in sorted(out.iterdir(), key=lambda item: item.name == CONFIG):
            shutil.rmtree(item) if item.is_dir() else item.unlink()


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    """Write `config.yaml`, with the format version on top."""
    text = yaml.safe_dump(
        {"unfreeze_run": FORMAT, **config}, sort_keys=False, allow_unicode=True, width=100
    )
    write_text(out / CONFIG, text)


def read_config(run: Path) -> dict[str, Any]:
    """Read a run's settings.

    Raises:
        RunError: no such folder, no run in it, or another format version.
    """
    file = run / CONFIG
    if not file.is_file():
        what = "does not exist" if not run.exists() else f"has no {CONFIG}: it is no run folder"
        raise RunError(f"{run} {what}; give the folder that `unfreeze train --out` wrote")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from None
    version = config.get("unfreeze_run") if isinstance(config, dict) else None
    if version != FORMAT:
        raise RunError(f"{file} has format {version!r}; this version of unfreeze reads {FORMAT}")
    return dict(config)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; the columns are all keys in the order of their first use."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_scores(run: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`: the mark of a finished run."""
    write_json(run / METRICS, metrics)


def read_scores(run: Path) -> dict[str, Any]:
    """Read a finished run's scores.

    Raises:
        RunError: the run is not finished.
    """
    file = run / METRICS
    if not file.is_file():
        raise RunError(f"{run} has no {METRICS}: the run was broken off; train again")
    return dict(json.loads(file.read_text(encoding="utf-8")))
