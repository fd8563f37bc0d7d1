"""Scores a detector on recordings whose sounds are known.

Each recording is scored by the network once. Its events are found at the threshold that is
used and, from the same scores, at each of `THRESHOLDS`, and counted by each rule of
`unfreeze.detection.event_scoring` when the recording is over. Only counts are kept, so memory
depends on the events of the longest recordings, two numbers each, not on the number of
recordings.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.entries import is_quiet
from unfreeze.audio.rules import Problem
from unfreeze.audio.sound_file import SoundError, file_size
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.detector import Detector, ScoreStream, make_detector
from unfreeze.detection.event_scoring import RULES, Rules, Truth, alarms_on_others, count
from unfreeze.detection.events import DetectOptions, Event
from unfreeze.detection.scan import Begun, Ended, Read, Scan, scan_files
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.detection.true_events import Annotations, check_known, truths_of
from unfreeze.errors import DataError, show
from unfreeze.pipeline.event_rates import (
    FOUND,
    RIGHT,
    TRUE,
    average_precision,
    mean_known,
    polyphonic_score,
    rates,
)

#: The scores at which events begin, for curves. Even steps of the logarithm of the odds, from
#: 0.0009 to 0.9999: the scores of a network crowd near 0 and 1.
THRESHOLDS = 1 / (1 + np.exp(-np.arange(-28, 37) / 4))
# Where false alarms are counted.
_ALARMS = RULES.index("overlap")
_NOTHING = np.zeros((0, 2))


class Sweep:
    """Finds the events of one recording at several thresholds at once.

    Args:
        detector: the settings.
        thresholds: of each level: (classes,), or one for all classes.

    Attributes:
        seconds: of sound so far.
    """

    def __init__(self, detector: Detector, thresholds: Sequence[np.ndarray | float]) -> None:
        self._scores = ScoreStream(detector)
        self._finders = [detector.finder(level) for level in thresholds]
        # Plain numbers: a long recording has millions of events over all levels.
        self._times: list[defaultdict[str, array[float]]] = [
            defaultdict(lambda: array("d")) for _ in thresholds
        ]
        self.seconds = 0.0

    def push(self, block: ScoreBlock) -> None:
        """Take the scores of the next patches."""
        self.seconds = float(block.ends[-1])
        self._find(self._scores.push(block))

    def finish(self) -> list[dict[str, np.ndarray]]:
        """Return the events of each level: (n, 2) start and end in seconds, by class."""
        for block in self._scores.finish():
            self._find(block)
        for times, finder in zip(self._times, self._finders, strict=True):
            _keep(times, finder.finish())
        return [
            {label: np.array(own).reshape(-1, 2) for label, own in times.items()}
            for times in self._times
        ]

    def _find(self, block: ScoreBlock) -> None:
        for times, finder in zip(self._times, self._finders, strict=True):
            _keep(times, finder.push(block))


def _keep(times: "defaultdict[str, array[float]]", events: Sequence[Event]) -> None:
    for event in events:
        times[event.label].extend((event.start, event.end))


@dataclass(eq=False)
class Tally:
    """Counts over recordings.

    Attributes:
        labels: the classes that are judged.
        counts: (levels, classes, rules, 4) as of `count`; the first level is the threshold
            that is used.
        on_others: (classes,) false alarms on sounds of other classes, at that level.
        lengths: seconds of each recording.
    """

    labels: Sequence[str]
    counts: np.ndarray
    on_others: np.ndarray
    lengths: list[float] = field(default_factory=list)

    @classmethod
    def empty(cls, labels: Sequence[str], levels: int) -> "Tally":
        """Nothing counted yet."""
        counts = np.zeros((levels, len(labels), len(RULES), 4), dtype=np.int64)
        return cls(labels, counts, np.zeros(len(labels), dtype=np.int64))

    def add(
        self,
        truths: Mapping[str, Truth],
        found: Sequence[Mapping[str, np.ndarray]],
        seconds: float,
        rules: Rules,
    ) -> np.ndarray:
        """Count one recording.

        Args:
            truths: of each class.
            found: events of each level by class, as from `Sweep.finish`.
            seconds: of the recording.
            rules: as for `count`.

        Returns:
            Its counts alone: (levels, classes, rules, 4).
        """
        self.lengths.append(seconds)
        own = np.zeros_like(self.counts)
        for place, label in enumerate(self.labels):
            truth, before, counts = truths[label], None, np.zeros(0)
            for level, events in enumerate(found):
                spans = events.get(label, _NOTHING)
                # Neighbouring thresholds often find the same events.
                if before is None or not np.array_equal(before, spans):
                    before, counts = spans, count(truth, spans, seconds, rules)
                own[level, place] = counts
            alarms = alarms_on_others(truth, found[0].get(label, _NOTHING), rules.share)
            self.on_others[place] += alarms
        self.counts += own
        return own


def evaluate_recordings(
    model: Any,
    front_end: FrontEnd,
    annotations: Annotations,
    detector: Detector,
    rules: Rules,
    *,
    strict: bool,
    max_bad: float,
    progress: Callable[[float, float], None] | None = None,
    decoders: Decoders | None = None,
    scan: Scan | None = None,
    each: Callable[[Path, float, np.ndarray], None] | None = None,
) -> dict[str, Any]:
    """Score a detector on annotated recordings.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        annotations: of the recordings.
        detector: how to find events; its thresholds are those that are used.
        rules: what makes an event right.
        strict: treat any unusable recording as an error.
        max_bad: largest share of recordings to leave out because they cannot be read.
        progress: called as progress(done, total) with bytes of files.
        decoders: to read with; None starts some for this call.
        scan: as for `scan_files`.
        each: called with each recording, its seconds and its counts, as from `Tally.add`.

    Returns:
        As `summary`, with `unknown_classes`, `notes` and `problems`.

    Raises:
        DataError: no annotated class is known, or too many recordings cannot be used.
    """
    labels = [label for label in detector.labels if not is_quiet(label)]
    unknown = check_known(annotations, detector.labels)
    if strict and annotations.problems:
        raise _left_out(annotations.problems, "strict allows none")
    paths = list(annotations.sounds)
    levels = [detector.thresholds, *THRESHOLDS.tolist()]
    tally, sweeps = Tally.empty(labels, len(levels)), dict[int, Sweep]()
    begun, done, partly = dict[int, Begun](), 0.0, dict[int, float]()
    notes, bad = list[tuple[int, str]](), dict[int, Problem]()
    total = sum(map(file_size, paths))
    for number, item in scan_files(
        model, front_end, paths, detector.hop, decoders=decoders, scan=scan
    ):
        path = paths[number]
        if isinstance(item, Begun):
            begun[number] = item
        elif isinstance(item, Read):
            notes += [(number, warning) for warning in item.warnings]
        elif isinstance(item, Ended):
            sweep = sweeps.pop(number, None) or Sweep(detector, levels)
            partly.pop(number, None)
            done += file_size(path)
            if item.error is not None:
                error = item.error
                cause = error.cause if isinstance(error, SoundError) else str(error)
                bad[number] = Problem(path, "unreadable", cause, True)
                if strict:
                    break
                continue
            found = sweep.finish()
            truths, told = truths_of(annotations, path, sweep.seconds, labels)
            notes += [(number, note.cause) for note in told]
            own = tally.add(truths, found, sweep.seconds, rules)
            if each is not None:
                each(path, sweep.seconds, own)
        else:
            if number not in sweeps:
                sweeps[number] = Sweep(detector, levels)
            sweep = sweeps[number]
            sweep.push(item)
            share = min(sweep.seconds / max(begun[number].seconds, 1e-3), 1.0)
            partly[number] = share * file_size(path)
        if progress is not None:
            progress(done + sum(partly.values()), total)
    # Recordings are finished in an order of their own.
    left = [bad[number] for number in sorted(bad)]
    if left and (strict or not tally.lengths or len(left) > max_bad * len(paths)):
        allowed = "strict allows none" if strict else f"more than the {100 * max_bad:g} % allowed"
        raise _left_out(left, allowed)
    of_files = [
        f"{show(paths[number])}: {cause}" for number, cause in sorted(notes, key=itemgetter(0))
    ]
    named = ", ".join(f"{show(label)} ({number})" for label, number in unknown.items())
    of_classes = [f"The model does not know these annotated classes, not counted: {named}"]
    return {
        **summary(tally, detector, rules, full=annotations.full),
        "unknown_classes": unknown,
        "notes": [*annotations.notes, *of_files, *(of_classes if unknown else [])],
        "problems": [
            {"path": show(p.path), "cause": p.cause} for p in (*annotations.problems, *left)
        ],
    }


def count_recordings(
    model: Any,
    front_end: FrontEnd,
    annotations: Annotations,
    labels: Sequence[str],
    thresholds: np.ndarray,
    decoders: Decoders | None = None,
) -> tuple[list[str], list[tuple[Path, float, np.ndarray]]]:
    """Count the events of each recording by `overlap`, as `evaluate_recordings` does by default.

    Args:
        model: patches to probabilities.
        front_end: the backbone's settings.
        annotations: of the recordings.
        labels: name of each class of the model.
        thresholds: (classes,) from which they are heard.
        decoders: as for `evaluate_recordings`.

    Returns:
        The classes that are judged; each recording by path, with its seconds and counts:
        (classes, levels, 4), the first level that of the thresholds given, the others
        `THRESHOLDS`.

    Raises:
        DataError: a recording cannot be read.
    """
    detector = make_detector(front_end, labels, thresholds, DetectOptions())
    found = list[tuple[Path, float, np.ndarray]]()
    evaluate_recordings(
        *(model, front_end, annotations, detector, Rules()),
        strict=False,
        max_bad=0,
        decoders=decoders,
        each=lambda path, seconds, own: found.append(
            (path, seconds, own[:, :, _ALARMS].swapaxes(0, 1))
        ),
    )
    judged = [label for label in labels if not is_quiet(label)]
    return judged, sorted(found, key=itemgetter(0))


def _left_out(problems: Sequence[Problem], allowed: str) -> DataError:
    first = problems[0]
    return DataError(
        f"{len(problems)} of the recordings cannot be used ({allowed}), such as "
        f"{show(first.path)}: {first.cause}. Repair or remove them, and annotate each that stays."
    )


def summary(tally: Tally, detector: Detector, rules: Rules, *, full: bool) -> dict[str, Any]:
    """The scores of counts, as JSON can hold them.

    Args:
        tally: the counts.
        detector: whose counts they are.
        rules: by which they were counted.
        full: whether all sounds are annotated; else nobody knows the false alarms of an hour.

    Returns:
        A dict:

        - `rules`: the numbers, and each rule as a sentence (`words`); `annotated`; `settings`
          of the search (`hop`, `window`, `smooth`, `thresholds` of the classes).
        - `recordings`, `hours`, `true_events`, `found_events`.
        - `false_alarms`: events that are wrong by `overlap`: their `count`, how many an hour
          (`per_hour`), and how many lie on sounds of other classes (`on_other_classes`).
        - `overall`: for each rule `precision`, `recall` and `f1` of all events together,
          `macro_f1` and `mean_average_precision`, the means of the classes with true sounds.
        - `psds`: as from `unfreeze.pipeline.event_rates.polyphonic_score`, by `overlap`; None
          where not all sounds are annotated.
        - `per_class`: for each class `true_events`, `found_events`, `threshold`,
          `false_alarms_per_hour`, and for each rule `precision`, `recall`, `f1`,
          `average_precision`, and the `best_f1` of any threshold with that threshold. Both are
          of `THRESHOLDS` and the one that is used.
        - `curves`: the `thresholds`, and for all classes together (`overall`) and each class
          (`per_class`) the precision and recall by each rule and the false alarms an hour at
          each of them.

        Scores that nothing is known of are None.
    """
    # Exact, so that it does not depend on which recording is finished first.
    hours = math.fsum(tally.lengths) / 3600
    judged = hours if full else None
    at_work, swept = tally.counts[0], tally.counts[1:]
    levels = dict(zip(detector.labels, map(float, detector.thresholds), strict=True))
    classes = {
        label: {
            "true_events": int(at_work[place, _ALARMS, TRUE]),
            "found_events": int(at_work[place, _ALARMS, FOUND]),
            "threshold": levels[label],
            "false_alarms_per_hour": _per_hour(at_work[place, _ALARMS], judged),
            **{
                rule: {
                    **rates(at_work[place, number]),
                    # Of the threshold that is used, too, which lies between the others.
                    "average_precision": average_precision(tally.counts[:, place, number]),
                    "best_f1": _best(tally.counts[:, place, number], [levels[label], *THRESHOLDS]),
                }
                for number, rule in enumerate(RULES)
            },
        }
        for place, label in enumerate(tally.labels)
    }
    together = at_work.sum(axis=0)
    alarms = int(together[_ALARMS, FOUND] - together[_ALARMS, RIGHT])
    return {
        "rules": {
            **{name: getattr(rules, name) for name in ("share", "iou", "collar", "segment")},
            "words": rules.in_words(),
        },
        "annotated": "fully" if full else "partly",
        "settings": {
            "hop": round(detector.hop_seconds, 6),
            "window": round(detector.window, 6),
            "smooth": detector.smooth,
            "thresholds": {label: levels[label] for label in tally.labels},
        },
        "recordings": len(tally.lengths),
        "hours": hours,
        "true_events": int(together[_ALARMS, TRUE]),
        "found_events": int(together[_ALARMS, FOUND]),
        "false_alarms": {
            "count": alarms,
            "per_hour": _per_hour(together[_ALARMS], judged),
            "on_other_classes": int(tally.on_others.sum()),
        },
        "overall": {
            rule: {
                **rates(together[number]),
                "macro_f1": _mean(classes, rule, "f1"),
                "mean_average_precision": _mean(classes, rule, "average_precision"),
                "best_f1": _best(swept.sum(axis=1)[:, number], THRESHOLDS),
            }
            for number, rule in enumerate(RULES)
        },
        "psds": polyphonic_score(tally.counts[:, :, _ALARMS].swapaxes(0, 1), hours)
        if judged
        else None,
        "per_class": classes,
        "curves": {
            "thresholds": [round(level, 6) for level in THRESHOLDS.tolist()],
            "overall": _curves(swept.sum(axis=1), judged),
            "per_class": {
                label: _curves(swept[:, place], judged) for place, label in enumerate(tally.labels)
            },
        },
    }


def _mean(classes: Mapping[str, Mapping[str, Any]], rule: str, score: str) -> float | None:
    # A class without true sounds has no recall: it counts in the false alarms alone.
    return mean_known([row[rule][score] for row in classes.values() if row["true_events"]])


def _per_hour(counts: np.ndarray, hours: float | None) -> float | None:
    return float(counts[FOUND] - counts[RIGHT]) / hours if hours else None


def _best(counts: np.ndarray, thresholds: Sequence[float] | np.ndarray) -> dict[str, float] | None:
    """The best F1 of any threshold, and the middle of the thresholds that have it."""
    if not counts[:, TRUE].any():
        return None
    scores = np.array([rates(row)["f1"] or 0.0 for row in counts])
    best = np.sort(np.asarray(thresholds)[scores == scores.max()])
    return {"f1": float(scores.max()), "threshold": round(float(best[(len(best) - 1) // 2]), 6)}


def _curves(swept: np.ndarray, hours: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "false_alarms_per_hour": [_per_hour(counts[_ALARMS], hours) for counts in swept]
    }
    for number, rule in enumerate(RULES):
        each = [rates(counts[number]) for counts in swept]
        found[rule] = {name: [row[name] for row in each] for name in ("precision", "recall")}
    return found
