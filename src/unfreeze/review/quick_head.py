"""A new head for a review in seconds: from vectors that are known, without a network.

The review's index has the vectors of all its clips, and another index those of the run's own
recordings, by the same model. So the head alone is solved again (`unfreeze.pipeline.vector_head`),
on the run's training clips and the new labels; the run's test clips are scored before and after
by a multiplication, and so are all clips of the review.

The rules of `unfreeze.review.add_to` say which clips are trained on, as for a run that adds to
another. The network below the head is the run's, and so is its gate: what the run takes for
background stays so until a model is written. How open the gate is in a window follows from the
index: the run's score for a class is the head's, which the vector gives, times that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.entries import BACKGROUND, is_quiet
from unfreeze.audio.made_background import KINDS
from unfreeze.audio.manifest import Clip
from unfreeze.audio.patches import clip_means
from unfreeze.errors import RunError, UnfreezeError, show
from unfreeze.files import atomic_path
from unfreeze.pipeline.paired_change import fallen, paired_change
from unfreeze.pipeline.training_data import TrainingData
from unfreeze.pipeline.vector_head import ClipVectors, VectorHead, solve_head
from unfreeze.review.add_to import read_both
from unfreeze.review.old_run import inherited_options
from unfreeze.search.index_folder import HEAD, Index
from unfreeze.search.queries import Example, rows_of

#: How the labels of a review are added to a run: all are trained on.
HOW = {"schedule": "probe", "annotated": "partly", "validation": 0.0, "test": 0.0}
# Windows that a head is solved on, at most: more would take longer than seconds.
_MOST = 20_000
# Rules by which added clips are left out, so that the test set stays what it is.
_LEFT_OUT = ("between_parts", "disputed", "duplicate_label")
# Below this, a score of an index is too roughly rounded to be divided by: it has 16 bits.
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class QuickHead:
    """A new head, and the run's, on the vectors of one model.

    Attributes:
        head: the new one; its columns are `labels`.
        labels: the classes that it was solved for.
        old: the run's; its columns are `old_labels`.
        old_labels: the classes that the run was trained on.
        run_labels: the classes of the run's scores; a gate adds background.
        encoder: digest of the model, as in an index's settings.
    """

    head: VectorHead
    labels: tuple[str, ...]
    old: VectorHead
    old_labels: tuple[str, ...]
    run_labels: tuple[str, ...]
    encoder: str

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of the scores: those of the head, and background where the run has it."""
        more = BACKGROUND in self.run_labels and BACKGROUND not in self.labels
        return tuple(sorted((*self.labels, BACKGROUND))) if more else self.labels

    def scores(self, vectors: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Score windows.

        Args:
            vectors: (windows, numbers); all 0 in digital silence.
            before: (windows, classes of the run), the run's scores.

        Returns:
            (windows, names) float32.
        """
        names = self.names
        found = np.zeros((len(vectors), len(names)), np.float32)
        columns = [names.index(label) for label in self.labels]
        passes = self._passes(vectors, before)[:, None]
        chances = self.head.scores(vectors)
        if self.head.several:
            found[:, columns] = chances * passes
        elif BACKGROUND in names:
            found[:, columns] = chances * passes
            found[:, names.index(BACKGROUND)] += 1 - passes[:, 0]
        else:
            found[:, columns] = chances
        # In silence nothing is heard, or what the run says of it.
        silent = ~vectors.any(axis=1)
        found[silent] = 0
        for label in set(names) & set(self.run_labels):
            found[silent, names.index(label)] = before[silent, self.run_labels.index(label)]
        return found

    def _passes(self, vectors: np.ndarray, before: np.ndarray) -> np.ndarray:
        """(windows,) how open the run's gate is, 0 to 1; 1 without a gate, but for rounding."""
        mine = self.old.scores(vectors).astype(np.float64)
        if not self.head.several:
            if BACKGROUND not in self.run_labels:
                return np.ones(len(vectors))
            # What the gate holds back is background, beside what the head itself calls so.
            rest = 1 - before[:, self.run_labels.index(BACKGROUND)].astype(np.float64)
            if BACKGROUND not in self.old_labels:
                return np.clip(rest, 0, 1)
            own = 1 - mine[:, self.old_labels.index(BACKGROUND)]
            return np.where(own < _LEAST, 1, np.clip(rest / np.maximum(own, _LEAST), 0, 1))
        loud = [label for label in self.old_labels if not is_quiet(label)]
        mine = mine[:, [self.old_labels.index(label) for label in loud]]
        its = before[:, [self.run_labels.index(label) for label in loud]].astype(np.float64)
        rows = np.arange(len(vectors))
        its, mine = its[rows, mine.argmax(axis=1)], mine.max(axis=1)
        # Where none of the old classes is heard, nothing says how open the gate is.
        return np.where(mine < _LEAST, 1, np.clip(its / np.maximum(mine, _LEAST), 0, 1))


def train_head_again(
    run: Path, index: Index, known: Index, table: Path
) -> tuple[QuickHead, dict[str, Any]]:
    """Solve a head on a run's training clips and new labels.

    Args:
        run: the run.
        index: of the review; the labelled recordings are in it.
        known: of the run's own recordings.
        table: the labels.

    Returns:
        The head; and `test`, the change as from `unfreeze.pipeline.paired_change`, None without
        test clips, with `labels`, `notes` and `problems`.

    Raises:
        UnfreezeError: the labels cannot be added to the run, or a recording is in no index.
        RunError: the new head is worse, by more than chance explains.
    """
    if known.settings.encoder != index.settings.encoder:
        raise RunError(
            f"{show(index.folder)} was made with another model than {show(run)} has: make it again "
            f"with `unfreeze embed RECORDINGS --out INDEX --run {show(run)}`"
        )
    options = inherited_options(run, table, HOW)
    data = read_both(options)
    old, old_labels = _old_head(known)
    vectors = {name: _vectors(index, known, data, name) for name in ("train", "validation")}
    head, _ = solve_head(
        data.manifest, vectors["train"][0], vectors["validation"][0], options.class_weight
    )
    labels = data.manifest.labels
    quick = QuickHead(head, labels, old, old_labels, known.labels, known.settings.encoder)
    change = _change(quick, index, known, data, options.seed)
    worse = fallen(change)
    if worse is not None:
        raise RunError(
            "The new head is worse on the run's test clips, by more than chance explains: "
            f"{worse}. What is left keeps its order. Check the labels, and add clips of the old "
            "classes, too; or write the model all the same: run the command that the page shows, "
            "with --even-if-worse"
        )
    problems = [{**asdict(one), "path": show(one.path)} for one in data.manifest.problems]
    about = told_of(data.notes, problems)
    return quick, {"test": change, "labels": list(labels), **about}


def told_of(notes: Sequence[Any], problems: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What is to be said of data, as a run's `notes.json` has it.

    Returns:
        `notes`, and `problems`: the clips that were left out, with the cause.
    """
    left_out = [one for one in problems if one.get("fatal") or one.get("rule") in _LEFT_OUT]
    return {
        "notes": [str(note) for note in notes][:10],
        "problems": [f"{one.get('path')}: {one.get('cause')}" for one in left_out][:10],
    }


def write_head_file(quick: QuickHead, file: Path) -> None:
    """Write a head, whole or not at all."""
    with atomic_path(file) as partial, partial.open("wb") as opened:
        np.savez(
            opened,
            kernel=quick.head.kernel,
            bias=quick.head.bias,
            old_kernel=quick.old.kernel,
            old_bias=quick.old.bias,
            labels=np.array(quick.labels),
            old_labels=np.array(quick.old_labels),
            run_labels=np.array(quick.run_labels),
            encoder=np.array(quick.encoder),
            several=np.array(quick.head.several),
        )


def read_head_file(file: Path, index: Index) -> QuickHead | None:
    """Read a head; None if there is none, or none on the vectors of this index."""
    try:
        with np.load(file, allow_pickle=False) as found:
            several = bool(found["several"])
            quick = QuickHead(
                VectorHead(found["kernel"], found["bias"], several),
                tuple(map(str, found["labels"])),
                VectorHead(found["old_kernel"], found["old_bias"], several),
                tuple(map(str, found["old_labels"])),
                tuple(map(str, found["run_labels"])),
                str(found["encoder"]),
            )
    except Exception:
        # A damaged file may raise anything; the order of clips stays what it was.
        return None
    fits = quick.encoder == index.settings.encoder and quick.run_labels == index.labels
    return quick if fits and len(quick.head.kernel) == index.settings.numbers else None


def _old_head(known: Index) -> tuple[VectorHead, tuple[str, ...]]:
    """The run's head, and the classes of its columns.

    Raises:
        RunError: it is not one dense layer.
    """
    try:
        with np.load(known.folder / HEAD, allow_pickle=False) as found:
            kernel, bias = found["kernel"], found["bias"]
    except FileNotFoundError:
        raise RunError(
            "The run's head is of more than one layer (`--taps none`): labels can be added to it "
            "with `unfreeze train labels.csv --add-to RUN`, after Write CSV"
        ) from None
    except Exception as error:
        raise RunError(
            f"{show(known.folder / HEAD)} cannot be read ({error}): delete {show(known.folder)}"
        ) from None
    labels = known.labels
    # Beside its classes it may have columns for kinds of noise; a gate adds a class behind it.
    units = len(bias) - (len(KINDS) if len(bias) > len(labels) else 0)
    if units == len(labels) - 1:
        labels = tuple(label for label in labels if label != BACKGROUND)
    if units != len(labels):
        raise RunError(f"{show(known.folder)} does not fit its run: delete that folder")
    return VectorHead(kernel[:, :units], bias[:units], known.settings.several), labels


def _vectors(
    index: Index, known: Index, data: TrainingData, part: str
) -> tuple[ClipVectors, np.ndarray]:
    """The vectors of the clips of a part, and the run's scores of the same windows."""
    added, numbers = {int(i) for i in data.added}, data.split.parts()[part]
    places = []
    for number in numbers:
        home = index if int(number) in added else known
        places.append((int(number), home, _rows(home, data.manifest.clips[int(number)])))
    # Long clips are heard at every so many windows; each keeps its first.
    total = sum(len(rows) for _, _, rows in places)
    # Test clips are heard whole, as the run heard them.
    step = 1 if part == "test" else max(-(-total // _MOST), 1)
    vectors, scores, clip = list[np.ndarray](), list[np.ndarray](), list[int]()
    for number, home, rows in places:
        own = home.vectors(rows.start, rows.stop)[::step].astype(np.float32)
        before = home.scores(rows.start, rows.stop)
        assert before is not None
        # Training hears no digital silence; a clip of nothing else has what there is.
        heard = own.any(axis=1) if own.any() else np.ones(len(own), bool)
        vectors.append(own[heard])
        scores.append(before[::step][heard])
        clip += [number] * int(heard.sum())
    empty = np.zeros((0, index.settings.numbers), np.float32)
    found = ClipVectors(np.concatenate([empty, *vectors]), np.array(clip, np.int64))
    return found, np.concatenate([np.zeros((0, len(index.labels)), np.float16), *scores])


def _rows(index: Index, clip: Clip) -> range:
    """The windows of a clip.

    Raises:
        UnfreezeError: its recording is not in the index.
    """
    item = index.recording(clip.path)
    if item is None or not item.rows:
        raise UnfreezeError(
            f"{show(clip.path)} is not in {show(index.folder)}: it could not be read. See "
            "whether it plays"
        )
    if clip.start is None or clip.end is None:
        return range(item.first, item.first + item.rows)
    return rows_of(index, item, Example(clip.path, clip.start, clip.end))


def _change(
    quick: QuickHead, index: Index, known: Index, data: TrainingData, seed: int
) -> dict[str, Any] | None:
    """What the new head changes on the run's test clips; None without any."""
    if not len(data.split.test):
        return None
    own, before = _vectors(index, known, data, "test")
    clips, count = np.unique(own.clip), len(data.manifest.clips)
    after = quick.scores(own.vectors, before)
    means = [
        clip_means(each.astype(np.float64), own.clip, count)[clips] for each in (before, after)
    ]
    pairs = (means[0], quick.run_labels), (means[1], quick.names)
    return paired_change(data.manifest, clips, *pairs, seed)
