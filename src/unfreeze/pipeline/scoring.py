"""Scores of clip-level predictions, each with a 95 % interval over groups.

A metric knows whether higher or lower is better, so that "best" cannot pick the worst
model. Every metric is a function of a `Tally`, never of single clips; so a bootstrap
resample only reweights groups. Results are plain JSON: an undefined value (recall
without a clip) is None, never NaN.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
from unfreeze.pipeline.calibration import SMALLEST, calibration_error


@dataclass(frozen=True)
class Tally:
    """Counts that all metrics are computed from; leading axes may hold resamples.

    Attributes:
        hits: (..., classes) clips of a class that were predicted as that class.
        support: (..., classes) clips whose truth is the class.
        predicted: (..., classes) clips that were predicted as the class.
        loss: (...) sum of the clips' cross-entropies, in nats.
    """

    hits: Floats
    support: Floats
    predicted: Floats
    loss: Floats


@dataclass(frozen=True)
class Metric:
    """A score with its direction.

    Attributes:
        name: key in `metrics.json`.
        higher_is_better: False for losses.
        function: from a `Tally` to values of its leading shape; NaN where undefined.
    """

    name: str
    higher_is_better: bool
    function: Callable[[Tally], Floats]

    def best(self, values: Sequence[float | None]) -> int:
        """Return the position of the best value; ties go to the first.

        None and NaN never win.

        Raises:
            DataError: there is no number among the values.
        """
        numbers = [(i, v) for i, v in enumerate(values) if v is not None and not math.isnan(v)]
        if not numbers:
            raise DataError(f"no value of {self.name} to choose the best from")
        sign = -1.0 if self.higher_is_better else 1.0
        return min(numbers, key=lambda pair: sign * pair[1])[0]


def _accuracy(tally: Tally) -> Floats:
    return ratio(tally.hits.sum(-1), tally.support.sum(-1))


def _balanced_accuracy(tally: Tally) -> Floats:
    return mean_of_defined(_recall(tally))


def _macro_f1(tally: Tally) -> Floats:
    return mean_of_defined(_f1(tally))


def _loss(tally: Tally) -> Floats:
    return ratio(tally.loss, tally.support.sum(-1))


def _precision(tally: Tally) -> Floats:
    return ratio(tally.hits, tally.predicted)


def _recall(tally: Tally) -> Floats:
    return ratio(tally.hits, tally.support)


def _f1(tally: Tally) -> Floats:
    return ratio(2.0 * tally.hits, tally.support + tally.predicted)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", True, _accuracy),
        Metric("balanced_accuracy", True, _balanced_accuracy),
        Metric("macro_f1", True, _macro_f1),
        Metric("loss", False, _loss),
    )
}
"""The overall scores. Accuracy: share of clips predicted correctly. Balanced accuracy:
mean recall over the classes that occur in the truth. Macro F1: mean F1 over the
classes that occur in truth or predictions. Loss: mean cross-entropy per clip, nats."""

CLASS_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("precision", True, _precision),
        Metric("recall", True, _recall),
        Metric("f1", True, _f1),
    )
}
"""Scores of single classes; their values keep the class axis."""


RESAMPLES = 1000
# Sums of half-precision softmax outputs over a few hundred classes stay within this.
SUM_TOLERANCE = 0.05

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Clips:
    truth: Integers
    guess: Integers
    loss: Floats
    group: Integers
    classes: int

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    def tally(self, weights: Floats) -> Tally:
        def counts(classes: Integers, weights: Floats) -> Floats:
            return np.bincount(classes, weights, self.classes).astype(np.float64, copy=False)

        return Tally(
            hits=counts(self.truth, weights * (self.truth == self.guess)),
            support=counts(self.truth, weights),
            predicted=counts(self.guess, weights),
            loss=np.asarray(weights @ self.loss),
        )


def score(
    y_true: ArrayLike,
    probabilities: ArrayLike,
    labels: Sequence[str],
    groups: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the predictions of clips, with 95 % intervals over groups.

    The intervals are percentiles of a cluster bootstrap: whole groups are drawn
    with replacement, as many as there are, and each resample is scored (Field
    and Welsh 2007, "Bootstrapping clustered data", J. R. Stat. Soc. B 69;
    Davison and Hinkley 1997, "Bootstrap Methods and their Application", 3.8).
    They are about new groups (speakers, sites, recordings), not about new clips of
    the same groups. Resamples in which a score is undefined are left out of its
    interval; one in which all are 0, or all are 1, is Wilson's for that many groups.
    With few clips per class, F1 is slightly lower in resamples than in the
    clips themselves, so its interval is biased downwards.

    Args:
        y_true: (n,) integers, positions in `labels`.
        probabilities: (n, classes) of each clip; rows sum to 1. The prediction
            is the class with the largest; ties go to the first.
        labels: names of the classes, in the order of the columns.
        groups: (n,) a name or number per clip, equal for clips recorded together.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        A dict ready for JSON::

            {"accuracy": 0.93, "balanced_accuracy": ..., "macro_f1": ..., "loss": ...,
             "intervals": {"accuracy": [0.90, 0.95], ...},
             "per_class": {"dog": {"precision": ..., "recall": ..., "f1": ...,
                                   "support": 40, "intervals": {"recall": [...], ...}}},
             "calibration_error": 0.04,
             "labels": ["dog", ...], "confusion": [[...]],
             "clips": 400, "groups": 60,
             "bootstrap": {"level": 0.95, "resamples": 1000, "seed": 0},
             "note": None}

        Rows of `confusion` are the truth, columns the prediction. `note` warns of
        intervals that are not reliable.

    Raises:
        DataError: there is no clip, or the arrays do not fit each other.
    """
    clips = _checked(y_true, probabilities, labels, groups)
    if resamples < 1:
        raise DataError(f"resamples is {resamples}; at least 1 is needed")
    whole = clips.tally(np.ones(len(clips.truth)))
    drawn = _resampled(clips, resamples, seed)
    values, intervals = {}, {}
    for name, metric in METRICS.items():
        values[name] = plain_number(metric.function(whole))
        n = clips.groups if metric.higher_is_better else None
        intervals[name] = bounds(metric.function(drawn), n)
    pairs = np.bincount(clips.truth * clips.classes + clips.guess, minlength=clips.classes**2)
    return {
        **values,
        "intervals": intervals,
        "per_class": _per_class(whole, drawn, labels, _groups_by_class(clips)),
        "calibration_error": calibration_error(clips.truth, np.asarray(probabilities, np.float64)),
        "labels": list(labels),
        "confusion": pairs.reshape(clips.classes, clips.classes).tolist(),
        "clips": len(clips.truth),
        "groups": clips.groups,
        "bootstrap": {"level": LEVEL, "resamples": resamples, "seed": seed},
        "note": _note(
            clips.groups,
            int((clips.truth != clips.guess).sum()),
            _guessing(whole, labels, intervals["balanced_accuracy"]),
        ),
    }


def score_change(
    y_true: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    labels: Sequence[str],
    groups: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score two models on the same clips, and their difference.

    The bootstrap is paired: each resample of groups scores both models, so clips that
    are hard for both do not widen the interval of their difference (Efron and
    Tibshirani 1993, "An Introduction to the Bootstrap", 8.3).

    Args:
        y_true: (n,) integers, positions in `labels`.
        before: (n, classes) probabilities of one model.
        after: (n, classes) of the other.
        labels: names of the classes; a class that a model does not know has
            probability 0 there.
        groups: (n,) a name or number per clip, equal for clips recorded together.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        A dict ready for JSON: `before`, `after`, `difference` (after minus before)
        and `intervals` (95 %, of the difference), each with accuracy, balanced
        accuracy and macro F1; `clips`, `groups`, `bootstrap` and `note`.

    Raises:
        DataError: as `score`.
    """
    pair = [_checked(y_true, scores, labels, groups) for scores in (before, after)]
    whole = [clips.tally(np.ones(len(clips.truth))) for clips in pair]
    # One seed draws the same groups for both.
    drawn = [_resampled(clips, resamples, seed) for clips in pair]
    result: dict[str, Any] = {"before": {}, "after": {}, "difference": {}, "intervals": {}}
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        function = METRICS[name].function
        values = [function(tally) for tally in whole]
        difference = plain_number(values[1] - values[0])
        result["before"][name], result["after"][name] = map(plain_number, values)
        result["difference"][name] = difference
        result["intervals"][name] = bounds(function(drawn[1]) - function(drawn[0]))
    changed = int((pair[0].guess != pair[1].guess).sum())
    return {
        **result,
        "clips": len(pair[0].truth),
        "groups": pair[0].groups,
        "decided_otherwise": changed,
        "bootstrap": {"level": LEVEL, "resamples": resamples, "seed": seed},
        "note": _note(pair[0].groups, 1),
    }


def _groups_by_class(clips: _Clips) -> Integers:
    """In how many groups each class occurs."""
    pairs = np.unique(np.stack([clips.group, clips.truth]), axis=1)
    return np.bincount(pairs[1], minlength=clips.classes)


def _per_class(
    whole: Tally, drawn: Tally, labels: Sequence[str], groups: Integers
) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {
        label: {"support": int(n), "intervals": {}}
        for label, n in zip(labels, whole.support, strict=True)
    }
    for name, metric in CLASS_METRICS.items():
        values, spread = metric.function(whole), metric.function(drawn)
        for column, row in enumerate(rows.values()):
            row[name] = plain_number(values[column])
            row["intervals"][name] = bounds(spread[:, column], int(groups[column]))
    order = (*CLASS_METRICS, "support", "intervals")
    return {label: {key: row[key] for key in order} for label, row in rows.items()}


def _checked(
    y_true: ArrayLike, probabilities: ArrayLike, labels: Sequence[str], groups: ArrayLike
) -> _Clips:
    truth, names = np.asarray(y_true), np.asarray(groups)
    chances = np.asarray(probabilities, np.float64)
    if truth.ndim != 1 or not len(truth):
        raise DataError(f"nothing to score: y_true has shape {truth.shape}, (clips,) is needed")
    if not np.issubdtype(truth.dtype, np.integer):
        raise DataError(f"y_true is {truth.dtype}; integers (positions in labels) are needed")
    if len(set(labels)) != len(labels):
        raise DataError("labels contains a name twice; the scores of classes need distinct names")
    shape = (len(truth), len(labels))
    if chances.shape != shape:
        raise DataError(
            f"probabilities has shape {chances.shape}; (clips, labels) = {shape} is needed"
        )
    if names.shape != truth.shape:
        raise DataError(f"groups has shape {names.shape}; (clips,) = {truth.shape} is needed")
    low, high = truth.min(), truth.max()
    if low < 0 or high >= len(labels):
        raise DataError(f"y_true goes from {low} to {high}; there are {len(labels)} labels")
    sums = chances.sum(axis=1, keepdims=True)
    # Written so that NaN, whose comparisons are all false, is refused, too.
    if not (np.all(chances >= 0) and np.all(np.abs(sums - 1.0) <= SUM_TOLERANCE)):
        raise DataError(
            "probabilities must be finite, not negative and sum to 1 in each row; "
            "pass softmax outputs, not logits"
        )
    truth = truth.astype(np.int64)
    # Keras normalises, then clips.
    right = np.clip((chances / sums)[np.arange(len(truth)), truth], SMALLEST, 1.0)
    return _Clips(
        truth=truth,
        guess=chances.argmax(axis=1).astype(np.int64),
        loss=-np.log(right),
        group=np.unique(names, return_inverse=True)[1].astype(np.int64),
        classes=len(labels),
    )


def _resampled(clips: _Clips, resamples: int, seed: int) -> Tally:
    # A resample is a weight for each clip: how often its group was drawn. One at a
    # time, so that memory is resamples x classes, whatever the number of clips and
    # groups.
    draws = group_draws(clips.groups, resamples, seed)
    parts = [clips.tally(times[clips.group]) for times in draws]
    names = [field.name for field in fields(Tally)]
    return Tally(**{name: np.stack([getattr(part, name) for part in parts]) for name in names})


def _guessing(whole: Tally, labels: Sequence[str], balanced: list[float] | None) -> str | None:
    """A warning where a model is not clearly better than always guessing one class."""
    occurring = int((whole.support > 0).sum())
    if occurring < 2 or balanced is None or balanced[0] > 1 / occurring:
        return None
    largest = int(whole.support.argmax())
    share = whole.support[largest] / whole.support.sum()
    return (
        f"The model is not clearly better than always guessing {labels[largest]!r}, which is "
        f"right for {share:.0%} of these clips and has a balanced accuracy of {1 / occurring:.2f}."
    )


def _note(groups: int, errors: int, guessing: str | None = None) -> str | None:
    notes = [] if guessing is None else [guessing]
    few = few_groups_note(groups)
    if few is not None:
        notes.append(few)
    if errors == 0:
        # The rule of three: Hanley and Lippman-Hand 1983, JAMA 249 (13).
        bound = min(1.0, 3.0 / groups)
        notes.append(
            f"No clip was wrong, so the bootstrap sees no spread; by the rule of three up to "
            f"{bound:.0%} of new groups may still hold errors."
        )
    return " ".join(notes) or None
