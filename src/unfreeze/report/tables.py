"""Tables for the terminal: scores of a model, and what each stage moved.

Each function turns plain data (see `evaluate.score` and `audit.json`) into a
rich table that fits 80 columns. Names come from users and are shown as they are,
never read as markup.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unfreeze.metrics import CLASS_METRICS, METRICS
from unfreeze.report.names import short, shortest_unique

Layer = Mapping[str, Any]

NOTHING = "–"
# So that 80 columns hold a class, its numbers and what it is taken for; and two
# layers, what they did and, in the worst case, that it was not meant.
LONGEST_CLASS, LONGEST_GUESS, LONGEST_LAYER = 18, 10, 16


def metrics_table(scores: Mapping[str, Any], title: str = "") -> Group:
    """Tabulate the overall scores with their intervals, and what is said of them.

    Args:
        scores: a dict from `evaluate.score`.
        title: for instance the name of the split.
    """
    table = _table(title)
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column(_level(scores), justify="right")
    for name in METRICS:
        value, interval = scores[name], scores["intervals"][name]
        table.add_row(name.replace("_", " "), _number(value), _interval(interval))
    counts = f"{_count(scores['clips'], 'clip')} in {_count(scores['groups'], 'group')}."
    if scores.get("calibration_error") is not None:
        counts += f" Calibration error {scores['calibration_error']:.3f}."
    note = [Text(scores["note"], style="yellow")] if scores["note"] else []
    return Group(table, Text(counts, style="dim"), *note)


def class_table(scores: Mapping[str, Any], title: str = "", limit: int | None = None) -> Group:
    """Tabulate the scores of the classes, the worst F1 first.

    Classes without any clip or prediction come last. The interval is that of F1.

    Args:
        scores: a dict from `evaluate.score`.
        title: for instance the name of the split.
        limit: rows to show at most; None shows all.
    """
    rows = sorted(
        scores["per_class"].items(),
        key=lambda item: math.inf if item[1]["f1"] is None else item[1]["f1"],
    )
    shown = rows if limit is None else rows[:limit]
    table = _table(title)
    table.add_column("class", no_wrap=True)
    for name in (*CLASS_METRICS, _level(scores), "clips"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("taken for", no_wrap=True)
    for label, row in shown:
        table.add_row(
            Text(short(label, LONGEST_CLASS)),
            *(_number(row[name]) for name in CLASS_METRICS),
            _interval(row["intervals"]["f1"], digits=2),
            str(row["support"]),
            _taken_for(scores, label),
        )
    hidden = len(rows) - len(shown)
    noun = "class is" if hidden == 1 else "classes are"
    return Group(table, *[Text(f"{hidden} better {noun} not shown.", style="dim")] * bool(hidden))


def audit_table(audit: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """Tabulate what each stage moved; layers that behaved alike share a row.

    Convolutions that train and BatchNorm layers that stay take turns in most
    networks, so layers share a row wherever they stand.

    Args:
        audit: a mapping a stage: `stage` and `layers`, as in `audit.json`.
        title: shown above the table.
    """
    table = _table(title)
    table.add_column("layers", overflow="fold")
    for header in ("weights", "moved by"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("meant to", no_wrap=True)
    paths = list({str(layer["layer"]): None for stage in audit for layer in stage["layers"]})
    names = dict(zip(paths, shortest_unique(paths), strict=True))
    for stage in audit:
        table.add_row(Text(str(stage["stage"]), style="bold"))
        for run in _alike([layer for layer in stage["layers"] if layer["weights"]]):
            table.add_row(
                Text("  " + _span([names[str(layer["layer"])] for layer in run])),
                f"{sum(int(layer['weights']) for layer in run):,}",
                _movement(run),
                _verdict(run[0]),
            )
    return table


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )


def _level(scores: Mapping[str, Any]) -> str:
    return f"{scores['bootstrap']['level']:.0%} interval"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _interval(bounds: Sequence[float] | None, digits: int = 3) -> str:
    if bounds is None:
        return NOTHING
    return " to ".join(f"{bound:.{digits}f}" for bound in bounds)


def _taken_for(scores: Mapping[str, Any], label: str) -> Text:
    labels = scores["labels"]
    place = labels.index(label)
    wrong = [
        (count, -other)
        for other, count in enumerate(scores["confusion"][place])
        if count and other != place
    ]
    if not wrong:
        return Text(NOTHING)
    count, other = max(wrong)
    return Text(f"{count} {short(labels[-other], LONGEST_GUESS)}")


def _alike(layers: Sequence[Layer]) -> list[list[Layer]]:
    groups: dict[tuple[bool, str], list[Layer]] = {}
    for layer in layers:
        groups.setdefault((bool(layer["trainable"]), _state(layer)), []).append(layer)
    return list(groups.values())


def _state(layer: Layer) -> str:
    moved = layer["moved"]
    if moved is None or not math.isfinite(moved):
        return "not finite"
    return "moved" if moved > 0 else "still"


def _span(names: Sequence[str]) -> str:
    first, last = short(names[0], LONGEST_LAYER), short(names[-1], LONGEST_LAYER)
    if len(names) == 1:
        return first
    return f"{first} … {last}" + (f" ({len(names)})" if len(names) > 2 else "")


def _movement(run: Sequence[Layer]) -> str:
    state = _state(run[0])
    if state != "moved":
        return "0.0" if state == "still" else state
    low, high = min(layer["moved"] for layer in run), max(layer["moved"] for layer in run)
    texts = [f"{size:.1e}" if size < 1e-3 else f"{size:.2g}" for size in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def _verdict(layer: Layer) -> Text:
    meant = "train" if layer["trainable"] else "stay"
    if _state(layer) == ("moved" if layer["trainable"] else "still"):
        return Text(meant, style="green")
    return Text(f"{meant}: FAILED", style="bold red")
