"""FLAC files: the length that the header states, and the one that the frames show.

A FLAC file states its number of samples once, in its first block; decoders stop there, and
fail where there are fewer. Each frame states its own place, so the last one shows the true
number without any decoding. A frame is believed when the one before it ends where it
begins: bytes that only look like a frame do not.
Layout: RFC 9639.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MAGIC = b"fLaC"
_STREAMINFO_BYTES = 34
# The number of samples: 36 bits, which end at this byte of a file.
_TOTAL_AT, _TOTAL_BITS = 18, 36
_MOST_BLOCKS = 1024
# Bytes at the end of a file in which frames are looked for, and at most.
_WINDOW, _MOST_WINDOW = 1 << 17, 1 << 23
# A frame begins with 14 bits of a pattern, a zero, and the kind of its number.
_SYNC = re.compile(rb"\xff[\xf8\xf9]", re.DOTALL)
_FRAME_HEAD = 16


def _crc8_table() -> bytes:
    table = bytearray()
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
        table.append(crc)
    return bytes(table)


_CRC8 = _crc8_table()


@dataclass(frozen=True)
class FlacLength:
    """The lengths of a FLAC file, in samples per channel.

    Attributes:
        stated: by the header; 0 where it does not say.
        found: by the last frame; None where no frame can be trusted.
    """

    stated: int
    found: int | None


def flac_length(file: BinaryIO) -> FlacLength | None:
    """Read the lengths of a FLAC file.

    Args:
        file: open for reading bytes; its position is moved.

    Returns:
        The lengths; None for a file that does not begin as FLAC does.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(8 + _STREAMINFO_BYTES)
    if len(head) < 8 + _STREAMINFO_BYTES or head[:4] != _MAGIC or head[4] & 0x7F:
        return None
    first = _first_frame(file)
    info = head[8:]
    stated = int.from_bytes(info[10:18], "big") & ((1 << _TOTAL_BITS) - 1)
    if first is None:
        return FlacLength(stated, None)
    size = file.seek(0, 2)
    largest_block = int.from_bytes(info[2:4], "big")
    largest_frame = int.from_bytes(info[7:10], "big")
    start = max(first, size - min(max(_WINDOW, 4 * largest_frame), _MOST_WINDOW))
    file.seek(start)
    ends: set[int] = {0} if start == first else set()
    found = None
    for place, length in _frames(file.read(size - start), largest_block):
        if place in ends:
            found = place + length
        ends.add(place + length)
    return FlacLength(stated, found)


def with_total(head: bytes, total: int) -> bytes:
    """Return the first bytes of a FLAC file with another number of samples.

    Args:
        head: the first bytes, 26 or more.
        total: samples per channel; 0 is "unknown".
    """
    end = _TOTAL_AT + 8
    numbers = int.from_bytes(head[_TOTAL_AT:end], "big")
    numbers = numbers >> _TOTAL_BITS << _TOTAL_BITS | total
    return head[:_TOTAL_AT] + numbers.to_bytes(8, "big") + head[end:]


def _first_frame(file: BinaryIO) -> int | None:
    """Where the first frame begins: after the blocks of metadata."""
    at = len(_MAGIC)
    for _ in range(_MOST_BLOCKS):
        file.seek(at)
        block = file.read(4)
        if len(block) < 4:
            return None
        at += 4 + int.from_bytes(block[1:], "big")
        if block[0] & 0x80:
            return at
    return None


def _frames(content: bytes, block: int) -> Iterator[tuple[int, int]]:
    """Yield the first sample and the number of samples of what looks like a frame.

    Args:
        content: bytes of the file, from any place.
        block: samples of a frame, where frames and not samples are numbered.
    """
    for match in _SYNC.finditer(content):
        head = content[match.start() : match.start() + _FRAME_HEAD]
        number, at = _coded_number(head)
        if number is None or head[2] >> 4 == 0 or head[2] & 0x0F == 0x0F or head[3] & 1:
            continue
        size, at = _block_size(head, at)
        at += (0, 1, 2, 2)[max((head[2] & 0x0F) - 11, 0)]
        if len(head) <= at or _crc8(head[:at]) != head[at]:
            continue
        yield (number if head[1] & 1 else number * block), size


def _coded_number(head: bytes) -> tuple[int | None, int]:
    """The number of a frame, coded as UTF-8 codes a character, and the place after it."""
    if len(head) < 6:
        return None, 0
    lead = head[4]
    if lead < 0x80:
        return lead, 5
    more = 0
    while more < 7 and lead & (0x40 >> more):
        more += 1
    rest = head[5 : 5 + more]
    if not 1 <= more <= 6 or len(rest) < more or any(byte & 0xC0 != 0x80 for byte in rest):
        return None, 0
    number = lead & (0x3F >> more)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, 5 + more


def _block_size(head: bytes, at: int) -> tuple[int, int]:
    """The samples of a frame, and the place after their number."""
    code = head[2] >> 4
    if code == 1:
        return 192, at
    if code <= 5:
        return 576 << (code - 2), at
    if code <= 7:
        count = code - 5
        return int.from_bytes(head[at : at + count], "big") + 1, at + count
    return 256 << (code - 8), at


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc = _CRC8[crc ^ byte]
    return crc
