"""The learning curves of a run, all stages in one picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from unfreeze.errors import DataError
from unfreeze.report.names import power_of_ten, short
from unfreeze.report.style import BLUE, INK, PALE, VERMILLION, PathLike, page

Row = Mapping[str, Any]
Floats = NDArray[np.float64]
Span = tuple[str, int, int]  # stage, its first and last epoch, counted from 1 over all stages

# Measured on the page: bold characters that fit across a panel, and the share of
# its width that a number such as 0.123 takes.
LINE_LENGTH = 95
NUMBER_WIDTH = 0.055

RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 8,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 1.3,
}


def plot_curves(history_rows: Sequence[Row], path: PathLike) -> None:
    """Draw loss, accuracy and learning rate over the epochs of all stages.

    Args:
        history_rows: one mapping an epoch, in order, with `stage`, `best` (bool)
            and any of `loss`, `val_loss`, `accuracy`, `val_accuracy` and
            `learning_rate`. None, NaN or a missing key leaves a gap; a panel
            without any number is left out. The last row of a stage with a true
            `best` is marked.
        path: the picture to write.

    Raises:
        DataError: if there are no rows.
    """
    if not history_rows:
        raise DataError("no epochs to plot: the history is empty")
    stages = _stages([str(row["stage"]) for row in history_rows])
    panels = [
        key
        for key in ("loss", "accuracy")
        if np.isfinite([_column(history_rows, name) for name in (key, f"val_{key}")]).any()
    ]
    rates = _column(history_rows, "learning_rate")
    ratios = [3.0] * len(panels) + [1.0] * bool(np.isfinite(rates).any())
    if not ratios:
        raise DataError("no numbers to plot: the history has neither losses nor learning rates")
    with page(path, 9.0, 1.0 + 0.95 * sum(ratios)) as figure:
        rows = np.atleast_1d(
            figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
        ).tolist()
        for axes, key in zip(rows, panels, strict=False):
            _draw_metric(axes, history_rows, stages, key)
        if len(rows) > len(panels):
            _draw_rates(rows[-1], rates)
        for axes in rows:
            _shade(axes, stages)
            axes.tick_params(axis="x", length=0)
        _name_stages(rows[0], stages)
        _legend(figure, rows)
        last = rows[-1]
        last.set_xlim(0.5, len(history_rows) + 0.5)
        last.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        last.set_xlabel("epoch, over all stages")
        figure.align_ylabels(rows)


def _stages(names: Sequence[str]) -> list[Span]:
    spans: list[Span] = []
    for epoch, name in enumerate(names, 1):
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1], epoch)
        else:
            spans.append((name, epoch, epoch))
    return spans


def _column(rows: Sequence[Row], key: str) -> Floats:
    values = [row.get(key) for row in rows]
    column = np.array([np.nan if value in (None, "") else float(value) for value in values])
    return np.where(np.isfinite(column), column, np.nan)


def _draw_metric(axes: Axes, rows: Sequence[Row], stages: list[Span], key: str) -> None:
    epochs = np.arange(1, len(rows) + 1)
    # Beyond some forty epochs dots only hide the line.
    marker = "o" if len(rows) <= 40 else None
    curves = {name: _column(rows, name) for name in (key, f"val_{key}")}
    drawn = {name: values for name, values in curves.items() if np.isfinite(values).any()}
    for name, values in drawn.items():
        label, color = ("training", BLUE) if name == key else ("validation", VERMILLION)
        axes.plot(
            epochs, values, color=color, linewidth=1.6, label=label, marker=marker, markersize=3.5
        )
    _mark_best(axes, rows, stages, list(drawn.values())[-1], above=key == "loss")
    axes.set_ylabel(key)
    axes.grid(axis="y")
    axes.margins(y=0.12)
    everything = np.concatenate(list(drawn.values()))
    if (
        key == "loss"
        and np.nanmin(everything) > 0
        and np.nanmax(everything) > 100 * np.nanmedian(everything)
    ):
        # One epoch that exploded must not flatten all others.
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def _mark_best(
    axes: Axes, rows: Sequence[Row], stages: list[Span], judged: Floats, *, above: bool
) -> None:
    best = [
        max((e for e in range(first, last + 1) if rows[e - 1].get("best")), default=0)
        for _, first, last in stages
    ]
    points = [(epoch, judged[epoch - 1]) for epoch in best if epoch]
    points = [(epoch, value) for epoch, value in points if np.isfinite(value)]
    lift, before = 0, -math.inf
    for epoch, value in points:
        axes.plot([epoch], [value], zorder=4, clip_on=False, label="best of the stage", **RING)
        # A number that would cover its neighbour goes one line further out.
        lift = lift + 1 if epoch - before < NUMBER_WIDTH * len(rows) else 0
        before = epoch
        place = (epoch - 0.5) / len(rows)
        axes.annotate(
            f"{value:.3g}",
            (epoch, value),
            xytext=(0, (9 + 12 * lift) * (1 if above else -1)),
            textcoords="offset points",
            ha="right" if place > 0.97 else "left" if place < 0.03 else "center",
            va="bottom" if above else "top",
            fontsize=8.5,
            fontweight="bold",
            zorder=5,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "linewidth": 0, "alpha": 0.75},
        )


def _draw_rates(axes: Axes, rates: Floats) -> None:
    # Steps that start half an epoch early: the rate holds for the whole epoch.
    edges = np.arange(len(rates) + 1) + 0.5
    axes.stairs(rates, edges, baseline=None, color=INK, linewidth=1.3)
    positive = rates[rates > 0]
    if len(positive):
        axes.set_yscale("log")
        axes.set_ylim(positive.min() / 2.0, positive.max() * 2.0)
        low, high = (math.log10(limit) for limit in axes.get_ylim())
        powers = range(math.ceil(low), math.floor(high) + 1)
        if powers:
            powers = powers[:: math.ceil(len(powers) / 4)]
            axes.set_yticks([10.0**power for power in powers], [power_of_ten(p) for p in powers])
        else:
            axes.set_yticks([positive.max()], [f"{positive.max():.3g}"])
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("learning\nrate")
    axes.grid(axis="y")


def _shade(axes: Axes, stages: list[Span]) -> None:
    for _, first, last in stages[::2]:
        axes.axvspan(first - 0.5, last + 0.5, color=PALE, linewidth=0, zorder=0)


def _name_stages(axes: Axes, stages: list[Span]) -> None:
    epochs = stages[-1][2]
    for name, first, last in stages:
        room = int(LINE_LENGTH * (last - first + 1) / epochs) - 1
        level = room >= min(len(name), 8)
        axes.annotate(
            short(name, max(room, 8) if level else 16),
            ((first + last) / 2, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center" if level else "left",
            va="bottom",
            rotation=0 if level else 40,
            rotation_mode="anchor",
            fontweight="bold",
        )


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    entries: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside upper right", ncols=3)
