"""Names and numbers in little room, for plots and tables alike."""

from collections import Counter
from collections.abc import Sequence


def short(name: str, length: int) -> str:
    """Cut the middle out of a long name; its two ends tell names apart best."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[len(name) - tail :]}"


def power_of_ten(exponent: int) -> str:
    """Write a power of ten without the padding of %g: 0.0001, but 1e-5."""
    return f"{10.0**exponent:g}" if -5 < exponent < 6 else f"1e{exponent}"


def shortest_unique(paths: Sequence[str]) -> list[str]:
    """Give each path the least of its end that no other path has as an end too.

    "base/layer3/conv" becomes "layer3/conv" beside "base/layer4/conv". The paths
    must be distinct; one that is an end of another stays whole.
    """
    ends = {
        path: ["/".join(path.split("/")[-n:]) for n in range(1, path.count("/") + 2)]
        for path in paths
    }
    seen = Counter(end for each in ends.values() for end in each)
    return [next((end for end in ends[path] if seen[end] == 1), path) for path in paths]
