"""A long recording with known events: clips pasted into coloured noise.

The noise is pink: white noise through the three-pole filter of J. O. Smith,
"Spectral Audio Signal Processing" (W3K, 2011), section "Example: Synthesis of
1/F Noise". Written block by block, so that any length fits into memory.
"""

import csv
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile

from unfreeze.audio.decode import decode
from unfreeze.files import atomic_path

RATE = 16_000
_PINK = (
    [0.049922035, -0.095993537, 0.050612699, -0.004408786],
    [1.0, -2.494956002, 2.017265875, -0.522189400],
)
# A clip begins and ends where its level first and last comes within this of its loudest.
_EDGE_DB = 30.0
_FRAME = 160


def write_recording(
    path, clips, *, minutes, seed=0, snr_db=20.0, noise_rms=0.003, gap=(4.0, 20.0), longest=10.0
):
    """Write the recording and, beside it, its truth.

    Args:
        path: a WAV file, 16 kHz, 16-bit.
        clips: (file, label) pairs; drawn in rounds, each round in another order.
        minutes: length.
        seed: of noise, order and places.
        snr_db: level of each clip above the noise, both as root mean square.
        noise_rms: of the noise.
        gap: seconds between events, drawn evenly between these.
        longest: seconds of a clip that are used.

    Returns:
        The truth: (start, end, label) of each event, seconds.
    """
    rng = np.random.default_rng(seed)
    places, total = [], int(minutes * 60 * RATE)
    sounds = _rounds(clips, rng)
    at = int(rng.uniform(*gap) * RATE)
    level = noise_rms * 10 ** (snr_db / 20)
    while True:
        file, label = next(sounds)
        sound = trimmed(decode(file, RATE))[: int(longest * RATE)]
        if at + len(sound) > total:
            break
        # Never louder than full scale.
        sound = sound * min(level / rms(sound), 0.98 / np.abs(sound).max())
        places.append((at, sound, label))
        at += len(sound) + int(rng.uniform(*gap) * RATE)
    with atomic_path(path) as partial:
        _write(partial, places, total, rng, noise_rms)
    truth = [(at / RATE, (at + len(sound)) / RATE, label) for at, sound, label in places]
    with atomic_path(truth_of(path)) as partial, partial.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("start", "end", "label"), *truth])
    return truth


def truth_of(path):
    """Name of the file with a recording's true events."""
    return Path(path).with_suffix(".truth.csv")


def trimmed(sound):
    """The clip without the quiet before and behind it."""
    frames = np.sqrt(np.mean(sound[: len(sound) // _FRAME * _FRAME].reshape(-1, _FRAME) ** 2, 1))
    if not len(frames):
        return sound
    loud = np.flatnonzero(frames >= frames.max() * 10 ** (-_EDGE_DB / 20))
    return sound[loud[0] * _FRAME : (loud[-1] + 1) * _FRAME]


def rms(sound):
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) or 1.0


def _rounds(clips, rng):
    while True:
        for number in rng.permutation(len(clips)):
            yield clips[number]


def _write(path, places, total, rng, noise_rms):
    b, a = _PINK
    state = np.zeros(max(len(a), len(b)) - 1)
    # White noise of deviation 1 comes out of the filter with this deviation.
    probe = scipy.signal.lfilter(b, a, np.random.default_rng(0).normal(size=1 << 20))
    scale = noise_rms / float(np.std(probe))
    block = 60 * RATE
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="WAV") as file:
        for start in range(0, total, block):
            count = min(block, total - start)
            noise, state = scipy.signal.lfilter(b, a, rng.normal(size=count), zi=state)
            noise *= scale
            for at, sound, _ in places:
                first, end = max(at - start, 0), min(at + len(sound) - start, count)
                if first < end:
                    noise[first:end] += sound[first + start - at : end + start - at]
            file.write(noise.clip(-1, 1).astype(np.float32))
