"""`predictions.csv`: what a model makes of each clip that was held out.

One row per clip: `path` (relative to the folder of the recordings, as in `splits.csv`),
`label` (the truth), `group`, `split`; `predicted`, the likeliest class or, where a clip may
have several labels, those that reach their thresholds; `score`, its probability or the largest
one; then `score_<class>` for each class. Clips that are stretches of a recording also have
`start` and `end`, in seconds. Scores are the means over a clip's patches.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.label_sets import set_text
from unfreeze.audio.manifest import Manifest
from unfreeze.errors import RunError, show
from unfreeze.pipeline.run_folder import read_rows, write_table

FILE = "predictions.csv"
# Before the names of classes, so that none is taken for another column.
_SCORE = "score_"
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model makes of a clip.

    Attributes:
        path: of the recording, relative to the folder of all.
        label: the truth, as in `splits.csv`.
        group: of the clip.
        split: its part.
        predicted: a class or, where a clip may have several, the text of a set.
        score: of the predicted class, or the largest.
        scores: of each class, 0 to 1.
        start: seconds, where the clip begins in its recording; None for all of it.
        end: seconds, where it ends; None likewise.
    """

    path: str
    label: str
    group: str
    split: str
    predicted: str
    score: float
    scores: tuple[float, ...]
    start: float | None
    end: float | None


@dataclass(frozen=True, eq=False)
class Predictions:
    """The rows of a table, and the classes that they have scores of."""

    labels: tuple[str, ...]
    rows: tuple[Prediction, ...]


def write_predictions(
    out: Path,
    manifest: Manifest,
    parts: Mapping[str, tuple[Sequence[int] | np.ndarray, np.ndarray]],
    labels: Sequence[str],
    thresholds: Sequence[float] | np.ndarray | None = None,
) -> None:
    """Write `predictions.csv`.

    Args:
        out: the folder.
        manifest: holds the clips.
        parts: for each part the numbers of its clips, and their scores (clips, classes).
        labels: names of the classes, in the order of the columns.
        thresholds: (classes,) from which each is predicted, where a clip may have several
            labels; None for clips with one.
    """
    rows = []
    for name, (clips, scores) in parts.items():
        for number, own in zip(clips, scores, strict=True):
            clip = manifest.clips[int(number)]
            if thresholds is None:
                predicted = labels[int(own.argmax())]
            else:
                reached = own >= np.asarray(thresholds)
                predicted = set_text(x for x, is_in in zip(labels, reached, strict=True) if is_in)
            row: dict[str, Any] = {
                "path": clip.path.relative_to(manifest.root).as_posix(),
                "label": clip.label,
                "group": clip.group,
                "split": name,
                "start": "" if clip.start is None else f"{clip.start:.3f}",
                "end": "" if clip.end is None else f"{clip.end:.3f}",
                "predicted": predicted,
                "score": _number(own.max()),
            }
            row |= {f"{_SCORE}{x}": _number(s) for x, s in zip(labels, own, strict=True)}
            rows.append(row)
    if not any(row["start"] for row in rows):
        for row in rows:
            del row["start"], row["end"]
    write_table(out / FILE, rows)


def _number(score: float) -> str:
    return f"{float(score):.{_DIGITS}f}"


def read_predictions(folder: Path, root: Path) -> Predictions | None:
    """Read the predictions in a folder; None if there are none.

    Args:
        folder: of a run or an evaluation.
        root: of the recordings, which no path may lead out of.

    Raises:
        RunError: the table is damaged, or a path leads out.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    rows = read_rows(file, root)
    columns = [name for name in (rows[0] if rows else ()) if name and name.startswith(_SCORE)]
    try:
        read = tuple(_prediction(row, columns) for row in rows)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunError(f"{show(file)} is damaged: delete it, or train again") from None
    return Predictions(tuple(name.removeprefix(_SCORE) for name in columns), read)


def _prediction(row: Mapping[str, Any], columns: Sequence[str]) -> Prediction:
    return Prediction(
        row["path"],
        row["label"],
        row["group"],
        row["split"],
        str(row["predicted"]),
        _finite(row["score"]),
        tuple(_finite(row[name]) for name in columns),
        _finite(row["start"]) if row.get("start") else None,
        _finite(row["end"]) if row.get("end") else None,
    )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def of_part(predictions: Predictions | None, part: str) -> Iterator[Prediction]:
    """The predictions of one part; none where there are no predictions."""
    return (row for row in (predictions.rows if predictions else ()) if row.split == part)
