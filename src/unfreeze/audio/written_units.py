"""Which units of a file of frames are written, so that an interrupted build resumes.

While it is built, the file has a name of its own. Beside it lies a text file: the fingerprint of
the store and the file's size first, then a line for each unit once it is written, with its clips
and the CRC-32 of its bytes. Lines are only ever added, and nothing waits for the disk: after a
power cut either file may lack what came last. So a unit counts as written only if the bytes
found in its place have the CRC-32 of its line.
"""

import errno
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from unfreeze.files import remove, sync_folder, write_text

_LINE = re.compile(r"(\d+) (\d+) ([0-9a-f]{8})")
_BLOCK = 1 << 24


class WrittenUnits:
    """The units of a file of frames that is being built; threads may add to it at once.

    Attributes:
        file: of frames, open for writing bytes; as large as it will be.
        path: its name for now.
        todo: the units that are not written yet; their clips' numbers.
    """

    def __init__(
        self,
        final: Path,
        fingerprint: str,
        offsets: Sequence[int],
        row_bytes: int,
        units: Sequence[range],
    ) -> None:
        self.path = _building(final)
        self._record = _record(final)
        self._final, self._offsets, self._row_bytes = final, offsets, row_bytes
        self._lock = threading.Lock()
        size = offsets[-1] * row_bytes
        head = f"frames of {fingerprint} in {size} bytes"
        lines = self._found(head, size)
        self.todo = [unit for unit in units if unit not in lines]
        self._any = len(self.todo) < len(units)
        # A line cut short by a kill would run into the next one.
        write_text(self._record, "".join(f"{line}\n" for line in (head, *lines.values())))
        self._lines = self._record.open("a", encoding="ascii")
        self.file: BinaryIO = self.path.open("r+b" if self._any else "w+b")
        try:
            self.file.truncate(size)
        except OSError:
            self.leave(keep=False)
            raise

    def add(self, unit: range) -> None:
        """Record that a unit is written."""
        self.file.flush()
        line = f"{unit.start} {unit.stop} {self._checksum(unit):08x}\n"
        with self._lock:
            self._lines.write(line)
            self._lines.flush()
            self._any = True

    def finish(self) -> None:
        """Give the file its final name; all units are written."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._close()
        self.path.replace(self._final)
        sync_folder(self._final.parent)

    def leave(self, keep: bool) -> None:
        """End before all units are written.

        Args:
            keep: whether a later build may use those that are written.
        """
        self._close()
        if not (keep and self._any):
            remove_unfinished(self._final)

    def _close(self) -> None:
        self.file.close()
        self._lines.close()

    def _checksum(self, unit: range) -> int:
        first, end = (self._offsets[clip] * self._row_bytes for clip in (unit.start, unit.stop))
        found = 0
        with self.path.open("rb") as file:
            file.seek(first)
            while first < end:
                block = file.read(min(_BLOCK, end - first))
                if not block:
                    return -1
                found = crc32(block, found)
                first += len(block)
        return found

    def _found(self, head: str, size: int) -> dict[range, str]:
        """The lines of the units that an earlier build has written."""
        try:
            first, *rest = self._record.read_text(encoding="ascii").splitlines()
            if first != head or self.path.stat().st_size != size:
                return {}
        except (OSError, ValueError):
            return {}
        lines = {}
        for match in map(_LINE.fullmatch, rest):
            if match is not None:
                unit = range(int(match[1]), int(match[2]))
                if unit.stop < len(self._offsets) and self._checksum(unit) == int(match[3], 16):
                    lines[unit] = match[0]
        return lines


@contextmanager
def written_units(
    final: Path,
    fingerprint: str,
    offsets: Sequence[int],
    row_bytes: int,
    units: Sequence[range],
) -> Iterator[WrittenUnits]:
    """Build a file of frames in a block, from where an earlier build of it has ended.

    Args:
        final: the file's name once it is whole.
        fingerprint: of what is written, SHA-256 in hex.
        offsets: the first row of each clip, and the end.
        row_bytes: bytes of a row.
        units: the numbers of each unit's clips.

    Yields:
        The units. An exception in the block leaves them to a later build, unless the disk is
        full: it may need the room. After the block the file has its final name, and until
        `remove_unfinished` a later build finds its units still (`reopen_unfinished`).

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    written = WrittenUnits(final, fingerprint, offsets, row_bytes, units)
    try:
        yield written
        written.finish()
    except OSError as error:
        written.leave(keep=error.errno not in (errno.ENOSPC, errno.EDQUOT))
        raise
    except BaseException:
        written.leave(keep=True)
        raise


def unfinished_bytes(final: Path) -> int:
    """Bytes that an unfinished file takes on the disk."""
    try:
        found = _building(final).stat()
    except OSError:
        return 0
    # Room that was never written takes none, where the system says so.
    blocks = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else min(blocks * 512, found.st_size)


def reopen_unfinished(final: Path) -> None:
    """Take up a file again that had its final name when its build was interrupted."""
    if final.exists() and _record(final).exists():
        final.replace(_building(final))


def remove_unfinished(final: Path) -> None:
    """Remove what an unfinished build has left."""
    remove(_record(final))
    remove(_building(final))


def _building(final: Path) -> Path:
    return final.with_name(f"{final.name}.unfinished")


def _record(final: Path) -> Path:
    return final.with_name(f"{final.name}.written")
