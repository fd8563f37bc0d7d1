"""What the files of a finished run say, read for its report.

Files that a run of an earlier version did not write are taken as empty.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.registry import Backbone, get_backbone
from unfreeze.errors import RunError, UnfreezeError, show
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.predictions import Predictions, read_predictions
from unfreeze.pipeline.train_options import TrainOptions, default_of

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """What the files of a run say.

    Attributes:
        folder: of the run.
        config: `config.yaml`.
        metrics: `metrics.json`.
        history: `history.csv`; empty if it is missing.
        audit: the stages of `audit.json`; likewise.
        clips: `splits.csv`; likewise.
        about: `notes.json`; likewise.
        root: the folder of the recordings.
        predictions: `predictions.csv`; None if it is missing.
        backbone: the network, or None if this version does not know it.
    """

    folder: Path
    config: Row
    metrics: Row
    history: Sequence[Row]
    audit: Sequence[Row]
    clips: Sequence[Mapping[str, str]]
    about: Row
    root: Path
    predictions: Predictions | None
    backbone: Backbone | None

    @property
    def options(self) -> Row:
        """The settings."""
        found = self.config.get("options")
        return found if isinstance(found, dict) else {}

    @property
    def front_end(self) -> FrontEnd | None:
        """How the network hears."""
        return None if self.backbone is None else self.backbone.front_end

    @property
    def part(self) -> str | None:
        """The part that the report is about; None if nothing was held out."""
        return next((part for part in ("test", "validation") if self.metrics.get(part)), None)


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        RunError: it is not a finished run, or a file is damaged.
    """
    config = run_folder.read_config(folder)
    metrics = run_folder.read_scores(folder)
    cure = "train again, or copy the run's folder again"
    about = folder / run_folder.NOTES
    audit = folder / run_folder.AUDIT
    root, clips = run_folder.read_splits(folder)
    options = config.get("options")
    options = options if isinstance(options, dict) else {}
    known = {name: options.get(name, default_of(name)) for name in ("slow_down", "channel")}
    try:
        TrainOptions(root, **known)
        backbone = get_backbone(str(options.get("backbone")), **known)
    except UnfreezeError:
        # One that this version does not know, or values out of range.
        backbone = None
    return Run(
        folder,
        config,
        metrics,
        _history(folder / run_folder.HISTORY),
        run_folder.read_json(audit, cure)["stages"] if audit.is_file() else (),
        clips,
        run_folder.read_json(about, cure) if about.is_file() else {},
        root,
        read_predictions(folder, root),
        backbone,
    )


def _history(file: Path) -> list[Row]:
    try:
        with file.open(encoding="utf-8", newline="") as rows:
            return list(csv.DictReader(rows))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{show(file)} cannot be read: {error}") from None
