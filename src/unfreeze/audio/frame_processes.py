"""Computes the frames of many clips in processes, one per core.

Threads share the interpreter's lock, which a short clip holds for half of its time: two
threads read clips of half a second more slowly than one. A process reads, transforms and
writes a unit of clips by itself. Starting one takes 0.2 s, so threads do what is little.

Invariant: whatever happens to a process (killed, hung, out of memory, a damaged file), its
unit is done again by this process' own writer, which reads each file by itself and names the
one that is to blame; a new process does the next unit. So it costs its unit and no more.
"""

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from unfreeze.audio.decode_processes import DecodeProcess, DecoderDied, can_start
from unfreeze.audio.decode_worker import DONE
from unfreeze.audio.frame_writer import FrameWriter
from unfreeze.audio.parallel import Progress, run_all
from unfreeze.audio.sound_file import PATIENCE
from unfreeze.audio.written_units import WrittenUnits
from unfreeze.backbones.frontend import FrontEnd, NetworkOutputs
from unfreeze.errors import RunError

#: Values of a unit: 16 MB, YAMNet's frames of 11 minutes, 0.3 s of work.
UNIT = 1 << 22
# Units from which on processes pay: two cores save the time to start two.
_WORTH = 6

_WORKER = "unfreeze.audio.frame_worker"


def cut_units(offsets: Sequence[int], front_end: FrontEnd) -> list[range]:
    """Cut clips into units: consecutive clips of at least `UNIT` values, or what is left.

    Args:
        offsets: the first row of each clip, and the end.
        front_end: what a row is. Outputs of a network take longer, so units are smaller.

    Returns:
        The numbers of each unit's clips.
    """
    size = UNIT // 64 if isinstance(front_end, NetworkOutputs) else UNIT
    units, first, rows = [], 0, max(size // front_end.frame_values, 1)
    for number in range(1, len(offsets)):
        if offsets[number] - offsets[first] >= rows or number == len(offsets) - 1:
            units.append(range(first, number))
            first = number
    return units


def are_worth(units: Sequence[range], front_end: FrontEnd, workers: int) -> bool:
    """Whether processes take less time for some units than threads do."""
    if isinstance(front_end, NetworkOutputs):
        return False  # the network's runtime has threads of its own
    return workers > 1 and len(units) >= _WORTH and can_start()


def write_units(
    written: WrittenUnits,
    clips: Sequence[tuple[Path, str]],
    offsets: Sequence[int],
    write: FrameWriter,
    by_processes: bool,
    *,
    workers: int,
    progress: Progress,
) -> None:
    """Write the frames of units, several at once.

    Args:
        written: which are left to write, and where.
        clips: as for `FrameWriter`.
        offsets: likewise.
        write: writes units, or what a process could not.
        by_processes: whether processes write them.
        workers: processes, or threads.
        progress: called as progress(done, total) with counts of clips, about.

    Raises:
        Exception: as `write` raises it.
    """
    plain, total = write.front_end.as_plain(), sum(map(len, written.todo))

    def work(unit: range) -> None:
        request: dict[str, Any] = {
            "front_end": plain,
            "file": str(written.path.absolute()),
            "clips": [
                (str(path.absolute()), content) for path, content in clips[unit.start : unit.stop]
            ],
            "offsets": list(offsets[unit.start : unit.stop + 1]),
        }
        if not (by_processes and processes.write(request)):
            write(iter(unit))
        written.add(unit)

    with closing(_Processes()) as processes:
        run_all(
            work,
            written.todo,
            workers=workers,
            progress=lambda done, units: progress(total * done // units, total),
        )


class _Processes:
    """The processes of a call, one for each thread that asks; another after a death."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[DecodeProcess] = []

    def write(self, request: dict[str, Any]) -> bool:
        """Let this thread's process write a unit; say whether it did."""
        try:
            process = getattr(self._own, "process", None)
            if process is None:
                process = self._own.process = DecodeProcess(_WORKER, PATIENCE)
                self._all.append(process)
            return [kind for kind, _ in process.ask(request)] == [DONE]
        except (DecoderDied, RunError):
            if process is not None:
                process.close()
            self._own.process = None
            return False

    def close(self) -> None:
        """End them all."""
        for process in self._all:
            process.close()
