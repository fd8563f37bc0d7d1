"""The sections of a report about scores: the headline, the mistakes by class, each class.

They are made from the scores of one part, as `unfreeze.pipeline.scoring.score` and
`unfreeze.pipeline.label_scoring.score_labels` give them: nothing is computed again.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.core.html_tables import as_text
from unfreeze.report.clip_cards import FOUND, MISSED, WRONG, cell_name
from unfreeze.report.html_page import (
    UNKNOWN,
    Part,
    bounds_text,
    counted,
    facts,
    number,
    paragraph,
    percent,
    scrolled,
    section,
    table,
)
from unfreeze.report.svg_charts import interval_line, score_scale
from unfreeze.report.tables import worst_first

Scores = Mapping[str, Any]

#: With more classes, pairs are listed instead of a matrix.
MOST_CLASSES = 60
# Pairs of classes that are listed.
_PAIRS = 100
# Shares of a class from which a cell has the next of five colours.
_STEPS = (0.1, 0.3, 0.6, 0.85)
_ROUNDED = {"macro_f1": "macro F1", "micro_f1": "micro F1"}


def headline(scores: Scores, clips: str) -> str:
    """The result in words, with its interval, and what guessing would reach.

    Args:
        scores: of one part.
        clips: what its clips are called, such as "test clips".
    """
    if scores.get("multilabel"):
        return _label_headline(scores, clips)
    right = sum(row[place] for place, row in enumerate(scores["confusion"]))
    value, bounds = scores["accuracy"], scores["intervals"]["accuracy"]
    supports = {label: row["support"] for label, row in scores["per_class"].items()}
    most = max(supports.values())
    common = [label for label, support in supports.items() if support == most]
    guess = most / scores["clips"]
    always = f"{common[0]}, the most frequent class," if len(common) == 1 else "one class"
    balanced = _with_bounds(scores, "balanced_accuracy")
    return _panel(
        percent(value).replace(" %", "&thinsp;%"),
        f"{right:,} of {counted(scores['clips'], clips[:-1], clips)} are right",
        _probably(bounds, scores),
        f"Always guessing {always} would be right for {percent(guess)} of them.",
        score_scale(value, bounds, guess),
    ) + facts(
        {
            "mean recall of the classes": balanced,
            "macro F1": _with_bounds(scores, "macro_f1"),
            "loss": _with_bounds(scores, "loss"),
            "calibration error": number(scores["calibration_error"]),
        }
    )


def _label_headline(scores: Scores, clips: str) -> str:
    value = scores["mean_average_precision"]
    bounds = scores["intervals"]["mean_average_precision"]
    known = [row for row in scores["per_class"].values() if row["support"]]
    shares = [row["support"] / max(scores["clips"] - row["unknown"], 1) for row in known]
    guess = float(np.mean(shares)) if shares else None
    if value is None:
        return paragraph(f"No class is heard in the {clips}, so nothing can be scored.")
    return _panel(
        number(value, 2),
        f"Mean average precision on {counted(scores['clips'], clips[:-1], clips)}",
        _probably(bounds, scores, share=False),
        "It says how far the clips of a class come before all others, without any threshold. "
        f"A random order has {number(guess, 2)}, a perfect one 1.",
        score_scale(value, bounds, guess, ("0", "1")),
    ) + facts(
        {name: _with_bounds(scores, key) for key, name in (*_ROUNDED.items(), ("loss", "loss"))}
    )


def _panel(big: str, first: str, *rest: str) -> str:
    *words, scale = rest
    lines = "".join(paragraph(text) for text in (first, *words))
    return (
        f"<div class='head'><p class='big'>{big}</p><div class='words'>{lines}</div>{scale}</div>"
    )


def _probably(bounds: Sequence[float] | None, scores: Scores, share: bool = True) -> str:
    if bounds is None:
        return ""
    if scores["groups"] == 1:
        return "All of them are of one group, so how far that holds elsewhere is not known."
    low, high = (percent(x) if share else number(x, 2) for x in bounds)
    groups = counted(scores["groups"], "group")
    level = percent(scores["bootstrap"]["level"])
    return (
        f"Probably between {low} and {high} on others like them ({level} interval over {groups})."
    )


def _with_bounds(scores: Scores, name: str) -> str:
    return f"{number(scores[name])}{_bounds(scores['intervals'][name])}"


def _bounds(bounds: Sequence[float] | None) -> str:
    """An interval behind its number; none of a single group, which has no width."""
    if bounds is None or bounds[0] == bounds[1]:
        return ""
    return f" <small>{bounds_text(bounds)}</small>"


def short_result(scores: Scores, clips: str) -> str:
    """The result in one sentence."""
    name = "mean_average_precision" if scores.get("multilabel") else "accuracy"
    value, bounds = scores[name], scores["intervals"][name]
    what = name.replace("_", " ")
    if value is None:
        return f"Nothing could be scored on the {clips}."
    return (
        f"{what.capitalize()} {number(value)} ({bounds_text(bounds, 3)}) on {scores['clips']:,} "
        f"{clips}."
    )


def mistakes_by_class(scores: Scores, counts: Mapping[str, int], linked: Collection[str]) -> Part:
    """The confusion matrix, or what was found, missed and wrongly named of each class.

    Args:
        scores: of one part.
        counts: clips of each cell.
        linked: the cells that have clips on the page.

    Returns:
        The section.
    """
    if scores.get("multilabel"):
        return _label_cells(scores, counts, linked)
    labels, confusion = scores["labels"], np.asarray(scores["confusion"])
    title = "What was taken for what"
    # A gate's background is no clip's class; it is shown where a clip was taken for it.
    idle = (confusion.sum(axis=0) == 0) & (confusion.sum(axis=1) == 0)
    shown = [n for n, label in enumerate(labels) if not (is_quiet(label) and idle[n])]
    if len(shown) > MOST_CLASSES:
        return _pairs(labels, confusion, linked)
    heads = "".join(f"<th scope='col'><span>{as_text(labels[n])}</span></th>" for n in shown)
    rows = []
    for n in shown:
        own = confusion[n]
        if is_quiet(labels[n]) and not own.any():
            continue
        cells = "".join(_cell(labels, confusion, n, m, linked) for m in shown)
        end = f"{own[n]}/{own.sum()}"
        rows.append(
            f"<tr><th scope='row'>{as_text(labels[n])}</th>{cells}<td class='sum'>{end}</td></tr>"
        )
    caption = "Confusion matrix: rows are the truth, columns what the model said"
    return section(
        "Confusions",
        title,
        paragraph(
            "A row for each true class, a column for what the model said. Blue is right, orange is "
            "wrong, as a share of the row. Choose a number to see and hear its clips.", "lead",
        ),
        scrolled(
            caption,
            f"<table class='matrix'><caption class='hidden'>{caption}</caption><thead><tr>"
            f"<td></td>{heads}<th scope='col' class='sum'>right</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>",
        ),
    )  # fmt: skip


def _cell(
    labels: Sequence[str], confusion: np.ndarray, n: int, m: int, linked: Collection[str]
) -> str:
    count, total = int(confusion[n, m]), int(confusion[n].sum())
    if not count:
        return "<td></td>"
    level = 1 + sum(count / total >= step for step in _STEPS)
    said = f"{labels[n]}, right" if n == m else f"{labels[n]} taken for {labels[m]}"
    kind = f"{'r' if n == m else 'w'}{level}"
    return f"<td class='{kind}'>{_link(cell_name(n, m), count, said, linked)}</td>"


def _link(cell: str, count: int, said: str, linked: Collection[str], kind: str = "") -> str:
    """A number that opens its clips, where they are on the page."""
    if cell not in linked:
        return f"{count:,}"
    named = f" class='{kind}'" if kind else ""
    title = f"{said}: {counted(count, 'clip')}"
    return (
        f"<a{named} href='#{cell}' data-cell='{cell}' data-count='{count}' "
        f"data-title='{as_text(title)}' aria-label='{count:,}: {as_text(said)}'>{count:,}</a>"
    )


def _pairs(labels: Sequence[str], confusion: np.ndarray, linked: Collection[str]) -> Part:
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(place), len(labels)) for place in order if wrong.flat[place]]
    rows = [
        (
            as_text(labels[n]),
            as_text(labels[m]),
            _link(
                cell_name(n, m), int(wrong[n, m]), f"{labels[n]} taken for {labels[m]}",
                linked, "count",
            ),
            f"{int(confusion[n].sum()):,}",
        )
        for n, m in pairs
    ]  # fmt: skip
    more = int((wrong > 0).sum()) - len(pairs)
    return section(
        "Confusions",
        "What was taken for what",
        paragraph("The most frequent mistakes. Choose a number to see and hear its clips.", "lead"),
        table("Mistakes", ("class", "taken for", "clips", "of"), rows, plain=2),
        paragraph(f"and {more:,} more pairs: predictions.csv has all." if more > 0 else ""),
    )


def _label_cells(scores: Scores, counts: Mapping[str, int], linked: Collection[str]) -> Part:
    title, rows = "Found, missed, wrongly named", []
    for n, (label, row) in enumerate(scores["per_class"].items()):
        cells = []
        for kind, said in (
            (FOUND, f"{label} found"),
            (MISSED, f"{label} missed"),
            (WRONG, f"{label} wrongly named"),
        ):
            count = counts.get(cell_name(n, kind), 0)
            cells.append(_link(cell_name(n, kind), count, said, linked, "count") if count else "0")
        rows.append((as_text(label), f"{row['support']:,}", *cells, number(row["threshold"], 2)))
    if not counts:
        return section("Confusions", title)
    return section(
        "Confusions",
        title,
        paragraph("Each class is judged by itself. Choose a number to see its clips.", "lead"),
        table(
            "Clips of each class that were found, missed or wrongly named",
            ("class", "clips", FOUND, MISSED, "wrongly named", "from score"),
            rows,
        ),
    )


def class_scores(scores: Scores) -> Part:
    """Precision, recall and F1 of each class with its interval, the worst first.

    Returns:
        The section.
    """
    several = bool(scores.get("multilabel"))
    key = "average_precision" if several else "f1"
    names = {"precision": "precision", "recall": "recall", "f1": "F1"}
    names = {"average_precision": "average precision", **names} if several else names
    rows = [
        (
            as_text(label),
            f"{row['support']:,}",
            *(_score(row, name) for name in names),
            interval_line(row[key], row["intervals"][key]),
        )
        for label, row in worst_first(scores, key)
    ]
    title = "Scores of each class"
    level = percent(scores["bootstrap"]["level"])
    lead = (
        "Precision: of the clips that were called so, how many are. Recall: of the clips that are, "
        f"how many were called so. The line is {names[key]}, 0 to 1, with its {level} interval."
    )
    headers = ("class", "clips", *names.values(), "")
    made = table(title, headers, rows, "bar")
    return section("Classes", title, paragraph(lead, "lead"), made)


def _score(row: Mapping[str, Any], name: str) -> str:
    """A score of a class; of those that are judged, with the interval."""
    known = row["intervals"].get(name) if name in ("f1", "average_precision") else None
    return f"{number(row[name], 2)}{_bounds(known)}"


def before_and_after(change: Mapping[str, Any]) -> Part:
    """What a run that adds to another changed, on the same clips.

    Args:
        change: `metrics.json["change"]`.

    Returns:
        The section.
    """
    rows, words = [], []
    for part, name in (("test", "test clips of that run"), ("corrected", "corrected clips")):
        scores = change.get(part)
        if scores is None:
            continue
        for key in scores["difference"]:
            pair = (number(scores[when][key]) for when in ("before", "after"))
            bounds = scores["intervals"][key]
            difference = scores["difference"][key]
            rows.append(
                (
                    f"{as_text(name)}: {_ROUNDED.get(key, key.replace('_', ' '))}",
                    *pair,
                    UNKNOWN if difference is None else f"{difference:+.3f}",
                    UNKNOWN if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f}",
                )
            )
        words.append(paragraph(f"{name}: {scores['note']}" if scores["note"] else "", "lead"))
    title = "Before and after"
    headers = ("", "before", "after", "change", "95 % interval")
    lead = paragraph(
        f"This run adds to {change.get('run')}. Both models on the same clips:", "lead"
    )
    made = table("Both models on the same clips", headers, rows)
    return section("Change", title, *((lead, made, *words) if made else ()))
