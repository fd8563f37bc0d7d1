"""An open sound file read forwards in blocks, its channels averaged.

Memory does not grow with the length of a recording. A file that ends early
gives what it has; how much was promised is there for the rules to judge.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from unfreeze.audio.sound import Sound, SoundError, check_length, open_sound, said

# Values (samples times channels) read at once: 8 MiB.
BLOCK = 1 << 21
# Samples read at once from a damaged file, to lose little before the damage.
_STEP = 1024


def mono_blocks(sound: Sound, block: int = BLOCK) -> Iterator[np.ndarray]:
    """Read an open file to its end, or to the damage, channels averaged.

    Args:
        sound: from `open_sound`, not yet read.
        block: values (samples times channels) to read at once.

    Yields:
        (samples,) float32, never empty.

    Raises:
        SoundError: not one sample can be decoded, or too many (`limits`).
    """
    done = 0
    step = max(block // sound.channels, 1)
    try:
        while len(mono := _read(sound, min(step, sound.promised - done))):
            done += len(mono)
            check_length(sound, done, "it decodes to")
            yield mono
    except soundfile.SoundFileError as error:
        # The failed read is lost, with all that was good in it.
        rest = list(_before_damage(sound.path, done))
        if not rest and not done:
            raise SoundError(sound.path, "unreadable", f"libsndfile: {said(error)}") from error
        yield from rest


def _read(sound: Sound, samples: int) -> np.ndarray:
    buffer = np.empty((samples, sound.channels), dtype=np.float32)
    read = sound.file.read(out=buffer) if samples else buffer
    if sound.channels == 1:
        return read[:, 0]
    # Column by column: a mean over short rows costs numpy five times as much.
    mono = read[:, 0] + read[:, 1]
    for channel in range(2, sound.channels):
        mono += read[:, channel]
    mono *= np.float32(1 / sound.channels)
    return mono


def _before_damage(path: Path, skip: int) -> Iterator[np.ndarray]:
    """Yield the samples from `skip` up to where decoding fails."""
    with open_sound(path) as sound:
        done = 0
        try:
            while len(mono := _read(sound, min(_STEP, sound.promised - done))):
                rest = mono[max(skip - done, 0) :]
                done += len(mono)
                if len(rest):
                    yield rest
        except soundfile.SoundFileError:
            return
