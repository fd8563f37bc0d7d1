"""`segments.json`: where each clip that `unfreeze segments` cut came from.

It lies beside the class folders. You move clips between them and delete some; the file
stays as it was written, so it also records what was predicted, and `find_corrections`
shows what you changed. Format version 1: an object with `unfreeze_segments`, `run`,
`command`, `labels` and `segments`, a list of the fields of `Segment`.
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from unfreeze.audio.entries import Entry
from unfreeze.audio.label_sets import classes_in
from unfreeze.audio.rules import content_hash
from unfreeze.errors import DataError, show
from unfreeze.files import write_json

SEGMENTS_NAME = "segments.json"
_KEY, _FORMAT = "unfreeze_segments", 1
# What no folder's name may have on some system, names of devices of Windows among them.
_BARRED = re.compile(
    r"[%/\\<>:\"|?*]|^\.|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE
)


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
        command: the command that wrote the folder.
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
            f"{show(file)} cannot be read ({show(str(error))}). It says which recording each clip "
            f"was cut from: cut the clips again, or delete it if these clips come from elsewhere."
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

    You may move a file, rename it, or cut it shorter in an editor: it is recognized
    as long as its name or its bytes are those of a segment.

    Returns:
        The segment of each file; None for a file that was never cut by us.
    """
    by_name = {Path(segment.file).name: segment for segment in content.segments}
    by_hash = {segment.sha256: segment for segment in content.segments}
    return [by_name.get(file.name) or by_hash.get(_hash_of(file)) for file in files]


def folder_of(label: str) -> str:
    """The name of a class's folder: what no folder's name may have is written as in a URL.

    Examples:
        >>> folder_of("rain/thunder"), folder_of(".."), folder_of("con"), folder_of("tit?")
        ('rain%2Fthunder', '%2E%2E', '%63on', 'tit%3F')
    """
    return _BARRED.sub(lambda found: f"%{ord(found[0][0]):02X}{found[0][1:]}", label)


def with_source_groups(content: SegmentsFile, entries: Sequence[Entry]) -> list[Entry]:
    """Give each segment the recording that it was cut from as its group, and its class."""
    segments = match_segments(content, [entry.path for entry in entries])
    named = [replace(entry, label=unquote(entry.label)) for entry in entries]
    return [
        entry if segment is None else replace(entry, group=segment.source_sha256)
        for entry, segment in zip(named, segments, strict=True)
    ]


def _hash_of(file: Path) -> str:
    try:
        return content_hash(file)
    except OSError:
        return ""  # the rules will say what is wrong with it


@dataclass(frozen=True)
class Corrections:
    """How a folder differs from what was predicted.

    Attributes:
        kept: clips that are where they were put.
        moved: (from, to, clips), the most first.
        deleted: clips that were put there and are gone.
        added: clips that we did not put there.
        new_classes: classes that the run does not have.
        repeated: added clips left out because the run already has the same bytes.
        relabelled: clips of the run's data that the corrections give another class.
        disputed: added clips left out because the same bytes are a test clip of
            another class; the test set stays as it is.
    """

    kept: int
    moved: tuple[tuple[str, str, int], ...]
    deleted: int
    added: int
    new_classes: tuple[str, ...]
    repeated: int = 0
    relabelled: int = 0
    disputed: int = 0

    def with_counts(self, counts: Mapping[str, int]) -> "Corrections":
        """Return a copy with the counts found by content: repeated, relabelled, disputed."""
        repeated, relabelled, disputed = (
            counts[name] for name in ("repeated", "relabelled", "disputed")
        )
        return replace(self, repeated=repeated, relabelled=relabelled, disputed=disputed)

    def as_plain(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        values = asdict(self)
        values["moved"] = [
            {"from": old, "to": new, "clips": clips} for old, new, clips in self.moved
        ]
        return values


def find_corrections(
    entries: Sequence[Entry],
    segments: Sequence[Segment | None],
    written: Sequence[Segment],
    known: Sequence[str],
    several: bool = False,
) -> Corrections:
    """Compare a folder with what was put into it.

    Args:
        entries: the recordings that are there now, with the class of their folder.
        segments: what each of them is, None for one that we did not cut.
        written: all segments that were put there.
        known: classes of the run.
        several: whether clips may have several labels.
    """
    moves: Counter[tuple[str, str]] = Counter()
    kept = added = 0
    for entry, segment in zip(entries, segments, strict=True):
        if segment is None:
            added += 1
        elif segment.label == entry.label:
            kept += 1
        else:
            moves[segment.label, entry.label] += 1
    there_now = {label for entry in entries for label in classes_in(entry.label, several)}
    there = {segment.file for segment in segments if segment is not None}
    return Corrections(
        kept=kept,
        moved=tuple((old, new, count) for (old, new), count in moves.most_common()),
        deleted=sum(segment.file not in there for segment in written),
        added=added,
        new_classes=tuple(sorted(there_now - set(known))),
    )
