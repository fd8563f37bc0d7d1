"""What each depth of a pretrained network knows: the validation score of each layer group alone.

A frozen network is read at the end of each of its layer groups, and a logistic regression
on that tap alone tells the classes apart; where a clip may have several labels, one for each
class says how likely it is heard, and clips are ranked by that (Alain and Bengio,
"Understanding intermediate layers using linear classifier probes", 2016; Evci et al.,
"Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning", ICML 2022,
read all taps at once). Its score on the validation clips rises from the input up to where
the network has computed what the classes differ by, and falls where the network has dropped
that for its own task. It says how far the network's knowledge fits, not what to train:
training only what lies above the peak lost 6 to 9 points against all layers
(docs/evidence.md).

One pass of the network serves all taps. At most `MOST_PATCHES` patches of each part are
read, so time and memory are bounded, however large the data. Test clips play no part, and
nothing is added to the network's layers.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from threadpoolctl import threadpool_limits

from unfreeze.audio.patches import PatchView, clip_means
from unfreeze.core.boundary import Cut, inference_cut
from unfreeze.core.fusing import fuse_steps
from unfreeze.core.graph import Graph, Ref, Step, flatten
from unfreeze.core.read_out import pool_axes, principal_components, tap_points
from unfreeze.core.read_out_layers import Compress, MeanPool
from unfreeze.core.step_model import Program, StepModel
from unfreeze.errors import DataError
from unfreeze.pipeline.bootstrap import mean_of_defined
from unfreeze.pipeline.kept_fits import fit_key, once
from unfreeze.pipeline.label_scoring import average_precision, label_scorer
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
#: What depths are compared by where a clip has one label, and where it may have several.
BALANCED_ACCURACY, MEAN_PRECISION = "balanced_accuracy", "mean_average_precision"
# Resamples of clips for the standard error of a mean average precision.
_RESAMPLES = 200

Guess = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Depth:
    """What one layer group knows.

    Attributes:
        group: its name.
        scores: of the validation clips, by its tap alone: `accuracy` and `balanced_accuracy`
            (its mean over the classes); where a clip may have several labels,
            `mean_average_precision`.
    """

    group: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class DepthProfile:
    """What each depth of a network knows.

    Attributes:
        groups: from the input up.
        score: name of the score that they are compared by.
        peak: name of the group at the peak; None where no group is better than chance.
        standard_error: of the best score.
        chance: the score of a guess.
        clips: validation clips that were scored.
        summary: the peak in one sentence.
    """

    groups: tuple[Depth, ...]
    score: str
    peak: str | None
    standard_error: float
    chance: float
    clips: int
    summary: str

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        groups = [{"group": depth.group, **depth.scores} for depth in self.groups]
        return {**asdict(self), "groups": groups}


def why_no_profile(labels: np.ndarray, train: np.ndarray, validation: np.ndarray) -> str | None:
    """Why the clips allow no depth profile, in one sentence; None if they do.

    Args:
        labels: of all clips of the manifest, as for `depth_profile`.
        train: the training clips, as numbers in the manifest; may hold a clip repeatedly.
        validation: the validation clips, likewise.
    """
    found = len(np.unique(validation))
    if found < FEWEST_CLIPS:
        counted = f"there {'is' if found == 1 else 'are'} {found or 'none'}"
        return f"A depth profile needs {FEWEST_CLIPS} validation clips or more; {counted}."
    if labels.ndim == 2:
        both = [_told(labels[np.unique(part)]) for part in (train, validation)]
        if not np.logical_and(*both).any():
            return (
                "A depth profile needs a class that is heard in some of the training and of the "
                "validation clips, and not in others."
            )
        return None
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
        labels: (clips,) class of each clip of the manifest, from 0; where a clip may have
            several, (clips, classes) as from `heard_table`.
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
    settings = [list(points), seed, MOST_PATCHES, COMPONENTS, STRENGTH, _ITERATIONS]
    for view in (train, validation):
        settings += [view.clip, labels[view.clip]]
    key = fit_key("depths", [train, validation], _tap_cut(graph, list(points.values())), settings)

    def compute() -> dict[str, np.ndarray]:
        found = _computed(backbone, graph, points, train, validation, labels, seed, progress)
        return {"profile": np.array(json.dumps(found.as_plain()))}

    plain = json.loads(str(once(key, compute)["profile"]))
    groups = tuple(Depth(row.pop("group"), row) for row in plain["groups"])
    return DepthProfile(**{**plain, "groups": groups})


def _computed(
    backbone: keras.Model,
    graph: Graph,
    points: Mapping[str, Step],
    train: PatchView,
    validation: PatchView,
    labels: np.ndarray,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> DepthProfile:
    """The profile, computed; the arguments are those of `depth_profile`."""
    reader = _tap_reader(graph, backbone, list(points.values()))
    several = labels.ndim == 2
    classes = _rarest(labels, train.clip) if several else labels
    rows = draw_rows(train.clip, MOST_PATCHES, seed, classes)
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
    truth = labels[train.clip[rows]]
    fit: Callable[[list[np.ndarray]], Guess] = partial(_fit_labels, heard=truth, seed=seed)
    if not several:
        fit = partial(_fit, classes=truth, count=int(labels.max()) + 1, seed=seed)
    # Threads of our own instead of those of BLAS, which wait for each other at matrices of
    # this size: with other programs at work that made the fits ten times as slow.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        probes = list(pool.map(fit, columns))
    parts: list[list[np.ndarray]] = [[] for _ in points]
    for vectors in _read(reader, validation, held, report):
        for part, probe, vector in zip(parts, probes, vectors, strict=True):
            part.append(probe(vector))
    guesses, clip = [np.concatenate(part) for part in parts], validation.clip[held]
    names, clips = list(points), len(np.unique(clip))
    if several:
        return _by_labels(names, guesses, labels, clip)
    score = clip_scorer(labels, clip)
    found = [score(guess) for guess in guesses]
    depths = [
        Depth(name, {"accuracy": one["clip_accuracy"], BALANCED_ACCURACY: one[BALANCED_ACCURACY]})
        for name, one in zip(names, found, strict=True)
    ]
    error = error_of_share(max(one[BALANCED_ACCURACY] for one in found), clips)
    return conclude(depths, BALANCED_ACCURACY, clips, 1 / len(np.unique(truth)), error)


def _told(heard: np.ndarray) -> np.ndarray:
    """(classes,) whether each is heard in some of these clips, and not in others."""
    told: np.ndarray = (heard > 0).any(axis=0) & (heard == 0).any(axis=0)
    return told


def _rarest(heard: np.ndarray, clip: np.ndarray) -> np.ndarray:
    """(clips,) the class heard in each that is rarest in `clip`; one more number where none is."""
    own = (heard[np.unique(clip)] > 0).sum(axis=0)
    counts = np.where(heard > 0, own, len(heard) + 1)
    nothing = (heard <= 0).all(axis=1)
    rarest: np.ndarray = np.where(nothing, heard.shape[1], counts.argmin(axis=1))
    return rarest


def _by_labels(
    names: Sequence[str], guesses: Sequence[np.ndarray], heard: np.ndarray, clip: np.ndarray
) -> DepthProfile:
    """The profile where clips may have several labels.

    Args:
        names: of the depths.
        guesses: of each, (patches, classes) how likely each class is heard.
        heard: (clips, classes) of the manifest.
        clip: (patches,) the clip of each.
    """
    score, clips = label_scorer(heard, clip), np.unique(clip)
    values = [score(guess)[MEAN_PRECISION] for guess in guesses]
    best = guesses[int(np.argmax(values))]
    truth, means = heard[clips], clip_means(best, clip, len(heard))[clips]
    columns = np.flatnonzero((truth > 0).any(axis=0))
    draws = np.random.default_rng(0).multinomial(
        len(clips), np.full(len(clips), 1 / len(clips)), _RESAMPLES
    )
    known = truth >= 0
    precisions = np.stack(
        [
            average_precision(
                truth[known[:, c], c] > 0.5, means[known[:, c], c], draws[:, known[:, c]] * 1.0
            )
            for c in columns
        ],
        axis=1,
    )
    # Resamples of clips that are all ranked rightly say nothing of the next one.
    error = max(float(mean_of_defined(precisions).std()), error_of_share(1.0, len(clips)))
    # What a random order of the clips has.
    chance = float(np.mean([(truth[known[:, c], c] > 0.5).mean() for c in columns]))
    depths = [
        Depth(name, {MEAN_PRECISION: value}) for name, value in zip(names, values, strict=True)
    ]
    return conclude(depths, MEAN_PRECISION, len(clips), chance, error)


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


def _tap_cut(graph: Graph, taps: Sequence[Step]) -> Cut:
    """The network up to its taps: nothing is trained, so that each BatchNorm can be fused."""
    return replace(inference_cut(graph), frontier=tuple(step.outputs[0] for step in taps))


def _tap_reader(graph: Graph, backbone: keras.Model, taps: Sequence[Step]) -> StepModel:
    """A model from patches to one vector per tap: the mean over time, compressed."""
    cut = _tap_cut(graph, taps)
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


def _projected(parts: list[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A tap's vectors, projected, and the kernel and bias that do it.

    Args:
        parts: the vectors, batch by batch; emptied to free their memory.
        seed: of the projection.
    """
    values = np.concatenate(parts)
    parts.clear()
    if np.ptp(values, axis=0).any():
        kernel, bias = principal_components(values, COMPONENTS, seed)
    else:  # The tap says nothing: only how frequent the classes are is left.
        kernel, bias = np.zeros((values.shape[1], 1), np.float32), np.zeros(1, np.float32)
    return values @ kernel + bias, kernel, bias


def _fit(parts: list[np.ndarray], classes: np.ndarray, count: int, seed: int) -> Guess:
    """Fit a logistic regression to one tap, each class counting the same.

    Args:
        parts: as for `_projected`.
        classes: (patches,) the class of each.
        count: of all classes.
        seed: of the projection.

    Returns:
        A function from vectors (patches, numbers) to probabilities (patches, count).
    """
    from sklearn.linear_model import LogisticRegression

    inputs, kernel, bias = _projected(parts, seed)
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=_ITERATIONS)
    model.fit(inputs, classes)

    def guess(vectors: np.ndarray) -> np.ndarray:
        found = np.zeros((len(vectors), count), np.float32)
        found[:, model.classes_] = model.predict_proba(vectors @ kernel + bias)
        return found

    return guess


def _fit_labels(parts: list[np.ndarray], heard: np.ndarray, seed: int) -> Guess:
    """Fit a logistic regression for each class to one tap.

    They are solved as one: for a hundred classes that takes a tenth of the time.

    Args:
        parts: as for `_projected`.
        heard: (patches, classes) 1 where the class is heard, 0 where not, below 0 if unknown.
        seed: of the projection.

    Returns:
        A function from vectors (patches, numbers) to probabilities (patches, classes).
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    inputs, kernel, bias = _projected(parts, seed)
    known, there = heard >= 0, heard > 0.5
    shape = inputs.shape[1] + 1, heard.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logits = inputs @ weights[:-1] + weights[-1]
        slopes = known * (expit(logits) - there)
        crosses = known * (np.logaddexp(0, logits) - there * logits)
        value = crosses.sum() + np.square(weights[:-1]).sum() / (2 * STRENGTH)
        slope = np.vstack([inputs.T @ slopes + weights[:-1] / STRENGTH, slopes.sum(axis=0)])
        return float(value) / len(inputs), slope.ravel() / len(inputs)

    start = np.zeros(shape)
    odds = ((there & known).sum(axis=0) + 1) / ((~there & known).sum(axis=0) + 1)
    start[-1] = np.log(odds)
    found = minimize(
        *(loss, start.ravel()), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}
    )
    solved = found.x.reshape(shape).astype(np.float32)
    return lambda vectors: expit((vectors @ kernel + bias) @ solved[:-1] + solved[-1])


def error_of_share(share: float, clips: int) -> float:
    """The standard error of a share of some clips.

    One right and one wrong clip are added, so that a perfect score on few clips is not taken
    for certain.
    """
    share = (share * clips + 1) / (clips + 2)
    return float((share * (1 - share) / clips) ** 0.5)


def find_peak(scores: Sequence[float], error: float) -> int:
    """The position of the smallest depth that is as good as the best, but for chance.

    That is, within one standard error of it (the one-standard-error rule: Breiman et al.,
    "Classification and Regression Trees", 1984, 3.4.3).

    Args:
        scores: of each depth, from the input up.
        error: the standard error of the best.
    """
    least = max(scores) - error
    return next(i for i, value in enumerate(scores) if value >= least)


def conclude(
    depths: Sequence[Depth], score: str, clips: int, chance: float, error: float
) -> DepthProfile:
    """Find the peak, and say what that means.

    Args:
        depths: from the input up.
        score: name of the score that they are compared by.
        clips: validation clips that were scored.
        chance: the score of a guess.
        error: the standard error of the best.
    """
    scores, words = [depth.scores[score] for depth in depths], score.replace("_", " ")
    peak, best = find_peak(scores, error), max(scores)
    names = [depth.group for depth in depths]
    above = names[peak + 1 :]
    known = best - 2 * error > chance
    if not known:
        summary = (
            f"No layer group tells the classes apart much better than chance ({words} {best:.2f} "
            f"at best, chance {chance:.2f})."
        )
    elif not above:
        summary = (
            f"Of the layer groups, each read alone, only the last, {names[peak]}, tells the "
            f"classes apart best ({words} {scores[peak]:.2f}): the network's end suits "
            "these sounds, and training the head alone may do."
        )
    else:
        # The peak is the first that is as good as the best, but for chance.
        summary = (
            f"Of the layer groups, each read alone, {names[peak]} ({peak + 1} of {len(names)} from "
            f"the input) is the first that tells the classes apart as well as any ({words} "
            f"{scores[peak]:.2f}); at the last group, {names[-1]}, it is {scores[-1]:.2f}."
        )
    return DepthProfile(
        groups=tuple(depths),
        score=score,
        peak=names[peak] if known else None,
        standard_error=error,
        chance=chance,
        clips=clips,
        summary=summary,
    )
