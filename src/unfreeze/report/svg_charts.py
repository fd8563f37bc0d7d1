"""Small charts as SVG inside a page: their colours and fonts are those of its style.

A chart is drawn for a width of 380 units, so that its text can be read on a phone and beside
another chart alike. What it shows stands in words beside it or in a table, and in its label.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unfreeze.core.html_tables import as_text

_WIDTH, _HEIGHT = 380, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 22, 30
# With more epochs, dots would hide the line.
_MOST_DOTS = 40
#: Classes of lines, in their order.
COLOURS = ("one", "two", "three")
# Of an axis of shares at least.
_LEAST_SHARE = 0.1
_Place = Callable[[float], float]
# Characters of a stage's name for each unit of width.
_LETTERS = 1 / 6.5


@dataclass(frozen=True)
class Curves:
    """Lines over the epochs of all stages.

    Attributes:
        label: what the chart shows, in words.
        lines: values by name; NaN leaves a gap.
        stages: name and number of epochs of each stage.
        kept: positions of the epochs that stages kept.
        share: whether values are shares, shown in percent.
    """

    label: str
    lines: Mapping[str, np.ndarray]
    stages: Sequence[tuple[str, int]]
    kept: Sequence[int]
    share: bool


def curves_chart(curves: Curves) -> str:
    """Draw lines over epochs, each stage on its own ground, with rings where one was kept."""
    values = np.concatenate(list(curves.lines.values()))
    count = sum(epochs for _, epochs in curves.stages)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # Small steps of a share must not look like large ones; a loss is shown down to 0.
    low = max(min(low, high - _LEAST_SHARE), 0.0) if curves.share else min(low, 0.0)
    ticks = _ticks(low, high)
    low, high = ticks[0], ticks[-1]
    wide = (_WIDTH - _LEFT - _RIGHT) / count

    def x(place: float) -> float:
        return _LEFT + (place + 0.5) * wide

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    parts, first = [], 0
    for turn, (name, epochs) in enumerate(curves.stages):
        left, width = _LEFT + first * wide, epochs * wide
        if turn % 2 == 0:
            parts.append(
                f"<rect class='stage' x='{left:.1f}' y='{_TOP}' width='{width:.1f}' "
                f"height='{_HEIGHT - _TOP - _BOTTOM}'/>"
            )
        room = int(width * _LETTERS)
        if room > 2:
            text = name if len(name) <= room else name[: room - 1] + "…"
            parts.append(_text(left + 2, _TOP - 7, text))
        first += epochs
    for tick in ticks:
        parts.append(
            f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y(tick):.1f}' "
            f"y2='{y(tick):.1f}'/>"
        )
        shown = f"{100 * tick:g} %" if curves.share else f"{tick:g}"
        parts.append(_text(_LEFT - 6, y(tick) + 4, shown, "end"))
    for colour, line in zip(COLOURS, curves.lines.values(), strict=False):
        pieces = _pieces(line, curves.stages, x, y)
        parts += [f"<polyline class='{colour}' points='{one}'/>" for one in pieces]
        known = np.flatnonzero(np.isfinite(line)).tolist()
        if count <= _MOST_DOTS or len(known) == 1:
            parts += [
                f"<circle class='{colour}' cx='{x(n):.1f}' cy='{y(line[n]):.1f}' r='2.6'/>"
                for n in known
            ]
    judged = list(curves.lines.values())[-1]
    for place in curves.kept:
        if np.isfinite(judged[place]):
            parts.append(
                f"<circle class='ring' cx='{x(place):.1f}' cy='{y(judged[place]):.1f}' r='6'/>"
            )
    parts.append(_text(_LEFT, _HEIGHT - 8, "1"))
    parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 8, f"epoch {count}", "end"))
    return _svg(curves.label, _WIDTH, _HEIGHT, parts)


def _pieces(line: np.ndarray, stages: Sequence[tuple[str, int]], x: _Place, y: _Place) -> list[str]:
    """The points of each stretch of a stage without a gap."""
    begins = set(np.cumsum([epochs for _, epochs in stages]).tolist())
    found: list[list[str]] = [[]]
    for place, value in enumerate(line.tolist()):
        if place in begins or not math.isfinite(value):
            found.append([])
        if math.isfinite(value):
            found[-1].append(f"{x(place):.1f},{y(value):.1f}")
    return [" ".join(piece) for piece in found if len(piece) > 1]


def depths_chart(
    label: str, names: Sequence[str], values: Sequence[float], peak: int | None, chance: float
) -> str:
    """Draw a bar for each depth of a network, from its input to its end.

    Args:
        label: what the chart shows, in words.
        names: of the depths.
        values: of each, 0 to 1.
        peak: position of the one to point out.
        chance: of guessing, 0 to 1.
    """
    line = 17
    left = min(10 + max(len(name) for name in names) / _LETTERS, 150.0)
    height = line * len(names) + 26
    scale = _WIDTH - left - 46
    parts = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        top = place * line + 4
        strong = "strong" if place == peak else ""
        kind = "fill" if place == peak else "range"
        parts.append(_text(left - 8, top + 10, _cut(name, left), f"end {strong}"))
        parts.append(
            f"<rect class='{kind}' x='{left:.1f}' y='{top}' width='{max(scale * value, 1):.1f}' "
            "height='12' rx='2'/>"
        )
        parts.append(_text(left + scale * value + 6, top + 10, f"{100 * value:.0f} %", strong))
    at = left + scale * chance
    parts.append(f"<line class='tick' x1='{at:.1f}' x2='{at:.1f}' y1='0' y2='{height - 18}'/>")
    parts.append(_text(at, height - 5, "guessing", "middle"))
    return _svg(label, _WIDTH, height, parts)


def _cut(name: str, room: float) -> str:
    most = max(int((room - 8) * _LETTERS), 4)
    return name if len(name) <= most else name[: most - 1] + "…"


def interval_line(
    value: float | None,
    bounds: Sequence[float] | None,
    low: float = 0.0,
    high: float = 1.0,
    zero: bool = False,
) -> str:
    """A value and its interval as a line for a cell of a table; nothing for None.

    Args:
        value: to mark.
        bounds: of its interval, or None.
        low: value of the left end.
        high: of the right end.
        zero: whether to mark 0.
    """
    if value is None:
        return ""

    def x(number: float) -> float:
        return 4 + 107 * min(max((number - low) / (high - low), 0.0), 1.0)

    parts = ["<rect class='track' x='4' y='6.5' width='107' height='1'/>"]
    if zero:
        parts.append(f"<line class='tick' x1='{x(0):.1f}' x2='{x(0):.1f}' y1='0' y2='14'/>")
    if bounds is not None:
        left, right = x(bounds[0]), x(bounds[1])
        parts.append(
            f"<rect class='range' x='{left:.1f}' y='4' width='{max(right - left, 1):.1f}' "
            "height='6' rx='2'/>"
        )
    parts.append(f"<circle class='point' cx='{x(value):.1f}' cy='7' r='3.4'/>")
    # The numbers stand beside it.
    return f"<svg viewBox='0 0 115 14' aria-hidden='true'>{''.join(parts)}</svg>"


def share_bar(share: float) -> str:
    """A share, 0 to 1, as a bar."""
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        "<svg viewBox='0 0 100 6' aria-hidden='true' preserveAspectRatio='none'>"
        "<rect class='track' width='100' height='6' rx='2'/>"
        f"<rect class='fill' width='{width:.1f}' height='6' rx='2'/></svg>"
    )


def score_scale(
    value: float,
    bounds: Sequence[float] | None,
    guess: float | None,
    ends: tuple[str, str] = ("0 %", "100 %"),
) -> str:
    """The headline's score on a scale from 0 to 1, with its interval, and guessing.

    Args:
        value: 0 to 1.
        bounds: of its interval, or None.
        guess: score of guessing, or None.
        ends: what stands at the ends of the scale.
    """
    # In percent of the width, so that text and dots are as large on any screen.
    parts = ["<rect class='track' x='0' y='9' width='100%' height='6' rx='3'/>"]
    if bounds is not None:
        low, high = 100 * bounds[0], 100 * bounds[1]
        parts.append(
            f"<rect class='range' x='{low:.1f}%' y='6' width='{max(high - low, 0.5):.1f}%' "
            "height='12' rx='4'/>"
        )
    parts.append(f"<circle class='point' cx='{100 * value:.1f}%' cy='12' r='7'/>")
    if guess is not None:
        at = f"{100 * guess:.1f}%"
        parts.append(f"<line class='tick' x1='{at}' x2='{at}' y1='3' y2='21'/>")
        side = "" if guess < 0.15 else "end" if guess > 0.85 else "middle"
        parts.append(f"<text x='{at}' y='38' class='{side}'>guessing</text>")
    if guess is None or guess > 0.25:
        parts.append(f"<text x='0' y='38'>{ends[0]}</text>")
    if guess is None or guess < 0.75:
        parts.append(f"<text x='100%' y='38' class='end'>{ends[1]}</text>")
    return f"<div class='scale'><svg aria-hidden='true'>{''.join(parts)}</svg></div>"


def _ticks(low: float, high: float) -> list[float]:
    """Some round numbers that span a range."""
    span = max(high - low, 1e-3)
    step = 10.0 ** math.floor(math.log10(span / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, max(last, first + 1) + 1)]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f" class='{kind.strip()}'" if kind.strip() else ""
    return f"<text x='{x:.1f}' y='{y:.1f}'{named}>{as_text(text)}</text>"


def _svg(label: str, width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f"<svg class='chart' role='img' aria-label='{as_text(label)}' "
        f"viewBox='0 0 {width:g} {height:g}'>{''.join(parts)}</svg>"
    )
