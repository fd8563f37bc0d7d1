"""Live sound: from a microphone or a pipe into a bounded queue of samples.

A pipe carries raw 16-bit samples or a WAV file, whose length may be unknown. A microphone is
read through the library `sounddevice` (PortAudio). One thread puts samples into an `Inbox`,
another takes all that wait. If the second is too slow, a pipe is made to wait and nothing is
lost; a microphone cannot wait, so its oldest samples are dropped and counted.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from unfreeze.audio.decode import in_sections
from unfreeze.audio.mixing import Mixer
from unfreeze.audio.sound_file import HIGHEST_RATE, LOWEST_RATE
from unfreeze.audio.wav import PCM, WavError, WavFormat, is_readable, read_wav_start, to_float
from unfreeze.errors import DataError, UnfreezeError

_READ = 1 << 16
_CURE = "send 16-bit samples: ffmpeg -i SOURCE -f s16le -ac 1 -ar {rate} - | unfreeze listen RUN -"

# Seconds that the sound card hands over at once.
_BLOCK = 0.05


@dataclass(frozen=True, eq=False)
class Taken:
    """What `Inbox.take` returns.

    Attributes:
        samples: (n,) float32, in order; empty if none arrived in time.
        dropped: number of samples lost right before these.
        over: whether this is the end.
    """

    samples: np.ndarray
    dropped: int
    over: bool


class Inbox:
    """Keeps samples until they are taken.

    Args:
        limit: the most samples kept, except that one piece is always kept.
        waits: whether `put` waits for room; else the oldest samples are dropped.
    """

    def __init__(self, limit: int, *, waits: bool) -> None:
        self._limit, self._waits = limit, waits
        self._pieces: deque[np.ndarray] = deque()
        self._change = threading.Condition()
        self._dropped = 0
        self._closed = False
        self._error: BaseException | None = None
        self.waiting = 0

    def put(self, samples: np.ndarray) -> bool:
        """Add samples (n,); return False once the inbox is closed."""
        with self._change:
            while self._waits and self.waiting > self._limit and not self._closed:
                self._change.wait()
            if self._closed:
                return False
            self._pieces.append(samples)
            self.waiting += len(samples)
            while self.waiting > self._limit and len(self._pieces) > 1 and not self._waits:
                lost = len(self._pieces.popleft())
                self.waiting -= lost
                self._dropped += lost
            self._change.notify_all()
            return True

    def take(self, timeout: float) -> Taken:
        """Take all samples that wait, after at most `timeout` seconds.

        Raises:
            BaseException: the error given to `close`.
        """
        with self._change:
            self._change.wait_for(lambda: self._pieces or self._closed, timeout)
            pieces, dropped = list(self._pieces), self._dropped
            self._pieces.clear()
            self.waiting = self._dropped = 0
            self._change.notify_all()
            if self._error is not None and not pieces:
                raise self._error
            samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
            return Taken(samples, dropped, self._closed and not pieces)

    def close(self, error: BaseException | None = None) -> None:
        """End the sound, from either side; `take` raises `error` once all samples are taken."""
        with self._change:
            self._closed, self._error = True, error
            self._change.notify_all()


def pipe_blocks(
    descriptor: int, rate: int, sample_rate: int, channel: int = 0
) -> Iterator[np.ndarray]:
    """Read sound from a pipe as it arrives.

    Args:
        descriptor: of the open pipe or file.
        rate: hertz of raw samples; a WAV file gives its own.
        sample_rate: hertz of the result.
        channel: of several, the one to take, counted from 1; 0 mixes them.

    Yields:
        (samples,) float32, mono: of one channel as soon as there are any.

    Raises:
        DataError: the WAV header cannot be used, samples are NaN or infinite, or
            there are none.
    """
    pipe = _Pipe(descriptor)
    form, left = WavFormat(PCM, channels=1, sample_rate=rate, frame_bytes=2, bits=16), None
    if pipe.peek(4) == b"RIFF":
        form, left = _wav_format(pipe, _CURE.format(rate=sample_rate))
    if not LOWEST_RATE <= form.sample_rate <= HIGHEST_RATE:
        raise DataError(
            f"the sound on standard input has a sample rate of {form.sample_rate} Hz: give "
            f"{LOWEST_RATE} to {HIGHEST_RATE}"
        )
    resample = resampler(form.sample_rate, sample_rate)
    mixer = Mixer(form.sample_rate, form.channels)
    if channel > form.channels:
        raise DataError(
            f"the sound on standard input has {form.channels} of the channels, and the run was "
            f"trained on channel {channel}: send all channels, as WAV"
        )
    mixer.take(channel)
    pieces = (to_float(data, form) for data in pipe.blocks(mixer.channels * form.bits // 8, left))
    some = False
    # Of more than one channel, a quarter of a second at a time: as files are mixed.
    for piece in in_sections(pieces, mixer.section, mixer.channels):
        samples = mixer.mix(piece)
        if not np.isfinite(samples).all():
            raise DataError(
                "the sound on standard input has NaN or infinite samples: check its source"
            )
        some = True
        yield resample(samples, False)
    if not some:
        raise DataError(f"no sound arrived on standard input; {_CURE.format(rate=sample_rate)}")
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
            # Not a buffered file, which holds a lock that a thread waiting
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

    def skip(self, count: int) -> None:
        while count and (data := self.take(min(count, _READ))):
            count -= len(data)

    def blocks(self, size: int, left: int | None) -> Iterator[bytes]:
        """Yield whole multiples of `size` bytes as they come, at most `left` bytes."""
        while left is None or left >= size:
            if len(self._held) < size and len(self.peek(size)) < size:
                return
            count = len(self._held) if left is None else min(len(self._held), left)
            data = self.take(count // size * size)
            left = None if left is None else left - len(data)
            yield data


def _wav_format(pipe: _Pipe, cure: str) -> tuple[WavFormat, int | None]:
    """Read up to the first sample: the format, and the bytes of all samples where known."""
    try:
        start = read_wav_start(pipe.take, pipe.skip)
    except WavError as error:
        raise DataError(f"the WAV file on standard input cannot be used: {error}; {cure}") from None
    form = start.format
    if not is_readable(form):
        raise DataError(
            f"a WAV file of format {form.codec} with {form.bits} bits cannot be read from "
            f"standard input; {cure}"
        )
    return form, start.length


@contextmanager
def microphone(device: str | None, sample_rate: int, inbox: Inbox) -> Iterator[str]:
    """Put what a microphone hears into an inbox while the block runs.

    Args:
        device: name, part of a name, or number; None takes the system's default.
        sample_rate: hertz of the samples that are put.
        inbox: receives the samples.

    Yields:
        The device's name.

    Raises:
        UnfreezeError: the library or the device is missing, or cannot be opened; the
            message names the cure and the available devices.
    """
    sounddevice = _library()
    wanted: Any = int(device) if device is not None and device.isdecimal() else device
    try:
        about = sounddevice.query_devices(wanted, "input")
        rate = _rate(sounddevice, wanted, sample_rate, int(about["default_samplerate"]))
        resample = resampler(rate, sample_rate)

        def hear(block: np.ndarray, count: int, time: Any, status: Any) -> None:
            inbox.put(resample(block[:, 0].copy(), False))

        stream = sounddevice.InputStream(
            samplerate=rate,
            blocksize=round(rate * _BLOCK),
            device=wanted,
            channels=1,
            dtype="float32",
            callback=hear,
            finished_callback=inbox.close,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        which = "no microphone was found" if device is None else f"no microphone {device!r}"
        raise UnfreezeError(f"{which}: {error}. {_devices(sounddevice)}") from None
    with stream:
        yield str(about["name"])


def _library() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise UnfreezeError(
            'a microphone needs the library sounddevice: pip install "unfreeze[live]". '
            "You can also pipe sound in: ... | unfreeze listen RUN -"
        ) from None
    except OSError as error:
        raise UnfreezeError(
            f"sounddevice cannot find PortAudio ({error}): install it, on Debian and Ubuntu with "
            f"apt install libportaudio2"
        ) from None
    return sounddevice


def _rate(sounddevice: Any, device: Any, wanted: int, default: int) -> int:
    """The model's own rate if the device supports it, else the device's."""
    try:
        sounddevice.check_input_settings(
            device=device, channels=1, dtype="float32", samplerate=wanted
        )
    except (sounddevice.PortAudioError, ValueError):
        return default
    return wanted


def _devices(sounddevice: Any) -> str:
    inputs = [
        f"{number} {about['name']}"
        for number, about in enumerate(sounddevice.query_devices())
        if about["max_input_channels"] > 0
    ]
    if not inputs:
        return "This machine has no sound input; you can pipe sound in: ... | unfreeze listen RUN -"
    return f"Choose one with --device, by name or number: {', '.join(inputs)}"
