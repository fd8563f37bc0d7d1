"""Sound files to mono waveforms at the model's sample rate.

Files are read forwards in blocks, channels mixed, and resampled block by block.
Invariants: memory does not grow with the length of a recording, and the pieces together
equal the whole, to the bit. A file that ends early gives the samples it has;
`unfreeze.audio.rules` judges how much is missing.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from unfreeze.audio.ffmpeg_reader import FfmpegError
from unfreeze.audio.hearing import HIGHEST_HEARD
from unfreeze.audio.sound_file import (
    LARGEST_SAMPLE,
    NOT_FINITE,
    Sound,
    SoundError,
    check_length,
    open_sound,
    said,
)

# Values (samples times channels) read at once: 8 MiB.
BLOCK = 1 << 21
# Samples read at once from a damaged file, to lose little before the damage.
_READ_STEP = 1024

# Samples resampled at once: soxr's work space then stays in the cache (a tenth
# faster than a megabyte at once).
_RESAMPLE_STEP = 1 << 14
# Source rates whose filters are kept; few data sets have more than three.
_RATES = 8


def mono_blocks(sound: Sound, block: int = BLOCK) -> Iterator[np.ndarray]:
    """Read an open file to its end, or to the damage, channels mixed.

    Args:
        sound: from `open_sound`, not yet read.
        block: values (samples times channels) to read at once.

    Yields:
        (samples,) float32, never empty.

    Raises:
        SoundError: no sample can be decoded, or there are too many.
    """
    mixer = sound.mixer
    step = max(block // sound.channels, 1)
    if sound.channels > 1:
        # Whole sections, so that they are the same whatever is read at once.
        step = max(step // mixer.section, 1) * mixer.section
    for samples in in_sections(_blocks(sound, step), mixer.section, sound.channels):
        yield mixer.mix(samples)


def _blocks(sound: Sound, step: int) -> Iterator[np.ndarray]:
    done = 0
    try:
        while len(samples := _read(sound, min(step, sound.promised - done))):
            done += len(samples)
            check_length(sound, done, "it decodes to")
            yield samples
    except soundfile.SoundFileError as error:
        # The failed read is lost, with all that was good in it.
        rest = list(_before_damage(sound.path, done))
        if not rest and not done:
            raise SoundError(sound.path, "unreadable", f"libsndfile: {said(error)}") from error
        yield from rest
    except FfmpegError as error:
        cause = f"it is decoded by ffmpeg, but {error}; export it again"
        raise SoundError(sound.path, "harmful", cause) from error


def _read(sound: Sound, samples: int) -> np.ndarray:
    buffer = np.empty((samples, sound.channels), dtype=np.float32)
    return sound.file.read(out=buffer) if samples else buffer


def in_sections(blocks: Iterator[np.ndarray], section: int, channels: int) -> Iterator[np.ndarray]:
    """Cut at the ends of sections what comes in other pieces, as before damage.

    Args:
        blocks: (n, channels) each.
        section: samples of a section, as `Mixer` has it.
        channels: their number; one needs no cuts.

    Yields:
        (n, channels): whole sections, except for the last.
    """
    waiting: list[np.ndarray] = []
    length = 0
    for block in blocks:
        if channels == 1 or (not waiting and not len(block) % section):
            yield block
            continue
        waiting.append(block)
        length += len(block)
        if length >= section:
            together = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            whole = length // section * section
            yield together[:whole]
            waiting = [together[whole:]] if whole < length else []
            length -= whole
    if waiting:
        yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)


def _before_damage(path: Path, skip: int) -> Iterator[np.ndarray]:
    """Yield the samples from `skip` up to where decoding fails."""
    with open_sound(path) as sound:
        done = 0
        try:
            while len(samples := _read(sound, min(_READ_STEP, sound.promised - done))):
                rest = samples[max(skip - done, 0) :]
                done += len(samples)
                if len(rest):
                    yield rest
        except soundfile.SoundFileError:
            return


def decode(path: str | Path, sample_rate: int = 16_000) -> np.ndarray:
    """Read a whole sound file as one mono waveform.

    Channels are averaged; where they cancel each other, the louder one is taken
    (`unfreeze.audio.mixing`). Resampling is the "high quality" of soxr (the SoX
    Resampler library, R. Sykes). Peaks above 1, as MP3 and resampling make them,
    are kept: clipping would add distortion.

    Args:
        path: any file that libsndfile reads; its extension does not matter.
        sample_rate: hertz of the result.

    Returns:
        (samples,) float32, nominally in [-1, 1]. A truncated file gives the
        samples that it has.

    Raises:
        SoundError: (a DataError) the file is missing, is not sound, has no samples,
            or has samples that are NaN, infinite or beyond 1e12.

    Examples:
        >>> import tempfile, pathlib, numpy, soundfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "tone.wav"
        >>> soundfile.write(path, numpy.zeros((8000, 2)), 8000)
        >>> decode(path).shape
        (16000,)
    """
    blocks = list(decode_blocks(path, sample_rate))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def decode_blocks(
    path: str | Path, sample_rate: int = 16_000, *, block: int = BLOCK
) -> Iterator[np.ndarray]:
    """Read a sound file as `decode` does, piece by piece.

    Args:
        path: any file that libsndfile reads.
        sample_rate: hertz of the result.
        block: values (samples times channels) to read at once.

    Yields:
        (samples,) float32 pieces of any length, not all of them empty; together
        exactly what `decode` returns.

    Raises:
        SoundError: as `decode`, when reading reaches the damage.
    """
    with open_sound(Path(path)) as sound:
        yield from waveform_blocks(sound, Resampler(sample_rate), block=block)


class Resampler:
    """Resamples one sound after another to one rate.

    It keeps soxr's filters of the last few rates, because designing them takes as
    long as resampling half a second of sound. One thread at a time may use it.

    Args:
        sample_rate: hertz of the results.
        channel: of sounds with several, the one to take, counted from 1; 0 mixes them.
        hears: the upper edge of what the network hears, hertz; for what is said of sounds.
    """

    def __init__(self, sample_rate: int, channel: int = 0, hears: float = HIGHEST_HEARD) -> None:
        self.sample_rate, self.channel, self.hears = sample_rate, channel, hears
        self._streams: dict[int, soxr.ResampleStream] = {}

    def stream(self, source_rate: int) -> soxr.ResampleStream:
        """Return a stream at its start; the one returned before must not be used any more.

        Args:
            source_rate: hertz of what goes in.
        """
        stream = self._streams.pop(source_rate, None)
        if stream is None:
            if len(self._streams) == _RATES:
                del self._streams[next(iter(self._streams))]
            stream = soxr.ResampleStream(source_rate, self.sample_rate, 1, dtype="float32")
        else:
            stream.clear()
        self._streams[source_rate] = stream
        return stream


def waveform_blocks(
    sound: Sound,
    resampler: Resampler,
    *,
    block: int = BLOCK,
    watch: Callable[[np.ndarray], None] | None = None,
) -> Iterator[np.ndarray]:
    """Read an open file as `decode_blocks` does.

    Args:
        sound: from `open_sound`, not yet read.
        resampler: to the wanted rate; in use until the last piece.
        block: values (samples times channels) to read at once.
        watch: called with each block, mono and at the file's rate.

    Yields:
        As `decode_blocks`.

    Raises:
        SoundError: as `decode_blocks`, except for what `open_sound` refuses.
    """
    sample_rate, stream = resampler.sample_rate, None
    if sound.sample_rate != sample_rate:
        stream = resampler.stream(sound.sample_rate)
    read = written = 0
    for mono, last in _mark_last(mono_blocks(sound, block)):
        # With a NaN neither comparison holds.
        if not (mono.min() >= -LARGEST_SAMPLE and mono.max() <= LARGEST_SAMPLE):
            raise SoundError(sound.path, "non_finite", NOT_FINITE)
        read += len(mono)
        if watch is not None:
            watch(mono)
        if stream is None:
            yield mono
            continue
        piece = _resample(stream, mono, last)
        if last:
            piece = _fit(piece, resampled_length(read, sound.sample_rate, sample_rate), written)
        written += len(piece)
        yield piece
    if read == 0:
        raise SoundError(sound.path, "empty", "it holds no samples")


def _resample(stream: soxr.ResampleStream, mono: np.ndarray, last: bool) -> np.ndarray:
    pieces = [
        stream.resample_chunk(
            mono[at : at + _RESAMPLE_STEP], last=last and at + _RESAMPLE_STEP >= len(mono)
        )
        for at in range(0, len(mono), _RESAMPLE_STEP)
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def resampled_length(samples: int, source_rate: int, target_rate: int) -> int:
    """Return the number of samples after resampling, at least 1.

    Args:
        samples: length before, 1 or more.
        source_rate: hertz before.
        target_rate: hertz after.
    """
    if source_rate == target_rate:
        return samples
    return max((2 * samples * target_rate + source_rate) // (2 * source_rate), 1)


def _mark_last(blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    previous: np.ndarray | None = None
    for block in blocks:
        if previous is not None:
            yield previous, False
        previous = block
    if previous is not None:
        yield previous, True


def _fit(piece: np.ndarray, total: int, written: int) -> np.ndarray:
    # soxr rounds very short lengths its own way; the feature store must know
    # each length before it decodes.
    wanted = max(total - written, 0)
    if len(piece) >= wanted:
        return piece[:wanted]
    return np.pad(piece, (0, wanted - len(piece)))
