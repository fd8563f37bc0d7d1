"""`predictions.csv`: what a model makes of each clip that was held out.

One row per clip: `path` (relative to the folder of the recordings, as in `splits.csv`),
`label` (the truth), `group`, `split`; `predicted`, the likeliest class or, where a clip may
have several labels, those that reach their thresholds; `score`, its probability or the largest
one; then `score_<class>` for each class. Clips that are stretches of a recording also have
`start` and `end`, in seconds. Scores are the means over a clip's patches.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.label_sets import set_text
from unfreeze.audio.manifest import Manifest
from unfreeze.errors import RunError, show
from unfreeze.files import atomic_path
from unfreeze.pipeline.run_folder import each_row

FILE = "predictions.csv"
# Before the names of classes, so that none is taken for another column.
_SCORE = "score_"
_DIGITS = 6
_FIRST = ("path", "label", "group", "split")


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a model makes of a clip.

    Attributes:
        path: of the recording, relative to the folder of all.
        label: the truth, as in `splits.csv`.
        group: of the clip.
        split: its part.
        predicted: a class or, where a clip may have several, the text of a set.
        score: of the predicted class, or the largest.
        scores: (classes,) float32, 0 to 1.
        start: seconds, where the clip begins in its recording; None for all of it.
        end: seconds, where it ends; None likewise.
    """

    path: str
    label: str
    group: str
    split: str
    predicted: str
    score: float
    scores: np.ndarray
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
    chosen = (manifest.clips[int(number)] for clips, _ in parts.values() for number in clips)
    bounds = ("start", "end") if any(clip.start is not None for clip in chosen) else ()
    columns = (*_FIRST, *bounds, "predicted", "score", *(f"{_SCORE}{label}" for label in labels))
    # Row by row: with many clips and classes, all of them are more than memory holds.
    with (
        atomic_path(out / FILE) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(_rows(manifest, parts, labels, thresholds, bool(bounds)))


def _rows(
    manifest: Manifest,
    parts: Mapping[str, tuple[Sequence[int] | np.ndarray, np.ndarray]],
    labels: Sequence[str],
    thresholds: Sequence[float] | np.ndarray | None,
    bounded: bool,
) -> Iterator[list[str]]:
    for name, (clips, scores) in parts.items():
        for number, own in zip(clips, scores, strict=True):
            clip = manifest.clips[int(number)]
            if thresholds is None:
                predicted = labels[int(own.argmax())]
            else:
                reached = own >= np.asarray(thresholds)
                predicted = set_text(x for x, is_in in zip(labels, reached, strict=True) if is_in)
            where = [clip.path.relative_to(manifest.root).as_posix(), clip.label, clip.group, name]
            if bounded:
                where += ["" if t is None else f"{t:.3f}" for t in (clip.start, clip.end)]
            yield [*where, predicted, _number(own.max()), *map(_number, own)]


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
    columns, read = list[str](), list[Prediction]()
    try:
        for row in each_row(file, root):
            columns = columns or [x for x in row if x and x.startswith(_SCORE)]
            read.append(_prediction(row, columns))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunError(f"{show(file)} is damaged: delete it, or train again") from None
    return Predictions(tuple(name.removeprefix(_SCORE) for name in columns), tuple(read))


def _prediction(row: Mapping[str, Any], columns: Sequence[str]) -> Prediction:
    scores = np.array([row[name] for name in columns], np.float32)
    start, end = (float(row[name]) if row.get(name) else None for name in ("start", "end"))
    score = float(row["score"])
    known = [score, *(time for time in (start, end) if time is not None)]
    if not (np.isfinite(known).all() and np.isfinite(scores).all()):
        raise ValueError("not finite")
    return Prediction(
        path=row["path"],
        label=row["label"],
        group=row["group"],
        split=row["split"],
        predicted=str(row["predicted"]),
        score=score,
        scores=scores,
        start=start,
        end=end,
    )


def of_part(predictions: Predictions | None, part: str) -> Iterator[Prediction]:
    """The predictions of one part; none where there are no predictions."""
    return (row for row in (predictions.rows if predictions else ()) if row.split == part)
