"""The folder of a comparison or a search: what lies where, and that it stays the same one.

Layout (all written atomically):

    config.yaml      format version and what all runs share
    runs/*.json      a record a run: see `unfreeze.compare.trial.run_trial`
    current/         the engine's state of the run that is going on
    comparison.json  means, differences and intervals
    report.md, *.png the same to read
    tuning.json, best.yaml  of a search, instead
    .lock            held by the process that compares

A run that is in `runs` is never repeated. Strategies and seeds may be added.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras

from unfreeze.compare.options import Strategy
from unfreeze.compare.splits import TrialSplit
from unfreeze.compare.trial import Material, Record
from unfreeze.core.schedule_plain import schedule_as_plain
from unfreeze.core.yaml_nodes import dump
from unfreeze.errors import RunError
from unfreeze.files import write_text
from unfreeze.options import TrainOptions
from unfreeze.run_reading import read_json, read_yaml, refuse_links

FORMAT = 1
CONFIG, RUNS, CURRENT, RESULT, REPORT = (
    "config.yaml",
    "runs",
    "current",
    "comparison.json",
    "report.md",
)


def claim(out: Path) -> None:
    """Make sure that a comparison may be written to `out`, before any work.

    Raises:
        RunError: a file, or a folder that holds something else, or a link that leads out.
    """
    if out.is_file():
        raise RunError(f"{out} is a file: give a folder that does not exist yet")
    refuse_links(out)
    if not out.exists() or (out / CONFIG).is_file():
        return
    if any(not item.name.startswith(".") for item in out.iterdir()):
        raise RunError(
            f"{out} is not empty and holds no comparison: give another folder with --out"
        )


def begin(out: Path, config: Mapping[str, Any]) -> None:
    """Write what all runs share, or check that it is the same as before.

    Args:
        out: the folder.
        config: plain values; must hold nothing that may differ between machines.

    Raises:
        RunError: the folder holds a comparison on other data or settings, each
            difference told; or another kind of run.
    """
    file = out / CONFIG
    wanted = {"unfreeze_comparison": FORMAT, **config}
    if not file.is_file():
        write_text(file, dump(wanted))
        return
    found = read_yaml(file)
    if "unfreeze_comparison" not in found:
        raise RunError(f"{out} holds another kind of run: give another folder with --out")
    changed = [
        f"{key} was {found.get(key)!r} and is {value!r}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if changed:
        raise RunError(
            f"{out} holds a comparison that cannot be gone on with: {'; '.join(changed)}. "
            "Give another folder with --out"
        )


def shared_config(material: Material, train: TrainOptions) -> dict[str, Any]:
    """What must be equal for records to stand in one folder; no path is among it."""
    manifest = material.manifest
    return {
        "data": {"fingerprint": manifest.fingerprint, "clips": len(manifest.clips)},
        "labels": list(manifest.labels),
        "backbone": material.backbone.name,
        "weights": material.backbone.weights.sha256,
        "validation": train.validation,
        "test": train.test,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }


def record_file(out: Path, strategy: Strategy, trial: TrialSplit) -> Path:
    """Where the record of a run stands.

    The name tells the strategy, and by a hash what it does: an edited schedule
    file is another strategy.
    """
    plain = {"schedule": _what_it_does(strategy), "fuse": strategy.fuse}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(strategy.name).stem).strip("-")[:60]
    return out / RUNS / f"{name}-{digest}-{trial.name}.json"


def read_record(file: Path) -> Record | None:
    """The record of a run, None if it has not ended.

    Raises:
        RunError: it cannot be read.
    """
    if not file.is_file():
        return None
    record = read_json(file, "delete it to run it again")
    if not _is_record(record):
        raise RunError(f"{file} is no record of a run: delete it to run it again")
    return record


def _is_record(record: Record) -> bool:
    """Whether a file's values are those of `run_trial`, as far as they are read again."""
    try:
        known = isinstance(record["strategy"], str) and isinstance(record["seed"], int)
        if not known or (record["fold"] is not None and not isinstance(record["fold"], int)):
            return False
        if "error" in record:
            return isinstance(record["error"], str)
        numbers = [record["seconds"], record["wall_seconds"], *record["epochs"].values()]
        return all(isinstance(n, int | float) for n in numbers) and all(
            len(part["truth"]) == len(part["guess"]) == len(part["group"]) > 0
            and all(0 <= place < len(part["groups"]) for place in part["group"])
            for part in (record["scores"]["test"], *record["scores"].values())
        )
    except (KeyError, TypeError, AttributeError):
        return False


def write_record(file: Path, record: Record) -> None:
    """Keep the record of a run that has ended, and drop its state."""
    # In one line: thousands of numbers, a line each, would be ten times as long.
    write_text(file, json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    state = current_folder(file)
    shutil.rmtree(state, ignore_errors=True)
    with suppress(OSError):
        state.parent.rmdir()


def current_folder(file: Path) -> Path:
    """Where the state of the run of a record stands while it trains."""
    return file.parent.parent / CURRENT / file.stem


def _what_it_does(strategy: Strategy) -> dict[str, Any]:
    plain = schedule_as_plain(strategy.schedule)
    return {key: value for key, value in plain.items() if key != "name"}
