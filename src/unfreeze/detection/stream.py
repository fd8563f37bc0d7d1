"""A stream of samples to log-mel frames and patches, as they come.

Invariant: however the samples are cut into pieces, the frames are those of the
whole waveform, to the bit; so are the patches, and their padding at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from unfreeze.audio.frames import FrameMaker
from unfreeze.backbones.frontend import FrontEnd

# Patches handed on at once: a batch of the network.
BATCH = 256


class FrameStream:
    """Computes log-mel frames of samples that come piece by piece.

    Args:
        front_end: the settings. Its `patch_hop` decides how the end is padded.

    Attributes:
        samples: taken so far.
        frames: given so far.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end, self._maker = front_end, FrameMaker(front_end)
        self._waiting = np.zeros(0, dtype=np.float32)
        self.samples = self.frames = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples; return the frames that they complete.

        Args:
            samples: (n,) float32, mono, at the front end's rate.

        Returns:
            (frames, bands) float32; may be empty.
        """
        front = self._front_end
        self.samples += len(samples)
        waiting = np.concatenate([self._waiting, samples]) if len(self._waiting) else samples
        count = max((len(waiting) - front.window) // front.hop + 1, 0)
        # A copy: a slice would keep the whole block alive.
        self._waiting = waiting[count * front.hop :].copy()
        return self._compute(waiting, count)

    def finish(self) -> np.ndarray:
        """Return the frames that are left, padded as the whole waveform's are.

        Returns:
            (frames, bands) float32; empty when no sample ever came.
        """
        if not self.samples:
            return self._compute(self._waiting, 0)
        count = self._front_end.frames(self.samples) - self.frames
        rest, self._waiting = self._waiting, self._waiting[:0]
        needed = (count - 1) * self._front_end.hop + self._front_end.window
        return self._compute(np.pad(rest, (0, max(needed - len(rest), 0))), count)

    def _compute(self, waiting: np.ndarray, count: int) -> np.ndarray:
        front = self._front_end
        if not count:
            return np.zeros((0, front.bands), dtype=np.float32)
        self.frames += count
        # The maker pads what it is given as a waveform of its own: cut that off.
        return self._maker([waiting[: (count - 1) * front.hop + front.window]])[:count]


@dataclass(frozen=True, eq=False)
class PatchBlock:
    """Some consecutive patches of a recording.

    Attributes:
        patches: (n, patch_frames, bands) float32, n from 1 to `BATCH`.
        starts: (n,) float64, seconds from the start of the recording.
        ends: (n,) float64, seconds; a patch that is padded ends with the recording.
    """

    patches: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class PatchStream:
    """Cuts samples that come piece by piece into patches.

    Args:
        front_end: the backbone's settings.
        hop: frames from one patch to the next, 1 to `patch_frames`.
    """

    def __init__(self, front_end: FrontEnd, hop: int) -> None:
        # With this hop the front end pads the end to whole hops of ours: the
        # last samples are always part of a patch.
        self._front_end = replace(front_end, patch_hop=hop)
        self._stream = FrameStream(self._front_end)
        self._frames = np.zeros((0, front_end.bands), dtype=np.float32)
        self._patches = 0

    @property
    def seconds(self) -> float:
        """Length of the sound taken so far."""
        return self._stream.samples / self._front_end.sample_rate

    def push(self, samples: np.ndarray) -> Iterator[PatchBlock]:
        """Take samples; yield the patches that they complete.

        Args:
            samples: (n,) float32, mono, at the front end's rate.
        """
        yield from self._cut(self._stream.push(samples))

    def finish(self) -> Iterator[PatchBlock]:
        """Yield the patches that are left; the last is padded."""
        yield from self._cut(self._stream.finish())

    def _cut(self, frames: np.ndarray) -> Iterator[PatchBlock]:
        front = self._front_end
        self._frames = np.concatenate([self._frames, frames]) if len(self._frames) else frames
        rows = np.arange(front.patch_frames)
        at = 0
        while count := min((len(self._frames) - at - len(rows)) // front.patch_hop + 1, BATCH):
            if count < 0:
                break
            first = at + front.patch_hop * np.arange(count)
            yield self._block(self._frames[first[:, None] + rows])
            at += count * front.patch_hop
        self._frames = self._frames[at:].copy()

    def _block(self, patches: np.ndarray) -> PatchBlock:
        front = self._front_end
        second = front.hop / front.sample_rate
        starts = (self._patches + np.arange(len(patches))) * front.patch_hop * second
        self._patches += len(patches)
        ends = np.minimum(starts + front.patch_frames * second, self.seconds)
        return PatchBlock(patches, starts, ends)
