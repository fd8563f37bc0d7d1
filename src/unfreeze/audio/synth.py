"""The sounds of the demo: 20 classes, made by formula, each clip different.

Every class is one function of (random numbers, time axis). What it leaves open
(pitch, tempo, timbre) is drawn afresh for each clip; then all classes go through
the same room: echo, distance, background noise, loudness. Some classes are
neighbours on purpose (white and pink noise and rain, engine and propeller, morse
and alarm clock, siren and sweep), so that a classifier has something to learn.
A clip depends on its seed only, never on the clips made before it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unfreeze.audio.signals import (
    Floats,
    Random,
    colored,
    filtered,
    gated,
    in_a_room,
    poisson,
    ring,
    time_axis,
    tone,
    wander,
)
from unfreeze.errors import DataError

SHORTEST, LONGEST = 1.0, 3.0  # seconds
LOWEST_RATE = 16_000  # Hz; the sounds reach up to 7.5 kHz


def synthesize(label: str, rng: Random, sample_rate: int = 16_000) -> NDArray[np.float32]:
    """Make one clip of a class.

    Args:
        label: one of `CLASSES`.
        rng: source of all variation; the same state gives the same clip.
        sample_rate: Hz, at least 16,000.

    Returns:
        (samples,) mono in [-1, 1], 1 to 3 seconds long.

    Raises:
        DataError: if the class is unknown or the rate too low.
    """
    if label not in _VOICES:
        raise DataError(f"no sound class {label!r}; the demo has {', '.join(CLASSES)}")
    if sample_rate < LOWEST_RATE:
        raise DataError(f"sample rate {sample_rate} Hz is too low; {LOWEST_RATE} is the least")
    time = time_axis(rng.uniform(SHORTEST, LONGEST), sample_rate)
    dry = _VOICES[label](rng, time)
    return in_a_room(rng, time, dry / np.abs(dry).max()).astype(np.float32)


# --- the classes ------------------------------------------------------------------


def _alarm_clock(rng: Random, time: Floats) -> Floats:
    beep, pause = rng.uniform(0.05, 0.09), rng.uniform(0.25, 0.6)
    start, spans = rng.uniform(0.0, 0.3), []
    while start < time[-1]:
        spans += [(start + 2 * k * beep, start + (2 * k + 1) * beep) for k in range(4)]
        start += 8 * beep + pause
    square = [1.0, 0.0, 1 / 3, 0.0, 1 / 5]
    return tone(time, rng.uniform(900, 2600), square) * gated(time, spans)


def _brown_noise(rng: Random, time: Floats) -> Floats:
    return colored(rng, time, 2.0) * wander(rng, time, 0.1, 1.0)


def _church_bell(rng: Random, time: Floats) -> Floats:
    # Hum, prime, tierce, quint, nominal and above: Fletcher and Rossing 1998, "The
    # Physics of Musical Instruments", chapter 21.
    prime, length = rng.uniform(180, 700), rng.uniform(0.5, 1.6)
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 3.0, 4.0]) * rng.normal(1, 0.004, 8)
    levels = np.array([0.6, 0.8, 0.7, 0.3, 1.0, 0.5, 0.4, 0.3]) * rng.uniform(0.6, 1.4, 8)
    partials = [
        (prime * r, level, length / r**0.8) for r, level in zip(ratios, levels, strict=True)
    ]
    strikes = np.arange(rng.uniform(0.0, 0.2), time[-1], rng.uniform(0.7, 1.8))
    return ring(time, strikes, np.ones(len(strikes)), partials)


def _cricket(rng: Random, time: Floats) -> Floats:
    pulse, pulses = rng.uniform(0.012, 0.02), int(rng.integers(3, 6))
    starts = np.arange(rng.uniform(0, 0.2), time[-1], rng.uniform(0.25, 0.6))
    starts = starts + rng.normal(0, 0.01, len(starts))
    spans = [(s + 2 * k * pulse, s + (2 * k + 1) * pulse) for s in starts for k in range(pulses)]
    return tone(time, rng.uniform(3400, 5600), [1.0, 0.1]) * gated(time, spans, pulse / 2)


def _dial_tone(rng: Random, time: Floats) -> Floats:
    # The precise tone plan of North America: 350 and 440 Hz within 0.5 %.
    low, high = 350 * rng.uniform(0.995, 1.005), 440 * rng.uniform(0.995, 1.005)
    both = tone(time, low) * rng.uniform(0.7, 1.0) + tone(time, high) * rng.uniform(0.7, 1.0)
    # Now and then the handset is lifted only then.
    return both * gated(time, [(rng.choice([-1.0, rng.uniform(0.0, 0.4)]), time[-1] + 1)])


def _engine(rng: Random, time: Floats) -> Floats:
    firing = rng.uniform(22, 75) * wander(rng, time, 0.03, 6.0)
    body = [rng.uniform(0.3, 1.0) / n**0.9 for n in range(1, 40)]
    pulses = tone(time, firing, body)
    breath = colored(rng, time, 1.0) * np.maximum(tone(time, firing), 0.0)
    mixed = pulses / pulses.std() + rng.uniform(0.2, 0.8) * breath
    return filtered(mixed, time, 40, rng.uniform(500, 1800)) * wander(rng, time, 0.08, 5.0)


def _geiger_clicks(rng: Random, time: Floats) -> Floats:
    click = [(rng.uniform(1200, 4200), 1.0, rng.uniform(0.0006, 0.003))]
    moments = poisson(rng, time, 10 ** rng.uniform(0.5, 1.7))
    return ring(time, moments, rng.uniform(0.7, 1.0, len(moments)), click)


def _glass_ping(rng: Random, time: Floats) -> Floats:
    # Bending modes of a wine glass: French 1983, Am. J. Phys. 51, "In vino veritas".
    lowest, length = rng.uniform(700, 2200), rng.uniform(0.08, 0.7)
    partials = [
        (lowest * r * rng.normal(1, 0.01), rng.uniform(0.3, 1.0) / r**0.5, length / r**0.5)
        for r in (1.0, 2.32, 4.25)
        if lowest * r < 7500
    ]
    moments = poisson(rng, time, rng.uniform(0.5, 2.0))
    return ring(time, moments, rng.uniform(0.5, 1.0, len(moments)), partials)


def _metronome(rng: Random, time: Floats) -> Floats:
    wood = [(rng.uniform(900, 3000) * r, 1 / r, rng.uniform(0.003, 0.015)) for r in (1.0, 1.6, 2.4)]
    beats = np.arange(rng.uniform(0.0, 0.3), time[-1], 60 / rng.uniform(80, 220))
    accent, bar = rng.uniform(1.0, 1.8), int(rng.integers(2, 5))
    levels = np.where(np.arange(len(beats)) % bar == 0, accent, 1.0)
    return ring(time, beats, levels, wood)


def _morse(rng: Random, time: Floats) -> Floats:
    # A dot lasts 1.2 s over the words a minute; a dash three dots; so does the gap
    # between letters (ITU-R M.1677).
    dot, start, spans = 1.2 / rng.uniform(12, 28), rng.uniform(0.0, 0.2), []
    while start < time[-1]:
        for _ in range(int(rng.integers(1, 5))):
            length = dot * rng.choice([1, 3])
            spans.append((start, start + length))
            start += length + dot
        start += 2 * dot
    return tone(time, rng.uniform(450, 1300), [1.0, rng.uniform(0, 0.3)]) * gated(time, spans)


def _pink_noise(rng: Random, time: Floats) -> Floats:
    return colored(rng, time, 1.0) * wander(rng, time, 0.1, 1.0)


def _propeller(rng: Random, time: Floats) -> Floats:
    blades = rng.uniform(50, 160) * wander(rng, time, 0.01, 3.0)
    hum = tone(time, blades, [rng.uniform(0.4, 1.0) / n**1.3 for n in range(1, 16)])
    whoosh = filtered(colored(rng, time, 0.8), time, 200, 4000)
    beat = 1 + rng.uniform(0.4, 0.9) * tone(time, blades)
    beat *= 1 + rng.uniform(0.1, 0.5) * tone(time, rng.uniform(4, 14))
    air = whoosh / float(whoosh.std()) * rng.uniform(0.4, 1.5)
    return hum / float(hum.std()) + air * beat


def _rain(rng: Random, time: Floats) -> Floats:
    bed = filtered(colored(rng, time, rng.uniform(0.2, 1.0)), time, 300, 7500)
    drops = np.zeros_like(time)
    hits = rng.integers(len(time), size=int(rng.uniform(150, 900) * time[-1]))
    np.add.at(drops, hits, rng.exponential(1.0, len(hits)) * rng.choice([-1.0, 1.0], len(hits)))
    drops = filtered(drops, time, rng.uniform(800, 2500), 7500)
    return bed / float(bed.std()) + drops / float(drops.std()) * rng.uniform(0.3, 1.5)


def _siren_two_tone(rng: Random, time: Floats) -> Floats:
    low, length, turn = rng.uniform(380, 750), rng.uniform(0.25, 0.65), rng.uniform(0, 1)
    high = (time / length + turn) % 2 >= 1
    horn = [1 / n**1.1 for n in range(1, 9)]
    return tone(time, np.where(high, low * rng.uniform(1.2, 1.42), low), horn)


def _siren_wail(rng: Random, time: Floats) -> Floats:
    swing = np.sin(2 * np.pi * (time / rng.uniform(0.35, 4.0) + rng.uniform()))
    center, depth = rng.uniform(750, 1100), rng.uniform(0.25, 0.5)
    return tone(time, center * (1 + depth * swing), [1 / n**1.3 for n in range(1, 7)])


def _sweep(rng: Random, time: Floats, *, up: bool) -> Floats:
    low, high = rng.uniform(150, 900), rng.uniform(1500, 6500)
    place = (time / time[-1] * int(rng.integers(1, 4))) % 1.0
    place = place if up else 1 - place
    glide = low + (high - low) * place if rng.uniform() < 0.5 else low * (high / low) ** place
    return tone(time, glide, [1.0, rng.uniform(0, 0.4), rng.uniform(0, 0.3)])


def _sweep_down(rng: Random, time: Floats) -> Floats:
    return _sweep(rng, time, up=False)


def _sweep_up(rng: Random, time: Floats) -> Floats:
    return _sweep(rng, time, up=True)


def _touch_tones(rng: Random, time: Floats) -> Floats:
    # Rows and columns of the keypad: ITU-T Q.23.
    length, gap, start = rng.uniform(0.07, 0.3), rng.uniform(0.05, 0.2), rng.uniform(0.0, 0.2)
    keys = np.zeros_like(time)
    while start < time[-1]:
        row, column = rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477, 1633])
        keys += (tone(time, row) + tone(time, column)) * gated(time, [(start, start + length)])
        start += length + gap
    return keys


def _water_drips(rng: Random, time: Floats) -> Floats:
    # A bubble rings, and rises in pitch as it nears the surface: van den Doel 2005,
    # "Physically based models for liquid sounds".
    drips = np.zeros_like(time)
    for moment in poisson(rng, time, rng.uniform(1.5, 8.0)):
        after = np.maximum(time - moment, 0.0)
        pitch, decay = rng.uniform(500, 2200), rng.uniform(0.01, 0.05)
        glide = pitch * (after + rng.uniform(0.5, 3.0) * after**2)
        drips += rng.uniform(0.3, 1.0) * np.sin(2 * np.pi * glide) * np.exp(-after / decay)
    return drips


def _white_noise(rng: Random, time: Floats) -> Floats:
    return colored(rng, time, 0.0) * wander(rng, time, 0.1, 1.0)


_VOICES: dict[str, Callable[[Random, Floats], Floats]] = {
    voice.__name__.removeprefix("_"): voice
    for voice in (
        _alarm_clock,
        _brown_noise,
        _church_bell,
        _cricket,
        _dial_tone,
        _engine,
        _geiger_clicks,
        _glass_ping,
        _metronome,
        _morse,
        _pink_noise,
        _propeller,
        _rain,
        _siren_two_tone,
        _siren_wail,
        _sweep_down,
        _sweep_up,
        _touch_tones,
        _water_drips,
        _white_noise,
    )
}
CLASSES: tuple[str, ...] = tuple(_VOICES)
"""The labels of the demo, in alphabetical order."""
