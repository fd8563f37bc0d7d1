"""Short forms of names and numbers for plots and tables."""

from collections import Counter
from collections.abc import Sequence

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter


def short(name: str, length: int) -> str:
    """Cut the middle out of a long name; its two ends distinguish it best.

    Example:
        >>> short("block_3_expand_relu", 12)
        'block_…_relu'
    """
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


def in_percent(axis: Axis) -> None:
    """Label an axis of shares, 0 to 1, in percent, with the digits that its ticks need."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 3):g}%"))
