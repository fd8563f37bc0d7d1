"""FLAC files of equal samples: hours of sound in a few kilobytes (RFC 9639).

A subframe may be constant: one value stands for up to 65,535 samples, so that a
frame of 14 bytes decodes to 128 kB. All checksums are right.
"""

from collections.abc import Sequence

_LONGEST = 65_535


def constant_flac(
    seconds: float,
    rate: int,
    *,
    channels: int = 1,
    frames: int | None = None,
    total: int | None = None,
    values: Sequence[int] = (0, 12_000, -9_000),
) -> bytes:
    """A FLAC file whose frames are constant, each of the next value in turn.

    Args:
        seconds: its length, rounded up to whole frames.
        rate: hertz.
        channels: 1 to 8.
        frames: their number, in place of `seconds`.
        total: samples that the header promises; 0 is "unknown", None the truth.
        values: 16-bit samples.
    """
    if frames is None:
        frames = -(-round(seconds * rate) // _LONGEST)
    parts = [flac_head(rate, channels, frames * _LONGEST if total is None else total)]
    for number in range(frames):
        parts.append(_frame(number, channels, values[number % len(values)]))
    return b"".join(parts)


def flac_head(rate: int, channels: int, total: int, more: bytes = b"") -> bytes:
    """The signature and the stream's description; `more` metadata may follow."""
    sizes = _LONGEST.to_bytes(2, "big") * 2 + bytes(6)
    numbers = rate << 44 | (channels - 1) << 41 | 15 << 36 | total
    info = sizes + numbers.to_bytes(8, "big") + bytes(16)
    return b"fLaC" + bytes([0 if more else 0x80, 0, 0, len(info)]) + info + more


def _frame(number: int, channels: int, value: int) -> bytes:
    # A fixed block size of 16 bits behind the number, the rate and the bits as in
    # the stream's description; then a constant subframe for each channel.
    head = b"\xff\xf8\x70" + bytes([(channels - 1) << 4]) + _coded(number)
    head += (_LONGEST - 1).to_bytes(2, "big")
    head += bytes([_sum(head, 8, 0x07)])
    body = head + (b"\0" + value.to_bytes(2, "big", signed=True)) * channels
    return body + _sum(body, 16, 0x8005).to_bytes(2, "big")


def _coded(number: int) -> bytes:
    """A number as UTF-8 codes it, for up to 31 bits."""
    if number < 0x80:
        return bytes([number])
    rest = []
    while number >= 1 << (6 - len(rest) if rest else 6):
        rest.append(0x80 | number & 0x3F)
        number >>= 6
    lead = (0xFF << (7 - len(rest))) & 0xFF
    return bytes([lead | number, *reversed(rest)])


def _table(bits: int, polynomial: int) -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc >> (bits - 1) & 1 else 0)) & (1 << bits) - 1
        table.append(crc)
    return table


_TABLES = {8: _table(8, 0x07), 16: _table(16, 0x8005)}


def _sum(content: bytes, bits: int, polynomial: int) -> int:
    table, crc = _TABLES[bits], 0
    for byte in content:
        crc = (crc << 8 & (1 << bits) - 1) ^ table[crc >> (bits - 8) ^ byte]
    return crc
