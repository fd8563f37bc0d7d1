"""`segments.json`: where each clip that `unfreeze segments` cut came from.

It lies beside the class folders. A person moves and deletes clips between them;
the file stays as it was written, so it also tells what was predicted. Format
version 1: an object with `unfreeze_segments`, `run`, `command`, `labels` and
`segments`, a list of the fields of `Segment`.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unfreeze.audio.entries import Entry
from unfreeze.audio.names import show
from unfreeze.audio.rules import content_hash
from unfreeze.errors import DataError
from unfreeze.files import write_json

SEGMENTS_NAME = "segments.json"
_KEY, _FORMAT = "unfreeze_segments", 1


@dataclass(frozen=True, slots=True)
class Segment:
    """A clip that was cut from a recording.

    Attributes:
        file: where it was put, `CLASS/NAME`, relative to the folder.
        sha256: of the clip's bytes, in hex.
        source: the recording it was cut from, an absolute path.
        source_sha256: of the recording's bytes, in hex; its group.
        start: seconds from the start of the recording.
        end: seconds, above `start`, never beyond the recording's end.
        label: the class that was predicted.
        score: its probability in the window that was chosen, 0 to 1.
        margin: the likeliest class's probability less the second's, there.
    """

    file: str
    sha256: str
    source: str
    source_sha256: str
    start: float
    end: float
    label: str
    score: float
    margin: float


@dataclass(frozen=True)
class SegmentsFile:
    """All segments of a folder.

    Attributes:
        run: the run whose model predicted.
        command: that wrote the folder.
        labels: the model's classes.
        segments: in the order of their files.
    """

    run: str
    command: str
    labels: tuple[str, ...]
    segments: tuple[Segment, ...]


def write_segments(folder: Path, content: SegmentsFile) -> None:
    """Write the file into its folder, atomically."""
    write_json(folder / SEGMENTS_NAME, {_KEY: _FORMAT, **dataclasses.asdict(content)})


def read_segments(folder: Path) -> SegmentsFile:
    """Read the file of a folder.

    Raises:
        DataError: it is damaged, or of another format version.
    """
    file = folder / SEGMENTS_NAME
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if values[_KEY] != _FORMAT:
            raise DataError(
                f"{show(file)} has format {values[_KEY]!r}; this version of unfreeze reads "
                f"{_FORMAT}."
            )
        segments = tuple(_checked(Segment(**row)) for row in values["segments"])
        labels = tuple(values["labels"])
        if not all(isinstance(x, str) for x in (values["run"], values["command"], *labels)):
            raise TypeError("run, command and labels must be text")
        return SegmentsFile(values["run"], values["command"], labels, segments)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{show(file)} cannot be read ({error}). It tells which recording each clip was cut "
            f"from: cut the clips again, or remove it if these clips come from elsewhere."
        ) from None


def _checked(segment: Segment) -> Segment:
    for field in dataclasses.fields(segment):
        value = getattr(segment, field.name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, str) if field.type is str else number):
            raise TypeError(f"the {field.name} of a segment cannot be {value!r}")
    return segment


def match_segments(content: SegmentsFile, files: Iterable[Path]) -> list[Segment | None]:
    """Find which segment each file is: by its name, or else by its content.

    A person moves a file, renames it, or cuts it shorter in an editor: as long
    as its name or its bytes are those of a segment, it is known.

    Returns:
        The segment of each file; None for a file that was never cut by us.
    """
    by_name = {Path(segment.file).name: segment for segment in content.segments}
    by_hash = {segment.sha256: segment for segment in content.segments}
    return [by_name.get(file.name) or by_hash.get(_hash_of(file)) for file in files]


def with_source_groups(content: SegmentsFile, entries: Sequence[Entry]) -> list[Entry]:
    """Give each segment the recording that it was cut from as its group."""
    segments = match_segments(content, [entry.path for entry in entries])
    return [
        entry if segment is None else replace(entry, group=segment.source_sha256)
        for entry, segment in zip(entries, segments, strict=True)
    ]


def _hash_of(file: Path) -> str:
    try:
        return content_hash(file)
    except OSError:
        return ""  # the rules will say what is wrong with it
