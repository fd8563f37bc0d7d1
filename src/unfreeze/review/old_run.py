"""An earlier run as a source of data: the recordings it was trained on, and how.

The run folder holds no sound. It tells where the recordings were, and each one's
class, group and part; they must still be there.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unfreeze import run_folder
from unfreeze.audio.entries import Entry
from unfreeze.audio.names import show
from unfreeze.audio.sources import Source
from unfreeze.errors import RunError
from unfreeze.options import TrainOptions

# Settings that a run hands on to the one that adds to it. Epochs, batch size and
# rate are in its schedule's file.
_INHERITED = ("backbone", "seed", "group_regex", "validation", "test", "keep_audioset")


def inherited_options(run: Path, data: Path, given: Mapping[str, Any]) -> TrainOptions:
    """The options of a run that adds to another: as that one's, where nothing is given.

    Args:
        run: the run that is added to; finished.
        data: the corrected clips.
        given: the fields of `TrainOptions` that the user has set.

    Raises:
        RunError: no finished run is there, or it is of another backbone.
    """
    config = run_folder.read_config(run)
    run_folder.read_scores(run)
    old = config.get("options")
    if not isinstance(old, dict) or not isinstance(old.get("weights", ""), str | None):
        raise RunError(f"{run / run_folder.CONFIG} does not tell the run's options")
    values = {name: old[name] for name in _INHERITED if name in old}
    if old.get("weights") is not None:
        values["weights"] = Path(old["weights"])
    values |= {"schedule": str(run / run_folder.SCHEDULE), **given}
    options = TrainOptions(data, **{**values, "add_to": run})
    if options.backbone != old.get("backbone", options.backbone):
        raise RunError(
            f"{run} is a run of {old['backbone']}, not of {options.backbone}: old and new cannot "
            f"be compared. Leave out --backbone."
        )
    return options


def options_of(data: Path, given: Mapping[str, Any]) -> TrainOptions:
    """The options that a user of Python has given, paths as text or not.

    Args:
        data: what to train on.
        given: fields of `TrainOptions`; with `add_to` the others are as in that run.

    Raises:
        RunError: as `inherited_options`.
    """
    paths = ("out", "weights", "background", "negative", "add_to")
    values: dict[str, Any] = {
        k: Path(v) if k in paths and v is not None else v for k, v in given.items()
    }
    run = values.pop("add_to", None)
    return TrainOptions(data, **values) if run is None else inherited_options(run, data, values)


def run_labels(run: Path) -> tuple[str, ...]:
    """The classes of a run, in the order of its model.

    Raises:
        RunError: there is no run, or it does not tell.
    """
    labels = run_folder.read_config(run).get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise RunError(f"{run / run_folder.CONFIG} does not tell the run's classes")
    return tuple(labels)


def run_source(run: Path) -> Source:
    """The recordings of a run, each with its class, group and part.

    Raises:
        RunError: the run is broken, or a recording is not where it was.
    """
    root, rows = run_folder.read_splits(run)
    if not root.is_dir():
        raise RunError(
            f"The data of {run} are gone: {show(root)} does not exist. Put the recordings back "
            f"there, or train anew on all that you have."
        )
    entries = tuple(
        Entry(root / row["path"], Path(row["path"]), row["label"], row["group"], row["split"])
        for row in rows
    )
    # Not by pathlib, which raises for a name that no file can have.
    gone = [entry.path for entry in entries if not os.path.isfile(entry.path)]  # noqa: PTH113
    if gone:
        raise RunError(
            f"{len(gone)} of the {len(entries)} recordings of {run} are gone, such as "
            f"{', '.join(show(path) for path in gone[:3])}. Put them back there, or train anew on "
            f"all that you have."
        )
    return Source(root, entries, ())
