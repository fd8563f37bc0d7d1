"""Recordings as in the field: animals and speech at all levels, in six kinds of noise.

Every sound has a slot of its own, so no two overlap, and the truth is known.
"""

import csv
import shutil
from collections import defaultdict

import numpy as np
import soundfile

from benchmarks.sides.paste_sounds import RATE, rms, trimmed
from unfreeze.audio.class_folders import MANIFEST_NAME
from unfreeze.audio.decode import decode
from unfreeze.audio.manifest import read_manifest

KINDS = ("white", "pink", "brown", "wind", "hiss", "hum")
SPEECH = "speech"
_DIGITS = 4


def noise(rng, seconds, kind, level):
    """Noise of a kind whose loudness wanders, (samples,) float32, of that root mean square."""
    count = int(seconds * RATE)
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    frequency[0] = 1.0
    spectrum = rng.normal(size=len(frequency)) + 1j * rng.normal(size=len(frequency))
    if kind == "pink":
        spectrum /= np.sqrt(frequency)
    elif kind == "brown":
        spectrum /= frequency
    elif kind == "wind":
        spectrum /= 1 + (frequency / rng.uniform(150, 500)) ** 2
    elif kind == "hiss":
        spectrum *= np.sqrt(frequency / 4000)
    sound = np.fft.irfft(spectrum, count)
    time = np.arange(count) / RATE
    if kind == "hum":
        sound *= 0.2 / np.abs(sound).max()
        base = rng.uniform(45, 65)
        for k in range(1, 8):
            sound += np.sin(2 * np.pi * base * k * time + rng.uniform(0, 2 * np.pi)) / k
    turns = np.linspace(0, seconds, int(seconds / 3) + 2)
    sound *= np.interp(time, turns, rng.uniform(0.4, 1.0, len(turns)))
    return (sound * (level / rms(sound))).astype(np.float32)


def write_noises(folder, rng, count, seconds):
    """Write WAV files of noise, all kinds in turn, from very quiet to loud."""
    folder.mkdir()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        sound = noise(rng, seconds, kind, 10 ** rng.uniform(-3, -1.2))
        soundfile.write(folder / f"{kind}-{number:02}.wav", sound, RATE)


def by_speaker(digits):
    """Files of each speaker, speakers in order of their names."""
    files = defaultdict(list)
    for clip in read_manifest(digits).clips:
        files[clip.group].append(clip.path)
    return [files[speaker] for speaker in sorted(files)]


def phrase(files, rng):
    """Four words of one speaker in a row."""
    words = [decode(files[i], RATE) for i in rng.integers(len(files), size=_DIGITS)]
    return np.concatenate(words)


def paste(background, sounds, rng, longest=8.0):
    """Add sounds to a background, one in each slot of equal length, in random order.

    Args:
        background: (samples,); changed in place.
        sounds: (waveform, label) pairs.
        rng: of order, places and levels: peaks of 0.1 to 0.8.
        longest: seconds of a sound that are used.

    Returns:
        The truth: (start, end, label) of each, in seconds, by start.
    """
    slot = len(background) // len(sounds)
    truth = []
    for place, number in enumerate(rng.permutation(len(sounds))):
        sound, label = sounds[number]
        sound = trimmed(sound)[: min(int(longest * RATE), slot)]
        at = place * slot + int(rng.integers(slot - len(sound) + 1))
        peak = 10 ** rng.uniform(-1, -0.1)
        background[at : at + len(sound)] += sound * (peak / max(np.abs(sound).max(), 1e-6))
        truth.append((at / RATE, (at + len(sound)) / RATE, label))
    return truth


def write_sound(path, sound):
    """Write a WAV file of 16-bit samples."""
    soundfile.write(path, sound.clip(-1, 1), RATE, "PCM_16")


def copy_clips(manifest, parts, folder):
    """Copy clips of a data set and write a manifest of them.

    Args:
        manifest: of the data set.
        parts: the numbers of the clips, by the name of their part; with the one
            name "" the manifest says nothing of parts.
        folder: to be made.
    """
    rows = [("path", "label", "group", "split")]
    for part, numbers in parts.items():
        for clip in (manifest.clips[i] for i in numbers):
            inside = clip.path.relative_to(manifest.root)
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clip.path, folder / inside)
            rows.append((inside.as_posix(), clip.label, clip.group, part))
    if list(parts) == [""]:
        rows = [row[:3] for row in rows]
    with (folder / MANIFEST_NAME).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
