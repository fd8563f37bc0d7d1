"""What each depth of a pretrained network knows: the validation score of each layer group alone.

A frozen network is read at the end of each of its layer groups, and a logistic regression
on that tap alone tells the classes apart (Alain and Bengio, "Understanding intermediate
layers using linear classifier probes", 2016; Evci et al., "Head2Toe: Utilizing
Intermediate Representations for Better Transfer Learning", ICML 2022, read all taps at
once). Its score on the validation clips rises from the input up to where the network has
computed what the classes differ by, and falls where the network has dropped that for its
own task. It says how far the network's knowledge fits, not what to train: training only
what lies above the peak lost 6 to 9 points against all layers (docs/evidence.md).

One pass of the network serves all taps. At most `MOST_PATCHES` patches of each part are
read, so time and memory are bounded, however large the data. Test clips play no part, and
nothing is added to the network's layers.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from threadpoolctl import threadpool_limits

from unfreeze.audio.patches import PatchView
from unfreeze.core.boundary import inference_cut
from unfreeze.core.fusing import fuse_steps
from unfreeze.core.graph import Graph, Ref, Step, flatten
from unfreeze.core.read_out import pool_axes, principal_components, tap_points
from unfreeze.core.read_out_layers import Compress, MeanPool
from unfreeze.core.step_model import Program, StepModel
from unfreeze.errors import DataError
from unfreeze.pipeline.patch_training import clip_scorer

# More change the scores by less than their standard error, and cost seconds.
MOST_PATCHES = 2048
COMPONENTS = 64
#: Inverse strength of the L2 penalty, as scikit-learn's `C`: the same for each tap.
STRENGTH = 0.1
# With fewer, the standard error is larger than what sets depths apart.
FEWEST_CLIPS = 10
BATCH = 128
_ITERATIONS = 300


@dataclass(frozen=True)
class Depth:
    """What one layer group knows.

    Attributes:
        group: its name.
        accuracy: share of the validation clips that its tap alone gets right.
        balanced_accuracy: mean of that share over the classes.
    """

    group: str
    accuracy: float
    balanced_accuracy: float


@dataclass(frozen=True)
class DepthProfile:
    """What each depth of a network knows.

    Attributes:
        groups: from the input up.
        peak: name of the group at the peak; None where no group is better than chance.
        standard_error: of the best balanced accuracy.
        chance: balanced accuracy of a guess.
        clips: validation clips that were scored.
        summary: the peak in one sentence.
    """

    groups: tuple[Depth, ...]
    peak: str | None
    standard_error: float
    chance: float
    clips: int
    summary: str

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "groups": [asdict(depth) for depth in self.groups]}


def why_no_profile(labels: np.ndarray, train: np.ndarray, validation: np.ndarray) -> str | None:
    """Why the clips allow no depth profile, in one sentence; None if they do.

    Args:
        labels: (clips,) class of each clip of the manifest.
        train: the training clips, as numbers in the manifest; may hold a clip repeatedly.
        validation: the validation clips, likewise.
    """
    found = len(np.unique(validation))
    if found < FEWEST_CLIPS:
        counted = f"there {'is' if found == 1 else 'are'} {found or 'none'}"
        return f"A depth profile needs {FEWEST_CLIPS} validation clips or more; {counted}."
    if min(len(np.unique(labels[part])) for part in (train, validation)) < 2:
        return "A depth profile needs two classes in the training and in the validation clips."
    return None


def depth_profile(
    backbone: keras.Model,
    train: PatchView,
    validation: PatchView,
    labels: np.ndarray,
    *,
    taps: str | Sequence[str] = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DepthProfile:
    """Score each layer group of a frozen network alone.

    Args:
        backbone: a functional network without a head, from patches.
        train: patches to fit to.
        validation: patches to score.
        labels: (clips,) class of each clip of the manifest, from 0.
        taps: what is scored instead, as for `tap_points`.
        seed: of the draw of patches and of the projections.
        progress: called as progress(done, total) with counts of patches.

    Raises:
        DataError: the clips allow no profile (`why_no_profile`), or the network's outputs
            are not finite.
    """
    reason = why_no_profile(labels, train.clip, validation.clip)
    if reason is not None:
        raise DataError(reason)
    graph = flatten(backbone)
    points = tap_points(graph, taps, most=None)
    reader = _tap_reader(graph, backbone, list(points.values()))
    rows = draw_rows(train.clip, MOST_PATCHES, seed, labels)
    held = draw_rows(validation.clip, MOST_PATCHES, seed)
    done = 0

    def report(patches: int) -> None:
        nonlocal done
        done += patches
        if progress is not None:
            progress(done, len(rows) + len(held))

    columns: list[list[np.ndarray]] = [[] for _ in points]
    for vectors in _read(reader, train, rows, report):
        for column, vector in zip(columns, vectors, strict=True):
            column.append(vector)
    classes = labels[train.clip[rows]]
    fit = partial(_fit, classes=classes, count=int(labels.max()) + 1, seed=seed)
    # Threads of our own instead of those of BLAS, which wait for each other at matrices of
    # this size: with other programs at work that made the fits ten times as slow.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        probes = list(pool.map(fit, columns))
    guesses: list[list[np.ndarray]] = [[] for _ in points]
    for vectors in _read(reader, validation, held, report):
        for guess, probe, vector in zip(guesses, probes, vectors, strict=True):
            guess.append(probe(vector))
    score = clip_scorer(labels, validation.clip[held])
    scores = [score(np.concatenate(guess)) for guess in guesses]
    depths = [
        Depth(name, each["clip_accuracy"], each["balanced_accuracy"])
        for name, each in zip(points, scores, strict=True)
    ]
    return conclude(depths, len(np.unique(validation.clip[held])), len(np.unique(classes)))


def draw_rows(
    clip: np.ndarray, most: int, seed: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """Draw patches at random, as evenly over clips as possible.

    Where there are more clips than `most`, as many clips are drawn, with a patch each.

    Args:
        clip: (patches,) clip of each patch.
        most: the most patches to draw.
        seed: of the draw.
        labels: (clips,) class of each clip; with it, the patches are spread evenly over
            classes, too, so that a rare class is not lost.

    Returns:
        (n,) positions of patches, sorted.
    """
    order = np.random.default_rng(seed).permutation(len(clip))
    order = order[np.argsort(_turns(clip[order]), kind="stable")]
    if labels is not None:
        order = order[np.argsort(_turns(labels[clip[order]]), kind="stable")]
    return np.sort(order[:most])


def _turns(owners: np.ndarray) -> np.ndarray:
    """How often the owner of each entry has come before it."""
    by_owner = np.argsort(owners, kind="stable")
    _, firsts, counts = np.unique(owners[by_owner], return_index=True, return_counts=True)
    turns = np.empty(len(owners), np.int64)
    turns[by_owner] = np.arange(len(owners)) - np.repeat(firsts, counts)
    return turns


def _tap_reader(graph: Graph, backbone: keras.Model, taps: Sequence[Step]) -> StepModel:
    """A model from patches to one vector per tap: the mean over time, compressed."""
    # Nothing is trained, so all steps are before the cut, and each BatchNorm can be fused.
    cut = inference_cut(graph)
    cut = replace(cut, frontier=tuple(step.outputs[0] for step in taps))
    steps, outputs = list(fuse_steps(cut.prefix, cut, frozenset())), []
    free = max(graph.shapes) + 1
    for step in taps:
        pool = MeanPool(pool_axes(graph, step, "time"), dtype="float32")
        steps.append(Step(pool, (Ref(step.outputs[0]),), {}, (free,), f"{step.path}_mean"))
        root = Compress(dtype="float32")
        steps.append(Step(root, (Ref(free),), {}, (free + 1,), f"{step.path}_root"))
        outputs.append(free + 1)
        free += 2
    program = Program(graph, graph.inputs, tuple(outputs), frozen=tuple(steps), packed=False)
    return StepModel(program, backbone, name=f"{backbone.name}_taps")


def _read(
    reader: StepModel, view: PatchView, rows: np.ndarray, report: Callable[[int], None]
) -> Iterator[list[np.ndarray]]:
    """The vectors of all taps, each (patches, numbers), batch by batch."""
    for at in range(0, len(rows), BATCH):
        part = rows[at : at + BATCH]
        # The last batch is filled up, so that the network is compiled for one shape.
        found = reader.predict_on_batch(view[np.resize(part, BATCH)])
        vectors = [np.asarray(values, np.float32)[: len(part)] for values in found]
        if not all(np.isfinite(values).all() for values in vectors):
            raise DataError("The network's outputs are not finite: is there NaN in its weights?")
        report(len(part))
        yield vectors


def _fit(
    parts: list[np.ndarray], classes: np.ndarray, count: int, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a logistic regression to one tap, each class counting the same.

    Args:
        parts: the tap's vectors, batch by batch; emptied to free their memory.
        classes: (patches,) the class of each.
        count: of all classes.
        seed: of the projection.

    Returns:
        A function from vectors (patches, numbers) to probabilities (patches, count).
    """
    from sklearn.linear_model import LogisticRegression

    values = np.concatenate(parts)
    parts.clear()
    if np.ptp(values, axis=0).any():
        kernel, bias = principal_components(values, COMPONENTS, seed)
    else:  # The tap says nothing: only the classes' equal weights are left.
        kernel, bias = np.zeros((values.shape[1], 1), np.float32), np.zeros(1, np.float32)
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=_ITERATIONS)
    model.fit(values @ kernel + bias, classes)

    def guess(vectors: np.ndarray) -> np.ndarray:
        found = np.zeros((len(vectors), count), np.float32)
        found[:, model.classes_] = model.predict_proba(vectors @ kernel + bias)
        return found

    return guess


def find_peak(accuracies: Sequence[float], clips: int) -> tuple[int, float]:
    """The smallest depth that is as good as the best, but for chance.

    That is, within one standard error of it (the one-standard-error rule: Breiman et al.,
    "Classification and Regression Trees", 1984, 3.4.3). The standard error is that of a
    share of `clips` clips; one right and one wrong clip are added, so that a perfect score
    on few clips is not taken for certain.

    Args:
        accuracies: balanced accuracy of each depth, from the input up.
        clips: that were scored.

    Returns:
        The position of the peak, and the standard error of the best.
    """
    best = max(accuracies)
    share = (best * clips + 1) / (clips + 2)
    error = (share * (1 - share) / clips) ** 0.5
    return next(i for i, value in enumerate(accuracies) if value >= best - error), error


def conclude(depths: Sequence[Depth], clips: int, classes: int) -> DepthProfile:
    """Find the peak, and say what that means.

    Args:
        depths: from the input up.
        clips: validation clips that were scored.
        classes: that were told apart.
    """
    scores = [depth.balanced_accuracy for depth in depths]
    peak, error = find_peak(scores, clips)
    names, best, chance = [depth.group for depth in depths], max(scores), 1 / classes
    above = names[peak + 1 :]
    known = best - 2 * error > chance
    if not known:
        summary = (
            "No layer group tells the classes apart much better than chance (balanced accuracy "
            f"{best:.2f} at best, chance {chance:.2f})."
        )
    elif not above:
        summary = (
            f"Of the layer groups, each read alone, only the last, {names[peak]}, tells the "
            f"classes apart best (balanced accuracy {scores[peak]:.2f}): the network's end suits "
            "these sounds, and training the head alone may do."
        )
    else:
        # The peak is the first that is as good as the best, but for chance.
        summary = (
            f"Of the layer groups, each read alone, {names[peak]} ({peak + 1} of {len(names)} from "
            "the input) is the first that tells the classes apart as well as any (balanced "
            f"accuracy {scores[peak]:.2f}); at the last group, {names[-1]}, it is {scores[-1]:.2f}."
        )
    return DepthProfile(
        groups=tuple(depths),
        peak=names[peak] if known else None,
        standard_error=error,
        chance=chance,
        clips=clips,
        summary=summary,
    )
