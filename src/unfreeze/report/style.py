"""How all pictures look, and how they are written.

Figures are made without pyplot, so no window, no global list of figures and no
backend is touched. Names come from users and are drawn as they are, never read
as TeX. A picture is written atomically; its suffix chooses the format.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from unfreeze.files import atomic_path

PathLike = str | os.PathLike[str]

# Okabe and Ito 2008, "Color Universal Design": told apart with every common
# form of colour blindness.
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
    # Text stays text: it can be searched, and read aloud.
    "svg.fonttype": "none",
}


@contextmanager
def page(path: PathLike, width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure, in inches; write it when the block ends well."""
    with matplotlib.rc_context():
        # A user's own matplotlibrc must not leak into the pictures. (This leaves
        # the backend alone.)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with atomic_path(path) as partial:
            figure.savefig(partial)


def in_percent(axis: Axis) -> None:
    """Label an axis of shares, 0 to 1, in percent, with the digits that its ticks need."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 3):g}%"))
