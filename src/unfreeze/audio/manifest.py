"""All recordings of a data set, judged by the rules, with a fingerprint.

Names and labels are checked first, then every file is read once from end to
end, on all cores. Files that break a rule are left out and listed; when too
many do, or a class loses all of its files, nothing is returned. The clips'
order and the fingerprint do not depend on the file system.
"""

import hashlib
import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from unfreeze.audio.entries import MANIFEST_NAME, Entry
from unfreeze.audio.folders import read_folders
from unfreeze.audio.names import show
from unfreeze.audio.parallel import Progress, run_all
from unfreeze.audio.rules import Facts, Problem, examine
from unfreeze.audio.table import read_csv
from unfreeze.errors import DataError

__all__ = ["Clip", "Manifest", "Problem", "check_bad", "read_manifest"]

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
    root, entries, notes = _find_entries(data)
    labels = sorted({entry.label for entry in entries})
    if len(labels) < least_classes:
        found = f"only one class, {show(labels[0])!r}" if labels else "no recordings"
        raise DataError(
            f"{show(root)} has {found}. A classifier needs two or more: give one folder a class, "
            f"or a {MANIFEST_NAME} with two labels."
        )
    _check_splits(root, entries)
    if group_regex is not None:
        entries = _with_groups(entries, group_regex)
    judged = run_all(lambda e: examine(e.path, e.name), entries, workers=workers, progress=progress)
    good, problems = [], notes
    for entry, (facts, found_problems) in zip(entries, judged, strict=True):
        problems += found_problems
        if facts is not None:
            good.append((entry, facts))
    good, repeated = _judge_duplicates(good)
    clips = tuple(_clip(entry, facts) for entry, facts in good)
    problems = sorted(problems + repeated, key=lambda p: (os.fsencode(p.path), p.rule))
    manifest = Manifest(root, clips, tuple(labels), tuple(problems), _fingerprint(clips))
    check_bad(manifest, strict=strict, max_bad=max_bad)
    _check_classes(manifest)
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


def _find_entries(data: str | os.PathLike[str]) -> tuple[Path, list[Entry], list[Problem]]:
    place = Path(data)
    if not place.exists():
        raise DataError(f"{show(place)} does not exist. Give a folder or a CSV manifest.")
    if place.is_dir():
        root = place.resolve()
        table = root / MANIFEST_NAME
        entries, notes = read_csv(table) if table.is_file() else read_folders(root)
    elif place.suffix.lower() == ".csv":
        root = place.parent.resolve()
        entries, notes = read_csv(root / place.name)
    else:
        raise DataError(
            f"{show(place)} is a file, and no .csv manifest. Give the folder that holds one "
            f"folder a class, or a CSV with the columns path,label[,group][,split]."
        )
    # By bytes: names that are not UTF-8 have an order too.
    return root, sorted(entries, key=lambda e: os.fsencode(e.name.as_posix())), notes


def _check_splits(root: Path, entries: list[Entry]) -> None:
    splits = {entry.split for entry in entries}
    if splits != {None} and "train" not in splits:
        raise DataError(
            f"{show(root)}: the manifest's split column has no row for train, only "
            f"{', '.join(sorted(s for s in splits if s))}. Mark the rows to train on."
        )


def _with_groups(entries: list[Entry], group_regex: str) -> list[Entry]:
    try:
        pattern = re.compile(group_regex)
    except re.error as error:
        raise DataError(
            f"group_regex {group_regex!r} is no regular expression: {error}."
        ) from error
    if pattern.groups < 1:
        raise DataError(
            f"group_regex {group_regex!r} has no capture group: put parentheses around the part "
            f"that names the group, as in '_([a-z]+)_'."
        )
    if any(entry.group is not None for entry in entries):
        raise DataError("The manifest has a group column already. Leave group_regex out.")
    groups = []
    for entry in entries:
        match = pattern.search(entry.path.name) or pattern.search(entry.name.as_posix())
        groups.append(match.group(1) if match else None)
    missed = [e.name for e, group in zip(entries, groups, strict=True) if not group]
    if missed:
        raise DataError(
            f"group_regex {group_regex!r} names no group for {len(missed)} of {len(entries)} "
            f"files, such as {', '.join(show(name) for name in missed[:3])}. It is searched in "
            f"the file's name, then in its path; every file must match."
        )
    return [replace(e, group=group) for e, group in zip(entries, groups, strict=True)]


def _judge_duplicates(
    good: list[tuple[Entry, Facts]],
) -> tuple[list[tuple[Entry, Facts]], list[Problem]]:
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


def _check_classes(manifest: Manifest) -> None:
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
