"""Plain samples in a WAV file, 8 or 16 bits, read without libsndfile.

Most training data are of this kind. One look at the bytes serves for the hash
and for the samples, in a third of libsndfile's time; the values are the same,
to the bit. Whatever is odd about a header is left to libsndfile.
"""

import struct

import numpy as np

from unfreeze.audio.wav import WavHeader

_PCM = 1
# libsndfile takes no more.
_MOST_CHANNELS = 1024


def plain_reader(content: bytes, header: WavHeader) -> "PcmReader | None":
    """Open plain samples where nothing about them is unusual.

    Args:
        content: the whole file.
        header: from `read_wav_header`.

    Returns:
        The reader; None for other codecs and widths, for a file without its
        last bytes or its length, and for numbers that do not fit together.
    """
    if not header.sized or header.kept < 1 or len(header.fmt) < 16:
        return None
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", header.fmt[:16])
    length = header.data_end - header.data_start
    if tag != _PCM or bits not in (8, 16) or not 1 <= channels <= _MOST_CHANNELS:
        return None
    if align != channels * bits // 8 or length % align:
        return None
    kind = np.dtype("u1" if bits == 8 else "<i2")
    samples = np.frombuffer(content, kind, length // kind.itemsize, header.data_start)
    return PcmReader(samples.reshape(-1, channels), rate)


class PcmReader:
    """Reads forwards, as the part of `soundfile.SoundFile` that is needed here.

    Args:
        samples: (frames, channels) uint8 or int16.
        sample_rate: hertz.
    """

    format = "WAV"

    def __init__(self, samples: np.ndarray, sample_rate: int) -> None:
        self._samples, self._at = samples, 0
        self.samplerate = sample_rate
        self.frames, self.channels = samples.shape
        self.subtype = "PCM_U8" if samples.dtype.itemsize == 1 else "PCM_16"

    def read(self, out: np.ndarray) -> np.ndarray:
        """Fill (samples, channels) float32, in [-1, 1); return the part filled."""
        samples = self._samples[self._at : self._at + len(out)]
        self._at += len(samples)
        result = out[: len(samples)]
        if self.subtype == "PCM_16":
            np.multiply(samples, np.float32(1 / 32768), out=result)
        else:
            np.subtract(samples, np.float32(128), out=result)
            result *= np.float32(1 / 128)
        return result

    def close(self) -> None:
        """Do nothing: there is no file behind it."""
