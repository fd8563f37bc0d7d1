"""The rules that a sound file must pass, and the facts about one that does.

| rule | when | what happens |
|---|---|---|
| missing | a manifest names a file that is not there | left out |
| unreadable | no sound format, no decoder, no permission, no valid header | left out |
| empty | 0 bytes, or a header without samples | left out |
| harmful | decoding it crashes, hangs, or takes too much time or memory | left out |
| too_long | over 24 hours, or more than its size can hold | left out |
| non_finite | a sample is NaN, infinite, or beyond 1e12 | left out |
| too_short | under 25 ms, one STFT window of YAMNet | left out |
| silent | mixed to mono it swings by less than 1e-4 (-80 dB) | left out, or its class is silence |
| header | the header states another length than the file has | a warning; all samples are used |
| truncated | samples that the header promises are missing | a warning; few left: left out |
| cancelled | channels cancel when they are mixed | a warning; the louder channel is used there |
| too_high | 95 % of the energy is above what the network hears | a warning |
| too_loud | a float file peaks above 8 (18 dB over full scale) | a warning |
| duplicate_label | the same bytes under two labels | all copies left out |
| duplicate | the same bytes twice under one label | a warning; they stay in one part of the split |

A clip shorter than a patch is not too short: the front end pads it with
zeros. Offset (a constant added to all samples) does not count as sound.
Lengths are compared for WAV, AIFF, CAF, AU, FLAC and MP3; in other formats libsndfile repairs
the header, and the clip counts with the samples it has. A file is "truncated" only where
it may have been: not if its end is seen to be there, nor if its header states twice the
length, as some recorders write it.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze.audio.decode import mono_blocks
from unfreeze.audio.hearing import HIGHEST_HEARD, HighEnergy
from unfreeze.audio.sound_file import (
    LARGEST_SAMPLE,
    LONGEST_CLIP,
    NOT_FINITE,
    UNKNOWN,
    Sound,
    SoundError,
    open_sound,
)

# 400 samples at 16 kHz, the window of YAMNet's STFT.
SHORTEST_SECONDS = 0.025
# Half of the distance from the lowest to the highest sample: 3 steps of 16 bits.
SILENT_PEAK = 1e-4
SILENT, TOO_HIGH = "silent", "too_high"
LOUD_PEAK = 8.0
# Samples of 16 bits reach 0.99997; in floats, what is beyond 1 is not clipped.
FULL_SCALE, BEYOND_SCALE = 0.9995, 1.0005
# Lengths that differ by less than this part of the longer one, and by less than these
# seconds, are the same.
SAME_LENGTH, SAME_SECONDS = 0.01, 0.5
# Of a file that was cut off, this part or this many seconds are worth keeping.
LEAST_PART, LEAST_SECONDS = 0.1, 1.0
# Parts of the energy that make a warning: in channels that cancel, and above what the
# network hears; the second only of files that swing by more than this.
CANCELLED_PART, UNHEARD_PART = 0.1, 0.95
_AUDIBLE_PEAK = 1e-3
# The length of MPEG audio is an estimate, and its decoder drops up to two frames.
_MPEG_FRAMES, _MPEG_PART = 2 * 1152, 0.05


#: Of one file: the rule, what is wrong, and whether it must be left out of training.
Finding = tuple[str, str, bool]


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
    """What reading a good file once shows.

    Attributes:
        content: SHA-256 of the file's bytes, in hex.
        seconds: samples over sample rate, before resampling.
        sample_rate: hertz.
        channels: 1 or more.
        clipped: share of the samples, mixed to mono, that are at full scale, 0 to 1.
    """

    content: str
    seconds: float
    sample_rate: int
    channels: int
    clipped: float = 0.0


def examine(
    path: Path,
    name: Path,
    silence: bool = False,
    channel: int = 0,
    hears: float = HIGHEST_HEARD,
) -> tuple[Facts | None, list[Problem]]:
    """Read one file from end to end and check it by the rules.

    Args:
        path: the file.
        name: what to call it in a problem.
        silence: whether it may be silent.
        channel: the one to take, counted from 1; 0 mixes them.
        hears: the upper edge of what the network hears, hertz.

    Returns:
        The facts, or None when the file must be left out; and its problems.
    """
    try:
        with open_sound(path) as sound:
            sound.take(channel)
            return examine_sound(sound, name, silence=silence, hears=hears)
    except SoundError as error:
        return None, [Problem(name, error.rule, error.cause, True)]


def examine_sound(
    sound: Sound,
    name: Path,
    blocks: Iterator[np.ndarray] | None = None,
    silence: bool = False,
    hears: float = HIGHEST_HEARD,
) -> tuple[Facts | None, list[Problem]]:
    """Read an open file to its end and check it, as `examine`.

    Args:
        sound: from `open_sound`, not yet read.
        name: what to call it in a problem.
        blocks: those of `mono_blocks`, where the caller watches them.
        silence: whether it may be silent.
        hears: the upper edge of what the network hears, hertz.

    Returns:
        As `examine`.
    """
    extent = Extent(sound, hears)
    try:
        _check_length(sound, sound.promised if sound.exact else 0, "promises")
        content = sound_hash(sound)
        for block in mono_blocks(sound) if blocks is None else blocks:
            extent.add(block)
            _check_length(sound, extent.samples, "has")
    except SoundError as error:
        return None, [Problem(name, error.rule, error.cause, True)]
    except OSError as error:
        return None, [Problem(name, "unreadable", f"it cannot be read: {error.strerror}", True)]
    found = [Problem(name, *finding) for finding in extent.judge()]
    problems = [problem for problem in found if not (silence and problem.rule == SILENT)]
    if any(problem.fatal for problem in problems):
        return None, problems
    seconds = extent.samples / sound.sample_rate
    facts = Facts(content, seconds, sound.sample_rate, sound.channels, extent.clipped)
    return facts, problems


class Extent:
    """How long a recording is, how far it swings and how high it sounds, as it is read.

    Args:
        sound: an open file, of which each block that is read is added.
        hears: the upper edge of what the network hears, hertz.

    Attributes:
        samples: read so far.
    """

    def __init__(self, sound: Sound, hears: float = HIGHEST_HEARD) -> None:
        self.samples = 0
        self._sound = sound
        self._lowest, self._highest = np.float32(np.inf), np.float32(-np.inf)
        self._at_full = 0
        self._hears = hears
        self._energy = HighEnergy(sound.sample_rate, hears)

    @property
    def clipped(self) -> float:
        """The share of the samples that are at full scale, 0 where some are beyond it."""
        beyond = max(-float(self._lowest), float(self._highest)) > BEYOND_SCALE
        return 0.0 if beyond else self._at_full / max(self.samples, 1)

    def add(self, block: np.ndarray) -> None:
        """Take the next samples: (n,) float32, one or more, with the channels mixed."""
        self.samples += len(block)
        # Minimum and maximum carry a NaN along.
        low, high = block.min(), block.max()
        self._lowest, self._highest = np.minimum(self._lowest, low), np.maximum(self._highest, high)
        if low <= -FULL_SCALE or high >= FULL_SCALE:
            self._at_full += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        self._energy.add(block)

    def judge(self) -> list[Finding]:
        """What breaks a rule, once the file is read to its end."""
        lowest, highest = float(self._lowest), float(self._highest)
        return list(
            _judge(self._sound, self.samples, lowest, highest, self._energy.share, self._hears)
        )


def _check_length(sound: Sound, samples: int, verb: str) -> None:
    if LONGEST_CLIP * sound.sample_rate < samples < UNKNOWN:
        hours, limit = samples / sound.sample_rate / 3600, LONGEST_CLIP / 3600
        cause = f"it {verb} {hours:,.1f} hours of sound or more; a clip may have {limit:g} at most"
        raise SoundError(sound.path, "too_long", f"{cause}; cut it")


def _judge(
    sound: Sound, samples: int, lowest: float, highest: float, unheard: float, hears: float
) -> Iterator[Finding]:
    if samples == 0:
        yield "empty", "it has a header but no samples", True
        return
    if not -LARGEST_SAMPLE <= lowest <= highest <= LARGEST_SAMPLE:
        yield "non_finite", NOT_FINITE, True
        return
    milliseconds = 1000 * samples / sound.sample_rate
    if milliseconds < 1000 * SHORTEST_SECONDS:
        limit = 1000 * SHORTEST_SECONDS
        yield "too_short", f"it lasts {milliseconds:.2f} ms, less than {limit:.0f} ms", True
    elif (highest - lowest) / 2 < SILENT_PEAK:
        yield SILENT, f"mixed to mono it swings by less than {SILENT_PEAK:g} of full scale", True
    if max(-lowest, highest) > LOUD_PEAK:
        peak = max(-lowest, highest)
        yield "too_loud", f"it peaks at {peak:.6g} where full scale is 1; divide its samples", False
    yield from _judge_length(sound, samples)
    mixer = sound.mixer
    if mixer.cancelled > CANCELLED_PART * mixer.power:
        seconds = mixer.cancelled_samples / sound.sample_rate
        yield (
            "cancelled",
            f"its channels cancel when they are mixed, in {seconds:.2f} of "
            f"{milliseconds / 1000:.2f} s (one may be wired the wrong way round); the louder "
            f"channel is used there",
            False,
        )
    if unheard > UNHEARD_PART and (highest - lowest) / 2 > _AUDIBLE_PEAK:
        # Rounded down: "100 %" would be wrong.
        percent = math.floor(1000 * unheard) / 10
        yield (
            TOO_HIGH,
            f"{percent:g} % of its energy lies above {hears / 1000:g} kHz, which the "
            f"network does not hear: slow it down, with --slow-down 10 for bats",
            False,
        )


def _judge_length(sound: Sound, samples: int) -> Iterator[Finding]:
    """Compare what the header says with the samples that were read."""
    stated = sound.stated
    if stated is None:
        return
    same = min(SAME_LENGTH * max(stated, samples), SAME_SECONDS * sound.sample_rate)
    if abs(stated - samples) <= same:
        return
    missing = stated - samples
    if not sound.exact and 0 < missing <= max(_MPEG_FRAMES, _MPEG_PART * stated):
        return
    lengths = _both_lengths(stated / sound.sample_rate, samples / sound.sample_rate)
    doubled = abs(stated - 2 * samples) <= SAME_LENGTH * stated
    if missing < 0 or doubled or (sound.whole and samples >= sound.promised):
        yield "header", f"{lengths}; all of it is used", False
    elif samples > min(LEAST_PART * stated, LEAST_SECONDS * sound.sample_rate):
        yield "truncated", f"{lengths}; all of it is used, but its end may be missing", False
    else:
        cause = f"{lengths}, hardly any of it; perhaps a copy was interrupted. Copy it again"
        yield "truncated", cause, True


def _both_lengths(stated: float, real: float) -> str:
    digits = 2 if f"{stated:.2f}" != f"{real:.2f}" else 5
    return f"the header says {stated:.{digits}f} s, the file holds {real:.{digits}f} s"


def as_warnings(findings: Iterable[Finding], slow_down: float = 1.0) -> tuple[str, ...]:
    """What a user should know of a recording that is heard by a trained model.

    Args:
        findings: from `Extent.judge`.
        slow_down: how many times slower the model hears; what is too high otherwise is
            then in its range.

    Returns:
        The causes, without the file's name.
    """
    slowed = slow_down != 1
    return tuple(cause for rule, cause, _ in findings if not (slowed and rule == TOO_HIGH))


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
