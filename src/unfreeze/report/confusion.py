"""The confusion matrix as a picture, readable from 2 to some 50 classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from numpy.typing import ArrayLike

from unfreeze.errors import DataError
from unfreeze.report.names import short
from unfreeze.report.style import GREY, INK, PathLike, page

LONGEST_LABEL = 24
LARGEST = 20.0
SMALLEST_WITH_COUNTS = 0.22


def plot_confusion(confusion: ArrayLike, labels: Sequence[str], path: PathLike) -> None:
    """Draw a confusion matrix: colours by the share of the row, counts as text.

    Cells without a clip stay empty, so that mistakes stand out. At the right end
    of each row: how many of the class's clips were right, of how many.

    Args:
        confusion: (classes, classes) counts; rows are the truth.
        labels: names of the classes, in order.
        path: the picture to write.

    Raises:
        DataError: if the matrix does not fit the labels.
    """
    counts = np.asarray(confusion)
    classes = len(labels)
    if classes == 0 or counts.shape != (classes, classes):
        raise DataError(f"confusion has shape {counts.shape}; {classes} labels do not fit it")
    support = counts.sum(axis=1)
    shares = counts / np.maximum(support, 1)[:, None]

    # Inches a cell: generous for few classes, just above the digits for many, and
    # without digits where even these would make a poster of it.
    cell = min(float(np.clip(8.0 / classes, 0.27, 0.9)), LARGEST / classes)
    font = float(np.clip(20.0 * cell, min(6.0, 58.0 * cell), 10.0))
    names = [short(label, LONGEST_LABEL) for label in labels]
    diagonal = counts.diagonal()
    ends = [f"{right}/{clips}" for right, clips in zip(diagonal, support, strict=True)]
    # A character is about 0.6 of its height wide; 72 points are an inch.
    left, right = (0.6 / 72 * font * max(map(len, texts)) for texts in (names, ends))
    width, height = classes * cell + left + right + 0.9, classes * cell + left + 0.9
    with page(path, max(width, 4.4), max(height, 3.2)) as figure:
        axes = figure.subplots()
        # A bent scale: a few per cent of mistakes must be seen beside 95 % right.
        norm = PowerNorm(0.6, vmin=0.0, vmax=1.0)
        axes.imshow(shares, cmap="Blues", norm=norm, aspect="equal")
        for row, column in np.argwhere(counts) if cell >= SMALLEST_WITH_COUNTS else ():
            axes.text(
                column,
                row,
                _compact(int(counts[row, column])),
                ha="center",
                va="center",
                fontsize=font,
                color="white" if norm(shares[row, column]) > 0.6 else INK,
            )
        places = np.arange(classes)
        axes.set_xticks(places, names, rotation=90, fontsize=font)
        axes.set_yticks(places, names, fontsize=font)
        axes.set_xticks(places[:-1] + 0.5, minor=True)
        axes.set_yticks(places[:-1] + 0.5, minor=True)
        axes.grid(which="minor", color="#E3E3E3", linewidth=0.5)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set(visible=True, color=GREY, linewidth=0.6)
        axes.set_xlabel("predicted (colour: share of the row)")
        axes.set_ylabel("truth")

        beside = axes.secondary_yaxis("right")
        beside.set_yticks(places, ends, fontsize=font)
        beside.tick_params(length=0)
        beside.spines[:].set_visible(False)
        beside.set_ylabel("right / clips", rotation=270, va="bottom")
        total, hits = int(counts.sum()), int(diagonal.sum())
        axes.set_title(f"{hits} of {total} clips right ({hits / max(total, 1):.1%})")


def _compact(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"
