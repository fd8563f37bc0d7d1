"""Building blocks of synthetic sounds.

All functions work on a time axis: (samples,) float64 seconds, evenly spaced from
0. Frequencies are in Hz, times in seconds; what is random comes from the given
generator only.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Random = np.random.Generator


def time_axis(seconds: float, sample_rate: int) -> Floats:
    """Make an axis of about so many seconds, rounded down to twentieths.

    That keeps the lengths friendly to the Fourier transform.
    """
    return np.arange(int(seconds * 20) * (sample_rate // 20)) / sample_rate


def rate(time: Floats) -> float:
    """Return the sample rate of a time axis, Hz."""
    return float(1.0 / (time[1] - time[0]))


def mix(parts: Iterable[Floats]) -> Floats:
    """Add signals up; at least one."""
    total: Floats = np.sum(list(parts), axis=0)
    return total


def tone(time: Floats, frequency: float | Floats, harmonics: Sequence[float] = (1.0,)) -> Floats:
    """Make a tone of steady or gliding frequency; `harmonics` are their levels.

    Harmonics that would come too near half the sample rate are left out.
    """
    # The phase is the running sum of the frequency, so that glides have no steps.
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(frequency, time.shape)) / rate(time)
    room = 0.47 * rate(time) / float(np.max(frequency))
    levels = list(harmonics)[: max(1, int(room))]
    return mix(level * np.sin(n * phase) for n, level in enumerate(levels, 1) if level)


def colored(rng: Random, time: Floats, slope: float) -> Floats:
    """Make noise whose power falls with frequency ** slope: 0 white, 1 pink, 2 brown."""
    # Below 40 Hz it stays level: nobody hears it, but it would use up the range.
    noise = _shaped(rng.normal(size=len(time)), time, lambda f: _above(f, 40.0) ** (-slope / 2))
    return noise / float(noise.std())


def filtered(signal: Floats, time: Floats, low: float, high: float) -> Floats:
    """Keep what is between two frequencies; slopes of second order, no delay."""

    def gain(f: Floats) -> Floats:
        below, above = low / _above(f, 1.0), f / high
        return 1 / np.sqrt((1 + below**4) * (1 + above**4))

    return _shaped(signal, time, gain)


def ring(
    time: Floats,
    moments: Floats,
    levels: Floats,
    partials: Sequence[tuple[float, float, float]],
) -> Floats:
    """Strike a thing again and again.

    Args:
        time: the axis.
        moments: when it is struck.
        levels: how hard, for each moment.
        partials: frequency, level and seconds to fall to 1/e of each partial.
    """
    # After nine such times a partial is 78 dB down.
    length = 9 * max(decay for _, _, decay in partials)
    sound = time[time < length]
    strike = mix(
        level * np.sin(2 * np.pi * frequency * sound) * np.exp(-sound / decay)
        for frequency, level, decay in partials
    )
    out = np.zeros_like(time)
    for start, level in zip((moments * rate(time)).astype(int), levels, strict=True):
        end = min(start + len(strike), len(time))
        out[start:end] += level * strike[: max(0, end - start)]
    return out


def gated(time: Floats, spans: Iterable[tuple[float, float]], ramp: float = 0.004) -> Floats:
    """Make a gate: 1 inside the spans (start, end), 0 outside, with soft edges."""
    gate = np.zeros_like(time)
    for start, end in spans:
        edge = np.minimum(time - start, end - time) / ramp
        np.maximum(gate, np.clip(edge, 0.0, 1.0), out=gate)
    return gate


def poisson(rng: Random, time: Floats, per_second: float) -> Floats:
    """Draw moments at random, in order; at least one."""
    count = max(1, rng.poisson(per_second * time[-1]))
    return np.sort(rng.uniform(0, 0.95 * time[-1], count))


def wander(rng: Random, time: Floats, depth: float, per_second: float) -> Floats:
    """Make a slow random factor around 1 that turns about so often a second."""
    knots = rng.normal(size=int(per_second * time[-1]) + 4)
    return 1 + depth * np.interp(time, np.linspace(0, time[-1], len(knots)), knots)


def in_a_room(rng: Random, time: Floats, dry: Floats) -> Floats:
    """Add what a recording adds: echo, distance, background noise and loudness.

    The background is 0 to 35 dB below the sound, the peak 0.5 to 24 dB below 1.
    """
    tail = time_axis(0.6, round(rate(time)))
    echo = rng.normal(size=len(tail)) * np.exp(-tail / rng.uniform(0.03, 0.2))
    echo *= rng.uniform(0.0, 0.5) / np.sqrt(np.sum(echo**2))
    echo[0] += 1.0
    size = len(dry) + len(echo)
    wet: Floats = np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(echo, size), size)[: len(dry)]
    # Distance and microphone: a tilt of some dB an octave around 1 kHz.
    tilt = float(np.clip(rng.normal(0.0, 0.9), -1.8, 1.8)) / 6.02
    wet = _shaped(wet, time, lambda f: (_above(f, 60.0) / 1000.0) ** tilt)
    background = colored(rng, time, rng.uniform(0.0, 2.0)) * float(wet.std())
    mixed = wet + background * _decibels(-rng.uniform(0.0, 35.0))
    return mixed / float(np.abs(mixed).max()) * _decibels(-rng.uniform(0.5, 24.0))


def _shaped(signal: Floats, time: Floats, gain: Callable[[Floats], Floats]) -> Floats:
    frequency = np.fft.rfftfreq(len(signal), 1 / rate(time)).astype(np.float64)
    shaped: Floats = np.fft.irfft(np.fft.rfft(signal) * gain(frequency), len(signal))
    return shaped


def _decibels(level: float) -> float:
    return float(10 ** (level / 20))


def _above(frequency: Floats, least: float) -> Floats:
    above: Floats = np.maximum(frequency, least)
    return above
