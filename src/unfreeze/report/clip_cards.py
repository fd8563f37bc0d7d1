"""The clips of a report: which are wrong, which are uncertain, and what to show of each.

Each clip has one card on the page, and belongs to cells of the table of mistakes: to that of
its class and the one that it was taken for or, where clips may have several labels, for each
class to those found, missed, or wrongly named. The clips that matter most get their picture
and sound first, as the page may not grow beyond a size.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.audio.excerpts import Span
from unfreeze.audio.label_sets import heard_in, unsure_in
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.core.html_tables import as_text
from unfreeze.errors import RunError, show
from unfreeze.pipeline.predictions import Prediction
from unfreeze.report.clip_media import Media, cut_media, span_of
from unfreeze.report.html_page import Part, clip_figure, counted, details, paragraph, section
from unfreeze.report.svg_charts import share_bar

FOUND, MISSED, WRONG = "found", "missed", "wrong"
# Cards of mistakes, of uncertain clips, and of right ones: of each class, and of all.
_MISTAKES, _UNCERTAIN, _RIGHT, _ALL_RIGHT = 200, 12, 20, 200
# Classes whose scores a card shows, beside the true ones.
_TOP = 3


@dataclass(frozen=True)
class Judged:
    """A clip, and how the model did on it.

    Attributes:
        row: the prediction.
        cells: of the table of mistakes that it belongs to.
        right: whether it is right.
        weight: of wrong clips, how surely they are wrong; of right ones, how uncertain.
    """

    row: Prediction
    cells: tuple[str, ...]
    right: bool
    weight: float


def cell_name(row: int, column: int | str) -> str:
    """The name of a cell: of a true class, and of a predicted one or what happened to it."""
    return f"c{row}-{column}"


def judge(
    rows: Iterable[Prediction], labels: Sequence[str], cuts: Sequence[float] | None
) -> list[Judged]:
    """Say of each clip whether it is right, and how sure the model is.

    Args:
        rows: the predictions of one part.
        labels: names of the classes, in the order of the scores.
        cuts: (classes,) thresholds, where a clip may have several labels; else None.

    Raises:
        RunError: a row names a class that is not among the labels.
    """
    place = {label: number for number, label in enumerate(labels)}
    try:
        if cuts is None:
            return [_judge_one(row, place) for row in rows]
        return [_judge_several(row, labels, np.asarray(cuts)) for row in rows]
    except (KeyError, ValueError):
        raise RunError("predictions.csv does not fit metrics.json: train again") from None


def _judge_one(row: Prediction, place: Mapping[str, int]) -> Judged:
    right = row.label == row.predicted
    cell = cell_name(place[row.label], place[row.predicted])
    return Judged(row, (cell,), right, 1 - row.score if right else row.score)


def _judge_several(row: Prediction, labels: Sequence[str], cuts: np.ndarray) -> Judged:
    heard, unsure = set(heard_in(row.label)), set(unsure_in(row.label))
    named = set(heard_in(row.predicted))
    kinds = [
        "" if label in unsure
        else FOUND if label in heard & named
        else MISSED if label in heard
        else WRONG if label in named
        else ""
        for label in labels
    ]  # fmt: skip
    known = np.array([label not in unsure for label in labels])
    gaps = np.abs(np.array(row.scores) - cuts)
    off = np.array([kind in (MISSED, WRONG) for kind in kinds])
    weight = float(gaps[off].max()) if off.any() else 1 - float(gaps[known].min(initial=1.0))
    cells = tuple(cell_name(n, kind) for n, kind in enumerate(kinds) if kind)
    return Judged(row, cells, not off.any(), weight)


def cell_counts(judged: Iterable[Judged]) -> Counter[str]:
    """How many clips each cell has."""
    return Counter(chain.from_iterable(one.cells for one in judged))


@dataclass(frozen=True, eq=False)
class Shown:
    """The clips that have a card, in the order of the page.

    Attributes:
        mistakes: wrong clips, those of the most frequent mistake first.
        uncertain: right clips with the least certain scores.
        right: other right clips, by class.
    """

    mistakes: Sequence[Judged]
    uncertain: Sequence[Judged]
    right: Mapping[str, Sequence[Judged]]

    @property
    def cells(self) -> set[str]:
        """The cells that have a card."""
        return set(chain.from_iterable(one.cells for one in self.by_need()))

    def by_need(self) -> Iterator[Judged]:
        """All of them, those that matter most first."""
        yield from sorted(self.mistakes, key=lambda one: -one.weight)
        yield from self.uncertain
        # One of each class, then the next.
        for turn in zip_longest(*self.right.values()):
            yield from (one for one in turn if one is not None)


def choose_clips(judged: Sequence[Judged]) -> Shown:
    """Choose the clips to show."""
    counts = cell_counts(one for one in judged if not one.right)
    mistakes = sorted(
        (one for one in judged if not one.right),
        key=lambda one: (-max(counts[cell] for cell in one.cells), one.cells, -one.weight),
    )[:_MISTAKES]
    right = sorted((one for one in judged if one.right), key=lambda one: -one.weight)
    others: dict[str, list[Judged]] = defaultdict(list)
    for one in right[_UNCERTAIN:]:
        if len(others[one.row.label]) < _RIGHT:
            others[one.row.label].append(one)
    most = max(_ALL_RIGHT // max(len(others), 1), 1)
    kept = {label: own[:most] for label, own in sorted(others.items())[:_ALL_RIGHT]}
    return Shown(mistakes, right[:_UNCERTAIN], kept)


class Cards:
    """Makes the cards of clips, once their pictures and sounds are cut.

    Args:
        root: the folder of the recordings.
        front_end: of the network; None where nothing can be cut.
        labels: names of the classes, in the order of the scores.
        several: whether clips may have several labels.
    """

    def __init__(
        self, root: Path, front_end: FrontEnd | None, labels: Sequence[str], several: bool
    ) -> None:
        self.root, self.front_end = root, front_end
        self.labels, self.several = labels, several
        self._media: dict[Span, Media] = {}
        self._full = False
        self._named: set[str] = set()

    def cut(
        self, shown: Shown, budget: int, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Cut pictures and sounds.

        Args:
            shown: the clips.
            budget: bytes of all of them at most.
            progress: called as progress(done, total) with counts of clips.
        """
        if self.front_end is not None and self.root.is_dir():
            spans = [self._span(one.row) for one in shown.by_need()]
            self._media, self._full = cut_media(spans, self.front_end, budget, progress)

    def _span(self, row: Prediction) -> Span:
        window = 0.0 if self.front_end is None else self.front_end.patch_seconds
        return span_of(self.root / row.path, row.start, row.end, window)

    def sections(self, shown: Shown) -> list[Part]:
        """The sections of clips."""
        self._named.clear()
        mistakes, uncertain = self._grid(shown.mistakes), self._grid(shown.uncertain)
        groups = [
            details(f"{x or 'none of the classes'}: {counted(len(own), 'clip')}", self._grid(own))
            for x, own in shown.right.items()
        ]
        lead = "Of the clips that were right, the model was least sure of these."
        return [
            section("Mistakes", "Mistakes", self._lead(shown) if mistakes else "", mistakes),
            section(
                *("Uncertain", "Right, but least certain"),
                paragraph(lead, "lead") if uncertain else "",
                uncertain,
            ),
            section("Right", "Right and sure", *groups),
        ]

    def _lead(self, shown: Shown) -> str:
        said = "The most frequent mistakes first; among equal ones, those the model was surest of."
        if self.several:
            said = "Clips of which a class was missed or wrongly named, the most frequent first."
        return paragraph(said, "lead")

    def _grid(self, judged: Sequence[Judged]) -> str:
        cards = "".join(map(self._card, judged))
        return f"<div class='cards'>{cards}</div>" if cards else ""

    def _card(self, one: Judged) -> str:
        row = one.row
        media = self._media.get(self._span(row))
        # The first clip of a cell is where its link leads to without the script.
        first = [cell for cell in one.cells if cell not in self._named]
        self._named.update(first)
        places = "".join(f"<span id='{cell}'></span>" for cell in first)
        times = "" if row.start is None else f", {row.start:.1f} to {row.end or 0:.1f} s"
        inside = clip_figure(
            row.path,
            f"{row.split}{times}",
            media,
            "" if media else self._why_not(row),
            f"{self._call(one)}{self._scores(row)}",
        )
        return f"<figure data-cells='{' '.join(one.cells)}'>{places}{inside}</figure>"

    def _why_not(self, row: Prediction) -> str:
        # Not with pathlib, which raises for a name that no file can have.
        if not os.path.isfile(self.root / row.path):  # noqa: PTH113
            return "The recording is no longer there."
        if self.front_end is None:
            return ""
        return "Not shown, to keep the page small." if self._full else "It cannot be read."

    def _call(self, one: Judged) -> str:
        row = one.row
        if not self.several:
            truth, named = as_text(row.label), as_text(row.predicted)
            if one.right:
                return f"<p class='call'><span class='yes'>{truth}</span>, as it should be</p>"
            return f"<p class='call'>{truth}, taken for <span class='no'>{named}</span></p>"
        heard, named_too = set(heard_in(row.label)), set(heard_in(row.predicted))
        unsure = set(unsure_in(row.label))
        said = [f"labelled {as_text(', '.join(sorted(heard)) or 'none of the classes')}"]
        for words, kind, which in (
            ("found", "yes", heard & named_too),
            ("missed", "no", heard - named_too - unsure),
            ("wrongly named", "no", named_too - heard - unsure),
        ):
            if which:
                names = as_text(", ".join(sorted(which)))
                said.append(f"{words} <span class='{kind}'>{names}</span>")
        return f"<p class='call'>{'; '.join(said)}</p>"

    def _scores(self, row: Prediction) -> str:
        true = set(heard_in(row.label)) if self.several else {row.label}
        order = sorted(range(len(row.scores)), key=lambda n: -row.scores[n])
        chosen = [
            n for n in order[:_TOP] if not (is_quiet(self.labels[n]) and row.scores[n] < 0.005)
        ]
        chosen += [n for n in order[_TOP:] if self.labels[n] in true]
        items = "".join(
            f"<li{_truth(self.labels[n] in true)}><span>{as_text(self.labels[n])}</span>"
            f"{share_bar(row.scores[n])}<span>{row.scores[n]:.2f}</span></li>"
            for n in chosen
        )
        return f"<ul class='top'>{items}</ul>"


def _truth(is_true: bool) -> str:
    return " class='truth'" if is_true else ""


def thresholds_in(scores: Mapping[str, Any]) -> list[float] | None:
    """The thresholds that a part was scored with; None where clips have one label each."""
    if not scores.get("multilabel"):
        return None
    return [float(row["threshold"]) for row in scores["per_class"].values()]


def where(root: Path) -> str:
    """A sentence for recordings that have gone; empty where they are there."""
    if root.is_dir():
        return ""
    return (
        f"The recordings are no longer in {show(root)}, so clips cannot be shown or played. Put "
        "them back, and write the report again with unfreeze report."
    )
