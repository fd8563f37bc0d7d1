"""The common look of all pictures, and how they are made.

Figures are made without pyplot, so no window is opened, and neither the global list of
figures nor the backend changes. Names come from users and are drawn as they are, never
read as TeX. A picture is written atomically; its suffix chooses the format.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from unfreeze.files import atomic_path

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


class Picture(Figure):
    """A figure that a notebook shows by itself, whether pyplot is in use or not."""

    def _repr_png_(self) -> bytes:
        with _style():
            content = BytesIO()
            self.savefig(content, format="png", dpi=100)
        return content.getvalue()


@contextmanager
def page(path: PathLike | None, width: float, height: float) -> Iterator[Picture]:
    """Yield an empty figure, in inches; write it when the block succeeds, if there is a path."""
    with _style():
        figure = Picture(figsize=(width, height), layout="constrained")
        yield figure
        if path is not None:
            with atomic_path(path) as partial:
                figure.savefig(partial)


def in_percent(axis: Axis) -> None:
    """Label an axis of shares, 0 to 1, in percent, with the digits that its ticks need."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 3):g}%"))


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context():
        # The user's own matplotlibrc must not affect the pictures. (This does not
        # change the backend.)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield
