"""What the thresholds of a detector are chosen for, in words that need no score.

Numbers alone: the command line reads them before anything slow is imported.
"""

import math
from dataclasses import dataclass

from unfreeze.errors import UnfreezeError

#: The least precision of a threshold that is chosen without a wish, where one has it.
FLOOR = 0.8


@dataclass(frozen=True)
class Wish:
    """What thresholds are chosen for; without any, for the best F1.

    Attributes:
        precision: share of the found sounds of a class that are right, above 0, below 1.
        max_false_alarms: false events in an hour of background, of all classes together; 0
            or more.

    Raises:
        UnfreezeError: a number out of range, or both.
    """

    precision: float | None = None
    max_false_alarms: float | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.max_false_alarms is not None:
            raise UnfreezeError(
                "A precision and a number of false alarms are both wished for: leave out one"
            )
        if self.precision is not None and not 0 < self.precision < 1:
            raise UnfreezeError(
                f"A precision of {self.precision:g} cannot be promised: give one above 0 and "
                "below 1, such as 0.95"
            )
        rate = self.max_false_alarms
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            raise UnfreezeError(
                f"{rate:g} false alarms an hour cannot be wished for: give 0 or more"
            )

    @property
    def is_given(self) -> bool:
        """Whether anything is wished for."""
        return self != Wish()

    def __str__(self) -> str:
        if self.precision is not None:
            return f"a precision of {self.precision:g}"
        if self.max_false_alarms is not None:
            one = self.max_false_alarms == 1
            return f"at most {self.max_false_alarms:g} false alarm{'' if one else 's'} an hour"
        return f"the best F1, where possible with a precision of at least {FLOOR:g}"
