"""Files made of chunks: whether chunks follow the samples, or more samples.

A recorder writes the length of the samples last. One that was killed before, or has a
fault, leaves 0, the length of its first block, or one that is too large or wrapped at 4 GiB.
Samples after the length are told from chunks (titles, markers, a table of places) by their
form: chunks have names and lengths, and lead from one to the next up to the end of the
file. By chance samples do so in less than one of 10^9 files.
"""

import re
import struct
from typing import BinaryIO

# Names that chunks after the samples have in practice. A chunk of another name counts
# where the lengths lead exactly to the end of the file.
_NAMES = (
    *(b"LIST", b"list", b"INFO", b"bext", b"fact", b"cue ", b"plst", b"smpl", b"inst", b"id3 "),
    *(b"ID3 ", b"iXML", b"axml", b"PEAK", b"JUNK", b"junk", b"FLLR", b"PAD ", b"pad ", b"afsp"),
    *(b"DISP", b"_PMX", b"acid", b"strc", b"cart", b"chna", b"umid", b"wamd", b"guan", b"levl"),
    *(b"minf", b"elm1", b"regn", b"LGWV", b"SAUR", b"slnt", b"note", b"labl", b"ltxt", b"SyLp"),
    *(b"COMM", b"MARK", b"INST", b"MIDI", b"AESD", b"APPL", b"COMT", b"NAME", b"AUTH", b"(c) "),
    *(b"ANNO", b"SAXL", b"CHAN", b"FVER", b"basc", b"trns", b"cate"),
    *(b"info", b"strg", b"mark", b"regn", b"uuid", b"edct", b"ovvw", b"peak", b"free", b"chan"),
)
_NAMED = re.compile(b"|".join(re.escape(name) for name in _NAMES))
# Tags that players put behind any file, and which are no chunks.
_TAGS = (b"ID3\2", b"ID3\3", b"ID3\4", b"APETAGEX", b"LYRICSBEGIN")
_OLD_TAG_BYTES = 128
# Fewer bytes are scraps, such as padding: some writers leave them, and no chunk is shorter.
_SCRAP = 8
# A real file has a dozen chunks behind its samples.
_MOST = 256
# Bytes at the end of a file in which chunks are looked for; also, the most zeros that
# count as padding.
_WINDOW = 1 << 20


def others_follow(file: BinaryIO, at: int, size: int, form: str = "<I") -> bool:
    """Say whether what follows the samples is something else than more samples.

    Args:
        file: open for reading bytes; its position is moved.
        at: the place after the samples, by their stated length.
        size: bytes of the file.
        form: of a length, as `struct` names it: "<I", ">I" or ">q".

    Returns:
        True for the end of the file, a few bytes, chunks, a tag, or padding of zeros.
    """
    if size - at < _SCRAP:
        return True
    file.seek(at)
    head = file.read(min(size - at, _OLD_TAG_BYTES))
    if head.startswith(_TAGS) or (head.startswith(b"TAG") and size - at == _OLD_TAG_BYTES):
        return True
    if head[:4] in _NAMES or _lead_to_end(file, at, size, form):
        return True
    if size - at > _WINDOW or any(head):
        return False
    return not any(file.read(size - at))


def samples_end(file: BinaryIO, start: int, size: int, form: str = "<I") -> int:
    """Find the end of samples whose stated length is wrong.

    Args:
        file: open for reading bytes; its position is moved.
        start: the first sample's place.
        size: bytes of the file.
        form: of a length, as `struct` names it: "<I", ">I" or ">q".

    Returns:
        The place of the first of the chunks that end the file; `size` where there are none.
    """
    first = max(start, size - _WINDOW)
    file.seek(first)
    for found in _NAMED.finditer(file.read(size - first)):
        if _lead_to_end(file, first + found.start(), size, form):
            return first + found.start()
    return size


def _lead_to_end(file: BinaryIO, at: int, size: int, form: str) -> bool:
    """Whether whole chunks stand between `at` and the end."""
    width = struct.calcsize(form)
    for _ in range(_MOST):
        file.seek(at)
        head = file.read(4 + width)
        if len(head) < 4 + width:
            break
        if not all(32 <= byte < 127 for byte in head[:4]):
            return False
        (length,) = struct.unpack(form, head[4:])
        if length < 0:
            return False
        at += 4 + width + length
        if at >= size:
            break
        # Not all writers pad an odd length; CAF never does.
        if length & 1 and width == 4:
            file.seek(at)
            at += file.read(1) == b"\0"
    return at in (size, size + 1)
