"""Channels to one: their mean, except where they cancel each other.

A microphone that is wired the wrong way round records the same sound upside down, and the
mean of two such channels is silence. So in each quarter of a second the power of the mean
is compared with that of the channels; where they cancel, the louder channel stands for all.
The choice does not depend on how the recording is cut into pieces: sections are counted
from its first sample, and only earlier sections matter.
"""

import numpy as np

# Sections in a second.
_SECTIONS = 4
# The mean of channels that have nothing in common has 1 of this measure, whatever
# their number and levels. Here they have less: two channels correlate by -0.9 or so.
_CANCELLED = 0.1
# Power below which a section is silent anyway: a hundredth of a step of 16 bits.
_SILENT_POWER = 1e-13
# A channel is left for another one of more than this times its power. Of two that
# are as loud, it is the first: rounding must not decide.
_LOUDER, _AS_LOUD = 2.0, 0.99


class Mixer:
    """Mixes the sections of one recording, in their order.

    Args:
        sample_rate: hertz of the recording.
        channels: their number.

    Attributes:
        channels: as given.
        section: samples of a section.
        power: of all channels and sections together, summed over samples.
        cancelled: the part of `power` in sections where a channel stands for all.
        cancelled_samples: their length.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.section = max(sample_rate // _SECTIONS, 1)
        self.power = self.cancelled = 0.0
        self.cancelled_samples = 0
        self.channels = channels
        self._chosen: int | None = None
        self._only: int | None = 0 if channels == 1 else None

    def take(self, channel: int) -> None:
        """Take one channel instead of mixing them; counted from 1, 0 mixes them."""
        if channel:
            self._only = channel - 1

    def mix(self, samples: np.ndarray) -> np.ndarray:
        """Return one channel for the next samples.

        Args:
            samples: (n, channels) float32: whole sections, except at the end.

        Returns:
            (n,) float32.
        """
        if self._only is not None:
            return np.ascontiguousarray(samples[:, self._only])
        # Column by column: a mean over short rows costs numpy five times as much.
        mono: np.ndarray = samples[:, 0] + samples[:, 1]
        for channel in range(2, self.channels):
            mono += samples[:, channel]
        mono *= np.float32(1 / self.channels)
        # What is not finite is refused later.
        with np.errstate(all="ignore"):
            for at in range(0, len(samples), self.section):
                part = slice(at, at + self.section)
                self._judge(samples[part], mono[part])
        return mono

    def _judge(self, samples: np.ndarray, mono: np.ndarray) -> None:
        """Put the louder channel in the place of `mono` where channels cancel."""
        flat = samples.reshape(-1)
        total = float(np.dot(flat, flat))
        self.power += total
        mixed = float(np.dot(mono, mono)) - len(mono) * float(mono.mean()) ** 2
        limit = _CANCELLED / self.channels**2
        # An offset is no sound, but costs time to take off: that comes second.
        if not (mixed < limit * total and total > _SILENT_POWER * len(flat)):
            return
        powers = samples.var(axis=0, dtype=np.float64)
        if not (
            mixed < limit * len(mono) * powers.sum()
            and powers.sum() > _SILENT_POWER * self.channels
        ):
            return
        loudest = int(np.argmax(powers >= _AS_LOUD * powers.max()))
        if self._chosen is None or powers[loudest] > _LOUDER * powers[self._chosen]:
            self._chosen = loudest
        mono[:] = samples[:, self._chosen]
        self.cancelled += total
        self.cancelled_samples += len(mono)
