"""Pictures of the curves of a detector.

Both take the dict of `unfreeze.detection.event_evaluation.summary`, and have a panel for all
classes together and one for each class: precision over recall by the rules, and false alarms an
hour over the threshold, with the recall that they cost.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from unfreeze.picture import BLUE, GREY, INK, VERMILLION, PathLike, in_percent, page
from unfreeze.pipeline.event_rates import best_precision
from unfreeze.report.event_scores import RULES, Scores
from unfreeze.report.tables import short

# Okabe and Ito 2008, as in `unfreeze.picture`.
_LINES = {"overlap": BLUE, "iou": VERMILLION, "onset": "#009E73", "segments": GREY}
# More panels cannot be read; the classes with the most true events have one.
MOST_PANELS = 24
_ALL = "all classes"
# Ticks of an axis of scores that is even in the logarithm of the odds.
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def plot_precision_recall(scores: Scores, path: PathLike) -> None:
    """Draw the best precision at each recall, by each rule, over all thresholds.

    The area under a line is the average precision. A dot marks the threshold that is used; for
    all classes together, those of the classes.

    Args:
        scores: of a detector.
        path: the picture to write.
    """

    def draw(axes: Axes, curves: Scores, at_work: Scores) -> None:
        # Lines may lie on one another: those above are thinner, so that all are seen.
        for width, (rule, color) in zip((3.2, 2.4, 1.6, 1.0), _LINES.items(), strict=True):
            # A class's curve has the threshold that is used, too; of all classes together
            # there is no such one.
            own = [at_work] if "threshold" in at_work else []
            recall, precision = best_precision(
                *(
                    _column([*curves[rule][name], *(row[rule][name] for row in own)])
                    for name in ("recall", "precision")
                )
            )
            axes.step(
                recall, precision, where="pre", color=color, linewidth=width, label=RULES[rule]
            )
            used = _column([at_work[rule]["recall"], at_work[rule]["precision"]])
            axes.plot(used[:1], used[1:], "o", color=color, markersize=5, clip_on=False, zorder=4)
        axes.set(xlim=(0, 1), ylim=(0, 1.03))
        for axis in (axes.xaxis, axes.yaxis):
            in_percent(axis)
        axes.grid()

    _panels(scores, path, draw, "recall (dot: at the threshold that is used)", "precision")


def plot_false_alarms(scores: Scores, path: PathLike) -> None:
    """Draw false alarms an hour over the threshold, and the recall by overlap.

    A line marks the threshold that is used; for all classes together, that of each class
    where these differ.

    Args:
        scores: of a detector, on recordings that are annotated completely.
        path: the picture to write.
    """
    thresholds = np.array(scores["curves"]["thresholds"])
    odds = np.log(thresholds / (1 - thresholds))
    every = [_column(c["false_alarms_per_hour"]) for c in scores["curves"]["per_class"].values()]
    together = _column(scores["curves"]["overall"]["false_alarms_per_hour"])
    most = np.nanmax(np.concatenate([together, *every, [1.0]]))
    # One alarm in all recordings is the least that can be seen.
    least = 1 / max(scores["hours"], 1e-9)

    def draw(axes: Axes, curves: Scores, at_work: Scores) -> None:
        alarms = _column(curves["false_alarms_per_hour"])
        axes.plot(odds, alarms, color=VERMILLION, linewidth=1.4, label="false alarms an hour")
        axes.plot([], [], color=BLUE, linewidth=1.4, label="recall by overlap (right axis)")
        used = (
            {at_work["threshold"]}
            if "threshold" in at_work
            else {row["threshold"] for row in scores["per_class"].values()}
        )
        for level in used:
            if 0 < level < 1:
                axes.axvline(math.log(level / (1 - level)), color=GREY, linewidth=0.8, zorder=0)
        axes.set_yscale("symlog", linthresh=least, linscale=0.4)
        axes.set_ylim(0, 1.6 * max(most, least))
        powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
        shown = [10.0**p for p in powers if least <= 10.0**p <= 1.6 * most]
        if len(shown) < 2:
            shown = [least, *shown]
        axes.yaxis.set_major_locator(FixedLocator([0, *shown[:: math.ceil(len(shown) / 4) or 1]]))
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:.3g}" if value < 1e3 else f"{value:g}")
        )
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y")
        beside = axes.twinx()
        beside.plot(odds, _column(curves["overlap"]["recall"]), color=BLUE, linewidth=1.4)
        beside.set_ylim(0, 1.03)
        in_percent(beside.yaxis)
        beside.spines["right"].set_visible(True)
        ticks = [t for t in _TICKS if thresholds[0] <= t <= thresholds[-1]]
        axes.set_xticks([math.log(t / (1 - t)) for t in ticks], [f"{t:g}" for t in ticks])
        axes.tick_params(axis="x", labelrotation=45)
        axes.set_xlim(odds[0], odds[-1])

    _panels(scores, path, draw, "threshold (grey line: used)", "false alarms an hour")


def _panels(
    scores: Scores,
    path: PathLike,
    draw: Callable[[Axes, Scores, Scores], None],
    x: str,
    y: str,
) -> None:
    """Draw a panel for all classes, and one for each class with true events or found ones."""
    curves, rows = scores["curves"], scores["per_class"]
    order = sorted(rows, key=lambda label: (-rows[label]["true_events"], label))
    shown = [label for label in order if rows[label]["true_events"] or rows[label]["found_events"]]
    panels = [(_ALL, curves["overall"], scores["overall"])]
    panels += [(x, curves["per_class"][x], rows[x]) for x in shown[: MOST_PANELS - 1]]
    across = min(math.ceil(math.sqrt(len(panels))), 4)
    down = math.ceil(len(panels) / across)
    with page(path, 1.0 + 2.7 * across, 1.1 + 2.25 * down) as figure:
        every = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel().tolist()
        for axes, (label, lines, at_work) in zip(every, panels, strict=False):
            draw(axes, lines, at_work)
            number = scores["true_events"] if label == _ALL else at_work["true_events"]
            axes.set_title(f"{short(label, 24)} ({number:,} true)", color=INK)
        for axes in every[len(panels) :]:
            axes.set_visible(False)
        handles, names = every[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(names))
        figure.supxlabel(x, fontsize=9)
        figure.supylabel(y, fontsize=9)


def _column(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
