"""MP3 files: the number of frames that the header states, and the one that is there.

An MP3 file is a row of frames. Some encoders put a frame before them that states their
number ("Xing" or "Info"); decoders believe it, and where there is none, they guess by the
first frame. So a number that is wrong, two files in one, or frames of unlike size without a
number lose sound. To count the frames costs a hundredth of decoding them.
Layout: ISO 11172-3, 2.4.1.3; the frame of numbers: Xing's VBR header.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from unfreeze.audio.sound_formats import mpeg_frame

# Bytes read at once; no frame is longer than the second.
_READ, _LONGEST = 1 << 20, 4096
# Places at which the row of frames may be broken.
_MOST_BREAKS = 1000
_TAG_HEAD = 10
# The two flags of the frame of numbers: frames and bytes are stated.
_FRAMES, _BYTES = 1, 2
_ROOM = 120


@dataclass(frozen=True)
class Mp3Length:
    """The frames of an MP3 file.

    Attributes:
        first: where the first frame begins, the one of numbers included.
        numbers: where that one's "Xing" or "Info" stands; None where there is none.
        stated: frames by their header; None where it does not say.
        found: frames that are there, without the one of numbers.
        varies: whether they are of unlike size.
        whole: whether the last one is whole: a file that was cut off ends within a frame.
    """

    first: int
    numbers: int | None
    stated: int | None
    found: int
    varies: bool
    whole: bool


def mp3_length(file: BinaryIO, size: int) -> Mp3Length | None:
    """Count the frames of an MP3 file.

    Args:
        file: open for reading bytes; its position is moved.
        size: bytes of the file.

    Returns:
        The frames; None for what does not begin as an MP3 file does.

    Raises:
        OSError: the file cannot be read.
    """
    first = _behind_tags(file, size)
    file.seek(first)
    head = file.read(_LONGEST)
    length = mpeg_frame(head[:8])
    # The third layer alone has such headers.
    if not length or head[1] >> 1 & 3 != 1 or not mpeg_frame(head[length : length + 8]):
        return None
    if head[36:40] == b"VBRI":
        return None
    at = 4 + side_bytes(head)
    numbers, stated = None, None
    if head[at : at + 4] in (b"Xing", b"Info") and len(head) >= at + 16:
        numbers = first + at
        if head[at + 7] & _FRAMES:
            stated = int.from_bytes(head[at + 8 : at + 12], "big")
    found, varies, whole = _count(file, first if numbers is None else first + length, size, head)
    return Mp3Length(first, numbers, stated, found, varies, whole)


def with_numbers(head: bytes, at: int, frames: int, size: int) -> bytes:
    """Return the frame of numbers with right ones.

    Args:
        head: from any place before it up to its numbers' end (16 bytes after `at`).
        at: where "Xing" or "Info" stands in `head`.
        frames: their number.
        size: bytes of all frames.
    """
    flags = head[at + 7]
    new = struct.pack(">I", frames) if flags & _FRAMES else b""
    new += struct.pack(">I", min(size, 0xFFFFFFFF)) if flags & _BYTES else b""
    return head[: at + 8] + new + head[at + 8 + len(new) :]


def frame_of_numbers(first: bytes, frames: int, size: int) -> bytes:
    """Make a frame of numbers for a file that has none.

    Args:
        first: the first four bytes of its first frame, and more.
        frames: their number.
        size: bytes of all frames.
    """
    at = 4 + side_bytes(first)
    # Without a checksum or padding, and at the lowest rate that has room.
    for rate in range(1, 15):
        head = bytes([0xFF, first[1] | 1, rate << 4 | first[2] & 0x0C, first[3]])
        length = mpeg_frame(head + bytes(4))
        if length >= at + _ROOM:
            break
    numbers = b"Xing" + struct.pack(">III", _FRAMES | _BYTES, frames, min(size, 0xFFFFFFFF))
    return (head + bytes(at - 4) + numbers).ljust(length, b"\0")


def side_bytes(head: bytes) -> int:
    """Bytes between a frame's header and its sound: by version and channels."""
    mono = head[3] >> 6 == 3
    if head[1] >> 3 & 3 == 3:
        return 17 if mono else 32
    return 9 if mono else 17


def _behind_tags(file: BinaryIO, size: int) -> int:
    at = 0
    for _ in range(_TAG_HEAD):
        file.seek(at)
        head = file.read(_TAG_HEAD)
        if head[:3] != b"ID3" or len(head) < _TAG_HEAD:
            break
        # Four times seven bits; a flag tells of a foot.
        length = 0
        for byte in head[6:]:
            length = length << 7 | byte & 0x7F
        at += _TAG_HEAD + length + (_TAG_HEAD if head[5] & 0x10 else 0)
    return min(at, size)


def _count(file: BinaryIO, at: int, size: int, head: bytes) -> tuple[int, bool, bool]:
    """Count frames like the first: their number, whether they vary, whether the last is whole."""
    lengths = _lengths(head)
    rates: set[int] = set()
    found = breaks = 0
    while size - at >= 4:
        file.seek(at)
        content = file.read(_READ)
        here, last = 0, len(content) - _LONGEST if at + len(content) < size else len(content) - 4
        while here <= last:
            length = lengths.get(content[here : here + 3], 0)
            if length:
                found += 1
                rates.add(content[here + 2] >> 4)
                here += length
                continue
            breaks += 1
            here = _next(content, here + 1, lengths)
            if breaks > _MOST_BREAKS:
                return found, len(rates) > 1, True
        at += max(here, 1)
    whole = at <= size
    return found if whole else found - 1, len(rates) > 1, whole


def _next(content: bytes, at: int, lengths: dict[bytes, int]) -> int:
    """The next place where a frame is followed by another one."""
    while (at := content.find(b"\xff", at)) >= 0:
        length = lengths.get(content[at : at + 3], 0)
        after = content[at + length : at + length + 3]
        if length and (after in lengths or at + length >= len(content)):
            return at
        at += 1
    return len(content)


def _lengths(head: bytes) -> dict[bytes, int]:
    """The length of each frame of the same version, layer and sample rate, by its head."""
    found = {}
    for check in (0, 1):
        for code in range(256):
            start = bytes([0xFF, head[1] & 0xFE | check, code])
            length = mpeg_frame(start + bytes(5)) if code & 0x0C == head[2] & 0x0C else 0
            if length:
                found[start] = length
    return found
