"""Budgets of runs: how long runs take, how much time is left, how many one process does."""

import math
import time
from collections.abc import Sequence

from unfreeze.compare.trial import Record


class Pace:
    """How long runs take, estimated from the finished ones."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._seconds: dict[str, list[float]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Include a finished run in the estimate."""
        if "wall_seconds" in record:
            self._seconds.setdefault(record["strategy"], []).append(record["wall_seconds"])

    def seconds(self, strategy: str) -> float | None:
        """Per run of a strategy; the mean of all if it has none yet, None before the first run."""
        known = self._seconds.get(strategy) or [s for each in self._seconds.values() for s in each]
        return sum(known) / len(known) if known else None

    def left(self, strategies: Sequence[str]) -> float | None:
        """For all remaining runs; None before the first has finished."""
        times = [self.seconds(strategy) for strategy in strategies]
        return None if any(t is None for t in times) else float(sum(t for t in times if t))


class Deadline:
    """A time budget that starts now.

    Args:
        seconds: None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, at least 0; None for no limit."""
        return None if math.isinf(self._end) else max(self._end - time.monotonic(), 0.0)

    def over(self, needed: float | None = None) -> bool:
        """Whether the time is over, or work of `needed` seconds would end too late."""
        return time.monotonic() + (needed or 0.0) > self._end


class EnoughRuns(Exception):
    """This process has done its share of runs; their results are kept."""


class Share:
    """The runs that one process does.

    Args:
        most: how many; None for no limit.
    """

    def __init__(self, most: int | None) -> None:
        self._left = most

    def take(self) -> None:
        """Count a run that is about to start.

        Raises:
            EnoughRuns: the share is used up.
        """
        if self._left is not None:
            if self._left < 1:
                raise EnoughRuns
            self._left -= 1
