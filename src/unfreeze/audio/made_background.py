"""Computed background: sounds that are none of anybody's classes, in nine kinds.

A classifier that has only ever heard its classes must call everything one of them. These
sounds show it what else there is: silence of a recorder, noise of all colours, wind, rain,
hum, steady tones, clicks, and babble that is made like speech (`unfreeze.audio.babble`). Each
draw has other colours, levels and rhythms, so that no kind can be learnt by heart.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import scipy.signal

from unfreeze.audio.babble import make_babble

#: Samples in a second of what is made.
RATE = 16_000
# Levels are root mean squares; of silence, what a recorder's last bits give.
_LEVELS = (10**-3.7, 10**-0.8)
_SILENCE = (10**-5.0, 10**-3.8)
_TOP = 7_800.0

Rng = np.random.Generator


def make_background(kind: str, seconds: float, rng: Rng) -> np.ndarray:
    """Make background of one kind.

    Args:
        kind: one of `KINDS`.
        seconds: length.
        rng: of everything that is drawn.

    Returns:
        (samples,) float32 at `RATE`, -1 to 1.
    """
    sound = KINDS[kind](int(seconds * RATE), rng)
    low, high = _SILENCE if kind == "silence" else _LEVELS
    level = np.exp(rng.uniform(np.log(low), np.log(high)))
    scaled: np.ndarray = sound * (level / max(_rms(sound), 1e-12))
    return scaled.clip(-1, 1).astype(np.float32)


def _silence(n: int, rng: Rng) -> np.ndarray:
    return np.asarray(rng.normal(size=n))


def _coloured(n: int, rng: Rng) -> np.ndarray:
    """From blue to brown: power falls as frequency to the power of -1 to 2.5."""
    sway = _sway(n, rng, rng.uniform(1, 5), rng.uniform(0.3, 1))
    return np.asarray(_noise(n, rng, rng.uniform(-1, 2.5)) * sway)


def _wind(n: int, rng: Rng) -> np.ndarray:
    """Rumble below a few hundred hertz that comes in gusts."""
    sound = np.zeros(n)
    for _ in range(2):
        b, a = scipy.signal.butter(2, rng.uniform(80, 900), fs=RATE)
        gusts = _sway(n, rng, rng.uniform(0.3, 2), 0.05)
        sound += scipy.signal.lfilter(b, a, rng.normal(size=n)) * gusts * rng.uniform(0.2, 1)
    return _over(sound, _noise(n, rng, 1.5), rng.uniform(-3, -0.7))


def _band(n: int, rng: Rng) -> np.ndarray:
    """Hiss of one band: a machine, water behind a wall, a narrow channel."""
    low = 10 ** rng.uniform(2, 3.5)
    hiss = _in_band(rng.normal(size=n), low, low * 10 ** rng.uniform(0.2, 1))
    return np.asarray(hiss * _sway(n, rng, 2.0, 0.4))


def _rain(n: int, rng: Rng) -> np.ndarray:
    """Drops at random times, each a short ringing, over the hiss of those far away."""
    sound = np.zeros(n)
    for at in rng.integers(0, n, int(10 ** rng.uniform(0.7, 2.7) * n / RATE)):
        decay = rng.uniform(0.002, 0.02)
        time = np.arange(min(int(5 * decay * RATE), n - at)) / RATE
        ringing = np.sin(2 * np.pi * rng.uniform(400, 6000) * time)
        sound[at : at + len(time)] += rng.exponential() * np.exp(-time / decay) * ringing
    return _over(sound, _noise(n, rng, rng.uniform(0, 1)), rng.uniform(-1, 0.5))


def _hum(n: int, rng: Rng) -> np.ndarray:
    """Mains, transformers and engines: many harmonics of a low tone."""
    base = rng.choice([50.0, 60.0, 100.0, 120.0, rng.uniform(25, 300)])
    time, sound = np.arange(n) / RATE, np.zeros(n)
    for k in range(1, rng.integers(3, 25)):
        strength = rng.uniform() / k ** rng.uniform(0.3, 1.5)
        sound += strength * np.sin(2 * np.pi * base * k * time + rng.uniform(0, 2 * np.pi))
    return _over(sound * _sway(n, rng, 2.0, 0.6), _noise(n, rng, 1), rng.uniform(-2, -0.3))


def _tones(n: int, rng: Rng) -> np.ndarray:
    """One to three tones, steady or beeping."""
    time, sound = np.arange(n) / RATE, np.zeros(n)
    for _ in range(rng.integers(1, 4)):
        tone = np.sin(2 * np.pi * 10 ** rng.uniform(2, 3.8) * time)
        if rng.uniform() < 0.5:
            rhythm = np.sin(2 * np.pi * rng.uniform(0.3, 4) * time + rng.uniform(0, 2 * np.pi))
            tone *= rhythm > rng.uniform(-0.8, 0.8)
        sound += tone
    return _over(sound, _noise(n, rng, 1), rng.uniform(-3, -1))


def _clicks(n: int, rng: Rng) -> np.ndarray:
    """Steps, knocks and crackle: short bursts of noise that fade."""
    sound = np.zeros(n)
    for at in rng.integers(0, n, max(int(rng.uniform(0.5, 12) * n / RATE), 1)):
        count = min(int(10 ** rng.uniform(1.3, 3.3)), n - at)
        fading = np.exp(-5 * np.arange(count) / count)
        sound[at : at + count] += rng.normal(size=count) * fading * rng.uniform(0.2, 1)
    return _over(sound, _noise(n, rng, 1), rng.uniform(-2, -0.5))


def _babble(n: int, rng: Rng) -> np.ndarray:
    """Somebody speaks, in no language."""
    return _over(make_babble(n, rng), _noise(n, rng, 1), rng.uniform(-2.5, -0.7))


KINDS: Mapping[str, Callable[[int, Rng], np.ndarray]] = MappingProxyType(
    {
        "silence": _silence,
        "coloured noise": _coloured,
        "wind": _wind,
        "hiss": _band,
        "rain": _rain,
        "hum": _hum,
        "tones": _tones,
        "clicks": _clicks,
        "babble": _babble,
    }
)
"""What makes each kind: (samples, rng) to (samples,) of any level."""


def _rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound)))) if len(sound) else 0.0


def _over(sound: np.ndarray, noise: np.ndarray, decades: float) -> np.ndarray:
    """The sound over noise; `decades` tell the noise's level against the sound's."""
    mixed: np.ndarray = sound + noise * (_rms(sound) * 10**decades / max(_rms(noise), 1e-12))
    return mixed


def _noise(n: int, rng: Rng, falls: float) -> np.ndarray:
    """Noise whose power falls with frequency; level below 20 Hz."""
    frequency = np.fft.rfftfreq(n, 1 / RATE)
    drawn = rng.normal(size=len(frequency)) + 1j * rng.normal(size=len(frequency))
    shaped: np.ndarray = np.fft.irfft(drawn / np.maximum(frequency, 20.0) ** (falls / 2), n)
    return shaped


def _sway(n: int, rng: Rng, every: float, least: float) -> np.ndarray:
    """(samples,) loudness from `least` to 1 that turns every so many seconds."""
    turns = max(int(n / RATE / every) + 2, 2)
    places = np.linspace(0, n, turns)
    return np.interp(np.arange(n), places, rng.uniform(least, 1, turns))


def _in_band(sound: np.ndarray, low: float, high: float) -> np.ndarray:
    filtered: np.ndarray = scipy.signal.sosfilt(
        scipy.signal.butter(2, [low, min(high, _TOP)], "bandpass", fs=RATE, output="sos"), sound
    )
    return filtered
