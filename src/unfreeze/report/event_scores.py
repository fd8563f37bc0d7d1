"""The scores of a detector as tables for the terminal.

They take the dict of `unfreeze.detection.event_evaluation.summary`. Its curves are drawn by
`unfreeze.report.event_plots`.
"""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unfreeze.report.tables import NOTHING, plain_table, short, three_digits

Scores = Mapping[str, Any]

_LONGEST_CLASS = 16
#: The rules of events, in the order of the tables, and what heads their columns.
RULES = {"overlap": "overlap", "iou": "IoU", "onset": "onset", "segments": "segments"}


def event_tables(scores: Scores, title: str = "") -> Group:
    """Tabulate the scores of a detector: by each rule, then of each class, the worst first.

    Args:
        scores: of the detector.
        title: shown above.
    """
    overall = plain_table(title)
    overall.add_column("", no_wrap=True)
    for name in ("precision", "recall", "F1", "macro F1", "mean AP"):
        overall.add_column(name, justify="right", no_wrap=True)
    for rule, name in RULES.items():
        row = scores["overall"][rule]
        keys = ("precision", "recall", "f1", "macro_f1", "mean_average_precision")
        overall.add_row(name, *(three_digits(row[key]) for key in keys))
    alarms = scores["false_alarms"]
    complete = scores["annotated"] == "fully"
    counts = (
        f"{scores['true_events']:,} true events, {scores['found_events']:,} "
        f"{'found' if complete else 'found where it is annotated'}, in "
        f"{scores['hours']:.2f} h of {scores['recordings']:,} "
        f"recording{'' if scores['recordings'] == 1 else 's'}. False alarms: {alarms['count']:,}"
        + (f", {alarms['per_hour']:.1f} an hour" if alarms["per_hour"] is not None else "")
        + (
            f"; {alarms['on_other_classes']:,} on sounds of other classes."
            if alarms["count"]
            else "."
        )
        + (f" PSDS: {scores['psds']:.3f}." if scores["psds"] is not None else "")
    )
    words = [Text(f"{RULES[rule]}: {text}", style="dim") for rule, text in _words(scores)]
    taken = (
        "The annotation is taken as complete; if it is not: --annotated partly."
        if complete
        else "The annotation is taken as incomplete: what is found elsewhere is not judged."
    )
    return Group(overall, Text(counts), *words, Text(taken, style="dim"), Text(), _classes(scores))


def _words(scores: Scores) -> list[tuple[str, str]]:
    return list(scores["rules"]["words"].items())


def _classes(scores: Scores) -> Table:
    table = plain_table("Each class, by overlap; AP over all thresholds")
    table.add_column("class", no_wrap=True)
    headers = ("true", "found", "prec.", "recall", "F1", "AP", "IoU F1", "from", "alarms/h")
    for name in headers:
        table.add_column(name, justify="right", no_wrap=True)
    rows = sorted(
        scores["per_class"].items(),
        key=lambda item: _order(item[1]["overlap"]["average_precision"]),
    )
    for label, row in rows:
        alarms = row["false_alarms_per_hour"]
        by = row["overlap"]
        numbers = (by["precision"], by["recall"], by["f1"], by["average_precision"])
        table.add_row(
            Text(short(label, _LONGEST_CLASS)),
            f"{row['true_events']:,}",
            f"{row['found_events']:,}",
            *map(three_digits, numbers),
            three_digits(row["iou"]["f1"]),
            f"{row['threshold']:.2f}",
            NOTHING if alarms is None else f"{alarms:.1f}",
        )
    return table


def _order(value: float | None) -> float:
    return math.inf if value is None else value
