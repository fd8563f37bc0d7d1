"""Add corrected clips to the data of an earlier run, and divide them into parts.

The rules, each tested:
- a test clip of the run stays a test clip with its class: neither it nor any clip of
  its recording or group is ever trained on or used to choose an epoch;
- the run's other clips stay in their parts;
- a segment's group is the recording that it was cut from; if the run has that
  recording, or clips of its group, the segment joins their part. If the run has sounds of
  the recording in several parts, it joins that of the sounds that it overlaps with, or of those
  around it, or is left out;
- the same bytes are used once. If a correction gives a clip of the run another class,
  the correction counts, except for test clips.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unfreeze.audio.annotations import WINDOW, heard
from unfreeze.audio.cluster import Cluster
from unfreeze.audio.entries import Entry
from unfreeze.audio.manifest import (
    Manifest,
    Recording,
    all_labels,
    build_manifest,
    examine_source,
)
from unfreeze.audio.rules import Problem
from unfreeze.audio.segments_file import (
    SEGMENTS_NAME,
    Corrections,
    Segment,
    SegmentsFile,
    find_corrections,
    match_segments,
    read_segments,
)
from unfreeze.audio.sources import (
    Reading,
    Source,
    find_group,
    find_source,
    group_pattern,
    join_sources,
)
from unfreeze.audio.split import (
    Split,
    check_no_leak,
    check_train_has_all,
    part_shares,
    place_new,
    split_notes,
)
from unfreeze.errors import DataError, RunError, show
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.pipeline.training_data import TrainingData, background_sources, reading_of
from unfreeze.review.old_run import run_labels, run_source


def read_both(
    options: TrainOptions, progress: Callable[[int, int], None] | None = None
) -> TrainingData:
    """Read a run's data and the corrected clips, and divide the latter by group.

    Args:
        options: of the new run; `add_to` is set.
        progress: called as progress(done, total) with counts of files.

    Raises:
        RunError: some of the run's recordings are missing or unreadable.
        DataError: the corrected clips cannot be used, or a class has no clips left.
    """
    run = options.add_to
    assert run is not None
    wanted = part_shares(options.validation, options.test)
    # Groups come from the run; the pattern is for names of recordings, not of segments.
    how = replace(reading_of(options), group_regex=None)
    old = run_source(run)
    if old.several:
        how = replace(how, columns=replace(how.columns, several=True))
    new = find_source(options.data, how=how)
    if new.several and not old.several:
        raise DataError(
            f"{run} was trained on clips with one label each, and {show(options.data)} has clips "
            "with several or none. Train a new run on all of them."
        )
    known = run_labels(run)
    _check_names(new, known, run)
    _check_apart(old, new, run, options.data)
    cut = _segments_of(options.data)
    segments = match_segments(cut, [entry.path for entry in new.entries])
    joined = join_sources([old, new, *background_sources(options)])
    mine, theirs, problems = _examine(joined, len(old.entries), how, progress, options.cluster)
    _check_readable(joined.entries[: len(old.entries)], mine, problems, run)
    segment_of = dict(zip((entry.path for entry in new.entries), segments, strict=True))
    grouped, left_out = grouped_with(theirs, segment_of, mine, options.group_regex, how.window)
    merged = merge(mine, grouped)
    manifest = build_manifest(
        joined.root,
        all_labels(joined, merged.recordings),
        merged.recordings,
        [*problems, *left_out, *merged.problems],
        strict=options.strict,
        max_bad=options.max_bad,
        several=joined.several,
        window=how.window,
    )
    found = find_corrections(new.entries, segments, cut.segments, known, joined.several)
    return divide(manifest, wanted, options.seed, found.with_counts(merged.counts))


def _examine(
    joined: Source,
    there: int,
    how: Reading,
    progress: Callable[[int, int], None] | None,
    cluster: Cluster | None,
) -> tuple[list[Recording], list[Recording], list[Problem]]:
    """Read the run's recordings and the new ones, each by its own rules.

    What lies between the sounds of a recording of the run, and which labels sounds share,
    was settled when the run read it.
    """
    old, new = joined.entries[:there], joined.entries[there:]
    counts = [len({entry.path for entry in part}) for part in (old, new)]

    def told(before: int) -> Callable[[int, int], None] | None:
        if progress is None:
            return None
        return lambda done, total: progress(before + done, sum(counts))

    settled = replace(joined, entries=old, notes=(), several=False)
    mine, problems = examine_source(
        settled, replace(how, full=False), progress=told(0), cluster=cluster
    )
    added = replace(joined, entries=new)
    theirs, more = examine_source(added, how, progress=told(counts[0]), cluster=cluster)
    # A recording that is added is a group, not each stretch of it.
    ungrouped = {entry.path for entry in new if entry.group is None}
    whole = [
        (replace(entry, group=None) if entry.path in ungrouped else entry, facts)
        for entry, facts in theirs
    ]
    return mine, whole, [*problems, *more]


@dataclass(frozen=True)
class Merged:
    """Recordings, no two with the same bytes and different classes.

    Attributes:
        recordings: the run's, then the new ones; the latter without a part.
        problems: the new ones that are left out.
        counts: what was done, as in `Corrections`.
    """

    recordings: list[Recording]
    problems: list[Problem]
    counts: dict[str, int]


def merge(old: Sequence[Recording], new: Sequence[Recording]) -> Merged:
    """Merge recordings, and resolve those with the same content in both.

    Args:
        old: the run's recordings, each with its part.
        new: the added ones.
    """
    labels: dict[str, set[str]] = {}
    for pair in new:
        labels.setdefault(_content(pair), set()).add(pair[0].label)
    part = {_content(pair): pair[0].split for pair in old}
    label_of = {_content(pair): pair[0].label for pair in old}
    counts: Counter[str] = Counter(repeated=0, relabelled=0, disputed=0)
    problems: list[Problem] = []
    kept: list[Recording] = []
    better: dict[str, str] = {}
    for entry, facts in new:
        content, label = _content((entry, facts)), entry.label
        if len(labels[content]) > 1:
            # Either class may be wrong; the run's own clip is not affected.
            both = " and ".join(repr(show(name)) for name in sorted(labels[content]))
            cause = f"the same file is in the classes {both}"
            problems.append(Problem(entry.name, "duplicate_label", cause, True))
        elif content not in part:
            kept.append((entry, facts))
        elif label_of[content] == label:
            counts["repeated"] += 1
        elif part[content] == "test":
            cause = (
                f"a test clip of the run has the same bytes and is of {show(label_of[content])!r}; "
                f"left out, so that the test set stays the same"
            )
            problems.append(Problem(entry.name, "disputed", cause, False))
            counts["disputed"] += 1
        else:
            better[content] = label
    corrected = [
        (replace(entry, label=better.get(_content((entry, facts)), entry.label)), facts)
        for entry, facts in old
    ]
    counts["relabelled"] = sum(_content(pair) in better for pair in old)
    return Merged([*corrected, *kept], problems, dict(counts))


def _content(recording: Recording) -> str:
    """What makes two clips the same: the recording's bytes, and the stretch of it."""
    entry, facts = recording
    if entry.start is None or entry.end is None:
        return facts.content
    return f"{facts.content}@{entry.start:.3f}-{entry.end:.3f}"


def divide(
    manifest: Manifest, wanted: dict[str, float], seed: int, corrections: Corrections
) -> TrainingData:
    """Assign the new clips to parts; the run's clips keep theirs.

    Args:
        manifest: the run's clips have a part, the new ones none.
        wanted: the share of each part among new groups.
        seed: of the division.
        corrections: what was changed.
    """
    given = [clip.split for clip in manifest.clips]
    part = place_new(manifest.clips, given, wanted, seed)
    new = np.array([one is None for one in given])
    held = new & (part == "test")
    split = Split(
        np.flatnonzero(part == "train").astype(np.int64),
        np.flatnonzero(part == "validation").astype(np.int64),
        np.flatnonzero((part == "test") & ~new).astype(np.int64),
    )
    corrected = np.flatnonzero(held).astype(np.int64)
    everything = replace(split, test=np.flatnonzero(part == "test"))
    check_no_leak(manifest, everything)
    check_train_has_all(manifest, split)
    notes = list(split_notes(manifest, everything))
    if new.any() and not held.any() and wanted["test"]:
        notes.append(
            "The added clips come from too few recordings to hold any out: their effect is "
            "measured on the run's test clips alone."
        )
    added = np.flatnonzero(new).astype(np.int64)
    return TrainingData(manifest, split, added, corrected, corrections, tuple(notes))


def grouped_with(
    new: Sequence[Recording],
    segment_of: Mapping[Path, Segment | None],
    old: Sequence[Recording],
    group_regex: str | None,
    window: float = WINDOW,
) -> tuple[list[Recording], list[Problem]]:
    """Give each new recording its group, by the same rule as the run's clips.

    Args:
        new: the added recordings.
        segment_of: the segment that a file is, if it was cut by us.
        old: the run's recordings, each with group and part.
        group_regex: that of the run.
        window: seconds that the network hears at once.

    Returns:
        The recordings that have a group, and those that have none: of a recording of which
        sounds nearby are in several parts of the run.
    """
    of_old: dict[str, list[Entry]] = {}
    for entry, facts in old:
        of_old.setdefault(facts.content, []).append(entry)
    pattern = None if group_regex is None else group_pattern(group_regex)
    result, problems = list[Recording](), list[Problem]()
    for entry, facts in new:
        segment = segment_of.get(entry.path)
        name = entry.name if segment is None else Path(segment.source)
        content = facts.content if segment is None else segment.source_sha256
        span = (entry.start, entry.end) if segment is None else (segment.start, segment.end)
        near = _near(of_old.get(content, ()), *span, window)
        if len({one.split for one in near}) > 1:
            cause = (
                "sounds nearby in the same recording are in several parts of the run; left out, "
                "so that the test stays one"
            )
            problems.append(Problem(entry.name, "between_parts", cause, False))
            continue
        group = near[0].group if near else entry.group if segment is None else None
        if group is None and pattern is not None:
            group = find_group(pattern, name)
        result.append((replace(entry, group=group or content, split=None), facts))
    return result, problems


def _near(
    own: Sequence[Entry], start: float | None, end: float | None, window: float
) -> list[Entry]:
    """The run's sounds of a recording that are heard with a stretch of it, or else around it.

    A clip that is a whole recording is near to all of them.
    """
    if start is None or end is None or any(one.start is None for one in own):
        return list(own)
    begin, stop = heard(start, end, window)
    spans = [(*heard(one.start or 0.0, one.end or 0.0, window), one) for one in own]
    together = [one for first, last, one in spans if first < stop and begin < last]
    if together:
        return together
    before = max((span for span in spans if span[1] <= begin), key=lambda s: s[1], default=None)
    behind = min((span for span in spans if span[0] >= stop), key=lambda s: s[0], default=None)
    return [span[2] for span in (before, behind) if span is not None]


def _segments_of(data: Path) -> SegmentsFile:
    if data.is_dir() and (data / SEGMENTS_NAME).is_file():
        return read_segments(data)
    return SegmentsFile("", "", (), ())


def _check_names(new: Source, known: Sequence[str], run: Path) -> None:
    plain = {label.casefold().strip(): label for label in known}
    for label in new.labels:
        other = plain.get(label.casefold().strip(), label)
        if other != label:
            raise DataError(
                f"{show(new.root)} has a class {show(label)!r} where {run} has {show(other)!r}. "
                f"Rename the folder so that they are one class."
            )


def _check_apart(old: Source, new: Source, run: Path, data: Path) -> None:
    mine = {os.path.realpath(entry.path) for entry in old.entries}
    both = [entry.path for entry in new.entries if os.path.realpath(entry.path) in mine]
    if both:
        raise DataError(
            f"{run} was already trained on clips of {show(data)}, such as {show(both[0])}. Give a "
            f"folder of other clips, or add to the run before that one."
        )


def _check_readable(
    wanted: Sequence[Entry], good: Sequence[Recording], problems: Sequence[Problem], run: Path
) -> None:
    lost = {entry.name for entry in wanted} - {entry.name for entry, _ in good}
    if lost:
        first = next(problem for problem in problems if problem.path in lost)
        raise RunError(
            f"{len(lost)} recordings of {run} can no longer be used, such as "
            f"{show(first.path)}: {first.cause}. Restore these files, or train a new run."
        )
