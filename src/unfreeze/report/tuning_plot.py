"""The picture of a search: each proposal's accuracy, and the best so far."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from unfreeze.report.style import BLUE, GREY, VERMILLION, PathLike, in_percent, page


def plot_search(accuracies: Sequence[float], path: PathLike) -> None:
    """Draw the accuracy of each proposal, in order.

    Args:
        accuracies: 0 to 1; the first is the default's.
        path: the picture to write.
    """
    numbers = np.arange(1, len(accuracies) + 1)
    with page(path, 7.5, 3.6) as figure:
        axes = figure.subplots()
        axes.step(numbers, np.maximum.accumulate(accuracies), where="post", color=VERMILLION)
        axes.plot(numbers, accuracies, "o", color=BLUE, markersize=4.5)
        axes.axhline(accuracies[0], color=GREY, linewidth=0.8, linestyle="--")
        axes.annotate(
            "the default",
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
        axes.set_ylabel("accuracy on inner test clips")
