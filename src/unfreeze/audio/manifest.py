"""All recordings of a data set, judged by the rules, with a fingerprint.

Names and labels are checked first, then every file is read once from end to
end, on all cores. Files that break a rule are left out and listed; when too
many do, or a class loses all of its files, nothing is returned. The clips'
order and the fingerprint do not depend on the file system.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from unfreeze.audio.decoders import Decoders, using
from unfreeze.audio.entries import MANIFEST_NAME, Entry
from unfreeze.audio.names import show
from unfreeze.audio.parallel import Progress, run_bunches
from unfreeze.audio.rules import Facts, Problem
from unfreeze.audio.sources import Source, find_source
from unfreeze.errors import DataError

__all__ = [
    "Clip",
    "Manifest",
    "Problem",
    "Recording",
    "build_manifest",
    "check_bad",
    "check_classes",
    "examine_source",
    "read_manifest",
]

#: A recording that can be used: what is claimed of it, and what was read.
Recording = tuple[Entry, Facts]

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording that can be used.

    Attributes:
        path: where to open it.
        label: its class.
        group: what must not straddle a split: from the manifest's column, or
            from the regular expression, or else the content.
        split: "train", "validation" or "test" where the manifest says so.
        seconds: length before resampling.
        sample_rate: hertz in the file.
        channels: in the file.
        content: SHA-256 of the file's bytes, in hex.
    """

    path: Path
    label: str
    group: str
    split: str | None
    seconds: float
    sample_rate: int
    channels: int
    content: str


@dataclass(frozen=True)
class Manifest:
    """A data set whose every clip has been read once.

    Attributes:
        root: the data's folder, absolute.
        clips: in the order of their names.
        labels: the classes, sorted.
        problems: files left out (fatal) and warnings, in the order of names.
        fingerprint: SHA-256 over contents, labels, groups and splits.
    """

    root: Path
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    problems: tuple[Problem, ...]
    fingerprint: str


def read_manifest(
    data: str | os.PathLike[str],
    *,
    group_regex: str | None = None,
    strict: bool = False,
    max_bad: float = 0.10,
    least_classes: int = 2,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read and judge all recordings of a data set.

    Args:
        data: a folder with a folder per class, a folder with a `manifest.csv`,
            or a CSV file (`path,label[,group][,split]`).
        group_regex: its first capture group, searched in the file's name and
            then in its path below `data`, is the clip's group. Every file must
            match.
        strict: allow no bad file at all.
        max_bad: the part of bad files, 0 to 1, above which to refuse.
        least_classes: two for training; recordings to test with may be of one.
        workers: threads; None takes one a core.
        progress: called as progress(done, total) with counts of files.

    Returns:
        The manifest; at least `least_classes` classes, at least one clip each.

    Raises:
        DataError: the data cannot be used; the message names the files, the
            cause and the cure.
    """
    if not 0 <= max_bad <= 1:
        raise DataError(f"max_bad is {max_bad}; it must be a part from 0 to 1.")
    source = find_source(data, group_regex)
    check_classes(source, least_classes)
    good, problems = examine_source(source, workers=workers, progress=progress)
    return build_manifest(
        source.root, source.labels, good, problems, strict=strict, max_bad=max_bad
    )


def check_classes(source: Source, least: int = 2) -> None:
    """Refuse a source with too few classes.

    Raises:
        DataError: it has fewer than `least`.
    """
    labels = source.labels
    if len(labels) < least:
        found = f"only one class, {show(labels[0])!r}" if labels else "no recordings"
        raise DataError(
            f"{show(source.root)} has {found}. A classifier needs two or more: give one folder a "
            f"class, or a {MANIFEST_NAME} with two labels."
        )


def examine_source(
    source: Source,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    decoders: Decoders | None = None,
) -> tuple[list[Recording], list[Problem]]:
    """Read every recording of a source once, and judge it by the rules.

    Args:
        source: the recordings.
        workers: threads; None takes one a core.
        progress: called as progress(done, total) with counts of files.
        decoders: to read with; None starts some for this call.

    Returns:
        The recordings that can be used, and the problems and notes.
    """
    files = [(entry.path, entry.name) for entry in source.entries]
    with using(decoders) as reading:
        bunches = run_bunches(reading.examine, files, workers=workers, progress=progress)
    judged = chain.from_iterable(bunches)
    good, problems = [], list(source.notes)
    for entry, (facts, found) in zip(source.entries, judged, strict=True):
        problems += found
        if facts is not None:
            good.append((entry, facts))
    return good, problems


def build_manifest(
    root: Path,
    labels: Sequence[str],
    recordings: Sequence[Recording],
    problems: Sequence[Problem],
    *,
    strict: bool = False,
    max_bad: float = 0.10,
) -> Manifest:
    """Make a manifest of recordings that were examined.

    Args:
        root: a folder that holds all of them.
        labels: the classes that must be there, sorted.
        recordings: in the order that the clips shall have.
        problems: of the files, so far.
        strict: allow no bad file at all.
        max_bad: the part of bad files, 0 to 1, above which to refuse.

    Raises:
        DataError: too many bad files, or a class without any recording.
    """
    good, repeated = _judge_duplicates(recordings)
    clips = tuple(_clip(entry, facts) for entry, facts in good)
    known = sorted([*problems, *repeated], key=lambda p: (os.fsencode(p.path), p.rule))
    manifest = Manifest(root, clips, tuple(labels), tuple(known), _fingerprint(clips))
    check_bad(manifest, strict=strict, max_bad=max_bad)
    _check_lost(manifest)
    return manifest


def check_bad(manifest: Manifest, *, strict: bool = False, max_bad: float = 0.10) -> None:
    """Refuse a data set with too many bad files.

    Args:
        manifest: clips and problems.
        strict: allow no bad file at all.
        max_bad: the part of bad files among all, 0 to 1, that is still allowed.

    Raises:
        DataError: with counts and examples by rule.
    """
    bad = [problem for problem in manifest.problems if problem.fatal]
    total = len({problem.path for problem in bad}) + len(manifest.clips)
    count = total - len(manifest.clips)
    if count == 0 or (not strict and count <= max_bad * total):
        return
    allowed = "strict allows none" if strict else f"more than the {100 * max_bad:g} % allowed"
    cure = "Mend or remove them" + ("." if strict else ", or raise max_bad.")
    raise DataError(
        f"{count} of {total} recordings in {show(manifest.root)} cannot be used "
        f"({100 * count / total:.1f} %, {allowed}).\n{_by_rule(bad)}\n{cure}"
    )


def _judge_duplicates(
    good: Sequence[Recording],
) -> tuple[list[Recording], list[Problem]]:
    """Drop what has the same bytes under two labels; note the other copies."""
    copies: dict[str, list[Entry]] = defaultdict(list)
    for entry, facts in good:
        copies[facts.content].append(entry)
    dropped: set[str] = set()
    problems = []
    for content, entries in copies.items():
        labels = sorted({entry.label for entry in entries})
        if len(labels) > 1:
            # Nobody knows which label is right, so none of them is used.
            dropped.add(content)
            cause = f"the same bytes stand under {' and '.join(repr(show(x)) for x in labels)}"
            problems += [Problem(e.name, "duplicate_label", cause, True) for e in entries]
        elif len(entries) > 1:
            cause = f"the same bytes as {show(entries[0].name)}; kept in one part of the split"
            problems += [Problem(e.name, "duplicate", cause, False) for e in entries[1:]]
    return [pair for pair in good if pair[1].content not in dropped], problems


def _clip(entry: Entry, facts: Facts) -> Clip:
    return Clip(
        path=entry.path,
        label=entry.label,
        group=entry.group or facts.content,
        split=entry.split,
        seconds=facts.seconds,
        sample_rate=facts.sample_rate,
        channels=facts.channels,
        content=facts.content,
    )


def _check_lost(manifest: Manifest) -> None:
    lost = sorted(set(manifest.labels) - {clip.label for clip in manifest.clips})
    if lost:
        bad = [problem for problem in manifest.problems if problem.fatal]
        raise DataError(
            f"No recording of {', '.join(repr(show(label)) for label in lost)} can be used. "
            f"Mend the files, or remove the class.\n{_by_rule(bad)}"
        )


def _by_rule(problems: list[Problem]) -> str:
    rules: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        rules[problem.rule].append(problem)
    lines = []
    for rule, members in sorted(rules.items()):
        lines.append(f"  {rule} ({len(members)}):")
        lines += [f"    {show(p.path)}: {p.cause}" for p in members[:_SHOWN]]
        if len(members) > _SHOWN:
            lines.append(f"    and {len(members) - _SHOWN} more")
    return "\n".join(lines)


def _fingerprint(clips: tuple[Clip, ...]) -> str:
    digest = hashlib.sha256(b"unfreeze manifest 1\n")
    for clip in clips:
        row = json.dumps([clip.content, clip.label, clip.group, clip.split])
        digest.update(row.encode("ascii") + b"\n")
    return digest.hexdigest()
