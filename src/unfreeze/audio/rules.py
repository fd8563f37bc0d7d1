"""The rules that a sound file must pass, and the facts about one that does.

| rule | when | what happens |
|---|---|---|
| missing | a manifest names a file that is not there | left out |
| unreadable | no sound format, no decoder, no permission, no sane header | left out |
| empty | 0 bytes, or a header without samples | left out |
| harmful | decoding it crashes, hangs, or takes too much time or memory | left out |
| too_long | over 24 hours, or more than its size can hold | left out |
| non_finite | a sample is NaN, infinite, or beyond 1e12 | left out |
| too_short | under 25 ms, one STFT window of YAMNet | left out |
| silent | mixed to mono it swings by less than 1e-4 of full scale (-80 dB) | left out |
| truncated | samples promised by the header are missing | half or more: left out, else a warning |
| too_loud | a float file peaks above 8 (18 dB over full scale) | a warning |
| duplicate_label | the same bytes under two labels | all copies left out |
| duplicate | the same bytes twice under one label | a warning; they stay in one part of the split |

A clip shorter than a patch is not too short: the front end pads it with
zeros. Offset (a constant added to all samples) does not count as sound.
Truncation is known for WAV, FLAC and MP3; in other formats libsndfile mends
the header, and the clip counts with what it has.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unfreeze.audio.limits import LARGEST_SAMPLE, LONGEST_CLIP
from unfreeze.audio.mono import mono_blocks
from unfreeze.audio.sound import NOT_FINITE, UNKNOWN, Sound, SoundError, open_sound

# 400 samples at 16 kHz, the window of YAMNet's STFT.
SHORTEST_SECONDS = 0.025
# Half of the distance from the lowest to the highest sample: 3 steps of 16 bits.
SILENT_PEAK = 1e-4
LOUD_PEAK = 8.0
# A file with less than this part of the promised samples is truncated; with
# this or less it is left out.
WHOLE, HALF = 0.99, 0.5
# The length of MPEG audio is an estimate, and its decoder drops up to two frames.
_MPEG_FRAMES, _MPEG_PART = 2 * 1152, 0.05


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a user should know about one file.

    Attributes:
        path: relative to the data's folder.
        rule: the rule's name, as in the table above.
        cause: what is wrong, without the file's name.
        fatal: True when the file is left out and counts as bad.
    """

    path: Path
    rule: str
    cause: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What one reading of a good file tells.

    Attributes:
        content: SHA-256 of the file's bytes, in hex.
        seconds: samples over sample rate, before resampling.
        sample_rate: hertz.
        channels: 1 or more.
    """

    content: str
    seconds: float
    sample_rate: int
    channels: int


def examine(path: Path, name: Path) -> tuple[Facts | None, list[Problem]]:
    """Read one file from end to end and judge it by the rules.

    Args:
        path: the file.
        name: what to call it in a problem.

    Returns:
        The facts, None when the file must be left out; and its problems.
    """
    try:
        with open_sound(path) as sound:
            return examine_sound(sound, name)
    except SoundError as error:
        return None, [Problem(name, error.rule, error.cause, True)]


def examine_sound(
    sound: Sound, name: Path, blocks: Iterator[np.ndarray] | None = None
) -> tuple[Facts | None, list[Problem]]:
    """Read an open file to its end and judge it, as `examine`.

    Args:
        sound: from `open_sound`, not yet read.
        name: what to call it in a problem.
        blocks: of `mono_blocks`, where somebody watches them pass by.

    Returns:
        As `examine`.
    """
    try:
        _check_length(sound, sound.promised if sound.exact else 0, "promises")
        content = sound_hash(sound)
        extent = _measure(sound, mono_blocks(sound) if blocks is None else blocks)
    except SoundError as error:
        return None, [Problem(name, error.rule, error.cause, True)]
    except OSError as error:
        return None, [Problem(name, "unreadable", f"it cannot be read: {error.strerror}", True)]
    problems = [Problem(name, *finding) for finding in _judge(sound, extent)]
    if any(problem.fatal for problem in problems):
        return None, problems
    seconds = extent.samples / sound.sample_rate
    return Facts(content, seconds, sound.sample_rate, sound.channels), problems


class _Extent(NamedTuple):
    samples: int
    lowest: float
    highest: float


def _measure(sound: Sound, blocks: Iterator[np.ndarray]) -> _Extent:
    samples, lowest, highest = 0, np.float32(np.inf), np.float32(-np.inf)
    for block in blocks:
        samples += len(block)
        _check_length(sound, samples, "has")
        # Minimum and maximum carry a NaN along.
        lowest, highest = np.minimum(lowest, block.min()), np.maximum(highest, block.max())
    return _Extent(samples, float(lowest), float(highest))


def _check_length(sound: Sound, samples: int, verb: str) -> None:
    if LONGEST_CLIP * sound.sample_rate < samples < UNKNOWN:
        hours, limit = samples / sound.sample_rate / 3600, LONGEST_CLIP / 3600
        cause = f"it {verb} {hours:,.1f} hours of sound or more, and a clip has {limit:g} at most"
        raise SoundError(sound.path, "too_long", f"{cause}; cut it")


def _judge(sound: Sound, extent: _Extent) -> Iterator[tuple[str, str, bool]]:
    samples, lowest, highest = extent
    if samples == 0:
        yield "empty", "it has a header and no samples", True
        return
    if not -LARGEST_SAMPLE <= lowest <= highest <= LARGEST_SAMPLE:
        yield "non_finite", NOT_FINITE, True
        return
    milliseconds = 1000 * samples / sound.sample_rate
    if milliseconds < 1000 * SHORTEST_SECONDS:
        limit = 1000 * SHORTEST_SECONDS
        yield "too_short", f"it lasts {milliseconds:.2f} ms, less than {limit:.0f} ms", True
    elif (highest - lowest) / 2 < SILENT_PEAK:
        yield "silent", f"mixed to mono it swings by less than {SILENT_PEAK:g} of full scale", True
    if max(-lowest, highest) > LOUD_PEAK:
        peak = max(-lowest, highest)
        yield "too_loud", f"it peaks at {peak:.6g} where full scale is 1; divide its samples", False
    present = _present(sound, samples)
    if present < WHOLE:
        cause = f"it ends after {100 * present:.0f} % of the samples that its header promises"
        yield "truncated", cause, present <= HALF


def _present(sound: Sound, samples: int) -> float:
    if sound.promised >= UNKNOWN:
        return sound.kept
    missing = sound.promised - samples
    if not sound.exact and missing <= max(_MPEG_FRAMES, _MPEG_PART * sound.promised):
        return sound.kept
    return sound.kept * samples / sound.promised


def sound_hash(sound: Sound) -> str:
    """Return the SHA-256 of an open file's bytes, in hex.

    Args:
        sound: from `open_sound`.

    Raises:
        OSError: it cannot be read.
    """
    if sound.content is not None:
        return hashlib.sha256(sound.content).hexdigest()
    return content_hash(sound.path)


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex; read in pieces.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
