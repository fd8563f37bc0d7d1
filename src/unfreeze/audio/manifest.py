"""All recordings of a data set, checked by the rules, with a fingerprint.

Names and labels are checked first, then every file is read once from end to
end, on all cores. Files that break a rule are left out and listed; if too many
do, or a class loses all of its files, that is an error. The clips' order and
the fingerprint do not depend on the file system.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from unfreeze.audio.annotations import WINDOW, settle_sounds
from unfreeze.audio.class_folders import MANIFEST_NAME
from unfreeze.audio.cluster import Cluster
from unfreeze.audio.cluster_features import examine_on
from unfreeze.audio.decode_processes import Decoders, using
from unfreeze.audio.entries import Entry, is_quiet
from unfreeze.audio.label_sets import classes_of, heard_in, unsure_in
from unfreeze.audio.parallel import Progress, run_bunches
from unfreeze.audio.rules import SILENT, TOO_HIGH, Facts, Problem, examine
from unfreeze.audio.sources import AS_USUAL, Reading, Source, find_source
from unfreeze.errors import DataError, show

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

#: A recording that can be used: what the data say of it, and what was read.
Recording = tuple[Entry, Facts]

#: The rule of the note on recordings too slow for `Reading.slow_down`.
SLOW = "slow_down"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording that can be used.

    Attributes:
        path: where to open it.
        label: its class; where clips may have several, the text of their set
            (`unfreeze.audio.label_sets`).
        group: clips of one group stay in one part of a split: from the manifest's
            column, or from the regular expression, or else the content.
        split: "train", "validation" or "test" where the manifest says so.
        seconds: length before resampling.
        sample_rate: hertz in the file.
        channels: in the file.
        content: SHA-256 of the file's bytes, in hex; with start and end for a stretch.
        start: seconds, where the clip begins in its recording; None for all of it.
        end: seconds, where it ends; None likewise.
        recording_seconds: length of the recording.
        low: hertz, the lower bound of the sound in its annotation, or None.
        high: hertz, the upper bound, or None.
        clipped: share of its recording's samples that are at full scale, 0 to 1.
        window: seconds that the network hears at once.
    """

    path: Path
    label: str
    group: str
    split: str | None
    seconds: float
    sample_rate: int
    channels: int
    content: str
    start: float | None = None
    end: float | None = None
    recording_seconds: float = 0.0
    low: float | None = None
    high: float | None = None
    clipped: float = 0.0
    window: float = WINDOW


@dataclass(frozen=True)
class Manifest:
    """A data set whose every clip has been read once.

    Attributes:
        root: the data's folder, absolute.
        clips: in the order of their names.
        labels: the classes, sorted.
        problems: files left out (fatal) and warnings, in the order of names.
        fingerprint: SHA-256 over contents, labels, groups and splits.
        several: whether a clip may have several labels, or none.
    """

    root: Path
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    problems: tuple[Problem, ...]
    fingerprint: str
    several: bool = False

    def classes_of(self, clip: Clip) -> tuple[str, ...]:
        """The classes that are heard in a clip: one, or where it may have several, any number."""
        return classes_of(clip.label, self.several)


def read_manifest(
    data: str | os.PathLike[str],
    *,
    group_regex: str | None = None,
    how: Reading | None = None,
    strict: bool = False,
    max_bad: float = 0.10,
    least_classes: int = 2,
    workers: int | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> Manifest:
    """Read and check all recordings of a data set.

    Args:
        data: as for `find_source`.
        group_regex: likewise.
        how: likewise.
        strict: allow no bad file at all.
        max_bad: the share of bad files, 0 to 1, above which to refuse the data.
        least_classes: two for training; recordings to test with may have one.
        workers: threads; None takes one per core.
        progress: called as progress(done, total) with counts of files.
        cluster: as for `examine_source`.

    Returns:
        The manifest; at least `least_classes` classes, at least one clip each.

    Raises:
        DataError: the data cannot be used; the message names the files, the
            cause and the cure.
    """
    if not 0 <= max_bad <= 1:
        raise DataError(f"max_bad is {max_bad}; it must be a share from 0 to 1.")
    how = how or Reading(group_regex)
    source = find_source(data, how=how)
    check_classes(source, 1 if how.full else least_classes)
    good, problems = examine_source(
        source, how, workers=workers, progress=progress, cluster=cluster
    )
    labels = all_labels(source, good)
    return build_manifest(
        source.root,
        labels,
        good,
        problems,
        strict=strict,
        max_bad=max_bad,
        several=source.several,
        window=how.window,
    )


def check_classes(source: Source, least: int = 2) -> None:
    """Refuse a source with too few classes.

    Raises:
        DataError: it has fewer than `least`.
    """
    labels = source.labels
    if source.several and source.entries and not labels:
        raise DataError(
            f"{show(source.root)} has {len(source.entries):,} recordings, and no class is heard in "
            "any. A classifier needs clips of its classes."
        )
    # One class is heard in a clip or not.
    if len(labels) < (1 if source.several and source.entries else least):
        unread = [note for note in source.notes if note.rule == "no_table"][:_SHOWN]
        reasons = "".join(f" {show(note.path)}: {note.cause}." for note in unread)
        found = f"only one class, {show(labels[0])!r}" if labels else "no recordings"
        raise DataError(
            f"{show(source.root)} has {found}. A classifier needs two or more: give one folder "
            f"per class, or a {MANIFEST_NAME} with two labels.{reasons}"
        )


def examine_source(
    source: Source,
    how: Reading = AS_USUAL,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    decoders: Decoders | None = None,
    cluster: Cluster | None = None,
) -> tuple[list[Recording], list[Problem]]:
    """Read every recording of a source once, and check it by the rules.

    Args:
        source: the recordings.
        how: they are read; its columns and groups are those of the source already.
        workers: threads; None takes one per core.
        progress: called as progress(done, total) with counts of files.
        decoders: to read with; None starts some for this call.
        cluster: where to read them; None reads them on this machine.

    Returns:
        The recordings that can be used, and the problems and notes.
    """
    files = list({entry.path: (entry.path, entry.name) for entry in source.entries}.values())
    if cluster is not None:
        results = examine_on(cluster, files, how.channel, how.hears, progress)
    else:
        with using(decoders) as reading:
            judge = partial(reading.examine, channel=how.channel, hears=how.hears)
            bunches = run_bunches(judge, files, workers=workers, progress=progress)
        results = list(chain.from_iterable(bunches))
    problems, facts_of = list(source.notes), dict[Path, Facts]()
    quiet = [any(p.rule == SILENT and p.fatal for p in found) for _, found in results]
    silent = {path for (path, _), is_silent in zip(files, quiet, strict=True) if is_silent}
    kept = _kept_silence(source.entries, silent)
    for (path, name), (facts, found) in zip(files, results, strict=True):
        if path in kept:
            facts, found = examine(path, name, silence=True, channel=how.channel, hears=how.hears)
        problems += found
        if facts is not None:
            facts_of[path] = facts
    known = [entry for entry in source.entries if entry.path in facts_of]
    lengths = {path: facts.seconds for path, facts in facts_of.items()}
    window = how.window / how.slow_down
    entries, told = settle_sounds(known, lengths, how.full, source.several, window)
    if how.slow_down != 1:
        problems = [problem for problem in problems if problem.rule != TOO_HIGH]
        told += _too_slow(source.root, facts_of.values(), how)
    if source.several:
        told.append(_counted(source.root, entries))
    return [(entry, facts_of[entry.path]) for entry in entries], [*problems, *told]


def _too_slow(root: Path, facts: Iterable[Facts], how: Reading) -> list[Problem]:
    """A note where the network listens for what no recording holds."""
    fastest = max((each.sample_rate for each in facts), default=0)
    slow_down = how.slow_down
    if not 0 < fastest < how.hears * slow_down:
        return []
    cause = (
        f"no recording holds sound above {fastest / 2000:g} kHz, and slowed down {slow_down:g} "
        f"times the network listens up to {how.hears * slow_down / 1000:g} kHz: a smaller "
        "--slow-down, or faster recordings, fit better"
    )
    return [Problem(Path(root.name), SLOW, cause, False)]


def _counted(root: Path, entries: Sequence[Entry]) -> Problem:
    counts = [len(heard_in(entry.label)) for entry in entries]
    without = sum(not entry.label for entry in entries)
    cause = (
        f"{sum(n > 1 for n in counts):,} of {len(counts):,} clips have several labels, "
        f"{without:,} have none: each class is judged by itself"
    )
    known = {label for entry in entries for label in heard_in(entry.label)}
    lost = {label for entry in entries for label in unsure_in(entry.label)} - known
    if lost:
        cause += f"; {', '.join(map(show, sorted(lost)))} is nowhere heard for certain"
    return Problem(Path(root.name), "several_labels", cause, False)


def _kept_silence(entries: Sequence[Entry], silent: set[Path]) -> set[Path]:
    """The silent clips that are what their class is of: silence.

    They are those of background, and of a class more than half of which is silent.
    """
    if not silent:
        return set()
    clips: dict[str, list[bool]] = defaultdict(list)
    for entry in entries:
        if entry.start is None:
            clips[entry.label].append(entry.path in silent)
    right = {x for x, own in clips.items() if is_quiet(x) or 2 * sum(own) > len(own)}
    return {e.path for e in entries if e.path in silent and e.start is None and e.label in right}


def all_labels(source: Source, recordings: Sequence[Recording]) -> tuple[str, ...]:
    """The classes of a source, and those that reading it has added, sorted."""
    texts = {entry.label for entry, _ in recordings}
    added = {label for text in texts for label in classes_of(text, source.several)}
    return tuple(sorted({*source.labels, *added}))


def build_manifest(
    root: Path,
    labels: Sequence[str],
    recordings: Sequence[Recording],
    problems: Sequence[Problem],
    *,
    strict: bool = False,
    max_bad: float = 0.10,
    several: bool = False,
    window: float = WINDOW,
) -> Manifest:
    """Make a manifest of recordings that were examined.

    Args:
        root: a folder that holds all of them.
        labels: the classes that must have clips, sorted.
        recordings: in the order that the clips will have.
        problems: of the files, so far.
        strict: allow no bad file at all.
        max_bad: the share of bad files, 0 to 1, above which to refuse the data.
        several: whether a clip may have several labels, or none.
        window: seconds that the network hears at once.

    Raises:
        DataError: too many bad files, or a class without any recording.
    """
    good, repeated = _judge_duplicates(recordings)
    clips = tuple(_clip(entry, facts, window) for entry, facts in good)
    known = sorted([*problems, *repeated], key=lambda p: (os.fsencode(p.path), p.rule))
    fingerprint = _fingerprint(clips)
    manifest = Manifest(root, clips, tuple(labels), tuple(known), fingerprint, several)
    check_bad(manifest, strict=strict, max_bad=max_bad)
    _check_lost(manifest)
    return manifest


def heard_table(manifest: Manifest) -> np.ndarray:
    """What is heard in each clip, (clips, classes) float32: 1, or 0, or -1 if nobody knows.

    The columns are in the order of the manifest's labels. It fits clips with one label, too.
    """
    place = {label: number for number, label in enumerate(manifest.labels)}
    table = np.zeros((len(manifest.clips), len(place)), np.float32)
    for row, clip in enumerate(manifest.clips):
        table[row, [place[label] for label in manifest.classes_of(clip)]] = 1
        if manifest.several:
            table[row, [place[x] for x in unsure_in(clip.label) if x in place]] = -1
    return table


def check_bad(manifest: Manifest, *, strict: bool = False, max_bad: float = 0.10) -> None:
    """Refuse a data set with too many bad files.

    Args:
        manifest: clips and problems.
        strict: allow no bad file at all.
        max_bad: the largest share of bad files, 0 to 1, that is allowed.

    Raises:
        DataError: with counts and examples for each rule.
    """
    bad = [problem for problem in manifest.problems if problem.fatal]
    total = len({problem.path for problem in bad}) + len(manifest.clips)
    count = total - len(manifest.clips)
    if count == 0 or (not strict and count <= max_bad * total):
        return
    allowed = "strict allows none" if strict else f"more than the {100 * max_bad:g} % allowed"
    cure = "Repair or remove them" + ("." if strict else ", or raise max_bad.")
    raise DataError(
        f"{count} of {total} recordings in {show(manifest.root)} cannot be used "
        f"({100 * count / total:.1f} %, {allowed}).\n{_by_rule(bad)}\n{cure}"
    )


def _judge_duplicates(
    good: Sequence[Recording],
) -> tuple[list[Recording], list[Problem]]:
    """Drop files with the same bytes under two labels; note other copies."""
    copies: dict[str, list[Entry]] = defaultdict(list)
    for entry, facts in good:
        # A recording may hold several sounds of several classes.
        if entry.start is None:
            copies[facts.content].append(entry)
    dropped: set[str] = set()
    problems = []
    for content, entries in copies.items():
        labels = sorted({entry.label for entry in entries})
        if len(labels) > 1:
            # There is no telling which label is right, so none of them is used.
            dropped.add(content)
            cause = f"the same bytes have the labels {' and '.join(repr(show(x)) for x in labels)}"
            problems += [Problem(e.name, "duplicate_label", cause, True) for e in entries]
        elif len(entries) > 1:
            cause = f"the same bytes as {show(entries[0].name)}; kept in one part of the split"
            problems += [Problem(e.name, "duplicate", cause, False) for e in entries[1:]]
    twofold, told = _judge_sounds(good)
    kept = [
        (e, f)
        for e, f in good
        if (f.content not in dropped if e.start is None else _span(e, f) not in twofold)
    ]
    return kept, [*problems, *told]


def _span(entry: Entry, facts: Facts) -> tuple[str, float, float]:
    return facts.content, round(entry.start or 0.0, 3), round(entry.end or 0.0, 3)


def _judge_sounds(
    good: Sequence[Recording],
) -> tuple[set[tuple[str, float, float]], list[Problem]]:
    """Sounds of one stretch under two labels, which are left out; and copies of recordings."""
    labels: dict[tuple[str, float, float], set[str]] = defaultdict(set)
    places: dict[str, set[Path]] = defaultdict(set)
    for entry, facts in good:
        if entry.start is not None:
            labels[_span(entry, facts)].add(entry.label)
            places[facts.content].add(entry.name)
    twofold = {span for span, own in labels.items() if len(own) > 1}
    problems = []
    for entry, facts in good:
        if entry.start is not None and _span(entry, facts) in twofold:
            names = " and ".join(repr(show(x)) for x in sorted(labels[_span(entry, facts)]))
            cause = (
                f"the stretch from {entry.start:g} to {entry.end:g} s has the labels {names}; if "
                "it has both, say --multilabel"
            )
            problems.append(Problem(entry.name, "duplicate_label", cause, True))
    for names_of in places.values():
        first, *others = sorted(names_of)
        cause = f"the same bytes as {show(first)}; kept in one part of the split"
        problems += [Problem(name, "duplicate", cause, False) for name in others]
    return twofold, problems


def _clip(entry: Entry, facts: Facts, window: float) -> Clip:
    content, length = facts.content, facts.seconds
    if entry.start is not None and entry.end is not None:
        content += f"@{entry.start:.3f}-{entry.end:.3f}"
        length = entry.end - entry.start
    return Clip(
        path=entry.path,
        label=entry.label,
        group=entry.group or facts.content,
        split=entry.split,
        seconds=length,
        sample_rate=facts.sample_rate,
        channels=facts.channels,
        content=content,
        start=entry.start,
        end=entry.end,
        recording_seconds=facts.seconds,
        low=entry.low,
        high=entry.high,
        clipped=facts.clipped,
        window=window,
    )


def _check_lost(manifest: Manifest) -> None:
    found = {label for clip in manifest.clips for label in manifest.classes_of(clip)}
    lost = sorted(set(manifest.labels) - found)
    if lost:
        bad = [problem for problem in manifest.problems if problem.fatal]
        raise DataError(
            f"No recording of {', '.join(repr(show(label)) for label in lost)} can be used. "
            f"Repair the files, or remove the class.\n{_by_rule(bad)}"
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
