"""An earlier run as a source of data: its settings, and the recordings it was trained on.

The run folder contains no sound. It says where the recordings were, and the class, group
and part of each; they must still be there.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unfreeze.audio.entries import Entry
from unfreeze.audio.label_sets import is_set
from unfreeze.audio.rules import content_hash
from unfreeze.audio.sound_file import file_size
from unfreeze.audio.sources import Source
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.registry import full_name, get_backbone
from unfreeze.errors import RunError, show
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.train_options import NO_TAPS, OPTIONS, TrainOptions

# What runs of version 0.1.0 did, before they could say otherwise.
_BEFORE_READ_OUTS = {"taps": NO_TAPS, "augment": "none", "class_weight": "none", "gate": False}


def inherited_options(run: Path, data: Path, given: Mapping[str, Any]) -> TrainOptions:
    """The options of a run that adds to another; those not given are that run's.

    Args:
        run: the finished run to add to.
        data: the corrected clips.
        given: the fields of `TrainOptions` that the user has set.

    Raises:
        RunError: there is no finished run, or it has another backbone.
    """
    config = run_folder.read_config(run)
    run_folder.read_scores(run)
    old = config.get("options")
    if not isinstance(old, dict) or not isinstance(old.get("weights", ""), str | None):
        raise RunError(f"{run / run_folder.CONFIG} does not contain the run's options")
    # Epochs, batch size and learning rate are in the schedule's file.
    kept = [name for name, option in OPTIONS.items() if option.inherited and name in old]
    values = {**(_BEFORE_READ_OUTS if "taps" not in old else {}), **{n: old[n] for n in kept}}
    values |= {"schedule": str(run / run_folder.SCHEDULE), **given}
    options = TrainOptions(data, **{**values, "add_to": run})
    if full_name(options.backbone) != full_name(old.get("backbone", options.backbone)):
        raise RunError(
            f"{run} is a run of {old['backbone']}, not of {options.backbone}: old and new cannot "
            f"be compared. Leave out --backbone."
        )
    return options


def run_labels(run: Path) -> tuple[str, ...]:
    """The classes of a run, in the order of its model.

    Raises:
        RunError: there is no run, or it does not say.
    """
    labels = run_folder.read_config(run).get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise RunError(f"{run / run_folder.CONFIG} does not contain the run's classes")
    return tuple(labels)


def run_front_end(run: Path) -> FrontEnd:
    """How the network of a run hears.

    Raises:
        RunError: there is no finished run, or this version does not know its network.
    """
    options = inherited_options(run, run, {})
    return get_backbone(options.backbone, options.slow_down, options.channel).front_end


def run_source(run: Path) -> Source:
    """The recordings of a run, each with its class, group and part.

    Raises:
        RunError: the run is damaged, or a recording is missing.
    """
    root, rows = run_folder.read_splits(run)
    if not root.is_dir():
        raise RunError(
            f"The recordings of {run} are missing: {show(root)} does not exist. Put them back "
            f"there, or train a new run on all your data."
        )
    entries = tuple(
        Entry(
            *(root / row["path"], Path(row["path"]), row["label"], row["group"], row["split"]),
            start=float(row["start"]) if row.get("start") else None,
            end=float(row["end"]) if row.get("end") else None,
        )
        for row in rows
    )
    # Not with pathlib, which raises for a name that no file can have.
    gone = [entry.path for entry in entries if not os.path.isfile(entry.path)]  # noqa: PTH113
    if gone:
        raise RunError(
            f"{len(gone)} of the {len(entries)} recordings of {run} are missing, such as "
            f"{', '.join(show(path) for path in gone[:3])}. Put them back there, or train a new "
            f"run on all your data."
        )
    said = run_folder.read_config(run).get("multilabel") is True
    several = said or any(is_set(entry.label) for entry in entries)
    return Source(root, entries, (), several)


def recordings_of_run(run: Path, recordings: Sequence[Path]) -> dict[Path, str]:
    """The recordings that must not be asked, with the reason.

    Args:
        run: the run folder.
        recordings: of the index.

    Returns:
        For each that the run knows, "used" or, for a copy of a test recording, "copy"; "name"
        for one whose name is not UTF-8, which no table of labels can hold.
    """
    odd = {path: "name" for path in recordings if not _is_unicode(path)}
    try:
        entries = run_source(run).entries
    except RunError:
        # Its recordings have moved: names are all that there is.
        root, rows = run_folder.read_splits(run)
        named = {os.path.realpath(root / row["path"]) for row in rows}
        return odd | {path: "used" for path in recordings if os.path.realpath(path) in named}
    used = {os.path.realpath(entry.path) for entry in entries}
    tested = {os.path.realpath(e.path): e.path for e in entries if e.split == "test"}
    by_size: dict[float, list[Path]] = {}
    for path in tested.values():
        by_size.setdefault(file_size(path), []).append(path)
    found, hashes = dict[Path, str](), dict[Path, str]()
    for path in recordings:
        if os.path.realpath(path) in used:
            found[path] = "used"
        elif same := by_size.get(file_size(path)):
            for one in same:
                hashes.setdefault(one, content_hash(one))
            if content_hash(path) in [hashes[one] for one in same]:
                found[path] = "copy"
    return odd | found


def _is_unicode(path: Path) -> bool:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        return False
    return True


def why_no_training(run: Path) -> str | None:
    """Why labels cannot be added to a run as things are: what is missing of it; or None."""
    try:
        run_source(run)
    except RunError as error:
        return str(error)
    return None


def notes_on(unwanted: Mapping[Path, str], recordings: int) -> list[str]:
    """What to say of recordings that `recordings_of_run` leaves out, of so many in all."""
    counts = Counter(unwanted.values())
    told = []
    if counts["used"]:
        told.append(
            f"{counts['used']} of {recordings} recordings are left out: the run was "
            "trained or tested on them."
        )
    if counts["copy"]:
        told.append(
            f"{counts['copy']} of {recordings} recordings are left out: they are copies "
            "of test recordings of the run, which must stay unseen."
        )
    if counts["name"]:
        told.append(
            f"{counts['name']} of {recordings} recordings are left out: their names or folders "
            "are not UTF-8, so that no table of labels can name them. Rename them."
        )
    return told
