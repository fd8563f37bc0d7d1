"""Which classes are silent: they take probability and are never reported as an event.

The rule is the name alone, so that it holds for a run, a single `.keras` file and
a folder of the user's own: the class `background` is what is none of the others.
"""

from collections.abc import Iterable

#: The class of recordings without any of the sounds, and of sounds that only look like one.
BACKGROUND = "background"


def is_quiet(label: str) -> bool:
    """Tell whether a class is silent: nothing is to be reported when it is the likeliest."""
    return label == BACKGROUND


def quiet_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the silent ones among some classes, in their order.

    Example:
        >>> quiet_labels(("background", "dog"))
        ('background',)
    """
    return tuple(label for label in labels if is_quiet(label))
