"""The pictures of a run: learning curves, confusion matrix, what moved, what each depth knows.

The picture of movements has one strip per stage, with the layers in network order at the
same places in each. The heights are logarithmic, but zero is separate: a dot on the base
line means that a layer did not move at all; every other layer has a bar, however small.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from unfreeze.audio.entries import is_quiet
from unfreeze.errors import DataError
from unfreeze.picture import BLUE, GREY, INK, PALE, VERMILLION, PathLike, Picture, in_percent, page
from unfreeze.report.tables import depth_score, short, shortest_unique

if TYPE_CHECKING:
    from unfreeze.core.audit import Audit
    from unfreeze.core.fit import FitResult

Row = Mapping[str, Any]
Floats = NDArray[np.float64]
Span = tuple[str, int, int]  # stage, its first and last epoch, counted from 1 over all stages

# Measured on the page: the number of bold characters that fit across a panel, and the
# share of its width that a number such as 0.123 takes.
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


def draw_run(
    out: Path, result: "FitResult", metrics: Mapping[str, Any], labels: Sequence[str]
) -> None:
    """Write the pictures of a run into its folder.

    Args:
        out: the folder.
        result: of the training.
        metrics: all scores of the run, as in `metrics.json`.
        labels: name of each class.
    """
    plot_curves(result.history, out / "curves.png")
    plot_moved(result.audit.as_list(), out / "moved.png")
    shown = metrics["test"] or metrics["validation"]
    if shown is not None and shown.get("multilabel"):
        plot_classes(shown, out / "classes.png")
    elif shown is not None:
        plot_confusion(shown["confusion"], labels, out / "confusion.png")
    if metrics.get("depths"):
        plot_depths(metrics["depths"], out / "depths.png")


def plot_curves(history_rows: Sequence[Row], path: PathLike | None = None) -> Picture:
    """Draw loss, accuracy and learning rate over the epochs of all stages.

    Args:
        history_rows: one mapping per epoch, in order, with `stage`, `best` (bool)
            and any of `loss`, `val_loss`, `accuracy`, `val_accuracy` and
            `learning_rate`. None, NaN or a missing key leaves a gap; a panel
            without any number is left out. In each stage, the last row with a true
            `best` is marked.
        path: the picture to write; None writes none.

    Returns:
        The figure, which a notebook shows.

    Raises:
        DataError: there are no rows, or no numbers in them.

    Examples:
        >>> result = unfreeze.fit(model, "probe", x, y, validation_split=0.2, seed=1, verbose=0)
        >>> figure = unfreeze.plot_curves(result.history, "curves.png")
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
        _curves_legend(figure, rows)
        last = rows[-1]
        last.set_xlim(0.5, len(history_rows) + 0.5)
        last.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        last.set_xlabel("epoch, over all stages")
        figure.align_ylabels(rows)
    return figure


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
    # With more than about forty epochs, dots would hide the line.
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
        # One epoch with a huge value must not flatten all others.
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
        axes.plot([epoch], [value], zorder=4, clip_on=False, label="kept by the stage", **RING)
        # A number that would cover its neighbour moves one line further out.
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
    # Steps that start half an epoch early: the rate applies to the whole epoch.
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
            axes.set_yticks([10.0**power for power in powers], [_power_of_ten(p) for p in powers])
        else:
            axes.set_yticks([positive.max()], [f"{positive.max():.3g}"])
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("learning\nrate")
    axes.grid(axis="y")


def _power_of_ten(exponent: int) -> str:
    """Write a power of ten without the padding of %g: 0.0001, but 1e-5."""
    return f"{10.0**exponent:g}" if -5 < exponent < 6 else f"1e{exponent}"


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


def _curves_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    entries: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside upper right", ncols=3)


LONGEST_LABEL = 24
LARGEST = 20.0
SMALLEST_WITH_COUNTS = 0.22


def plot_confusion(confusion: ArrayLike, labels: Sequence[str], path: PathLike) -> None:
    """Draw a confusion matrix: colours by the share of the row, counts as text.

    Cells without a clip stay empty, so that mistakes stand out. At the right end of
    each row: the number of the class's clips predicted correctly, and of all its clips.

    Args:
        confusion: (classes, classes) counts; rows are the truth.
        labels: names of the classes, in order.
        path: the picture to write.

    Raises:
        DataError: the matrix does not fit the labels.
    """
    counts = np.asarray(confusion)
    classes = len(labels)
    if classes == 0 or counts.shape != (classes, classes):
        raise DataError(f"confusion has shape {counts.shape}; {classes} labels do not fit it")
    # A gate's background is no clip's class; it is shown where a clip was taken for it.
    idle = (counts.sum(axis=0) == 0) & (counts.sum(axis=1) == 0)
    shown = [n for n, label in enumerate(labels) if not (is_quiet(label) and idle[n])]
    counts, labels = counts[np.ix_(shown, shown)], [labels[n] for n in shown]
    classes = len(labels)
    support = counts.sum(axis=1)
    shares = counts / np.maximum(support, 1)[:, None]

    # Inches per cell: generous for few classes, just above the digits for many, and
    # without digits if even these would make the picture too large.
    cell = min(float(np.clip(8.0 / classes, 0.27, 0.9)), LARGEST / classes)
    font = float(np.clip(20.0 * cell, min(6.0, 58.0 * cell), 10.0))
    names = [short(label, LONGEST_LABEL) for label in labels]
    diagonal = counts.diagonal()
    ends = [f"{right}/{clips}" for right, clips in zip(diagonal, support, strict=True)]
    # The width of a character is about 0.6 of its height; 72 points are an inch.
    left, right = (0.6 / 72 * font * max(map(len, texts)) for texts in (names, ends))
    width, height = classes * cell + left + right + 0.9, classes * cell + left + 0.9
    with page(path, max(width, 4.4), max(height, 3.2)) as figure:
        axes = figure.subplots()
        # Not linear: a few per cent of mistakes must be visible beside 95 % right.
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


def plot_classes(scores: Mapping[str, Any], path: PathLike) -> None:
    """Draw the average precision of each class with its interval, the best on top.

    Args:
        scores: from `unfreeze.pipeline.label_scoring.score_labels`.
        path: the picture to write.
    """
    rows = scores["per_class"].items()
    known = {label: row for label, row in rows if row["average_precision"] is not None}
    names = sorted(known, key=lambda label: known[label]["average_precision"])
    height = min(max(0.28 * len(names), 1.0), LARGEST)
    with page(path, 6.4, height + 1.2) as figure:
        axes = figure.subplots()
        for place, label in enumerate(names):
            row = known[label]
            low, high = row["intervals"]["average_precision"] or (row["average_precision"],) * 2
            axes.plot([low, high], [place, place], color=PALE, linewidth=6, solid_capstyle="butt")
            axes.plot([row["average_precision"]], [place], "o", color=BLUE, markersize=5.5)
            # What a random order of the clips has on average.
            chance = row["support"] / max(scores["clips"] - row["unknown"], 1)
            axes.plot([chance], [place], "|", color=GREY, markersize=9)
        texts = [f"{short(x, LONGEST_LABEL)} ({known[x]['support']})" for x in names]
        axes.set_yticks(range(len(names)), texts)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("average precision, 95 % interval over groups (|: guessing)")
        mean = scores["mean_average_precision"]
        axes.set_title("no clips" if mean is None else f"mean average precision {mean:.3f}")


def _compact(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


Layer = Mapping[str, Any]

# Space between the base line, for exact zeros, and the lowest power of ten.
ZERO_ROOM = 0.6
MOST_DECADES = 8
LONGEST_NAME = 30
WIDEST = 30.0

STILL: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "color": GREY}
STUCK: dict[str, Any] = {
    "linestyle": "none",
    "marker": "x",
    "markersize": 6,
    "markeredgewidth": 1.8,
    "color": VERMILLION,
}


def plot_moved(
    audit: "Sequence[Mapping[str, Any]] | Audit", path: PathLike | None = None
) -> Picture:
    """Draw the relative movement of every layer in every stage.

    Args:
        audit: `result.audit`, or one mapping per stage: `stage` (its name) and `layers`,
            in network order, each with `layer` (path), `weights` (count), `trainable`
            (whether it was meant to move) and `moved` (relative L2 movement, or None).
            Layers without weights are left out.
        path: the picture to write; None writes none.

    Returns:
        The figure, which a notebook shows.

    Raises:
        DataError: no stage has a layer with weights.

    Examples:
        >>> result = unfreeze.fit(model, "probe", x, y, validation_split=0.2, seed=1, verbose=0)
        >>> figure = unfreeze.plot_moved(result.audit, "moved.png")
    """
    stages = [
        (str(stage["stage"]), {str(x["layer"]): x for x in stage["layers"] if x["weights"]})
        for stage in (audit if isinstance(audit, Sequence) else audit.as_list())
    ]
    # A dict keeps the order of first appearance.
    names = list({name: None for _, layers in stages for name in layers})
    if not names:
        raise DataError("nothing to plot: the audit has no layer with weights")
    sizes = [size for _, layers in stages for x in layers.values() if (size := _size(x)) > 0]
    scale = _Scale.over([size for size in sizes if math.isfinite(size)])

    width = float(np.clip(1.6 + 0.16 * len(names), 6.0, WIDEST))
    with page(path, width, 1.9 + 1.35 * len(stages)) as figure:
        strips = np.atleast_1d(figure.subplots(len(stages), 1, sharex=True, sharey=True)).tolist()
        for axes, (stage, layers) in zip(strips, stages, strict=True):
            _draw_stage(axes, stage, [layers.get(name) for name in names], scale)
        every = math.ceil(len(names) / (7.0 * WIDEST))
        places = range(0, len(names), every)
        texts = [short(text, LONGEST_NAME) for text in shortest_unique(names)]
        strips[-1].set_xticks(places, [texts[i] for i in places], rotation=90, fontsize=7.0)
        strips[-1].set_xlim(-0.8, len(names) - 0.2)
        figure.supylabel("relative movement (L2)", fontsize=9.0)
        _moved_legend(figure, stages)
    return figure


@dataclass(frozen=True)
class _Scale:
    """Heights for sizes: 0 at the base line, then one unit per power of ten."""

    low: int
    high: int

    @classmethod
    def over(cls, sizes: Sequence[float]) -> "_Scale":
        high = math.ceil(math.log10(max(sizes))) if sizes else 0
        low = math.floor(math.log10(min(sizes))) if sizes else -3
        return cls(max(min(low, high - 1), high - MOST_DECADES), high)

    @property
    def top(self) -> float:
        return ZERO_ROOM + self.high - self.low

    def height(self, size: float) -> float:
        if not math.isfinite(size):
            return self.top
        # A value below the scale is still not zero: draw a short bar.
        return ZERO_ROOM + max(math.log10(size) - self.low, 0.0) if size > 0 else 0.0


def _size(layer: Layer) -> float:
    # No number means that the movement was not finite.
    moved = layer["moved"]
    return math.inf if moved is None or math.isnan(moved) else float(moved)


def _is_wrong(layer: Layer) -> bool:
    size = _size(layer)
    return not math.isfinite(size) or (size > 0) != bool(layer["trainable"])


def _draw_stage(axes: Axes, stage: str, layers: Sequence[Layer | None], scale: _Scale) -> None:
    present = [(place, layer) for place, layer in enumerate(layers) if layer is not None]
    meant = [place for place, layer in present if layer["trainable"]]
    axes.bar(meant, scale.top, width=1.0, color=PALE, zorder=0)
    moved = [(place, layer) for place, layer in present if _size(layer) > 0]
    axes.bar(
        [place for place, _ in moved],
        [scale.height(_size(layer)) for _, layer in moved],
        width=0.72,
        color=[VERMILLION if _is_wrong(layer) else BLUE for _, layer in moved],
    )
    still = [(place, layer) for place, layer in present if _size(layer) == 0]
    for wrong, style in ((False, STILL), (True, STUCK)):
        places = [place for place, layer in still if _is_wrong(layer) == wrong]
        if places:  # an empty line that is not clipped disturbs the layout
            axes.plot(places, [0.0] * len(places), clip_on=False, zorder=3, **style)

    step = max(1, math.ceil((scale.high - scale.low) / 4))
    powers = range(scale.high, scale.low - 1, -step)
    axes.set_yticks(
        [0.0, *(ZERO_ROOM + power - scale.low for power in powers)],
        ["0", *map(_power_of_ten, powers)],
    )
    axes.set_ylim(0.0, scale.top)
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    axes.set_title(f"{short(stage, 30)}: {len(meant)} of {len(present)} layers meant to move")
    count = sum(_is_wrong(layer) for _, layer in present)
    if count:
        axes.set_title(f"{count} not as meant", loc="right", color=VERMILLION, fontweight="bold")


def _moved_legend(figure: Figure, stages: Sequence[tuple[str, Mapping[str, Layer]]]) -> None:
    layers = [layer for _, by_name in stages for layer in by_name.values()]
    handles: list[Patch | Line2D] = [
        Patch(facecolor=PALE, label="meant to move"),
        Patch(facecolor=BLUE, label="moved, as meant"),
        Line2D([], [], **STILL, label="exactly 0"),
    ]
    if any(_is_wrong(layer) for layer in layers):
        handles.append(Patch(facecolor=VERMILLION, label="not as meant (cross: exactly 0)"))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))


# Curves that are nearer to each other than this share cannot be told apart.
SAME = 0.02


def plot_depths(depths: Mapping[str, Any], path: PathLike) -> None:
    """Draw what each depth of a network knows: its validation score by layer group.

    The peak is ringed. A band reaches one standard error below the best; the groups above
    the peak are shaded.

    Args:
        depths: `metrics.json["depths"]`, from
            `unfreeze.pipeline.depth_profile.DepthProfile.as_plain`.
        path: the picture to write.

    Raises:
        DataError: there are no groups.
    """
    groups = depths["groups"]
    if not groups:
        raise DataError("nothing to plot: the depth profile has no groups")
    names = [str(group["group"]) for group in groups]
    score = depth_score(depths)
    heights = np.array([group[score] for group in groups])
    plain = np.array([group.get("accuracy", group[score]) for group in groups])
    words = score.replace("_", " ")
    with page(path, float(np.clip(2.0 + 0.4 * len(names), 6.0, WIDEST)), 4.2) as figure:
        axes = figure.subplots()
        axes.plot(
            heights, color=BLUE, linewidth=1.6, marker="o", markersize=4,
            label=words if words.startswith("mean") else f"{words} (mean over classes)",
        )  # fmt: skip
        if np.abs(plain - heights).max() >= SAME:
            axes.plot(plain, color=GREY, linewidth=1.2, label="accuracy")
        axes.axhline(depths["chance"], color=GREY, linestyle=":", linewidth=1.2, label="chance")
        best, error = heights.max(), depths["standard_error"]
        band: dict[str, Any] = {"color": VERMILLION, "alpha": 0.2, "linewidth": 0, "zorder": 0.5}
        axes.axhspan(best - error, best, label="within one standard error of the best", **band)
        if depths["peak"] is not None:
            _mark_peak(axes, names.index(depths["peak"]), heights)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(0.0, 1.1)
        axes.set_xticks(range(len(names)), [short(name, LONGEST_NAME) for name in names])
        axes.tick_params(axis="x", length=0, rotation=45)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(np.arange(6) / 5)
        in_percent(axes.yaxis)
        axes.grid(axis="y")
        axes.set_xlabel("layer group, read alone, from the network's input to its end")
        axes.set_ylabel(f"{words.split()[-1]} on {depths['clips']:,} validation clips")
        figure.legend(loc="outside upper left", ncols=2)


def _mark_peak(axes: Axes, peak: int, heights: Floats) -> None:
    axes.plot([peak], [heights[peak]], zorder=4, **RING)
    last = len(heights) - 1
    axes.annotate(
        f"peak {heights[peak]:.1%}",
        (peak, heights[peak]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="left" if peak == 0 else "right" if peak == last else "center",
        fontsize=8.5,
        fontweight="bold",
    )
    if peak < last:
        label = "above the peak"
        axes.axvspan(peak + 0.5, last + 0.5, color=PALE, linewidth=0, zorder=0, label=label)
