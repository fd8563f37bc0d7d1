"""Between a source of live sound and the network: a bounded store of samples.

One thread puts, another takes all that waits. When the taker is too slow, a
source that can wait (a pipe) is made to wait and nothing is lost; from one that
cannot (a microphone) the oldest samples are dropped, and counted.
"""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Taken:
    """What `Inbox.take` gives.

    Attributes:
        samples: (n,) float32, in order; empty when there were none in time.
        dropped: samples lost right before these.
        over: nothing will come any more.
    """

    samples: np.ndarray
    dropped: int
    over: bool


class Inbox:
    """Keeps samples until they are taken.

    Args:
        limit: samples kept at most, but for one piece.
        waits: whether `put` waits for room; else the oldest are dropped.
    """

    def __init__(self, limit: int, *, waits: bool) -> None:
        self._limit, self._waits = limit, waits
        self._pieces: deque[np.ndarray] = deque()
        self._change = threading.Condition()
        self._dropped = 0
        self._closed = False
        self._error: BaseException | None = None
        self.waiting = 0

    def put(self, samples: np.ndarray) -> bool:
        """Add samples (n,); False when nobody takes them any more."""
        with self._change:
            while self._waits and self.waiting > self._limit and not self._closed:
                self._change.wait()
            if self._closed:
                return False
            self._pieces.append(samples)
            self.waiting += len(samples)
            while self.waiting > self._limit and len(self._pieces) > 1 and not self._waits:
                lost = len(self._pieces.popleft())
                self.waiting -= lost
                self._dropped += lost
            self._change.notify_all()
            return True

    def take(self, timeout: float) -> Taken:
        """Take all samples that wait, after at most `timeout` seconds.

        Raises:
            BaseException: what `close` was told.
        """
        with self._change:
            self._change.wait_for(lambda: self._pieces or self._closed, timeout)
            pieces, dropped = list(self._pieces), self._dropped
            self._pieces.clear()
            self.waiting = self._dropped = 0
            self._change.notify_all()
            if self._error is not None and not pieces:
                raise self._error
            samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
            return Taken(samples, dropped, self._closed and not pieces)

    def close(self, error: BaseException | None = None) -> None:
        """Say that no more comes, or is wanted; `error` is raised when all is taken."""
        with self._change:
            self._closed, self._error = True, error
            self._change.notify_all()
