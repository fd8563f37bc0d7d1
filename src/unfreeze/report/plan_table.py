"""A schedule as a table for the terminal: what each stage trains and what it saves.

Fits 80 columns. Names come from users and are shown as they are, never read as
markup.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unfreeze.report.names import short, shortest_unique

if TYPE_CHECKING:
    from unfreeze.core.plan import Span, StagePlan

_NOTHING = "–"
# Two layers, an ellipsis and the numbers beside them fill a line of 80.
_LONGEST_LAYER, _LONGEST_STAGE = 15, 12
_SPANS_SHOWN = 3


def plan_table(plans: "Sequence[StagePlan]", title: str = "") -> Group:
    """Tabulate the stages of a schedule.

    Args:
        plans: one for each stage, from `unfreeze.core.plan.plan_stage`.
        title: shown above the table.
    """
    table = Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("stage", overflow="fold", max_width=_LONGEST_STAGE)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("trains", overflow="fold")
    for header in ("weights", "frozen\nwork", "cache a\nsample"):
        table.add_column(header, justify="right", no_wrap=True)
    names = _names(plans)
    for plan in plans:
        table.add_row(
            Text(plan.stage),
            f"≤ {plan.epochs}" if plan.epochs else "left out",
            _trains(plan, names),
            _two_lines(f"{plan.weights_trained:,}", _count(len(plan.trains), "layer")),
            _share(plan.prefix_work) if plan.cacheable else _NOTHING,
            _size(plan.cache_bytes) if plan.cached else _NOTHING,
        )
    return Group(table, *(Text(note, style="dim") for note in _notes(plans)))


def _names(plans: "Sequence[StagePlan]") -> dict[str, str]:
    paths = {path: None for plan in plans for path in (*plan.trains, *plan.boundary)}
    return dict(zip(paths, shortest_unique(list(paths)), strict=True))


def _trains(plan: "StagePlan", names: dict[str, str]) -> Text:
    lines = [_span(span, names) for span in plan.spans[:_SPANS_SHOWN]]
    hidden = len(plan.spans) - len(lines)
    if hidden:
        layers = sum(span.layers for span in plan.spans[_SPANS_SHOWN:])
        lines.append(f"and {_count(layers, 'layer')} more")
    text = Text("\n".join(lines))
    if plan.cacheable:
        edge = [short(names[path], 2 * _LONGEST_LAYER - 4) for path in plan.boundary[:2]]
        more = f" +{len(plan.boundary) - 2}" if len(plan.boundary) > 2 else ""
        text.append(f"\nafter {', '.join(edge)}{more}", style="dim")
    return text


def _span(span: "Span", names: dict[str, str]) -> str:
    if span.first == span.last:
        return short(names[span.first], 2 * _LONGEST_LAYER)
    first, last = names[span.first], names[span.last]
    return f"{short(first, _LONGEST_LAYER)} … {short(last, _LONGEST_LAYER)}"


def _notes(plans: "Sequence[StagePlan]") -> Iterator[str]:
    silenced = list(dict.fromkeys(path for plan in plans for path in plan.silenced))
    if silenced:
        verb = "is" if len(silenced) == 1 else "are"
        yield f"Dropout in frozen layers {verb} off: {_some(silenced)}."
    live = list(dict.fromkeys(path for plan in plans for path in plan.live_augmentation))
    if live:
        verb = "draws" if len(live) == 1 else "draw"
        yield f"No cache, as {_some(live)} {verb} at random first (a stage's `views` allows one)."


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(short(name, 2 * _LONGEST_LAYER) for name in names[:3]) + more


def _two_lines(first: str, second: str) -> Text:
    return Text(first).append(f"\n{second}", style="dim")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _share(value: float | None) -> str:
    if value is None:
        return "?"
    # All but a trace is not all.
    return "> 99 %" if 0.99 < value < 1 else f"{value:.0%}".replace("%", " %")


def _size(size: int | None) -> str:
    if size is None:
        return "varies"
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"
