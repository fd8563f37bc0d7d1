"""A review: its clips, what was said of them, and what is asked next.

Several pages may be open at once. Each is a tab with a name of its own; a clip that is shown on
one is not asked on another. All that was said is in the `LabelStore`; this object only keeps in
memory what follows from it, so that a server that is killed and started again continues where
it was. Threads may share a session.

Recordings that the run was trained, validated or tested on are never asked, nor are copies of
its test recordings by content: the test set must stay what it is.
"""

import os
import shlex
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.entries import BACKGROUND, is_quiet
from unfreeze.audio.excerpts import LENGTH, Span
from unfreeze.errors import DataError, UnfreezeError, show
from unfreeze.report.clip_media import Media, cut_media
from unfreeze.review.call_density import Density, Stratum, estimate_density
from unfreeze.review.candidate_clips import cut_clip
from unfreeze.review.clip_decisions import ClipDecisions
from unfreeze.review.clip_pool import (
    Pool,
    make_pool,
    overlapping,
    scored_again,
    similarities,
    without,
)
from unfreeze.review.clip_queue import (
    LIKE_LAST,
    ORDERS,
    QUOTA,
    SAMPLE,
    Sample,
    draw_sample,
    next_alike,
    next_for_quota,
    next_uncertain,
)
from unfreeze.review.label_files import confirmed, export_labels, named_class, training_rows
from unfreeze.review.label_store import (
    NO,
    OTHER,
    SKIP,
    UNSURE,
    YES,
    Answer,
    Decision,
    LabelStore,
)
from unfreeze.review.old_run import (
    notes_on,
    recordings_of_run,
    run_front_end,
    run_labels,
    why_no_training,
)
from unfreeze.review.quick_head import read_head_file
from unfreeze.review.retraining import (
    EARLY,
    FEWEST,
    MODEL,
    PROGRAM,
    Retraining,
    head_of,
    last_done,
    last_ended,
    train_words,
)
from unfreeze.search.index_folder import Index

# Seconds after which a clip that a page shows is free again: the page was closed.
_HELD = 900.0
# Clips whose picture and sound are kept: about 50 KB each.
_KEPT = 200
# A clip is heard whole, and the last one of a recording is a third longer.
_LONGEST = 0.75 * LENGTH


@dataclass(frozen=True)
class Question:
    """A clip, and the class that is asked for.

    Attributes:
        clip: its number in the pool.
        recording: the file.
        start: seconds from its start.
        end: seconds.
        asked: the class.
        score: the model's for that class, 0 to 1.
        likeliest: the classes with the largest scores, with these.
        order: that brought it.
    """

    clip: int
    recording: Path
    start: float
    end: float
    asked: str
    score: float
    likeliest: tuple[tuple[str, float], ...]
    order: str


class ReviewSession:
    """A review of an index's recordings with a run.

    Args:
        run: the run folder.
        index: made with that run.
        folder: of the review; the caller holds it.
        length: seconds of a clip.
        command: that opened the review, to be shown.
        program: starts `unfreeze`, for trainings.

    Raises:
        RunError: the run is not finished, or the folder holds another review.
        DataError: the index was not made with the run, or no clip is left to ask.
    """

    def __init__(
        self,
        run: Path,
        index: Index,
        folder: Path,
        *,
        length: float = 3.0,
        command: str = "",
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.run, self.index, self.folder = run, index, folder
        self.front_end = run_front_end(run)
        self.run_labels = run_labels(run)
        self._command, self._length = command, length
        self._check(length)
        about = {"run": str(run.absolute()), "length": length}
        self.store = LabelStore(folder, about)
        first = make_pool(index, length)
        unwanted = recordings_of_run(run, first.recordings)
        self._notes = notes_on(unwanted, len(first.recordings))
        self._missing: str | None = None
        if (missing := why_no_training(run)) is not None:
            self._notes.append(
                f"Labels are kept, but cannot be trained on now, and copies of test recordings are "
                f"not recognised. {missing}"
            )
        self._allowed = without(first, unwanted)
        if not self._allowed.any():
            raise DataError(
                "There is no clip to review: "
                + (self._notes[0] if self._notes else "the index has no recordings")
            )
        # The scores that strata are made of stay those of the run.
        self._first = self._pool = first
        self._samples: dict[str, Sample] = {}
        self._alike: tuple[int, np.ndarray] | None = None
        self._held: dict[str, tuple[int, float]] = {}
        self._media: OrderedDict[int, Media] = OrderedDict()
        self._lock = threading.RLock()
        self._said = ClipDecisions(first)
        for decision in self.store.history():
            self._said.add(decision)
        self._present()
        self._decoders = Decoders()
        self._temporary = tempfile.TemporaryDirectory(prefix="unfreeze-review-")
        done = last_done(self.store.trainings())
        if done is not None:
            self._take_head(done.number)
        self._retraining = Retraining(self.store, folder, run, index, self._take_head, program)
        self.resumed = self._retraining.resume()

    def close(self) -> None:
        """End a training that is under way (it is resumed the next time) and the decoders."""
        self._retraining.close()
        self._decoders.close()
        self._temporary.cleanup()

    @property
    def notes(self) -> list[str]:
        """What is to be said of the recordings."""
        return [*self._notes, *([] if self._missing is None else [self._missing])]

    @property
    def several(self) -> bool:
        """Whether each class is judged by itself."""
        return self._first.several

    @property
    def seconds(self) -> float:
        """Length of all clips that may be asked, in seconds."""
        pool = self._first
        return float((pool.end - pool.start)[self._allowed].sum())

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that can be named: the model's, then those that people added."""
        with self._lock:
            added = {one.label for one in self._said.by_clip.values() if one.label is not None}
            known = dict.fromkeys((*self._pool.labels, *sorted(added)))
        return tuple(label for label in known if not is_quiet(label))

    def _names(self) -> set[str]:
        """All classes that an answer may name without making a new one."""
        with self._lock:
            named = {one.label for one in self._said.by_clip.values() if one.label}
            return {*self._first.labels, *self._pool.labels, *named, BACKGROUND}

    def next(self, tab: str, order: str, label: str | None = None) -> Question | None:
        """The next clip to ask about on a page; None where none is left.

        Args:
            tab: which page.
            order: one of `unfreeze.review.clip_queue.ORDERS`.
            label: only clips of this class. The random sample needs one.

        Raises:
            UnfreezeError: there is no such order or class.
        """
        if order not in ORDERS:
            raise UnfreezeError(f"{order!r} is no order: give one of {', '.join(ORDERS)}")
        pool = self._pool
        if label is not None and label not in pool.labels:
            raise UnfreezeError(f"the model does not know the class {show(label)!r}")
        if order == SAMPLE and label is None:
            raise UnfreezeError("choose the class that the random sample is to count")
        with self._lock:
            self._let_go(tab)
            free = self._free()
            number = None if label is None else pool.labels.index(label)
            clip = self._choose(pool, order, number, free)
            if clip is None and order != SAMPLE:
                # Skipped ones come back once nothing else is left.
                clip = self._choose(pool, order, number, self._free(skipped=True))
            if clip is None:
                return None
            self._held[tab] = clip, time.monotonic()
        return self._question(pool, clip, order, label)

    def media(self, clip: int) -> Media | None:
        """Picture and sound of a clip; None if it cannot be read.

        Raises:
            UnfreezeError: there is no such clip.
        """
        path, start, end = self._place(clip)
        with self._lock:
            if clip in self._media:
                self._media.move_to_end(clip)
                return self._media[clip]
        # Cut first: recordings are opened at the place, not decoded up to it.
        target = Path(self._temporary.name) / f"{clip}-{threading.get_ident()}"
        try:
            cut = cut_clip(path, start, end, target)
        except DataError:
            return None
        try:
            found, _ = cut_media([Span(cut)], self.front_end, decoders=self._decoders)
        finally:
            cut.unlink(missing_ok=True)
        made = found.get(Span(cut))
        if made is not None:
            with self._lock:
                self._media[clip] = made
                while len(self._media) > _KEPT:
                    self._media.popitem(last=False)
        return made

    def decide(
        self,
        tab: str,
        clip: int,
        answer: str,
        *,
        asked: str,
        label: str | None = None,
        order: str = "",
        replace: bool = False,
    ) -> Decision:
        """Keep what was said of a clip; it is on disk when this returns.

        Args:
            tab: the page.
            clip: its number.
            answer: one of `unfreeze.review.label_store.ANSWERS`.
            asked: the class that the page asked for.
            label: the class, for "other"; may be new.
            order: that brought the clip.
            replace: whether it takes the place of what was said before.

        Raises:
            TakenError: something else was said before, and `replace` is not set. In a sample,
                "no" or "not sure" of another class is no hindrance: both count, each for its
                class.
            UnfreezeError: the clip, answer or class cannot be used.
        """
        path, start, end = self._place(clip)
        pool = self._pool
        known = self._names()
        if asked not in known:
            raise UnfreezeError(
                f"there is no class {show(asked)!r} to ask for: load the page again"
            )
        said = asked if answer == YES else named_class(label, known) if answer == OTHER else None
        if order == SAMPLE:
            if answer == SKIP:
                raise UnfreezeError(
                    "a random sample skips no clip, or it would not be random: say that you are "
                    "not sure"
                )
            with self._lock:
                before = self._said.by_clip.get(clip)
            replace = replace or (
                before is not None and before.answer in (NO, UNSURE) and before.asked != asked
            )
        score = None
        if asked in pool.labels:
            score = float(pool.scores[clip, pool.labels.index(asked)])
        answered = Answer(path, start, end, answer, said, asked, score, order, tab)
        decision = self.store.decide(answered, replace=replace)
        with self._lock:
            self._said.add(decision)
            self._let_go(tab)
            named = len(confirmed(self._said.decisions()))
        if named >= EARLY:
            self._retraining.prepare()
        return decision

    def undo(self, tab: str) -> Question | None:
        """Take back the last decision of a page, and ask about its clip again; None without one."""
        mine = [one for one in self.store.decisions() if one.tab == tab]
        if mine and not overlapping(self._first, mine[-1].recording, mine[-1].start, mine[-1].end):
            raise UnfreezeError(
                f"the last answer on this page is of {show(mine[-1].recording)}, which is not "
                "among the recordings now. It is not taken back"
            )
        undone = self.store.undo(tab)
        if undone is None:
            return None
        with self._lock:
            clips = self._said.take_back(undone)
            self._alike = None
            if not clips:
                return None
            self._held[tab] = clips[0], time.monotonic()
        return self._question(self._pool, clips[0], undone.found_by, undone.asked)

    def counts(self) -> dict[str, Any]:
        """How many clips were decided: `answers` by kind, `labels` by class, `left`, `all`."""
        with self._lock:
            decisions = self._said.decisions()
            left = int(self._free(skipped=True, held=False).sum())
        named = Counter(one.label or "" for one in confirmed(decisions))
        return {
            "answers": dict(Counter(one.answer for one in decisions)),
            "labels": dict(sorted(named.items())),
            "left": left,
            "all": int(self._allowed.sum()),
        }

    def density(self, label: str) -> tuple[Density | None, dict[str, int]]:
        """How many clips have a call of a class, and how far its sample is.

        Args:
            label: a class of the run.

        Returns:
            The estimate, None while too little is known; and `known` and `unsure`, the counts
            of the sample.
        """
        if label not in self._first.labels:
            return None, {"known": 0, "unsure": 0}
        with self._lock:
            sample = self._sample(label)
            found, not_found, unsure = self._said.of_class(label)
            settled = found | not_found | unsure
            strata = [
                Stratum(
                    len(own),
                    *(int(each[part].sum()) for each in (found, not_found, unsure)),
                )
                for own, part in zip(sample.strata, sample.known_part(settled), strict=True)
            ]
        known = sum(one.found + one.not_found for one in strata)
        told = {"known": known, "unsure": sum(one.unsure for one in strata)}
        return estimate_density(label, strata), told

    def train(self) -> int:
        """Begin to train on the labels in the background; return the training's number.

        Raises:
            UnfreezeError: a training is under way, or there are too few labels.
        """
        decisions = self._present()
        rows = training_rows(decisions, self.run_labels, self.several)
        if len(rows) < FEWEST:
            raise UnfreezeError(
                f"{len(rows)} clips have a label to train on, and their recording where it was: "
                f"confirm at least {FEWEST}"
            )
        return self._retraining.begin(decisions, self.run_labels, self.several)

    def write_model(self) -> int:
        """Begin to write the model of the last training, a run; return the training's number.

        Raises:
            UnfreezeError: there is none, or it is written already.
        """
        return self._retraining.write()

    def _present(self) -> list[Decision]:
        """The decisions whose recordings are where they were; the page is told of the others."""
        decisions = self.store.decisions()
        files = dict.fromkeys(one.recording for one in decisions)
        gone = {file: None for file in files if not os.path.isfile(file)}  # noqa: PTH113
        lost = sum(one.recording in gone for one in decisions)
        self._missing = (
            f"{lost} answers are of {len(gone)} recordings that are missing, such as "
            f"{show(next(iter(gone)))}. They are kept, and trained on once those are back there."
            if gone
            else None
        )
        return [one for one in decisions if one.recording not in gone]

    def wait(self, seconds: float | None = None) -> None:
        """Wait until a training that is under way has ended."""
        self._retraining.wait(seconds)

    def training(self) -> dict[str, Any]:
        """What the page shows of trainings.

        Returns:
            `now` and `writing`: what is under way; `last`: the last that ended; `models`: by
            number of a training, what became of the model that was asked for; `trainable` and
            `fewest`: labels; `command`: what writes the model of the last training, or None.
        """
        records = self.store.trainings()
        rows = training_rows(self.store.decisions(), self.run_labels, self.several)
        last = last_ended(records)
        words = None if last is None else train_words(self.folder, last.number, self.run)
        return {
            "now": self._retraining.progress(),
            "writing": self._retraining.writing(),
            "last": None if last is None else asdict(last),
            "models": {one.number: one.result[MODEL] for one in records if MODEL in one.result},
            "trainable": len(rows),
            "fewest": FEWEST,
            "command": None if words is None else shlex.join(["unfreeze", *words]),
        }

    def export(self, kind: str) -> tuple[Path, int]:
        """Write the labels into the review's folder, as `export_labels`."""
        settings = self.index.settings
        return export_labels(
            kind,
            self.folder,
            self.store.history(),
            labels=self.run_labels,
            several=self.several,
            run=self.run.absolute(),
            command=self._command,
            hears=(settings.low_hz, settings.high_hz),
        )

    def _check(self, length: float) -> None:
        if not self.index.labels:
            raise DataError(
                f"{show(self.index.folder)} was made without a run, so it has no scores: make one "
                f"with `unfreeze embed RECORDINGS --out INDEX --run {show(self.run)}`"
            )
        if set(self.index.labels) - {BACKGROUND} != set(self.run_labels) - {BACKGROUND}:
            raise DataError(
                f"{show(self.index.folder)} was made with a run of other classes than "
                f"{show(self.run)}: make an index with that run, or give the run that made it"
            )
        window = self.index.settings.window
        longest = max(_LONGEST / self.front_end.slow_down, window)
        if not window <= length <= longest:
            raise UnfreezeError(
                f"clips of {length:g} s cannot be reviewed: give a --length from {window:g} s, "
                f"which the network hears at once, to {longest:g} s"
            )

    def _place(self, clip: int) -> tuple[Path, float, float]:
        if not 0 <= clip < len(self._first) or not self._allowed[clip]:
            raise UnfreezeError(f"there is no clip {clip}: load the page again")
        return self._first.place(clip)

    def _question(self, pool: Pool, clip: int, order: str, label: str | None) -> Question:
        row = pool.scores[clip].astype(float)
        best = [int(i) for i in np.argsort(-row, kind="stable")[:3]]
        asked = label or pool.labels[int(np.where(pool.loud, row, -1).argmax())]
        score = row[pool.labels.index(asked)] if asked in pool.labels else 0.0
        likeliest = tuple((pool.labels[i], float(row[i])) for i in best)
        return Question(clip, *self._first.place(clip), asked, float(score), likeliest, order)

    def _choose(self, pool: Pool, order: str, label: int | None, free: np.ndarray) -> int | None:
        if order == SAMPLE:
            assert label is not None
            name = pool.labels[label]
            if name not in self._first.labels:
                raise UnfreezeError(f"the run did not know {show(name)!r}: it cannot be counted")
            settled = np.logical_or.reduce(self._said.of_class(name))
            return self._sample(name).next(settled, self._allowed & ~self._shown())
        if order == QUOTA:
            named = Counter(one.label for one in confirmed(self._said.decisions()))
            return next_for_quota(pool, free, {k or "": n for k, n in named.items()}, label)
        if order == LIKE_LAST and (alike := self._like_last()) is not None:
            return next_alike(alike, free)
        return next_uncertain(pool, free, label)

    def _like_last(self) -> np.ndarray | None:
        """How alike each clip is to the one confirmed last; None without one."""
        loud = {
            one.number: (clip, one.label or "")
            for clip, one in self._said.by_clip.items()
            if one.answer in (YES, OTHER) and not is_quiet(one.label or "")
        }
        if not loud:
            return None
        last = max(loud)
        if self._alike is None or self._alike[0] != last:
            self._alike = last, similarities(self.index, self._first, *loud[last])
        return self._alike[1]

    def _sample(self, label: str) -> Sample:
        if label not in self._samples:
            scores = self._first.scores[:, self._first.labels.index(label)].astype(np.float32)
            # Each class has an order of its own, the same in each session.
            seed = int.from_bytes(label.encode(errors="replace")[:8].ljust(8, b"\0"), "little")
            self._samples[label] = draw_sample(scores, self._allowed, seed)
        return self._samples[label]

    def _free(self, skipped: bool = False, held: bool = True) -> np.ndarray:
        free = self._allowed.copy()
        for clip, one in self._said.by_clip.items():
            free[clip] &= skipped and one.answer == SKIP
        return free & ~self._shown() if held else free

    def _shown(self) -> np.ndarray:
        """(clips,) bool, whether a page shows a clip."""
        now = time.monotonic()
        self._held = {t: (c, at) for t, (c, at) in self._held.items() if now - at < _HELD}
        shown = np.zeros(len(self._first), bool)
        shown[[clip for clip, _ in self._held.values()]] = True
        return shown

    def _let_go(self, tab: str) -> None:
        self._held.pop(tab, None)

    def _take_head(self, number: int) -> None:
        """Put what is left in the order of a training's head."""
        head = read_head_file(head_of(self.folder, number), self.index)
        if head is None:
            # Without it, the earlier order stays.
            return
        newer = scored_again(self.index, self._first, head)
        with self._lock:
            self._pool = newer
