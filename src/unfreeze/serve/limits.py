"""What the server takes, and the line in which requests wait for the network."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from unfreeze.serve.refusals import Refused


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_mb: size of a file, in megabytes (10^6 bytes).
        max_seconds: duration of a recording, in seconds.
        places: requests that may be sending, waiting or running at once. They
            take `places` times `max_mb` of disk at most.
        upload_seconds: time to send a whole file in.
        stall_seconds: time without a single byte after which it is given up.
        decode_seconds: time for decoding; a file that is within the limits can
            still be built to take hours (hundreds of channels).
    """

    max_mb: float = 50.0
    max_seconds: float = 600.0
    places: int = 32
    upload_seconds: float = 600.0
    stall_seconds: float = 30.0
    decode_seconds: float = 60.0

    @property
    def max_bytes(self) -> int:
        """Size of a file in bytes."""
        return int(self.max_mb * 1e6)


class Line:
    """Requests in a line of fixed length; one at a time goes through the network.

    A request takes its place before its body is read: a full line costs neither
    disk nor memory.

    Args:
        places: length of the line.
    """

    def __init__(self, places: int) -> None:
        self.places, self.taken = places, 0
        self._turn = asyncio.Lock()
        self._seconds = 1.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the line.

        Raises:
            Refused: (503) all are taken.
        """
        if self.taken >= self.places:
            wait = max(1, math.ceil(self._seconds * self.taken))
            raise Refused(
                503,
                f"the server is busy: {self.taken} recordings are waiting already",
                f"Try again in {wait} s.",
                headers={"Retry-After": str(wait)},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn; nobody else has it until the block ends."""
        async with self._turn:
            began = time.monotonic()
            yield
            # Half of it new: follows a change of the recordings' length.
            self._seconds = (self._seconds + time.monotonic() - began) / 2
