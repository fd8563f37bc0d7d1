"""Cut the clips most worth reviewing out of recordings, one folder per class.

There are two ways to choose. The highest scores of each class confirm quickly what the
model knows, and show its confident mistakes. The least certain windows, those with the
smallest margin between the two likeliest classes, teach the model most (margin
sampling: T. Scheffer et al., "Active Hidden Markov Models for Information Extraction",
IDA 2001; B. Settles, "Active Learning Literature Survey", 2009, section 3.1).

Segments of one recording never overlap. They are cut from the recording itself, not
from the model's input: they keep its sample rate, channels and sample values.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soundfile

from unfreeze.audio.entries import is_quiet
from unfreeze.audio.rules import content_hash
from unfreeze.audio.segments_file import Segment, SegmentsFile, folder_of, write_segments
from unfreeze.audio.sound_file import library_source
from unfreeze.errors import DataError, show
from unfreeze.files import atomic_path
from unfreeze.output_folder import holds

if TYPE_CHECKING:
    from unfreeze.detection.score_blocks import ScoreBlock

# Sample formats of WAV that are copied bit by bit, and what they are read as. All
# others (MP3, Vorbis, A-law ...) become 32-bit float, which neither rounds nor clips.
_COPIED = {
    "PCM_U8": "int16", "PCM_S8": "int16", "PCM_16": "int16", "PCM_24": "int32",
    "PCM_32": "int32", "FLOAT": "float32", "DOUBLE": "float64",
}  # fmt: skip
_STEM = 60


@dataclass(frozen=True, slots=True)
class Candidate:
    """A section of a recording that could be cut out.

    Attributes:
        source: the recording.
        start: seconds from the recording's start.
        end: seconds, greater than `start`, at most the recording's length.
        label: the class predicted in the window in its middle.
        score: its probability there, 0 to 1.
        margin: that probability minus the second largest.
    """

    source: Path
    start: float
    end: float
    label: str
    score: float
    margin: float

    def rank(self, uncertain: bool) -> tuple[float, str, float]:
        """Sort key: the clip most worth reviewing comes first."""
        return (self.margin if uncertain else -self.score, str(self.source), self.start)


class Scanner(Protocol):
    """Scores a recording along time; `unfreeze.SoundClassifier` is one."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each class."""

    def scan(self, path: Path) -> "Iterator[ScoreBlock]":
        """Blocks of patch scores, in order."""


def find_candidates(
    classifier: Scanner,
    source: Path,
    *,
    per_class: int,
    length: float,
    uncertain: bool = False,
) -> list[Candidate]:
    """Find the sections of a recording that are most worth reviewing.

    The window with the best rank is taken first, then the best of those whose clip
    does not overlap a clip already taken, and so on.

    Args:
        classifier: gives the scores.
        source: the recording, of any length.
        per_class: maximum number for each class.
        length: seconds of a clip; a shorter recording is taken whole.
        uncertain: rank by the smallest margin instead of the largest score.
            Windows of a silent class (`background`) then count, too.

    Raises:
        DataError: the file cannot be read.
    """
    labels = classifier.labels
    starts, ends, tops, best, margins = [], [], [], [], []
    for block in classifier.scan(source):
        two = np.sort(np.partition(block.scores, -2, axis=1)[:, -2:], axis=1)
        starts.append(block.starts)
        ends.append(block.ends)
        tops.append(block.scores.argmax(axis=1))
        best.append(two[:, 1].astype(np.float64))
        margins.append((two[:, 1] - two[:, 0]).astype(np.float64))
    top, score, margin = map(np.concatenate, (tops, best, margins))
    begin, end = np.concatenate(starts), np.concatenate(ends)
    duration = float(end.max())
    middle = (begin + end) / 2
    cut = np.clip(middle - length / 2, 0.0, max(duration - length, 0.0))
    quiet = np.array([is_quiet(label) for label in labels])
    free = np.ones(len(cut), dtype=bool) if uncertain else ~quiet[top]
    left = np.full(len(labels), per_class)
    found = []
    for i in np.argsort(margin if uncertain else -score, kind="stable"):
        if not free[i] or not left[top[i]]:
            continue
        left[top[i]] -= 1
        # Clips that begin less than a length apart overlap.
        first = np.searchsorted(cut, cut[i] - length, "right")
        free[first : np.searchsorted(cut, cut[i] + length)] = False
        stop = min(float(cut[i]) + length, duration)
        found.append(
            Candidate(
                source, float(cut[i]), stop, labels[top[i]], float(score[i]), float(margin[i])
            )
        )
    return found


def best_of(
    candidates: Iterable[Candidate], per_class: int, uncertain: bool = False
) -> dict[str, list[Candidate]]:
    """The candidates of each class that are most worth reviewing, the best first."""
    by_label: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_label[candidate.label].append(candidate)
    return {
        label: heapq.nsmallest(per_class, members, key=lambda c: c.rank(uncertain))
        for label, members in sorted(by_label.items())
    }


def write_folder(
    folder: Path,
    chosen: dict[str, list[Candidate]],
    *,
    run: str,
    command: str,
    labels: Sequence[str],
    uncertain: bool = False,
) -> SegmentsFile:
    """Cut the chosen clips, one folder per class, and write `segments.json`.

    A file name holds the clip's rank in its class, its score (with `uncertain`, its
    margin), the recording and the time, so names sort by what to review first.

    Args:
        folder: must be missing or empty.
        chosen: candidates of each class, the best first.
        run: the run whose model predicted.
        command: the running command.
        labels: the model's classes.
        uncertain: whether they were ranked by the smallest margin.

    Returns:
        What was written.

    Raises:
        DataError: a class cannot be a folder's name, or a recording is missing.
    """
    holds(folder, None, "clips")
    hashes: dict[Path, str] = {}
    segments = []
    names: Counter[str] = Counter()
    for label, candidates in chosen.items():
        for rank, candidate in enumerate(candidates, start=1):
            source = candidate.source
            value = f"m{candidate.margin:.3f}" if uncertain else f"{candidate.score:.3f}"
            name = f"{rank:03d}_{value}_{_plain(source.stem)}_{_clock(candidate.start)}"
            # Unique in all folders: people move clips between them.
            names[name] += 1
            name += f"~{names[name]}" if names[name] > 1 else ""
            if source not in hashes:
                hashes[source] = content_hash(source)
            place = folder / folder_of(label) / name
            file = cut_clip(source, candidate.start, candidate.end, place)
            segments.append(
                Segment(
                    file=f"{folder_of(label)}/{file.name}",
                    sha256=content_hash(file),
                    source=str(source.absolute()),
                    source_sha256=hashes[source],
                    start=round(candidate.start, 4),
                    end=round(candidate.end, 4),
                    label=label,
                    score=round(candidate.score, 6),
                    margin=round(candidate.margin, 6),
                )
            )
    written = SegmentsFile(run, command, tuple(labels), tuple(segments))
    write_segments(folder, written)
    return written


def cut_clip(source: Path, start: float, end: float, target: Path) -> Path:
    """Cut a section out of a recording: same sample rate, channels and values.

    Args:
        source: any file that libsndfile reads.
        start: seconds.
        end: seconds.
        target: the new file without its suffix: FLAC stays FLAC, others become WAV.

    Returns:
        The file that was written.

    Raises:
        DataError: the recording cannot be read, or the clip not written.
    """
    try:
        with library_source(source, end) as opened, soundfile.SoundFile(opened) as file:
            kind = _COPIED.get(file.subtype, "float32")
            subtype = file.subtype if file.subtype in _COPIED else "FLOAT"
            flac = file.format == "FLAC"
            # WAV has no signed 8-bit samples.
            subtype = "PCM_U8" if subtype == "PCM_S8" and not flac else subtype
            first = min(round(start * file.samplerate), max(file.frames - 1, 0))
            file.seek(first)
            samples = file.read(round(end * file.samplerate) - first, dtype=kind, always_2d=True)
            rate = file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{show(source)} cannot be read: {error}") from None
    clip = target.with_name(f"{target.name}.{'flac' if flac else 'wav'}")
    try:
        with atomic_path(clip) as partial:
            soundfile.write(partial, samples, rate, subtype, format="FLAC" if flac else "WAV")
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(
            f"a clip of {show(source)} cannot be written to {show(clip)} ({error}): free space on "
            "the disk if it is full, and see that you may write there"
        ) from None
    return clip


def _plain(stem: str) -> str:
    return re.sub(r"[^\w.-]+", "_", show(stem))[:_STEM]


def _clock(seconds: float) -> str:
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}h{minutes % 60:02d}m{rest // 100:02d}.{rest % 100:02d}s"
