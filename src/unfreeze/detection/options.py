"""How events are to be found: the settings and their defaults, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectOptions:
    """How to find events.

    Attributes:
        window: seconds that are judged together: a patch, or a multiple, over
            whose patches the scores are averaged; None takes a patch.
        hop: seconds from one patch to the next; None takes the front end's.
        min_score: the score that begins an event, for all classes; None takes
            each class's own threshold.
        smooth: take the median over each three patches (or windows) first.
        merge: patches of a class that overlap or adjoin are one event; else
            each patch that reaches its threshold is an event.
    """

    window: float | None = None
    hop: float | None = None
    min_score: float | None = None
    smooth: bool = False
    merge: bool = True
