"""How much of a recording's energy lies above what the network hears.

A bat's call is far above it: after resampling nothing is left but noise, which a classifier
would learn in its place. The share is an estimate that costs little: recordings whose
energy is clearly lower are told by the steps from sample to sample, without a spectrum.
"""

import math

import numpy as np

from unfreeze.backbones.frontend import FrontEnd

#: The upper edge of what YAMNet hears, hertz; other networks have their own.
HIGHEST_HEARD = FrontEnd().high_hz
# Samples of one spectrum.
_FRAME = 4096
# Spectra computed at once.
_TOGETHER = 64


class HighEnergy:
    """Adds up a recording's energy, and the part of it that the network does not hear.

    Args:
        sample_rate: hertz of the recording.
        hears: the upper edge of what the network hears, hertz.

    Attributes:
        total: the energy, without an offset.
        unheard: the part above that edge.
    """

    def __init__(self, sample_rate: int, hears: float = HIGHEST_HEARD) -> None:
        self.total = self.unheard = 0.0
        turn = min(2 * math.pi * hears / sample_rate, math.pi)
        # The energy of the steps between samples, over that of the samples, for a
        # tone at the edge; it grows with frequency.
        self._steps = 4 * math.sin(turn / 2) ** 2
        self._edge = hears / sample_rate
        self._hears_all = sample_rate <= 2 * hears

    @property
    def share(self) -> float:
        """The unheard part of the energy, 0 to 1."""
        return self.unheard / self.total if self.total > 0 else 0.0

    def add(self, samples: np.ndarray) -> None:
        """Take the next samples: (n,) float32."""
        if self._hears_all or not len(samples):
            return
        # What is not finite is refused elsewhere.
        with np.errstate(all="ignore"):
            rest = samples - samples.mean()
            energy = float(np.dot(rest, rest))
            steps = np.diff(rest)
            most = float(np.dot(steps, steps)) / self._steps
            self.total += energy
            # Only where nearly all of it may be above is it worth a spectrum.
            self.unheard += self._above(rest) if most > 0.5 * energy else most

    def _above(self, samples: np.ndarray) -> float:
        whole = len(samples) // _FRAME * _FRAME
        frames = samples[:whole].reshape(-1, _FRAME)
        found: float = sum(
            _energy_above(frames[at : at + _TOGETHER], self._edge)
            for at in range(0, len(frames), _TOGETHER)
        )
        return found + _energy_above(samples[None, whole:], self._edge)


def _energy_above(frames: np.ndarray, edge: float) -> float:
    """Energy of frames above a frequency, in cycles per sample."""
    length = frames.shape[1]
    if length == 0:
        return 0.0
    spectrum = np.fft.rfft(frames, axis=1)
    power: np.ndarray = (spectrum.real**2 + spectrum.imag**2).sum(axis=0, dtype=np.float64)
    # All but the first, and the last of an even length, stand for two.
    power[1 : (length + 1) // 2] *= 2
    above: float = power[math.ceil(edge * length) :].sum() / length
    return above
