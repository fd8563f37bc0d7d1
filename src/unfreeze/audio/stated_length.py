"""Sound files whose header states a wrong length, shown to libsndfile with a right one.

libsndfile believes a length that is too small, and fails at some that are too large. Where
the bytes of a file contradict its header (WAV with its forms of 64 bits, AIFF, CAF, AU, FLAC,
MP3), it gets to see a file of the same samples with a header that is right. Nothing is copied or
written: the new header stands before the samples of the file itself.
"""

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from unfreeze.audio.chunks import others_follow, samples_end
from unfreeze.audio.flac import flac_length, with_total
from unfreeze.audio.mp3 import frame_of_numbers, mp3_length, with_numbers
from unfreeze.audio.wav import WavHeader

# Longer lengths have no place in a header of 32 bits.
_LONGEST = 0xFFFFFFFF
# What an AIFF file may have before its samples: pictures, too.
_MOST_BEFORE = 1 << 20
_MOST_CHUNKS = 256
# Frames of MP3 that a number may be wrong by, and the part of them: some count their own.
_FEW_FRAMES, _FEW = 2, 0.01
# Of FLAC, the part that states the length.
_FLAC_HEAD = 26


@dataclass(frozen=True)
class View:
    """A file as it is shown: a header of our own, then a part of the file.

    Attributes:
        head: what stands first.
        start: the part's place in the file.
        end: where it ends.
    """

    head: bytes
    start: int
    end: int


@dataclass(frozen=True)
class Misstated:
    """A header that states a wrong length.

    Attributes:
        view: the file with a right one.
        stated: the length by the header, in the same unit as `real`: bytes or samples.
        real: the length that was found (in MP3: frames); None where only decoding can tell.
        whole: whether the file itself shows that its end is there.
    """

    view: View
    stated: int
    real: int | None
    whole: bool

    def stated_samples(self, samples: int) -> int:
        """The header's length in samples, where libsndfile counts so many in the view."""
        if not self.real:
            return self.stated
        return self.stated * samples // self.real


def find_misstated(file: BinaryIO, head: bytes, wav: WavHeader | None) -> Misstated | None:
    """Compare the length that a header states with the bytes that are there.

    Args:
        file: open for reading bytes; its position is moved.
        head: its first bytes, 64 or more where it has them.
        wav: the header of a WAV file.

    Returns:
        What is wrong; None where nothing is, or where the format is another one.

    Raises:
        OSError: the file cannot be read.
    """
    if wav is not None:
        return _wav(head, wav)
    if head.startswith(b"fLaC"):
        return _flac(file)
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(file, head)
    if head.startswith(b"caff"):
        return _caf(file)
    if head.startswith(b".snd"):
        return _au(file, head)
    if head.startswith((b"ID3", b"\xff")):
        return _mp3(file)
    return None


def _wav(head: bytes, wav: WavHeader) -> Misstated | None:
    if (wav.right and not head.startswith(b"BW64")) or wav.data_end == wav.data_start:
        return None
    real = wav.data_end - wav.data_start
    fmt = b"fmt " + struct.pack("<I", len(wav.fmt)) + wav.fmt + b"\0" * (len(wav.fmt) & 1)
    # The length of RIFF counts what comes after it, and a pad byte.
    whole = 4 + len(fmt) + 8 + real + (real & 1)
    if whole <= _LONGEST:
        new = b"RIFF" + struct.pack("<I", whole) + b"WAVE" + fmt + b"data" + struct.pack("<I", real)
    else:
        frame = max(wav.format.frame_bytes, 1)
        lengths = struct.pack("<IQQQI", 28, whole + 36, real, real // frame, 0)
        unknown = b"\xff\xff\xff\xff"
        new = b"RF64" + unknown + b"WAVEds64" + lengths + fmt + b"data" + unknown
    view = View(new, wav.data_start, wav.data_end)
    return Misstated(view, wav.written, real, wav.closed or not wav.sized)


def _flac(file: BinaryIO) -> Misstated | None:
    length = flac_length(file)
    if length is None or length.stated in (0, length.found):
        # 0 is how FLAC says "unknown", and libsndfile reads on to the end.
        return None
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = with_total(file.read(_FLAC_HEAD), length.found or 0)
    view = View(head, len(head), size)
    return Misstated(view, length.stated, length.found, length.found is not None)


def _aiff(file: BinaryIO, head: bytes) -> Misstated | None:
    size = file.seek(0, os.SEEK_END)
    at = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        chunk = file.read(8)
        if len(chunk) < 8 or at > _MOST_BEFORE:
            return None
        (length,) = struct.unpack(">I", chunk[4:])
        if chunk[:4] == b"SSND":
            break
        at += 8 + length + (length & 1)
    else:
        return None
    first = at + 8
    end = first + length
    if end <= size and length >= 8 and others_follow(file, end + (length & 1), size, ">I"):
        return None
    end = samples_end(file, first, size, ">I")
    real = end - first
    # Place and size of a block stand before the samples.
    if real <= 8 or real > _LONGEST:
        return None
    file.seek(12)
    before = file.read(at - 12)
    whole = 4 + len(before) + 8 + real + (real & 1)
    new = b"FORM" + struct.pack(">I", min(whole, _LONGEST)) + head[8:12] + before
    new += b"SSND" + struct.pack(">I", real)
    closed = -1 <= int.from_bytes(head[4:8], "big") + 8 - size <= 1 or size - end > 1
    return Misstated(View(new, first, end), max(length - 8, 0), real - 8, closed)


def _caf(file: BinaryIO) -> Misstated | None:
    size = file.seek(0, os.SEEK_END)
    at, plain = 8, False
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        chunk = file.read(12)
        if len(chunk) < 12 or at > _MOST_BEFORE:
            return None
        (length,) = struct.unpack(">q", chunk[4:])
        if chunk[:4] == b"data":
            break
        if chunk[:4] == b"desc":
            plain = file.read(12)[8:] in (b"lpcm", b"alaw", b"ulaw")
        if length < 0:
            return None
        at += 12 + length
    else:
        return None
    first = at + 12
    end = first + length
    # Of other codecs, tables behind the samples belong to them.
    if not plain or (length >= 4 and end <= size and others_follow(file, end, size, ">q")):
        return None
    end = samples_end(file, first, size, ">q")
    real = end - first
    # The number of edits stands before the samples.
    if real <= 4:
        return None
    file.seek(0)
    new = file.read(at + 4) + struct.pack(">q", real)
    # -1 is how CAF says "to the end of the file".
    unknown = length == -1
    stated = real - 4 if unknown else max(length - 4, 0)
    return Misstated(View(new, first, end), stated, real - 4, size - end > 1)


def _au(file: BinaryIO, head: bytes) -> Misstated | None:
    size = file.seek(0, os.SEEK_END)
    if len(head) < 24:
        return None
    first, length = struct.unpack(">II", head[4:12])
    real = size - first
    # It has no chunks, and a length of its own for "unknown".
    if not 24 <= first < size or length in (real, _LONGEST) or real >= _LONGEST:
        return None
    new = head[:8] + struct.pack(">I", real) + head[12:24]
    return Misstated(View(new, 24, size), length, real, whole=False)


def _mp3(file: BinaryIO) -> Misstated | None:
    size = file.seek(0, os.SEEK_END)
    length = mp3_length(file, size)
    if length is None or not length.found:
        return None
    first, found, stated = length.first, length.found, length.stated
    if stated is not None and length.numbers is not None:
        if abs(stated - found) <= max(_FEW_FRAMES, _FEW * found):
            return None
        file.seek(first)
        head = file.read(length.numbers + 16 - first)
        new = with_numbers(head, length.numbers - first, found, size - first)
        return Misstated(View(new, first + len(new), size), stated, found, length.whole)
    if length.numbers is not None or not length.varies:
        # Of frames that are all alike, the first tells the length of all.
        return None
    file.seek(first)
    new = frame_of_numbers(file.read(4), found, size - first)
    return Misstated(View(new, first, size), found, found, length.whole)


class ViewedFile(io.RawIOBase):
    """Reads a `View` as if it were a file.

    Args:
        path: the file behind it.
        view: what to show of it.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, view: View) -> None:
        self._file = path.open("rb", buffering=0)
        self._view, self._at = view, 0
        self._size = len(view.head) + view.end - view.start

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from any place."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the place of the next byte."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fill a buffer as far as there are bytes; return their number."""
        target = memoryview(buffer).cast("B")
        head, done = self._view.head, 0
        if self._at < len(head):
            done = min(len(target), len(head) - self._at)
            target[:done] = head[self._at : self._at + done]
        count = min(len(target), self._size - self._at) - done
        if count > 0:
            self._file.seek(self._view.start + self._at + done - len(head))
            while count > 0 and (read := self._file.readinto(target[done : done + count])):
                done, count = done + read, count - read
        self._at += done
        return done

    def close(self) -> None:
        """Close the file behind it."""
        self._file.close()
        super().close()
