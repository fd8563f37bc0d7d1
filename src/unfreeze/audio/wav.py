"""The chunks of a WAV file: what libsndfile does not tell about it.

Only the header is read, never a sample. Used for two things: a file that ends
before the length its header promises, and MP3 frames inside a WAV container.
Layout: Microsoft/IBM "Multimedia Programming Interface and Data
Specifications 1.0" (1991).
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

# Codec numbers of MPEG audio (layer 2) and of MP3 (registered in RFC 2361).
_MPEG_CODECS = (0x0050, 0x0055)
_EXTENSIBLE = 0xFFFE
# Writers to a pipe cannot know the length: they leave 0 or about 2 or 4 GiB.
_UNKNOWN_LENGTH = 0x7FFFF000
# A real file has a dozen; a hostile one could have millions of empty chunks.
_MOST_CHUNKS = 4096


@dataclass(frozen=True)
class WavHeader:
    """What the chunks of a WAV file say.

    Attributes:
        codec: the format tag; 1 is PCM, 0x55 is MP3.
        data_start: where the samples begin, bytes from the start of the file.
        data_end: where they end, at most the size of the file.
        kept: the part of the promised bytes that is there, 0 to 1; 1 where
            the header does not know.
        trailing: True when other chunks follow the samples.
        fmt: the `fmt ` chunk, its first 40 bytes at most.
        sized: True when the header knows the length of the samples.
    """

    codec: int
    data_start: int
    data_end: int
    kept: float
    trailing: bool
    fmt: bytes
    sized: bool

    @property
    def holds_mpeg(self) -> bool:
        """True when the samples are MPEG frames (MP3 and its like)."""
        return self.codec in _MPEG_CODECS


def read_wav_header(file: BinaryIO) -> WavHeader | None:
    """Read the chunk list of a WAV file.

    Args:
        file: any file, open for reading bytes; its position is moved.

    Returns:
        What the chunks say; None for a file that is no WAV file or has no
        `fmt ` chunk before its `data` chunk.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    fmt = b""
    position = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, length = struct.unpack("<4sI", chunk)
        start = position + 8
        if name == b"fmt ":
            fmt = file.read(min(length, 40))
        if name == b"data":
            codec = _codec(fmt)
            size = file.seek(0, os.SEEK_END)
            return None if codec is None else _header(codec, fmt, start, length, size)
        # Chunks are padded to an even length.
        position = start + length + (length & 1)
    return None


def _codec(fmt: bytes) -> int | None:
    if len(fmt) < 2:
        return None
    codec = int.from_bytes(fmt[:2], "little")
    # The extensible form keeps the old number at the head of its GUID.
    if codec == _EXTENSIBLE and len(fmt) >= 26:
        codec = int.from_bytes(fmt[24:26], "little")
    return codec


def _header(codec: int, fmt: bytes, start: int, length: int, size: int) -> WavHeader:
    available = max(size - start, 0)
    if length == 0 or length >= _UNKNOWN_LENGTH:
        return WavHeader(codec, start, size, 1.0, trailing=False, fmt=fmt, sized=False)
    end = start + min(length, available)
    return WavHeader(
        codec=codec,
        data_start=start,
        data_end=end,
        kept=min(available / length, 1.0),
        trailing=size > end + (length & 1),
        fmt=fmt,
        sized=True,
    )
