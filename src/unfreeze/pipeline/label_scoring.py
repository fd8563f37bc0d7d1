"""Scores where a clip may have several labels: each class is judged by itself.

The clips are ranked by a class's score, and the average precision says how far those in
which it is heard come first; its mean over the classes (mAP) is the headline, as it needs
no threshold. Precision, recall and F1 are of the clips whose score reaches the class's
threshold. What the data leave open (`dog?`) counts for nothing. Intervals are over groups,
as in `unfreeze.pipeline.scoring`.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from unfreeze.audio.patches import clip_means
from unfreeze.errors import DataError
from unfreeze.pipeline.bootstrap import (
    LEVEL,
    Floats,
    bounds,
    few_groups_note,
    group_draws,
    mean_of_defined,
    plain_number,
    ratio,
)
from unfreeze.pipeline.calibration import DEFAULT_THRESHOLD, SMALLEST, best_threshold
from unfreeze.pipeline.scoring import RESAMPLES

_AT_ONCE = 50
#: The headline first; the names that `score_labels` gives for all classes together.
OVERALL = ("mean_average_precision", "macro_f1", "micro_f1", "loss")
#: And for each class.
BY_CLASS = ("average_precision", "precision", "recall", "f1")


def average_precision(there: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> Floats:
    """Average precision of one class: the mean precision at each clip in which it is heard.

    This is the area under the precision-recall curve as a sum of steps, without
    interpolation, as in scikit-learn. Clips of one score count as one step.

    Args:
        there: (n,) whether the class is heard.
        scores: (n,) of the class.
        weights: (..., n) how often each clip counts, 0 or more.

    Returns:
        (...) between 0 and 1; NaN where it is heard in no clip.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, counted = scores[order], weights[..., order]
    hits = np.cumsum(counted * there[order], axis=-1)
    seen = np.cumsum(counted, axis=-1)
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits, seen = hits[..., ends], seen[..., ends]
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    steps = np.diff(hits, axis=-1, prepend=0.0)
    total = hits[..., -1]
    found: Floats = np.full(np.shape(total), np.nan)
    np.divide((precision * steps).sum(axis=-1), total, out=found, where=total > 0)
    return found


def score_labels(
    table: ArrayLike,
    probabilities: ArrayLike,
    labels: Sequence[str],
    groups: ArrayLike,
    thresholds: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the predictions of clips that may have several labels, with 95 % intervals.

    Args:
        table: (n, classes): 1 where the class is heard, 0 where not, below 0 if unknown.
        probabilities: (n, classes), each from 0 to 1.
        labels: names of the classes, in the order of the columns.
        groups: (n,) a name or number per clip, equal for clips recorded together.
        thresholds: (classes,) the score from which a class counts as heard; None for 0.5.
        resamples: number of bootstrap resamples of groups.
        seed: of the resampling.

    Returns:
        A dict ready for JSON::

            {"multilabel": True, "mean_average_precision": 0.81, "macro_f1": ...,
             "micro_f1": ..., "loss": ...,
             "intervals": {"mean_average_precision": [0.75, 0.86], ...},
             "per_class": {"dog": {"average_precision": ..., "precision": ...,
                                   "recall": ..., "f1": ..., "threshold": 0.4,
                                   "support": 40, "unknown": 2,
                                   "intervals": {"average_precision": [...], "f1": [...]}}},
             "labels": [...], "clips": 400, "groups": 60,
             "bootstrap": {"level": 0.95, "resamples": 1000, "seed": 0},
             "note": None}

        `loss` is the mean binary cross-entropy over the known labels, in nats. The means
        over classes are of those that are heard in some clip.

    Raises:
        DataError: there is no clip, or the arrays do not fit each other.
    """
    truth, chances, group = _checked(table, probabilities, labels, groups)
    count = int(group.max()) + 1
    cuts = np.full(len(labels), DEFAULT_THRESHOLD) if thresholds is None else np.asarray(thresholds)
    parts = [_values(truth, chances, cuts, weights) for weights in _weights(group, resamples, seed)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    by_class = {name: values[name] for name in BY_CLASS}
    overall = {
        "mean_average_precision": mean_of_defined(by_class["average_precision"]),
        "macro_f1": mean_of_defined(np.where(values["support"] > 0, by_class["f1"], np.nan)),
        "micro_f1": values["micro_f1"],
        "loss": values["loss"],
    }
    support = values["support"][0].astype(int)
    known = (truth >= 0).sum(axis=0)
    rows = {}
    for c, label in enumerate(labels):
        row: dict[str, Any] = {name: plain_number(by_class[name][0, c]) for name in BY_CLASS}
        row |= {"threshold": float(cuts[c]), "support": int(support[c])}
        row["unknown"] = len(truth) - int(known[c])
        heard = len(np.unique(group[truth[:, c] > 0.5]))
        row["intervals"] = {
            name: bounds(by_class[name][1:, c], heard) for name in ("average_precision", "f1")
        }
        rows[label] = row
    headline = bounds(overall["mean_average_precision"][1:], count)
    return {
        "multilabel": True,
        **{name: plain_number(overall[name][0]) for name in OVERALL},
        "intervals": {
            name: bounds(overall[name][1:], None if name == "loss" else count) for name in OVERALL
        },
        "per_class": rows,
        "labels": list(labels),
        "clips": len(truth),
        "groups": count,
        "bootstrap": {"level": LEVEL, "resamples": resamples, "seed": seed},
        "note": _note(count, headline, support / np.maximum(known, 1)),
    }


def label_change(
    table: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    labels: Sequence[str],
    groups: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score two models on the same clips, and their difference, without thresholds.

    The bootstrap is paired, as that of `unfreeze.pipeline.scoring.score_change`.

    Args:
        table: (n, classes) as for `score_labels`.
        before: (n, classes) probabilities of one model; 0 for a class that it does not know.
        after: (n, classes) of the other.
        labels: names of the classes.
        groups: (n,) a name or number per clip, equal for clips recorded together.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        A dict ready for JSON: `before`, `after`, `difference` (after minus before) and
        `intervals` (95 %, of the difference) of the mean average precision; `clips`,
        `groups`, `bootstrap` and `note`.

    Raises:
        DataError: there is no clip, or the arrays do not fit each other.
    """
    pair = [_checked(table, scores, labels, groups) for scores in (before, after)]
    group = pair[0][2]
    count = int(group.max()) + 1
    old, new = (
        np.concatenate(
            [
                mean_of_defined(_precisions(truth, chances, weights))
                for weights in _weights(group, resamples, seed)
            ]
        )
        for truth, chances, _ in pair
    )
    name = "mean_average_precision"
    return {
        "before": {name: plain_number(old[0])},
        "after": {name: plain_number(new[0])},
        "difference": {name: plain_number(new[0] - old[0])},
        "intervals": {name: bounds(new[1:] - old[1:])},
        "clips": len(group),
        "groups": count,
        "bootstrap": {"level": LEVEL, "resamples": resamples, "seed": seed},
        "note": few_groups_note(count),
    }


def _weights(group: np.ndarray, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each clip counts, (some resamples, n): once in the first, then by its group.

    A few at a time, so that memory does not grow with their number.
    """
    count = int(group.max()) + 1
    draws = chain([np.ones(count)], group_draws(count, resamples, seed))
    while drawn := list(islice(draws, _AT_ONCE)):
        yield np.stack(drawn)[:, group]


def _values(truth: Floats, chances: Floats, cuts: Floats, weights: Floats) -> dict[str, Floats]:
    """The scores of some resamples: weights (resamples, n) -> (resamples, classes) or (resamples,).

    The macro means follow from the scores of the classes.
    """
    known, there, taken = truth >= 0, truth > 0.5, chances >= cuts
    hits = weights @ (there & taken)
    support, predicted = weights @ there, weights @ (taken & known)
    clipped = np.clip(chances, SMALLEST, 1 - SMALLEST)
    losses = -np.where(there, np.log(clipped), np.log1p(-clipped)) * known
    return {
        "average_precision": _precisions(truth, chances, weights),
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, support),
        "f1": ratio(2 * hits, support + predicted),
        "micro_f1": ratio(2 * hits.sum(1), support.sum(1) + predicted.sum(1)),
        "loss": ratio((weights @ losses).sum(1), (weights @ known).sum(1)),
        "support": support,
    }


def _precisions(truth: Floats, chances: Floats, weights: Floats) -> Floats:
    """The average precision of each class in each resample: (resamples, classes)."""
    there = truth > 0.5
    each = [
        average_precision(there[k, c], chances[k, c], weights[:, k])
        for c, k in enumerate((truth >= 0).T)
    ]
    return np.stack(each, axis=1)


def _checked(
    table: ArrayLike, probabilities: ArrayLike, labels: Sequence[str], groups: ArrayLike
) -> tuple[Floats, Floats, np.ndarray]:
    truth, chances = np.asarray(table, np.float64), np.asarray(probabilities, np.float64)
    names = np.asarray(groups)
    if truth.ndim != 2 or not len(truth) or truth.shape[1] != len(labels):
        raise DataError(
            f"nothing to score: the table of labels has shape {truth.shape}, (clips, "
            f"{len(labels)}) is needed"
        )
    if chances.shape != truth.shape or names.shape != truth.shape[:1]:
        raise DataError(
            f"probabilities of shape {chances.shape} and groups of shape {names.shape} do not fit "
            f"labels of shape {truth.shape}"
        )
    # Written so that NaN, whose comparisons are all false, is refused, too.
    if not np.all((chances >= 0) & (chances <= 1)):
        raise DataError("probabilities must be finite, from 0 to 1: pass sigmoid outputs")
    return truth, chances, np.unique(names, return_inverse=True)[1]


def _note(groups: int, headline: list[float] | None, shares: Floats) -> str | None:
    notes = []
    heard = shares[shares > 0]
    # What a random order of the clips has on average.
    if headline is not None and len(heard) and headline[0] <= heard.mean():
        notes.append(
            "The model is not clearly better than guessing, which has a mean average precision "
            f"of {heard.mean():.2f}."
        )
    few = few_groups_note(groups)
    if few is not None:
        notes.append(few)
    return " ".join(notes) or None


def label_thresholds(table: np.ndarray, scores: np.ndarray) -> Floats:
    """For each class, the score from which it counts as heard: that with the largest F1.

    Args:
        table: (n, classes), as for `score_labels`.
        scores: (n, classes), of clips that were not trained on.

    Returns:
        (classes,); 0.5 for a class that is heard in no clip.
    """
    return np.array(
        [
            best_threshold(truth[truth >= 0] > 0.5, own[truth >= 0].astype(np.float64))
            for truth, own in zip(table.T, scores.T, strict=True)
        ]
    )


def label_scorer(table: np.ndarray, clip: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    """Scores by clip from the scores of its patches, while a model trains.

    A stage is judged by the loss of clips: that of patches grows while a network becomes
    surer of each, though the mean over a clip's patches is right more often.

    Args:
        table: (clips, classes) of the manifest, as for `score_labels`.
        clip: (patches,) the clip of each validation patch.

    Returns:
        A function from (patches, classes) to `mean_average_precision`, `clip_loss` (mean
        binary cross-entropy over the known labels, nats) and `clip_loss_error`, its standard
        error, as clips are drawn at random.
    """
    clips = np.unique(clip)
    truth = table[clips]
    known, there = np.asarray(truth >= 0), np.asarray(truth > 0.5)
    share = known.sum(axis=1) / max(known.sum(), 1)

    def score(patches: np.ndarray) -> dict[str, float]:
        means = clip_means(np.asarray(patches), clip, len(table))[clips]
        own = [
            float(average_precision(t[k], s[k], np.ones(int(k.sum()))))
            for t, k, s in zip(there.T, known.T, means.T, strict=True)
            if (t & k).any()
        ]
        chances = np.clip(means.astype(np.float64), SMALLEST, 1 - SMALLEST)
        crosses = -np.where(there, np.log(chances), np.log1p(-chances)) * known
        losses = crosses.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        mean = float(share @ losses)
        return {
            "mean_average_precision": float(np.mean(own)) if own else 0.0,
            "clip_loss": mean,
            "clip_loss_error": float(np.sqrt(np.sum((share * (losses - mean)) ** 2))),
        }

    return score
