"""The folder of a comparison or a search: its files, and the check that it is the same one.

Layout (all written atomically):

    config.yaml      format version and what all runs share
    runs/*.json      one record per run: see `unfreeze.compare.trial.run_trial`
    current/         the engine's state of the run in progress
    comparison.json  means, differences and intervals
    report.md, *.png, report.html  the same for readers
    tuning.json, best.yaml  of a search, instead
    .lock            held by the process that compares

A run with a record in `runs` is never repeated. Strategies and seeds may be added.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras

from unfreeze.audio.augmentation import plain_augmentation
from unfreeze.compare.detector_scores import has_detection
from unfreeze.compare.strategies import Strategy
from unfreeze.compare.trial import Record
from unfreeze.compare.trial_splits import TrialSplit
from unfreeze.core.schedule_file import schedule_as_plain
from unfreeze.core.yaml_file import dump
from unfreeze.errors import RunError
from unfreeze.files import write_text
from unfreeze.output_folder import differences, holds, locked
from unfreeze.pipeline.class_weights import plain_weights
from unfreeze.pipeline.patch_training import Material
from unfreeze.pipeline.run_folder import read_json, read_yaml, refuse_links
from unfreeze.pipeline.train_options import TrainOptions

FORMAT = 1
CONFIG, RUNS, CURRENT, RESULT, REPORT = (
    "config.yaml",
    "runs",
    "current",
    "comparison.json",
    "report.md",
)


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Check, before any work, that a comparison may be written to a folder, and hold it.

    Raises:
        RunError: it is a file, holds anything else or a link that leads out, or another
            process holds it.
    """
    refuse_links(out)
    holds(out, CONFIG, "comparison")
    with locked(out):
        yield


def begin(out: Path, config: Mapping[str, Any]) -> None:
    """Write what all runs share, or check that it is the same as before.

    Args:
        out: the folder.
        config: plain values; none may differ between machines.

    Raises:
        RunError: the folder holds a comparison on other data or settings (the message
            lists each difference), or another kind of run.
    """
    file = out / CONFIG
    wanted = {"unfreeze_comparison": FORMAT, **config}
    if not file.is_file():
        write_text(file, dump(wanted))
        return
    found = read_yaml(file)
    if "unfreeze_comparison" not in found:
        raise RunError(f"{out} holds another kind of run: give another folder with --out")
    changed = differences(found, wanted)
    if changed:
        raise RunError(
            f"{out} holds a comparison that cannot be resumed: {'; '.join(changed)}. "
            "Give another folder with --out"
        )


def shared_config(material: Material, train: TrainOptions) -> dict[str, Any]:
    """The settings that all records in one folder must share; contains no path."""
    manifest = material.manifest
    return {
        "data": {"fingerprint": manifest.fingerprint, "clips": len(manifest.clips)},
        "labels": list(manifest.labels),
        "backbone": material.backbone.name,
        "weights": material.backbone.weights.sha256,
        "validation": train.validation,
        "test": train.test,
        "taps": train.taps,
        "augment": plain_augmentation(train.augment),
        "class_weight": plain_weights(train.class_weight),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }


def record_file(out: Path, strategy: Strategy, trial: TrialSplit) -> Path:
    """The path of a run's record.

    Its name holds the strategy's name and a hash of its schedule: an edited schedule
    file is another strategy.
    """
    plain = {"schedule": _what_it_does(strategy), "fuse": strategy.fuse}
    if strategy.taps is not None:
        plain["taps"] = strategy.taps
    if strategy.augment is not None:
        plain["augment"] = plain_augmentation(strategy.augment)
    if strategy.class_weight is not None:
        plain["class"] = plain_weights(strategy.class_weight)
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(strategy.name).stem).strip("-")[:60]
    return out / RUNS / f"{name}-{digest}-{trial.name}.json"


def read_record(file: Path) -> Record | None:
    """The record of a run; None if the run has not finished.

    Raises:
        RunError: the record cannot be read.
    """
    if not file.is_file():
        return None
    record = read_json(file, "delete it to run it again")
    if not _is_record(record):
        raise RunError(f"{file} is not a record of a run: delete it to run it again")
    return record


def _is_record(record: Record) -> bool:
    """Whether a file has the values of `run_trial` that are read again."""
    try:
        known = isinstance(record["strategy"], str) and isinstance(record["seed"], int)
        if not known or (record["fold"] is not None and not isinstance(record["fold"], int)):
            return False
        if "error" in record:
            return isinstance(record["error"], str)
        numbers = [record["seconds"], record["wall_seconds"], *record["epochs"].values()]
        return (
            all(isinstance(n, int | float) for n in numbers)
            and all(
                len(part["truth"]) == len(part["guess"]) == len(part["group"]) > 0
                and all(0 <= place < len(part["groups"]) for place in part["group"])
                for part in (record["scores"]["test"], *record["scores"].values())
            )
            and ("detection" not in record or has_detection(record))
        )
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        return False


def write_record(file: Path, record: Record) -> None:
    """Write the record of a finished run, and remove its state."""
    # On one line: with a line for each of thousands of numbers, it would be ten times as large.
    write_text(file, json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    state = current_folder(file)
    shutil.rmtree(state, ignore_errors=True)
    with suppress(OSError):
        state.parent.rmdir()


def current_folder(file: Path) -> Path:
    """The folder for the state of a record's run while it trains."""
    return file.parent.parent / CURRENT / file.stem


def _what_it_does(strategy: Strategy) -> dict[str, Any]:
    plain = schedule_as_plain(strategy.schedule)
    return {key: value for key, value in plain.items() if key != "name"}
