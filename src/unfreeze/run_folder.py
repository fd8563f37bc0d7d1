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
    auto.json      what the trials of the schedule "auto" chose, and why
    auto/          those trials
    *.png          curves, confusion (test), moved
    stages/        the engine's own state while the run is not finished
    .lock          held by the process that trains

A folder is a run if it has a `config.yaml` of ours; it is finished if it has
`metrics.json`, which is written last.
"""

import csv
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from unfreeze.core.yaml_nodes import dump
from unfreeze.errors import RunError
from unfreeze.files import make_folder, remove, write_json, write_text
from unfreeze.run_reading import read_json, read_rows, read_yaml, refuse_links

FORMAT = 1
CONFIG, MODEL, METRICS, AUDIT = "config.yaml", "model.keras", "metrics.json", "audit.json"
HISTORY, SCHEDULE, SPLITS, STAGES = "history.csv", "schedule.yaml", "splits.csv", "stages"
# `unfreeze.core.state.FILE`, which cannot be imported here: Keras takes seconds.
RECORD = "fit.json"
LOCK = ".lock"

_PLACES = ("command", "data.root", "weights.file", "options.data", "options.out", "options.weights")


def claim(out: Path, overwrite: bool, resume: bool = False) -> None:
    """Make sure that a run may be written to `out`, before any work.

    Raises:
        RunError: there is a run already and neither `overwrite` nor, if it was
            broken off, `resume` is on; or a file or folder that is no run of
            ours, which is never removed.
    """
    if overwrite and resume:
        raise RunError("--overwrite begins anew and --resume goes on: give one of them")
    if out.is_file():
        raise RunError(f"{out} is a file: give a folder that does not exist yet")
    if not out.exists():
        return
    if all(_is_litter(item) for item in out.iterdir()):
        refuse_links(out)
        return
    if not (out / CONFIG).is_file():
        raise RunError(
            f"{out} is not empty and holds no run of unfreeze: give another folder with --out"
        )
    refuse_links(out)
    finished = is_finished(out)
    if overwrite or (resume and not finished):
        return
    if resume:
        raise RunError(f"{out} holds a finished run: there is nothing to go on with")
    state = "a finished run" if finished else "a run that was broken off"
    go_on = "" if finished else "go on with it with --resume, "
    raise RunError(
        f"{out} holds {state}: {go_on}give another folder with --out, or replace it with "
        "--overwrite"
    )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a run's folder, so that no other process writes the same run.

    Raises:
        RunError: another process holds it, or it cannot be written.
    """
    made = not out.exists()
    lock = filelock.FileLock(out / LOCK)
    try:
        make_folder(out)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RunError(
            f"another process is training in {out}: wait for it, or give another folder with --out"
        ) from None
    except OSError as error:
        raise RunError(
            f"{out} cannot be written ({error.strerror or error}): give another folder with --out"
        ) from None
    try:
        yield
    finally:
        # Before it is let go: another process may make and hold a new one.
        with suppress(OSError):
            (out / LOCK).unlink(missing_ok=True)
        lock.release()
        if made:
            # Refused before it began: nothing is left of it. Not empty otherwise.
            with suppress(OSError):
                out.rmdir()


def sweep(out: Path) -> None:
    """Remove what a killed process left half-written."""
    for partial in out.glob(".partial-*"):
        if partial.is_file():
            partial.unlink(missing_ok=True)


def is_broken_off(out: Path) -> bool:
    """Whether a folder holds a run that is not finished."""
    return (out / CONFIG).is_file() and not (out / METRICS).is_file()


def is_finished(out: Path) -> bool:
    """Whether a folder holds a run that has come to its end."""
    return (out / CONFIG).is_file() and (out / METRICS).is_file()


def scores_of_same(out: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished run has reached, for who would go on with it.

    Args:
        out: the run's folder.
        wanted: as for `refuse_changes`.

    Raises:
        RunError: the run is another one, or its files are damaged.
    """
    refuse_changes(out, wanted)
    # Killed at its very end, it did not come to that.
    shutil.rmtree(out / STAGES, ignore_errors=True)
    return read_scores(out)


def refuse_changes(out: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that is not the same.

    Args:
        out: the run's folder.
        wanted: the start of a config, or all of it. Where things lie may change:
            the data are known by their contents, the weights likewise.

    Raises:
        RunError: tells each difference, before and now.
    """
    before, now = _flat(read_config(out)), _flat(wanted)
    changed = [
        f"{name} was {before.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if name not in _PLACES and before.get(name) != value
    ]
    if changed:
        raise RunError(
            f"{out} cannot be gone on with, as something has changed: {'; '.join(changed)}. "
            "Start it as it was started first, or replace it with --overwrite"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _is_litter(item: Path) -> bool:
    """What a process leaves that was killed before its run began."""
    return item.name == LOCK or item.name.startswith(".partial-")


def clear(out: Path) -> None:
    """Remove the run that `claim` allowed to be overwritten; the folder stays."""
    if (out / CONFIG).is_file():
        # The scores go first and the config last, so that a half-cleared folder is still known
        # as a run, and as one that is not finished; the record of stages before their weights.
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
        RunError: no such folder, no run in it, another format version, or a link in
            it that leads out.
    """
    file = run / CONFIG
    if not file.is_file():
        what = "does not exist" if not run.exists() else f"has no {CONFIG}: it is no run folder"
        raise RunError(f"{run} {what}; give the folder that `unfreeze train --out` wrote")
    refuse_links(run)
    config = read_yaml(file)
    version = config.get("unfreeze_run")
    if version != FORMAT:
        raise RunError(f"{file} has format {version!r}; this version of unfreeze reads {FORMAT}")
    return config


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; the columns are all keys in the order of their first use.

    Names of files that are not UTF-8 stand there with their bytes as they are.
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
        The folder that they lay in, and a row a clip: `path` below it, `label`,
        `group`, `split` and, of a run that added to another, `added`.

    Raises:
        RunError: the run does not tell, or a path leaves that folder; whether the
            recordings are still there is not looked at.
    """
    config, table = read_config(run), run / SPLITS
    try:
        if "root" in config["data"]:
            root = Path(config["data"]["root"])
        else:
            # Runs of 0.1 tell only what was given: a folder, or a CSV in one.
            data = Path(config["options"]["data"])
            root = data.parent if data.suffix.lower() == ".csv" else data
    except (KeyError, TypeError):
        raise RunError(f"{run / CONFIG} does not tell where the data are") from None
    return root, read_rows(table, root)


def write_scores(run: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`: the mark of a finished run."""
    write_json(run / METRICS, metrics)


def read_scores(run: Path) -> dict[str, Any]:
    """Read a finished run's scores.

    Raises:
        RunError: the run is not finished, or the file is damaged.
    """
    file = run / METRICS
    if not file.is_file():
        raise RunError(f"{run} has no {METRICS}: the run was broken off; train again")
    return read_json(file, "train again, or get the run's folder once more")
