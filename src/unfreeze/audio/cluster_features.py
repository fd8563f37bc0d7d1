"""Checks recordings and computes their frames on a Ray cluster, as this machine does.

The functions are those of this machine (`Decoders.examine`, `FrameWriter`), and so are the
results, to the bit. A worker decodes in processes of its own, which may crash.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unfreeze.audio.cluster import Cluster, Lost, run_units
from unfreeze.audio.decode_processes import Decoders, Judged
from unfreeze.audio.frame_writer import FrameWriter
from unfreeze.audio.parallel import Progress
from unfreeze.audio.patches import FLOAT
from unfreeze.audio.sound_file import file_size
from unfreeze.audio.written_units import WrittenUnits
from unfreeze.backbones.frontend import FrontEnd, front_end_from
from unfreeze.errors import DataError, show

# Files of a unit that are checked: so many, or so many bytes of them.
_FILES, _BYTES = 256, 1 << 26


def examine_on(
    cluster: Cluster,
    files: Sequence[tuple[Path, Path]],
    channel: int,
    hears: float,
    progress: Progress | None = None,
) -> list[Judged]:
    """Judge files, as `Decoders.examine`.

    Args:
        cluster: where.
        files: each file, and what to call it in a problem.
        channel: as for `Decoders.examine`; so is the next.
        hears: the upper edge of what the network hears, hertz.
        progress: called as progress(done, total) with counts of files.

    Raises:
        DataError: some could not be read on the cluster.
    """
    cut = list(_cut_files(files))
    units = [[(str(path.absolute()), str(name)) for path, name in files[i:j]] for i, j in cut]
    settings = {"channel": channel, "hears": hears}
    judged: list[Judged] = [(None, [])] * len(files)
    done = 0
    for unit, found in run_units(cluster, f"{__name__}:make_examiner", settings, units):
        first, end = cut[unit]
        if isinstance(found, Lost):
            raise _lost([path for path, _ in files[first:end]], found)
        judged[first:end] = found
        done += end - first
        if progress is not None:
            progress(done, len(files))
    return judged


def _cut_files(files: Sequence[tuple[Path, Path]]) -> Iterator[tuple[int, int]]:
    first, size = 0, 0
    for number, (path, _) in enumerate(files, start=1):
        size += file_size(path)
        if size >= _BYTES or number - first == _FILES or number == len(files):
            yield first, number
            first, size = number, 0


def make_examiner(settings: dict[str, Any]) -> Callable[[list[tuple[str, str]]], list[Judged]]:
    """What a worker of the cluster does with a unit: judge its files.

    Args:
        settings: `channel` and `hears`.
    """
    decoders = Decoders()

    def examine(unit: list[tuple[str, str]]) -> list[Judged]:
        return decoders.examine(((Path(path), Path(name)) for path, name in unit), **settings)

    return examine


def write_on(
    cluster: Cluster,
    written: WrittenUnits,
    front_end: FrontEnd,
    clips: Sequence[tuple[Path, str]],
    offsets: Sequence[int],
    progress: Progress,
) -> None:
    """Compute the frames of clips on a cluster, and write them here.

    Args:
        cluster: where.
        written: which units are left to write, and where.
        front_end: the settings.
        clips: as for `FrameWriter`.
        offsets: likewise.
        progress: called as progress(done, total) with counts of clips.

    Raises:
        DataError: as `FrameWriter`, or some clips could not be read on the cluster.
    """
    asked = []
    for unit in written.todo:
        rows = offsets[unit.start : unit.stop + 1]
        own = [(str(path.absolute()), content) for path, content in clips[unit.start : unit.stop]]
        asked.append((own, [row - rows[0] for row in rows]))
    done, total = 0, sum(map(len, written.todo))
    row_bytes = front_end.frame_values * FLOAT.itemsize
    settings = front_end.as_plain()
    for number, found in run_units(cluster, f"{__name__}:make_frames", settings, asked):
        unit = written.todo[number]
        if isinstance(found, Lost):
            raise _lost([clips[clip][0] for clip in unit], found)
        if isinstance(found, DataError):
            raise found
        written.file.seek(offsets[unit.start] * row_bytes)
        written.file.write(found)
        written.add(unit)
        done += len(unit)
        progress(done, total)


def make_frames(
    settings: dict[str, Any],
) -> Callable[[tuple[list[tuple[str, str]], list[int]]], bytes | DataError]:
    """What a worker of the cluster does with a unit: compute the frames of its clips.

    Args:
        settings: of the front end.
    """
    front_end, decoders = front_end_from(settings), Decoders()

    def frames(unit: tuple[list[tuple[str, str]], list[int]]) -> bytes | DataError:
        clips, offsets = unit
        file = io.BytesIO()
        write = FrameWriter(
            file, front_end, [(Path(path), content) for path, content in clips], offsets, decoders
        )
        try:
            write(iter(range(len(clips))))
        except DataError as error:
            return error
        return file.getvalue()

    return frames


def _lost(paths: Sequence[Path], why: Lost) -> DataError:
    more = f" (or one of {len(paths) - 1} after it)" if len(paths) > 1 else ""
    return DataError(f"{show(paths[0])}{more} could not be read on the Ray cluster: {why.cause}")
