"""What a person has changed in a folder that `unfreeze segments` wrote."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from unfreeze.audio.entries import Entry
from unfreeze.audio.segments_file import Segment


@dataclass(frozen=True)
class Corrections:
    """How a folder differs from what was predicted.

    Attributes:
        kept: clips that are where they were put.
        moved: (from, to, clips), the most first.
        deleted: clips that were put there and are gone.
        added: clips that we did not put there.
        new_classes: classes that the run does not know.
        repeated: added clips left out as the run has the same bytes already.
        relabelled: clips of the run's data that the corrections give another class.
        disputed: added clips left out, as the same bytes are a test clip of
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
        """The same with what was found by content: repeated, relabelled, disputed."""
        repeated, relabelled, disputed = (
            counts[name] for name in ("repeated", "relabelled", "disputed")
        )
        return replace(self, repeated=repeated, relabelled=relabelled, disputed=disputed)

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
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
) -> Corrections:
    """Compare a folder with what was put into it.

    Args:
        entries: the recordings that are there now, with the class of their folder.
        segments: what each of them is, None for one that we did not cut.
        written: all segments that were put there.
        known: classes of the run.
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
    there = {segment.file for segment in segments if segment is not None}
    return Corrections(
        kept=kept,
        moved=tuple((old, new, count) for (old, new), count in moves.most_common()),
        deleted=sum(segment.file not in there for segment in written),
        added=added,
        new_classes=tuple(sorted({entry.label for entry in entries} - set(known))),
    )
