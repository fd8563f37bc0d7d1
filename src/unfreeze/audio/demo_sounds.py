"""The demo's recordings: 20 classes of sounds, made by formula, in a folder for each class.

Every class is a function of random numbers and a time axis ((samples,) float64 seconds,
from 0). What it leaves open (pitch, tempo, timbre) is drawn for each clip; then all classes
go through the same room: echo, distance, background noise, loudness. Some classes are
neighbours on purpose (white and pink noise and rain, engine and propeller, morse and alarm
clock, siren and sweep), so that a classifier has something to learn. Invariant: a clip
depends on its seed only, never on the clips made before it.
"""

import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from unfreeze.errors import DataError
from unfreeze.files import atomic_path

Floats = NDArray[np.float64]
Random = np.random.Generator

# Hz; the sounds reach up to 7.5 kHz.
LOWEST_RATE = RATE = 16_000
SHORTEST, LONGEST = 1.0, 3.0  # seconds


def time_axis(seconds: float, sample_rate: int) -> Floats:
    """Make an axis of about that many seconds, rounded down to twentieths.

    Such lengths are fast in the Fourier transform.
    """
    return np.arange(int(seconds * 20) * (sample_rate // 20)) / sample_rate


def rate(time: Floats) -> float:
    """Return the sample rate of a time axis, Hz."""
    return float(1.0 / (time[1] - time[0]))


def mix(parts: Iterable[Floats]) -> Floats:
    """Add up signals, at least one."""
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
    # Below 40 Hz it stays level: it is inaudible, but would use up the range.
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
    """Strike something that rings, again and again.

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
    """Make a slow random factor around 1 that turns about `per_second` times a second."""
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
    # Distance and microphone: a tilt of some dB per octave around 1 kHz.
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


def synthesize(label: str, rng: Random, sample_rate: int = RATE) -> NDArray[np.float32]:
    """Make one clip of a class.

    Args:
        label: one of `CLASSES`.
        rng: source of all variation; the same state gives the same clip.
        sample_rate: Hz, at least 16,000.

    Returns:
        (samples,) mono in [-1, 1], 1 to 3 seconds long.

    Raises:
        DataError: the class is unknown or the rate too low.
    """
    if label not in _VOICES:
        raise DataError(f"unknown sound class {label!r}; the demo has {', '.join(CLASSES)}")
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
    # A dot lasts 1.2 s over the words per minute; a dash three dots; so does the gap
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


def write_demo_data(
    folder: str | os.PathLike[str],
    *,
    clips_per_class: int = 30,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the demo's data: a folder per class with 16 kHz, 16-bit WAV files.

    Args:
        folder: where the folders of the classes go. Clips of an earlier demo are
            replaced, and removed where there were more of them.
        clips_per_class: number of clips of each class.
        seed: of all variation.
        progress: called as `progress(done, total)` after each clip.

    Returns:
        The folder.

    Raises:
        DataError: the folder holds something other than clips of a demo, which
            would be used for training.
    """
    root, total, done = Path(folder), len(CLASSES) * clips_per_class, 0
    _clear(root)

    def encoded(kind: int, number: int) -> bytes:
        clip = synthesize(CLASSES[kind], np.random.default_rng([seed, kind, number]), RATE)
        buffer = io.BytesIO()
        soundfile.write(buffer, clip, RATE, format="WAV", subtype="PCM_16")
        return buffer.getvalue()

    # Half of the time goes into waiting for the disk, so sounds are made meanwhile.
    with ThreadPoolExecutor(2) as pool:
        for kind, label in enumerate(CLASSES):
            files = pool.map(partial(encoded, kind), range(clips_per_class))
            for number, content in enumerate(files):
                with atomic_path(root / label / f"{label}_{number:03d}.wav") as path:
                    path.write_bytes(content)
                done += 1
                if progress:
                    progress(done, total)
    return root


def _clear(root: Path) -> None:
    """Remove the clips of an earlier demo, after checking that there is nothing else."""
    old = sorted(path for path in root.rglob("*") if not path.is_dir()) if root.exists() else []
    for path in old:
        label = path.parent.name
        ours = label in CLASSES and re.fullmatch(rf"{label}_\d{{3,}}\.wav", path.name)
        if path.parent.parent != root or not ours:
            raise DataError(
                f"{root} holds {path.relative_to(root)}, which is not a sound of the demo: give "
                "another folder with --out (the sounds go beside it)"
            )
    for path in old:
        path.unlink()
