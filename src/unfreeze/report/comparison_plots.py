"""The pictures of a comparison (accuracies, costs, how far each layer moved) and of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from unfreeze.picture import BLUE, GREY, INK, VERMILLION, PathLike, in_percent, page
from unfreeze.report.tables import short

Row = Mapping[str, Any]
LONGEST = 44
# With more lines than this, the plot cannot be read.
MOST_LINES = 6
# Okabe and Ito 2008, "Color Universal Design", without the two colours of the parts.
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def _words(grouped: bool) -> dict[str, str]:
    if grouped:
        return {"test": "unseen groups", "seen": "new clips of the trained groups"}
    return {"test": "held-out clips"}


def plot_accuracies(
    rows: Sequence[Row], grouped: bool, path: PathLike, score: str = "accuracy"
) -> None:
    """Draw each strategy's accuracy with its interval, the best on top.

    Args:
        rows: as in `comparison.json`, the best first.
        grouped: whether the data have groups.
        path: the picture to write.
        score: what the numbers are.
    """
    drawn = "groups" if grouped else "clips"
    label = f"{score}, 95 % interval over {drawn} and seeds"
    _plot_scores(rows, _words(grouped), label, path)


def plot_detection(rows: Sequence[Row], path: PathLike) -> None:
    """Draw each strategy's mean average precision in annotated recordings, the best on top.

    Args:
        rows: as in `comparison.json`, the best first.
        path: the picture to write.
    """
    label = "mean average precision of events, 95 % interval over recordings and seeds"
    _plot_scores(rows, {"recordings": "annotated recordings"}, label, path)


def _plot_scores(rows: Sequence[Row], words: Mapping[str, str], label: str, path: PathLike) -> None:
    parts = [part for part in words if part in rows[0]["scores"]]
    with page(path, 8.5, 1.2 + 0.42 * len(rows)) as figure:
        axes = figure.subplots()
        for place, part in enumerate(parts):
            shift = 0.13 * (2 * place - len(parts) + 1)
            for number, row in enumerate(rows):
                _point(axes, row["scores"][part], number + shift, _color(part))
            axes.plot([], [], "o", color=_color(part), label=words[part])
        axes.set_yticks(range(len(rows)), [short(row["strategy"], LONGEST) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        in_percent(axes.xaxis)
        axes.set_xlabel(label)
        if len(parts) > 1:
            figure.legend(loc="outside upper left", ncols=2)


def plot_costs(rows: Sequence[Row], grouped: bool, path: PathLike, score: str = "accuracy") -> None:
    """Draw accuracy on the test part against the seconds per run.

    Args:
        rows: as in `comparison.json`.
        grouped: whether the data have groups.
        path: the picture to write.
        score: what the numbers are.
    """
    with page(path, 8.5, max(3.6, 1.2 + 0.24 * len(rows))) as figure:
        axes = figure.subplots()
        seconds = np.array([max(row["seconds"], 0.1) for row in rows])
        values = np.array([row["scores"]["test"]["accuracy"] for row in rows])
        axes.plot(seconds, values, "o", color=BLUE)
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
        axes.margins(x=0.08, y=0.08)
        axes.grid()
        in_percent(axes.yaxis)
        axes.set_xlabel("seconds per run, without shared caches")
        axes.set_ylabel(f"{score} on {_words(grouped)['test']}")
        _label_at_the_right(axes, seconds, values, [row["strategy"] for row in rows])


def _label_at_the_right(axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Name each point in a column beside the axes, with a line to it, so that none overlap."""
    low, high = axes.get_ylim()
    order = np.argsort(-y)
    heights = (y[order] - low) / (high - low)
    gap = min(0.065, 0.98 / max(len(y) - 1, 1))
    # Move names down as far as necessary, then up again from the bottom.
    for place in range(1, len(heights)):
        heights[place] = min(heights[place], heights[place - 1] - gap)
    heights[-1] = max(heights[-1], 0.0)
    for place in range(len(heights) - 2, -1, -1):
        heights[place] = max(heights[place], heights[place + 1] + gap)
    for point, height in zip(order, heights, strict=True):
        axes.annotate(
            short(names[point], LONGEST),
            (x[point], y[point]),
            xytext=(1.03, float(height)),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkB": 4},
        )


def plot_distances(rows: Sequence[Row], records: Sequence[Row], path: PathLike) -> None:
    """Draw how far each layer has moved from its start, for the best strategies.

    Args:
        rows: as in `comparison.json`, the best first.
        records: of all runs; `moved` is averaged over those of a strategy.
        path: the picture to write.
    """
    chosen = rows[:MOST_LINES]
    found = {row["strategy"]: _mean_distances(row["strategy"], records) for row in chosen}
    layers = list(next(iter(found.values())))
    with page(path, 8.5, 4.6) as figure:
        axes = figure.subplots()
        for color, row in zip(_LINES, chosen, strict=False):
            values = np.array([found[row["strategy"]][layer] for layer in layers])
            label = f"{short(row['strategy'], LONGEST)} ({row['scores']['test']['accuracy']:.1%})"
            # A layer that did not move has no place on a logarithmic axis: leave a gap.
            shown = np.where(values > 0, values, np.nan)
            axes.plot(range(len(values)), shown, "o-", color=color, markersize=3.5, label=label)
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
        _name_groups(axes, [group for group, _ in layers])
        axes.grid(axis="y")
        axes.set_ylabel("change of the weights / their size at the start")
        axes.set_xlabel("layer (without BatchNorm), from input to head; no point: did not move")
        figure.legend(loc="outside upper left", ncols=2, fontsize=8)


def _mean_distances(strategy: str, records: Sequence[Row]) -> dict[tuple[str, str], float]:
    """Mean movement of each layer with learnable weights, by its group and name.

    Layers with statistics of their own (BatchNorm) are left out: they do not move in
    most schedules, and hardly in the others, which would break up the lines.
    """
    runs = [r["moved"] for r in records if r["strategy"] == strategy and "moved" in r]
    found: dict[tuple[str, str], list[float]] = {}
    for row in (row for run in runs for row in run if _is_shown(row)):
        found.setdefault((row["group"], row["layer"]), []).append(row["moved"])
    return {layer: float(np.mean(values)) for layer, values in found.items()}


def _is_shown(row: Row) -> bool:
    return row["moved"] is not None and row["statistics"] is None


def _plain_numbers(axis: Axis) -> None:
    """Ticks such as 0.02 and 50 on a logarithmic axis; matplotlib's own are TeX."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _name_groups(axes: Axes, groups: Sequence[str]) -> None:
    starts = [i for i, name in enumerate(groups) if i == 0 or groups[i - 1] != name]
    axes.set_xticks(starts, [groups[i] for i in starts], rotation=45, ha="right", fontsize=8)
    for start in starts[1:]:
        axes.axvline(start - 0.5, color="#EEEEEE", linewidth=0.8, zorder=0)


def _point(axes: Axes, estimate: Row, height: float, color: str) -> None:
    if estimate["interval"] is not None:
        axes.plot(estimate["interval"], [height, height], color=color, linewidth=1.6, alpha=0.6)
    axes.plot([estimate["accuracy"]], [height], "o", color=color, markersize=5.5)


def _color(part: str) -> str:
    return {"test": BLUE, "seen": VERMILLION, "recordings": BLUE}.get(part, GREY)


def plot_search(accuracies: Sequence[float], path: PathLike) -> None:
    """Draw the accuracy of each proposal, in order.

    Args:
        accuracies: 0 to 1; the first is that of `two_stage`.
        path: the picture to write.
    """
    numbers = np.arange(1, len(accuracies) + 1)
    with page(path, 7.5, 3.6) as figure:
        axes = figure.subplots()
        axes.step(numbers, np.maximum.accumulate(accuracies), where="post", color=VERMILLION)
        axes.plot(numbers, accuracies, "o", color=BLUE, markersize=4.5)
        axes.axhline(accuracies[0], color=GREY, linewidth=0.8, linestyle="--")
        axes.annotate(
            "two_stage",
            (numbers[-1], accuracies[0]),
            xytext=(0, -9),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=GREY,
        )
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        in_percent(axes.yaxis)
        axes.set_xlabel("proposal; the line is the best so far")
        axes.set_ylabel("score on inner test clips")
