"""The labels of a review as files: tables for programs, for Raven, and folders of clips.

`labels.csv` has a row `recording,start,end,label` for each clip in which a class was confirmed.
It is what "Train again" trains on, so that a training can be repeated from it by hand.

A "no" says what a clip is not. Where each class is judged by itself, that is a label: the class
is not heard, of the others it is not known. Where a clip has one class, it is none, and such
clips are kept and not trained on; "none of the classes" is the class `background`.
"""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from unfreeze.audio.entries import BACKGROUND, check_label, is_background_name, is_quiet
from unfreeze.audio.label_sets import UNSURE as NOT_KNOWN
from unfreeze.audio.label_sets import set_text
from unfreeze.audio.segments_file import folder_of
from unfreeze.detection.event_files import FORMATS, Source
from unfreeze.detection.events import Event
from unfreeze.errors import DataError, RunError, UnfreezeError, show
from unfreeze.files import make_folder, partial_folder, sync_folder, write_text
from unfreeze.review.candidate_clips import Candidate, write_folder
from unfreeze.review.label_store import NO, OTHER, YES, Decision

#: The ways to write labels.
KINDS = CSV, RAVEN, FOLDERS = "csv", "raven", "folders"
LABELS_NAME, ANSWERS_NAME = "labels.csv", "answers.csv"
# A file system allows 255 bytes for the name of a class's folder.
_MOST_LETTERS, _MOST_BYTES = 100, 200
_COLUMNS = ("recording", "start", "end", "label")
_ALL = (*_COLUMNS, "answer", "asked", "score", "found_by", "made_at", "ended_at", "ended_by")


def named_class(label: str | None, known: Collection[str]) -> str:
    """The class that someone named: one that can be trained on and written, or an error.

    It is refused where it is typed. Later it would make every training of the review fail, or be a
    second class beside the one that was meant.

    Args:
        label: as it was typed.
        known: the classes that there are.

    Raises:
        UnfreezeError: it is none, or one that could not be trained on or written.
    """
    named = check_label(" ".join((label or "").split()), "the other class")
    if named in known:
        return named
    if is_background_name(named):
        return BACKGROUND
    if len(named) > _MOST_LETTERS or len(folder_of(named).encode()) > _MOST_BYTES:
        raise UnfreezeError(
            "the name of the class is too long for a folder: give one of at most "
            f"{_MOST_LETTERS} letters, {_MOST_BYTES // 3} if they are not Latin"
        )
    if named.startswith("-") or named.endswith(NOT_KNOWN):
        raise UnfreezeError(
            f"the name of a class cannot begin with - or end with {NOT_KNOWN}, which would say "
            "that it is not heard, or perhaps: give another name"
        )
    for other in known:
        if other.casefold() == named.casefold():
            raise UnfreezeError(
                f"{named!r} differs from the class {show(other)!r} in capitals alone: choose that "
                "class, or give another name"
            )
    return named


def confirmed(decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions that name a class that is heard, or that none is."""
    return [one for one in decisions if one.answer in (YES, OTHER)]


def training_rows(
    decisions: Iterable[Decision], labels: Sequence[str], several: bool
) -> list[tuple[Path, float, float, str]]:
    """What is trained on: recording, start, end and label, in the order of places.

    Args:
        decisions: that count.
        labels: the classes of the run.
        several: whether each class is judged by itself.
    """
    rows = []
    decisions = list(decisions)
    # A class that someone added is not known of the other clips, either.
    every = dict.fromkeys((*labels, *sorted({one.label for one in decisions if one.label})))
    for one in decisions:
        if one.answer in (YES, OTHER):
            label = one.label or ""
        elif one.answer == NO and several:
            label = ""
        else:
            continue
        if several:
            label = _as_set(one, tuple(every))
        rows.append((one.recording, one.start, one.end, label))
    return sorted(rows)


def _as_set(one: Decision, labels: Sequence[str]) -> str:
    """A decision as a set of labels: what was not asked is not known."""
    loud = [label for label in labels if not is_quiet(label)]
    if one.label is not None and is_quiet(one.label):
        # A table of sounds has no row without a label.
        return BACKGROUND
    heard = [] if one.label is None else [one.label]
    unsure = [x for x in loud if x not in (one.label, one.asked)]
    return set_text(heard, unsure) or BACKGROUND


def write_training_table(
    file: Path, decisions: Iterable[Decision], labels: Sequence[str], several: bool
) -> int:
    """Write `labels.csv`; return the number of its rows.

    Args:
        file: where to; replaced as a whole.
        decisions: as for `training_rows`; so are the others.
        labels: the classes of the run.
        several: whether each class is judged by itself.
    """
    rows = training_rows(decisions, labels, several)
    _write_csv(file, _COLUMNS, [(path, f"{a:.3f}", f"{b:.3f}", x) for path, a, b, x in rows])
    return len(rows)


def export_labels(
    kind: str,
    folder: Path,
    history: Sequence[Decision],
    *,
    labels: Sequence[str],
    several: bool,
    run: Path,
    command: str,
    hears: tuple[float, float],
) -> tuple[Path, int]:
    """Write the labels into a folder, in one of the ways of `KINDS`.

    Args:
        kind: "csv", "raven" (a selection table for each recording) or "folders" (the clips, cut
            out as they are, one folder per class, with `segments.json`).
        folder: of the review. Tables and folders of clips are new in it each time.
        history: all decisions, also those that no longer count.
        labels: the classes of the run.
        several: whether each class is judged by itself.
        run: the model's.
        command: that opened the review.
        hears: the lowest and the highest frequency of the network, in hertz.

    Returns:
        The file or folder, and how many clips it names.

    Raises:
        DataError: a recording cannot be read.
        RunError: the files cannot be written.
    """
    try:
        counting = [one for one in history if one.ended_at is None]
        named = sorted(confirmed(counting), key=lambda one: (str(one.recording), one.start))
        if kind == CSV:
            count = write_training_table(folder / LABELS_NAME, counting, labels, several)
            _write_csv(
                folder / ANSWERS_NAME,
                _ALL,
                [(one.recording, *(getattr(one, name) for name in _ALL[1:])) for one in history],
            )
            return folder / LABELS_NAME, count
        make_folder(folder)
        with partial_folder(folder) as partial:
            inside = partial / "made"
            if kind == RAVEN:
                _write_raven(inside, named, hears)
            else:
                _refuse_missing(named)
                write_folder(
                    inside, _as_candidates(named), run=str(run), command=command, labels=labels
                )
            return _settle(inside, folder / ("raven" if kind == RAVEN else "clips")), len(named)
    except OSError as error:
        raise RunError(
            f"The labels cannot be written into {show(folder)} ({error}). They are kept in the "
            "review; free space on the disk, or choose another way to write them."
        ) from error


def _refuse_missing(named: Sequence[Decision]) -> None:
    files = dict.fromkeys(one.recording for one in named)
    gone = [file for file in files if not os.path.isfile(file)]  # noqa: PTH113
    if gone:
        raise DataError(
            f"{len(gone)} of {len(files)} recordings are missing, such as {show(gone[0])}, so no "
            "clips can be cut out of them: put them back, or write a table, which names them"
        )


def _write_raven(folder: Path, named: Sequence[Decision], hears: tuple[float, float]) -> None:
    make_folder(folder)
    by_file: dict[Path, list[Event]] = defaultdict(list)
    for one in named:
        score = 1.0 if one.score is None else one.score
        by_file[one.recording].append(Event(one.start, one.end, one.label or "", score))
    if not by_file:
        return
    form = FORMATS[RAVEN]
    home = Path(os.path.commonpath([file.parent for file in by_file]))
    for file, events in by_file.items():
        name = file.relative_to(home)
        text = form.head + form.rows(Source(file.name, *hears), events)
        write_text(folder / name.with_name(name.name + form.ending), text, "surrogateescape")


def _as_candidates(named: Sequence[Decision]) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = defaultdict(list)
    for one in named:
        score = 1.0 if one.score is None else one.score
        label = one.label or ""
        found[label].append(Candidate(one.recording, one.start, one.end, label, score, score))
    return dict(sorted(found.items()))


def _settle(made: Path, wanted: Path) -> Path:
    """Give a finished folder its name, or the next one that is free."""
    number = 1
    while True:
        target = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        number += 1
        if target.exists():
            continue
        with suppress(FileExistsError):
            made.rename(target)
            sync_folder(target.parent)
            return target


def _write_csv(file: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    # Names of files that are not UTF-8 are written as their bytes.
    write_text(file, text.getvalue(), "surrogateescape")
