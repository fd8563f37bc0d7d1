"""WAV files: one parser of their headers, and plain samples read without libsndfile.

The parser only goes forwards, so it works for files and pipes, and reads no sample. It
shows what libsndfile does not: that a file is shorter or longer than its header says, and
MP3 frames inside a WAV file. Most training clips are plain 8-bit or 16-bit WAV files: reading
their bytes once gives the hash and the samples, in a third of libsndfile's time and with
values equal to the bit. libsndfile reads files with an unusual header.
Layout: Microsoft/IBM "Multimedia Programming Interface and Data Specifications 1.0"
(1991); RF64 and BW64, whose lengths have 64 bits: EBU Tech 3306 and ITU-R BS.2088.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from unfreeze.audio.chunks import others_follow, samples_end
from unfreeze.errors import DataError

PCM, FLOAT = 1, 3
# Codec numbers of MPEG audio (layer 2) and of MP3 (registered in RFC 2361).
_MPEG_CODECS = (0x0050, 0x0055)
_EXTENSIBLE = 0xFFFE
# Writers to a pipe cannot know the length: they leave 0 or about 2 or 4 GiB.
_UNKNOWN_LENGTH = 0x7FFFF000
# A real file has a dozen; a malicious one could have millions of empty chunks.
_MOST_CHUNKS = 4096
# A format needs the first; no codec has more than the second.
_FMT_BYTES, _MOST_FMT_BYTES = 16, 512
# The first four bytes; the last two have lengths of 64 bits in a chunk of their own.
WAV_NAMES = (b"RIFF", b"RF64", b"BW64")
_SEE_DS64 = 0xFFFFFFFF
# libsndfile accepts no more.
_MOST_CHANNELS = 1024
# (codec, bits) -> how numpy reads a sample, and what full scale is.
_KINDS: dict[tuple[int, int], tuple[str, float]] = {
    (PCM, 8): ("u1", 128.0),
    (PCM, 16): ("<i2", 32768.0),
    (PCM, 24): ("<i4", 2147483648.0),
    (PCM, 32): ("<i4", 2147483648.0),
    (FLOAT, 32): ("<f4", 1.0),
    (FLOAT, 64): ("<f8", 1.0),
}


class WavError(DataError):
    """A WAV header that cannot be used; the message is a clause that begins with "it"."""


@dataclass(frozen=True)
class WavFormat:
    """What the `fmt ` chunk says.

    Attributes:
        codec: 1 is PCM, 3 is floats, 0x55 is MP3; of the extensible form the one inside.
        channels: as written, 0 too.
        sample_rate: hertz, as written.
        frame_bytes: bytes of one sample of all channels, as written.
        bits: of a sample of one channel, as written.
        extensible: whether it has the extensible form.
    """

    codec: int
    channels: int
    sample_rate: int
    frame_bytes: int
    bits: int
    extensible: bool = False

    @property
    def holds_mpeg(self) -> bool:
        """True when the samples are MPEG frames (such as MP3)."""
        return self.codec in _MPEG_CODECS


@dataclass(frozen=True)
class WavStart:
    """What comes before the first sample.

    Attributes:
        format: of the samples.
        data_start: where they begin, bytes from the start of the file.
        length: their bytes; None where the header does not say.
        written: their bytes as written, also where that means "unknown".
        fmt: the content of the `fmt ` chunk.
    """

    format: WavFormat
    data_start: int
    length: int | None
    written: int = field(default=0, compare=False)
    fmt: bytes = field(default=b"", compare=False)


@dataclass(frozen=True)
class WavHeader:
    """What the chunks of a WAV file say, compared with its size.

    Attributes:
        format: of the samples.
        data_start: where they begin, bytes from the start of the file.
        data_end: where they really end, at most the size of the file.
        kept: the share of the promised bytes that is there, 0 to 1; 1 where
            the header does not say.
        trailing: True when other chunks follow the samples.
        sized: True when the header gives the length of the samples.
        written: the bytes of the samples as written.
        right: True when the samples end where the header says.
        closed: True when the file's own length is right, or chunks end it: nothing is
            missing at its end.
        fmt: the content of the `fmt ` chunk.
    """

    format: WavFormat
    data_start: int
    data_end: int
    kept: float
    trailing: bool
    sized: bool
    written: int
    right: bool
    closed: bool
    fmt: bytes


def read_wav_start(read: Callable[[int], bytes], skip: Callable[[int], object]) -> WavStart:
    """Read a WAV file, or a pipe, forwards up to its first sample.

    Args:
        read: returns that many bytes; fewer only at the end.
        skip: skips that many bytes, or to the end.

    Raises:
        WavError: it is not a WAV file, or its header cannot be used.
    """
    head = read(12)
    if head[:4] not in WAV_NAMES or head[8:12] != b"WAVE":
        begins = (
            "begins like a WAV file but is not one"
            if head[:4] in WAV_NAMES
            else "is not a WAV file"
        )
        raise WavError(f"it {begins}")
    form: WavFormat | None = None
    fmt, long_length = b"", None
    position = 12
    for _ in range(_MOST_CHUNKS):
        chunk = read(8)
        if len(chunk) < 8:
            raise WavError("it ends before its samples")
        name, length = struct.unpack("<4sI", chunk)
        position += 8
        if name == b"data":
            if form is None:
                raise WavError("it does not say its format before its samples")
            if long_length is not None and length == _SEE_DS64:
                sized, length = long_length > 0, long_length
            else:
                sized = 0 < length < _UNKNOWN_LENGTH
            return WavStart(form, position, length if sized else None, length, fmt)
        taken = b""
        if name == b"fmt ":
            taken = fmt = read(min(length, _MOST_FMT_BYTES))
            form = _format(taken, length)
        elif name == b"ds64" and head[:4] != b"RIFF" and length >= 16:
            taken = read(16)
            long_length = int.from_bytes(taken[8:], "little")
        # Chunks are padded to an even length.
        padded = length + (length & 1)
        skip(padded - len(taken))
        position += padded
    raise WavError(f"it has more than {_MOST_CHUNKS:,} chunks before its samples")


def read_wav_header(file: BinaryIO) -> WavHeader | None:
    """Read the chunk list of a WAV file.

    Args:
        file: any file, open for reading bytes; its position is moved.

    Returns:
        What the chunks say; None for a file that is not WAV or whose header cannot
        be used.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    try:
        start = read_wav_start(file.read, lambda count: file.seek(count, os.SEEK_CUR))
    except WavError:
        return None
    size = file.seek(0, os.SEEK_END)
    first, length = start.data_start, start.length
    stated = first + start.written
    end = _data_end(file, start, size)
    file.seek(4)
    whole = int.from_bytes(file.read(4), "little") + 8
    return WavHeader(
        format=start.format,
        data_start=first,
        data_end=end,
        kept=1.0 if length is None else min((end - first) / length, 1.0),
        trailing=length is not None and size > end + ((end - first) & 1),
        sized=length is not None,
        written=start.written,
        right=end == stated,
        closed=-1 <= whole - size <= 1 or size - end > 1,
        fmt=start.fmt,
    )


def _data_end(file: BinaryIO, start: WavStart, size: int) -> int:
    """Where the samples really end."""
    first, length = start.data_start, start.written
    frame = start.format.frame_bytes if start.format.codec in (PCM, FLOAT) else 1
    frame = frame if 0 < frame <= _MOST_CHANNELS * 8 else 1
    end = first + length
    if first <= end <= size:
        padded = end + (length & 1)
        if others_follow(file, padded, size) or others_follow(file, end, size):
            # Samples that are whole only with the next few bytes: the length is short by them.
            more = [place for place in (padded, size) if 0 < place - end < frame]
            whole = [place for place in more if length % frame and not (place - first) % frame]
            return whole[0] if whole else end
    end = samples_end(file, first, size)
    if end - first < frame:
        return first
    # Not a part of a sample, where bytes are missing at the end.
    return end - (end - first) % frame


def _format(content: bytes, length: int) -> WavFormat:
    if length < _FMT_BYTES:
        raise WavError(f"its `fmt ` chunk has {length} bytes; a format needs {_FMT_BYTES}")
    if len(content) < _FMT_BYTES:
        raise WavError("it ends before its samples")
    codec, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", content[:_FMT_BYTES])
    extensible = codec == _EXTENSIBLE
    # The extensible form keeps the old number at the head of its GUID.
    if extensible and len(content) >= 26:
        codec = int.from_bytes(content[24:26], "little")
    return WavFormat(codec, channels, rate, frame_bytes, bits, extensible)


def is_readable(form: WavFormat) -> bool:
    """Whether `to_float` reads samples of this format."""
    return (form.codec, form.bits) in _KINDS and form.channels > 0


def to_float(data: bytes, form: WavFormat) -> np.ndarray:
    """Return stored samples as numbers.

    Args:
        data: whole samples.
        form: one that `is_readable`.

    Returns:
        (frames, channels) float32, nominally in [-1, 1].
    """
    kind, scale = _KINDS[form.codec, form.bits]
    if form.bits == 24:
        # The three bytes become the upper three of four.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = wide.view(kind)[:, 0]
    else:
        values = np.frombuffer(data, kind)
    samples = values.astype(np.float32)
    if kind == "u1":
        samples -= 128
    samples /= np.float32(scale)
    return samples.reshape(-1, form.channels)


def plain_reader(content: bytes, header: WavHeader) -> "PcmReader | None":
    """Open plain samples where nothing about them is unusual.

    Args:
        content: the whole file.
        header: from `read_wav_header`.

    Returns:
        The reader; None for other codecs and widths, for a file that is cut short or
        gives no length, and for numbers that contradict each other.
    """
    form = header.format
    if not header.sized or not header.right or form.extensible:
        return None
    length = header.data_end - header.data_start
    plain = form.codec == PCM and form.bits in (8, 16)
    if not plain or not 1 <= form.channels <= _MOST_CHANNELS:
        return None
    if form.frame_bytes != form.channels * form.bits // 8 or length % form.frame_bytes:
        return None
    kind = np.dtype(_KINDS[PCM, form.bits][0])
    samples = np.frombuffer(content, kind, length // kind.itemsize, header.data_start)
    return PcmReader(samples.reshape(-1, form.channels), form.sample_rate)


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
