"""The folder of a training run: its files, and how they are written and read.

Layout (all written atomically):

    config.yaml    format version, all settings, the command that repeats the run
    schedule.yaml  the schedule as it was run; can be edited and run again
    splits.csv     each clip with its label, group and part; is itself a manifest
    model.keras    waveform in, class probabilities out, labels inside
    light.onnx     the light form (`unfreeze.pipeline.light_form`), where it could be written
    history.csv    one row per epoch
    metrics.json   scores on the test and validation clips; for a run that adds to another
                   also `corrected` and `change` (see docs/review.md); `depths` is what each
                   depth of the pretrained network knows, on the validation clips
    audit.json     what each stage changed
    predictions.csv  the scores of each clip that was held out (`unfreeze.pipeline.predictions`)
    notes.json     what was said of the data: warnings, and files left out with the cause
    LICENCE.txt    the licence that goes with the model, where the pretrained weights ask for it
    *.png          curves, confusion (test), moved, depths
    report.html    all of it to look at and to listen to; written when the run is finished, and
                   again by `unfreeze report`
    stages/        the engine's own state while the run is not finished
    .lock          held by the process that trains

A folder is a run if it has our `config.yaml`; it is finished if it has `metrics.json`,
which is written last, but for the report. A run folder is read as untrusted: `config.yaml`
may hold plain YAML only (no tags, anchors or second documents); a link that leads out of the
folder is refused, and so is a path in `splits.csv` or `predictions.csv` that leads out of the
folder of the recordings. That folder may be anywhere: only sound is read there, and nothing
is written.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from unfreeze.audio.entries import is_within
from unfreeze.core.yaml_file import compose, dump
from unfreeze.errors import RunError, ScheduleError, show
from unfreeze.files import remove, write_json, write_text
from unfreeze.output_folder import LOCK, differences, holds, locked


def refuse_links(run: Path) -> None:
    """Refuse a run folder with links that lead out of it.

    Args:
        run: the folder; may be missing, or itself be a link.

    Raises:
        RunError: names the link.
    """
    home = os.path.realpath(run)
    for folder, folders, files in os.walk(run):
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink() and not is_within(os.path.realpath(path), home):
                raise RunError(
                    f"{show(path)} is a link that leads out of the run's folder. If that is "
                    "intended, put a copy of its target in its place"
                )


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a mapping of plain values.

    Raises:
        RunError: it is damaged, or holds anything but plain values.
    """
    try:
        text = file.read_text(encoding="utf-8")
        compose(text, str(file))
        values = yaml.safe_load(text)
    except (ScheduleError, yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise RunError(f"{show(file)} cannot be read: {error}") from None
    return dict(values) if isinstance(values, dict) else {}


def read_json(file: Path, cure: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        file: the file.
        cure: what to do if it is damaged, for the message.

    Raises:
        RunError: it is damaged.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{show(file)} cannot be read ({error}): {cure}") from None
    return values


def read_rows(table: Path, root: Path) -> list[dict[str, str]]:
    """Read a table of recordings.

    Args:
        table: CSV with the columns `path`, `label`, `group` and `split`.
        root: the folder that the paths are in.

    Raises:
        RunError: it is damaged, or a path leads out of `root`.
    """
    return list(each_row(table, root))


def each_row(table: Path, root: Path) -> Iterator[dict[str, str]]:
    """The same as `read_rows`, one row at a time: a table may be larger than memory."""
    home = os.path.realpath(root)
    real: dict[str, str] = {}
    try:
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file):
                _check_row(row, table, root, home, real)
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{show(table)} cannot be read: {error}") from None


def _check_row(
    row: Mapping[str, str], table: Path, root: Path, home: str, real: dict[str, str]
) -> None:
    """Refuse a row without what is needed, or whose path leads out of the folder."""
    needed = ("path", "label", "group", "split")
    if any(row.get(name) is None for name in needed):
        raise RunError(f"{show(table)} cannot be read: it needs the columns {', '.join(needed)}")
    try:
        stays = _stays(row["path"], root, home, real)
    except OSError as error:
        # A path that is longer than the system allows.
        name = show(row["path"][:80])
        raise RunError(
            f"{show(table)} cannot be read: the path {name!r}...: {error.strerror}"
        ) from None
    if not stays:
        raise RunError(
            f"{show(table)} is refused: the path {show(row['path'])!r} leads out of "
            f"{show(root)}, where the run's recordings are"
        )


def _stays(name: str, root: Path, home: str, real: dict[str, str]) -> bool:
    """Whether a path stays in a folder; `real` keeps where each folder on the way leads."""
    path = Path(name)
    if not name or "\0" in name or path.is_absolute() or path.drive or ".." in path.parts:
        return False
    full = root / path
    if full.is_symlink():
        return is_within(os.path.realpath(full), home)
    folder = str(full.parent)
    if folder not in real:
        real[folder] = os.path.realpath(folder)
    return is_within(real[folder], home)


FORMAT = 1
CONFIG, MODEL, METRICS, AUDIT = "config.yaml", "model.keras", "metrics.json", "audit.json"
HISTORY, SCHEDULE, SPLITS, STAGES = "history.csv", "schedule.yaml", "splits.csv", "stages"
LICENCE, NOTES, REPORT = "LICENCE.txt", "notes.json", "report.html"
# `unfreeze.core.run_state.FILE`, which cannot be imported here: Keras takes seconds.
RECORD = "fit.json"

_PLACES = ("command", "data.root", "weights.file", "options.data", "options.out", "options.weights")


@contextmanager
def held(out: Path, overwrite: bool, resume: bool, wanted: Mapping[str, Any]) -> Iterator[None]:
    """Check, before any work, that a run may be written to a folder, and hold it.

    Args:
        out: the folder.
        overwrite: replace the run in it.
        resume: resume the run in it if it was interrupted.
        wanted: as for `refuse_changes`, if a run is resumed.

    Raises:
        RunError: as `claim`, `locked` and `refuse_changes`.
    """
    claim(out, overwrite, resume)
    with locked(out):
        if resume and (out / CONFIG).is_file():
            # Reading the data may take long: refuse a run that clearly differs before that.
            refuse_changes(out, wanted)
        yield


def claim(out: Path, overwrite: bool, resume: bool = False) -> None:
    """Check that a run may be written to a folder.

    Raises:
        RunError: it holds a run and neither `overwrite` nor, if that was interrupted,
            `resume` is set; or it is a file, or holds anything else, which is never
            removed.
    """
    if overwrite and resume:
        raise RunError("--overwrite replaces a run and --resume continues it: give one of them")
    found = holds(out, CONFIG, "unfreeze run")
    refuse_links(out)
    if not found:
        return
    finished = is_finished(out)
    if overwrite or (resume and not finished):
        return
    if resume:
        raise RunError(f"{out} holds a finished run: there is nothing to resume")
    state = "a finished run" if finished else "an interrupted run"
    cure = "" if finished else "resume it with --resume, "
    raise RunError(
        f"{out} holds {state}: {cure}give another folder with --out, or replace it with --overwrite"
    )


def sweep(out: Path) -> None:
    """Remove half-written files of a killed process."""
    for partial in out.glob(".partial-*"):
        if partial.is_file():
            partial.unlink(missing_ok=True)


def is_interrupted(out: Path) -> bool:
    """Whether a folder holds a run that is not finished."""
    return (out / CONFIG).is_file() and not (out / METRICS).is_file()


def is_finished(out: Path) -> bool:
    """Whether a folder holds a run that is finished."""
    return (out / CONFIG).is_file() and (out / METRICS).is_file()


def scores_of_same(out: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a finished run that the user asks to resume.

    Args:
        out: the run's folder.
        wanted: as for `refuse_changes`.

    Raises:
        RunError: the run is a different one, or its files are damaged.
    """
    refuse_changes(out, wanted)
    # A run that was killed at its very end still has them.
    shutil.rmtree(out / STAGES, ignore_errors=True)
    return read_scores(out)


def refuse_changes(out: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to resume a run that is not the same.

    Args:
        out: the run's folder.
        wanted: the start of a config, or all of it. Paths may change: the data and
            the weights are identified by their contents.

    Raises:
        RunError: something has changed; the message lists each difference.
    """
    changed = differences(read_config(out), wanted, _PLACES)
    if changed:
        raise RunError(
            f"{out} cannot be resumed, because something has changed: {'; '.join(changed)}. "
            "Start it with the same settings as before, or replace it with --overwrite"
        )


def clear(out: Path) -> None:
    """Remove the run that `claim` allowed to be overwritten; the folder stays."""
    if (out / CONFIG).is_file():
        # The scores go first and the config last, so that a half-cleared folder still counts
        # as a run that is not finished; the record of stages goes before their weights.
        remove(out / METRICS)
        remove(out / STAGES / RECORD)
        for item in sorted(out.iterdir(), key=lambda item: item.name == CONFIG):
            if item.name != LOCK:
                shutil.rmtree(item) if item.is_dir() else item.unlink()


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    """Write `config.yaml`, with the format version on top."""
    write_text(out / CONFIG, dump({"unfreeze_run": FORMAT, **config}))


def read_config(run: Path) -> dict[str, Any]:
    """Read a run's settings.

    Raises:
        RunError: there is no such folder, or it holds no run, another format version, or
            a link that leads out.
    """
    file = run / CONFIG
    if not file.is_file():
        what = "does not exist" if not run.exists() else f"has no {CONFIG}: it is not a run folder"
        raise RunError(f"{run} {what}; give the folder that `unfreeze train --out` wrote")
    refuse_links(run)
    config = read_yaml(file)
    version = config.get("unfreeze_run")
    if version != FORMAT:
        raise RunError(f"{file} has format {version!r}; this version of unfreeze reads {FORMAT}")
    return config


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; the columns are all keys in the order of their first use.

    File names that are not UTF-8 keep their bytes.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue(), "surrogateescape")


def read_splits(run: Path) -> tuple[Path, list[dict[str, str]]]:
    """Read which recordings a run used, and for what.

    Returns:
        The folder of the recordings, and one row per clip: `path` below it, `label`,
        `group`, `split` and, for a run that added to another, `added`.

    Raises:
        RunError: the run does not say, or a path leads out of that folder. Whether the
            recordings still exist is not checked.
    """
    config, table = read_config(run), run / SPLITS
    try:
        if "root" in config["data"]:
            root = Path(config["data"]["root"])
        else:
            # Runs of 0.1 hold only what was given: a folder, or a CSV in one.
            data = Path(config["options"]["data"])
            root = data.parent if data.suffix.lower() == ".csv" else data
    except (KeyError, TypeError):
        raise RunError(f"{run / CONFIG} does not say where the data are") from None
    return root, read_rows(table, root)


def write_scores(run: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`, which marks the run as finished."""
    write_json(run / METRICS, metrics)


def read_scores(run: Path) -> dict[str, Any]:
    """Read a finished run's scores.

    Raises:
        RunError: the run is not finished, or the file is damaged.
    """
    file = run / METRICS
    if not file.is_file():
        raise RunError(f"{run} has no {METRICS}: the run was interrupted; resume it or train again")
    return read_json(file, "train again, or copy the run's folder again")
