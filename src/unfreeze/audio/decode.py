"""Sound files to mono waveforms at the model's sample rate.

Decoding and resampling go block by block, so a caller that needs only pieces
keeps its memory flat; the pieces together equal the whole, to the bit.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr

from unfreeze.audio.limits import LARGEST_SAMPLE
from unfreeze.audio.mono import BLOCK, mono_blocks
from unfreeze.audio.sound import NOT_FINITE, Sound, SoundError, open_sound

# Samples resampled at once: soxr's work space then stays in the cache (a tenth
# faster than a megabyte at once).
_STEP = 1 << 14
# Source rates whose filters are kept; few data sets have more than three.
_RATES = 8


def decode(path: str | Path, sample_rate: int = 16_000) -> np.ndarray:
    """Read a whole sound file as one mono waveform.

    Channels are averaged. Resampling is the "high quality" of soxr (the SoX
    Resampler library, R. Sykes). Peaks above 1, as MP3 and resampling make them,
    are kept: clipping would add distortion.

    Args:
        path: any file that libsndfile reads; its ending does not matter.
        sample_rate: hertz of the result.

    Returns:
        (samples,) float32, nominally in [-1, 1]. A truncated file gives the
        samples that it has.

    Raises:
        SoundError: (a DataError) the file is missing, no sound, without any
            sample, or has samples that are NaN, infinite or beyond 1e12.

    Example:
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
        (samples,) float32 pieces of any length, never all empty; together
        exactly what `decode` returns.

    Raises:
        SoundError: as `decode`, when the damage is reached.
    """
    with open_sound(Path(path)) as sound:
        yield from waveform_blocks(sound, Resampler(sample_rate), block=block)


class Resampler:
    """Resamples one sound after another to one rate.

    It keeps soxr's filters of the last few rates: to design them takes as long
    as to resample half a second of sound. One thread at a time may use it.

    Args:
        sample_rate: hertz of the results.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._streams: dict[int, soxr.ResampleStream] = {}

    def stream(self, source_rate: int) -> soxr.ResampleStream:
        """Return a stream at its start; it ends the one before.

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
    sound: Sound, resampler: Resampler, *, block: int = BLOCK
) -> Iterator[np.ndarray]:
    """Read an open file as `decode_blocks` does.

    Args:
        sound: from `open_sound`, not yet read.
        resampler: to the wanted rate; in use until the last piece.
        block: values (samples times channels) to read at once.

    Yields:
        As `decode_blocks`.

    Raises:
        SoundError: as `decode_blocks`, but for what `open_sound` refuses.
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
        stream.resample_chunk(mono[at : at + _STEP], last=last and at + _STEP >= len(mono))
        for at in range(0, len(mono), _STEP)
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def resampled_length(samples: int, source_rate: int, target_rate: int) -> int:
    """Return the samples of a waveform after resampling, at least 1.

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
