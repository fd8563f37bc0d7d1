"""Sound that comes through a pipe: bare 16-bit samples, or a WAV file.

The WAV layout is that of `unfreeze.audio.wav`; here it is read forwards only,
and its length may be unknown (writers to a pipe leave 0 or the largest number).
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soxr

from unfreeze.audio.sound import HIGHEST_RATE, LOWEST_RATE
from unfreeze.errors import DataError

_READ = 1 << 16
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_LENGTH = 0x7FFFF000
# (format tag, bits) -> how numpy reads a sample, and what full scale is.
_KINDS: dict[tuple[int, int], tuple[str, float]] = {
    (_PCM, 8): ("u1", 128.0),
    (_PCM, 16): ("<i2", 32768.0),
    (_PCM, 24): ("<i4", 2147483648.0),
    (_PCM, 32): ("<i4", 2147483648.0),
    (_FLOAT, 32): ("<f4", 1.0),
    (_FLOAT, 64): ("<f8", 1.0),
}
_CURE = "send 16-bit samples: ffmpeg -i SOURCE -f s16le -ac 1 -ar {rate} - | unfreeze listen RUN -"


def pipe_blocks(descriptor: int, rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Read sound from a pipe as it comes.

    Args:
        descriptor: of the open pipe or file.
        rate: hertz of bare samples; a WAV file says its own.
        sample_rate: hertz of the result.

    Yields:
        (samples,) float32, mono, as soon as something is there.

    Raises:
        DataError: a WAV header that cannot be used, or no sample at all.
    """
    pipe = _Pipe(descriptor)
    bits, tag, channels, left = 16, _PCM, 1, None
    if pipe.peek(4) == b"RIFF":
        tag, bits, channels, rate, left = _wav_header(pipe, sample_rate)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(f"a sample rate of {rate} Hz, outside {LOWEST_RATE} to {HIGHEST_RATE}")
    resample = resampler(rate, sample_rate)
    size = bits // 8 * channels
    some = False
    for data in pipe.blocks(size, left):
        samples = _samples(data, tag, bits).reshape(-1, channels).mean(axis=1, dtype=np.float32)
        if not np.isfinite(samples).all():
            raise DataError("the sound on standard input has NaN or infinite samples")
        some = True
        yield resample(samples, False)
    if not some:
        raise DataError(f"no sound came on standard input; {_CURE.format(rate=sample_rate)}")
    yield resample(np.zeros(0, np.float32), True)


def resampler(rate: int, sample_rate: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """Make a function that resamples pieces of one stream; its flag marks the last."""
    if rate == sample_rate:
        return lambda samples, last: samples
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")

    def resample(samples: np.ndarray, last: bool) -> np.ndarray:
        result: np.ndarray = stream.resample_chunk(samples, last=last)
        return result

    return resample


class _Pipe:
    """Reads a descriptor forwards, with a look ahead."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._held = descriptor, b""

    def peek(self, count: int) -> bytes:
        while len(self._held) < count:
            # Not a buffered file: that holds a lock which a thread that waits
            # here would keep when the process ends.
            data = os.read(self._descriptor, _READ)
            if not data:
                break
            self._held += data
        return self._held[:count]

    def take(self, count: int) -> bytes:
        data = self.peek(count)
        self._held = self._held[len(data) :]
        return data

    def blocks(self, size: int, left: int | None) -> Iterator[bytes]:
        """Yield whole multiples of `size` bytes as they come, at most `left` bytes."""
        while left is None or left >= size:
            if len(self._held) < size and len(self.peek(size)) < size:
                return
            count = len(self._held) if left is None else min(len(self._held), left)
            data = self.take(count // size * size)
            left = None if left is None else left - len(data)
            yield data


def _wav_header(pipe: _Pipe, sample_rate: int) -> tuple[int, int, int, int, int | None]:
    """Read up to the first sample: format tag, bits, channels, rate, bytes (None unknown)."""
    cure = _CURE.format(rate=sample_rate)
    if pipe.take(12)[8:] != b"WAVE":
        raise DataError(f"standard input begins like a WAV file and is none; {cure}")
    fmt: Any = None
    while True:
        head = pipe.take(8)
        if len(head) < 8:
            raise DataError(f"the WAV file on standard input ends before its samples; {cure}")
        name, length = struct.unpack("<4sI", head)
        if name == b"data":
            break
        content = pipe.take(length + (length & 1))
        if name == b"fmt " and len(content) >= 16:
            fmt = content
    if fmt is None:
        raise DataError(f"the WAV file on standard input does not say its format; {cure}")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", fmt[:16])
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        tag = int.from_bytes(fmt[24:26], "little")
    if (tag, bits) not in _KINDS or not channels:
        raise DataError(
            f"a WAV file of format {tag} with {bits} bits cannot be read from a pipe; {cure}"
        )
    return tag, bits, channels, rate, None if not length or length >= _UNKNOWN_LENGTH else length


def _samples(data: bytes, tag: int, bits: int) -> np.ndarray:
    kind, scale = _KINDS[tag, bits]
    if bits == 24:
        # The three bytes become the upper ones of four.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = wide.view(kind)[:, 0]
    else:
        values = np.frombuffer(data, kind)
    samples = values.astype(np.float32)
    if kind == "u1":
        samples -= 128
    return samples / np.float32(scale)
