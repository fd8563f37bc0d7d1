"""The sections of a run's report about its training: thresholds, curves, depths, what moved.

They are made from `metrics.json`, `history.csv` and `audit.json` as they are.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.core.html_tables import as_text
from unfreeze.pipeline.calibration import TEMPERATURES
from unfreeze.report.html_page import (
    UNKNOWN,
    Part,
    bounds_text,
    counted,
    details,
    notes,
    number,
    paragraph,
    rate,
    section,
    table,
)
from unfreeze.report.svg_charts import COLOURS, Curves, curves_chart, depths_chart
from unfreeze.report.tables import depth_score

Row = Mapping[str, Any]

# Epochs that the table lists.
_EPOCHS = 200
# Columns of `history.csv` that it leaves out, or has first.
_LEFT_OUT = ("stage", "seconds")
# What charts show, in words; whether it is a share; and the columns of `history.csv`.
_CHARTS: tuple[tuple[str, bool, Mapping[str, str]], ...] = (
    ("Loss", False, {"training": "loss", "validation": "val_loss"}),
    ("Accuracy of patches", True, {"training": "accuracy", "validation": "val_accuracy"}),
    (
        "Validation clips",
        True,
        {"right": "val_clip_accuracy", "mean recall of the classes": "val_balanced_accuracy"},
    ),
    ("Validation clips", True, {"mean average precision": "val_mean_average_precision"}),
)


def thresholds_part(metrics: Row) -> Part:
    """The score from which each class is heard in long recordings, and what that costs."""
    short, title = "Thresholds", "From which score a class counts as heard"
    choices = metrics.get("threshold_choices")
    if not choices:
        levels = metrics.get("thresholds") or {}
        known = [(as_text(x), number(value)) for x, value in levels.items() if not is_quiet(x)]
        made = table(title, ("class", "from score"), known)
        return section(short, title, made)
    counts = metrics.get("threshold_counts") or {}
    hours = counts.get("hours_of_background") or 0.0
    rows = [
        (
            as_text(label),
            number(row["threshold"], 3),
            _share_with_bounds(row, "recall"),
            _share_with_bounds(row, "precision"),
            *([_alarms(row)] if hours else []),
        )
        for label, row in choices.items()
        if not is_quiet(label)
    ]
    headers = ["class", "from score", "recall", "precision"]
    headers += ["false alarms an hour"] if hours else []
    background = f" and {60 * hours:.0f} minutes of background" if hours else ""
    lead = (
        f"In long recordings, a class is heard from this score on, chosen for "
        f"{metrics.get('threshold_wish')}. Estimated on validation clips{background}; behind each "
        "number its 95 % interval. Choose others with predict --precision or --max-false-alarms."
    )
    return section(short, title, paragraph(lead, "lead"), table(title, headers, rows))


def _share_with_bounds(row: Row, name: str) -> str:
    if row[name] is None:
        return UNKNOWN
    return f"{number(row[name], 2)} <small>{bounds_text(row[f'{name}_interval'])}</small>"


def _alarms(row: Row) -> str:
    if row["false_alarms"] is None:
        return UNKNOWN
    low, high = row["false_alarms_interval"]
    return f"{rate(row['false_alarms'])} <small>{rate(low)} to {rate(high)}</small>"


def calibration_part(metrics: Row) -> Part:
    """How far scores are from how often they are right, and the temperature that would help."""
    short, title = "Calibration", "How far to trust the scores"
    found = metrics.get("calibration")
    if not found:
        return section(short, title)
    rows = [
        (
            f"{part} clips",
            *(number(own[key]) for key in ("error", "scaled_error", "loss", "scaled_loss")),
        )
        for part in ("validation", "test")
        if (own := found.get(part))
    ]
    temperature = float(found["temperature"])
    lead = (
        "The calibration error is the difference between a score, such as 0.9, and how often "
        "such scores are right, in the mean. "
    )
    if TEMPERATURES[0] * 1.01 < temperature < TEMPERATURES[1] * 0.99:
        sure = "surer" if temperature > 1 else "less sure"
        lead += (
            f"The model is {sure} than it should be on the validation clips; a temperature of "
            f"{temperature:.2f} corrects that best. It is not built into the model."
        )
        test = found.get("test")
        if test and test["scaled_loss"] > test["loss"]:
            lead += " On the test clips the loss is larger with it."
    else:
        lead += (
            "The validation clips are too few, or too easy, for a temperature to be fitted: do not "
            "use the corrected numbers."
        )
    headers = ("", "error", "corrected", "loss", "corrected")
    made = table("Calibration", headers, rows)
    return section(short, title, paragraph(lead, "lead"), made)


def training_part(history: Sequence[Row]) -> Part:
    """Curves of loss and scores over the stages, and each epoch as a table.

    Args:
        history: the rows of `history.csv`.
    """
    short, title = "Training", "Training"
    if not history:
        return section(short, title)
    rows, stages, solved = _in_order(history)
    kept, first = list[int](), 0
    for _, epochs in stages:
        best = [n for n in range(first, first + epochs) if rows[n].get("best") == "True"]
        kept += best[-1:]
        first += epochs
    charts = []
    for words, share, lines in _CHARTS:
        known = {key: _column(rows, column) for key, column in lines.items()}
        known = {key: line for key, line in known.items() if np.isfinite(line).any()}
        if known:
            drawn = Curves(f"{words} over the epochs", known, stages, kept, share)
            legend = _legend(words, known)
            charts.append(
                f"<figure><figcaption>{legend}</figcaption>{curves_chart(drawn)}</figure>"
            )
    lead = "A ring marks what each stage kept."
    if solved:
        which, its = (
            (f"Stage {solved[0]} was", "its")
            if len(solved) == 1
            else (f"Stages {', '.join(solved)} were", "their")
        )
        lead += (
            f" {which} solved, not trained by epochs: {its} points are strengths of "
            "regularization, from the strongest to the weakest."
        )
    # Without the clock: the report of a run that is repeated is the same, to the byte.
    columns = [c for c in rows[0] if c not in _LEFT_OUT and any(row.get(c) for row in rows)]
    listed = [
        (as_text(row["stage"]), *(as_text(_short(row.get(c))) for c in columns))
        for row in history[:_EPOCHS]
    ]
    made = table("Each epoch", ["stage", *columns], listed)
    return section(
        short,
        title,
        paragraph(lead, "lead"),
        f"<div class='charts'>{''.join(charts)}</div>" if charts else "",
        details("Each epoch as a table", made),
    )


def _in_order(history: Sequence[Row]) -> tuple[list[Row], list[tuple[str, int]], list[str]]:
    """The rows as they are drawn; each stage with its number of rows; the solved stages."""
    rows, stages, solved = list[Row](), list[tuple[str, int]](), list[str]()
    for stage, group in groupby(history, key=lambda row: str(row["stage"])):
        own = list(group)
        if all(row.get("C") for row in own):
            # It has tried strengths of regularization, in an order of its own.
            own.sort(key=lambda row: float(row["C"]))
            solved.append(stage)
        rows += own
        stages.append((stage, len(own)))
    return rows, stages, solved


def _column(rows: Sequence[Row], key: str) -> np.ndarray:
    values = [row.get(key) for row in rows]
    column = np.array([math.nan if v in (None, "") else float(v) for v in values])
    return np.where(np.isfinite(column), column, math.nan)


def _short(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return {"True": "kept", "False": ""}.get(str(value), str(value or ""))


def _legend(words: str, lines: Mapping[str, np.ndarray]) -> str:
    marks = "".join(
        "<span><svg width='14' height='8' aria-hidden='true'>"
        f"<rect class='{colour}' width='14' height='3' y='3'/></svg> {as_text(key)}</span>"
        for colour, key in zip(COLOURS, lines, strict=False)
    )
    return f"<b>{as_text(words)}</b><span>{marks}</span>"


def depths_part(metrics: Row) -> Part:
    """How well each depth of the pretrained network tells the classes apart."""
    short, title = "Depths", "What each depth of the network knows"
    found = metrics.get("depths")
    if not found or not found["groups"]:
        return section(short, title)
    names = [str(group["group"]) for group in found["groups"]]
    score = depth_score(found)
    values = [float(group[score]) for group in found["groups"]]
    peak = names.index(found["peak"]) if found["peak"] in names else None
    words = "Mean recall" if score == "balanced_accuracy" else "Mean average precision"
    said = f"{words} of the classes from each depth alone; {found['summary']}"
    chart = depths_chart(said, names, values, peak, float(found["chance"]))
    lead = (
        f"{words} of the classes when each layer group of the pretrained network is read alone, "
        f"on {counted(found['clips'], 'validation clip')}, from the input down to the end."
    )
    return section(short, title, paragraph(lead, "lead"), chart, paragraph(found["summary"]))


def moved_part(audit: Sequence[Row]) -> Part:
    """What each stage moved, and whether that is what it was meant to.

    Args:
        audit: the stages of `audit.json`.
    """
    short, title = "Moved", "What moved"
    rows, faults = [], 0
    for stage in audit:
        layers = [layer for layer in stage["layers"] if layer["weights"]]
        meant = [layer for layer in layers if layer["trainable"]]
        still = [layer for layer in layers if not layer["trainable"]]
        sizes = [layer["moved"] for layer in meant if layer["moved"]]
        wrong = sum(not layer["moved"] or not math.isfinite(layer["moved"]) for layer in meant)
        wrong += sum(layer["moved"] != 0 for layer in still)
        faults += wrong
        ends = (
            list(dict.fromkeys(f"{size:.2g}" for size in (min(sizes), max(sizes)))) if sizes else []
        )
        rows.append(
            (
                as_text(stage["stage"]),
                f"{len(meant):,}",
                " to ".join(ends) or UNKNOWN,
                f"{len(still):,}",
                "0 exactly" if all(layer["moved"] == 0 for layer in still) else "not 0",
                "as meant" if not wrong else f"{wrong:,} not as meant",
            )
        )
    if not rows:
        return section(short, title)
    headers = (
        *("stage", "layers that trained", "moved by"),
        *("frozen layers", "moved by", "check"),
    )
    lead = (
        "How far the weights of each layer moved, relative to their size. What a stage froze must "
        "not move at all, and what it trained must move."
    )
    warning = notes([f"{counted(faults, 'layer')} did not do as meant."] if faults else [])
    made = table(title, headers, rows)
    return section(short, title, paragraph(lead, "lead"), warning, made)
