"""The common style of pictures, and short forms of names and numbers for plots and tables.

Figures are made without pyplot, so no window is opened, and neither the global list of
figures nor the backend changes. Names come from users and are drawn as they are, never
read as TeX. A picture is written atomically; its suffix chooses the format.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from unfreeze.files import atomic_path


def short(name: str, length: int) -> str:
    """Cut the middle out of a long name; its two ends distinguish it best."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[len(name) - tail :]}"


def power_of_ten(exponent: int) -> str:
    """Write a power of ten without the padding of %g: 0.0001, but 1e-5."""
    return f"{10.0**exponent:g}" if -5 < exponent < 6 else f"1e{exponent}"


def shortest_unique(paths: Sequence[str]) -> list[str]:
    """Shorten each path to the shortest end that no other path shares.

    "base/layer3/conv" becomes "layer3/conv" beside "base/layer4/conv". The paths
    must be distinct; a path that is the end of another is not shortened.
    """
    ends = {
        path: ["/".join(path.split("/")[-n:]) for n in range(1, path.count("/") + 2)]
        for path in paths
    }
    seen = Counter(end for each in ends.values() for end in each)
    return [next((end for end in ends[path] if seen[end] == 1), path) for path in paths]


PathLike = str | os.PathLike[str]

# Okabe and Ito 2008, "Color Universal Design": distinct with every common form of
# colour blindness.
BLUE, VERMILLION = "#0072B2", "#D55E00"
INK, GREY, PALE = "#222222", "#8A8A8A", "#E9EEF3"

STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": "#D9D9D9",
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 150,
    # Text stays text, so that it can be searched and read aloud.
    "svg.fonttype": "none",
}


@contextmanager
def page(path: PathLike, width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure, in inches; write it when the block succeeds."""
    with matplotlib.rc_context():
        # The user's own matplotlibrc must not affect the pictures. (This does not
        # change the backend.)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with atomic_path(path) as partial:
            figure.savefig(partial)


def in_percent(axis: Axis) -> None:
    """Label an axis of shares, 0 to 1, in percent, with the digits that its ticks need."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 3):g}%"))
