"""Scores of clip-level predictions, each with an interval that respects groups.

Intervals come from a bootstrap over groups, the scores themselves from
`unfreeze.metrics`. Results are plain JSON: a value that is not defined (recall
without a clip) is None, never NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unfreeze.calibration import calibration_error
from unfreeze.errors import DataError
from unfreeze.metrics import CLASS_METRICS, METRICS, Floats, Tally

LEVEL = 0.95
FEW_GROUPS = 5
# Keras clips probabilities at its epsilon before the logarithm; the same bound
# keeps this loss comparable with the one in the training history.
SMALLEST_PROBABILITY = 1e-7
# Sums of half-precision softmax outputs over some hundred classes stay within this.
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
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the predictions of clips, with 95 % intervals over groups.

    The intervals are percentiles of a cluster bootstrap: whole groups are drawn
    with replacement, as many as there are, and each resample is scored (Field
    and Welsh 2007, "Bootstrapping clustered data", J. R. Stat. Soc. B 69;
    Davison and Hinkley 1997, "Bootstrap Methods and their Application", 3.8).
    They speak about new groups (speakers, sites, recordings), not about new
    clips of the same ones. Resamples in which a score is undefined are left out
    of its interval. With few clips a class, resamples score F1 a little lower
    than the clips themselves, so its interval leans downwards.

    Args:
        y_true: (n,) integers, positions in `labels`.
        probabilities: (n, classes) of each clip; rows sum to 1. The prediction
            is the largest, the first of equals.
        labels: names of the classes, in the order of the columns.
        groups: (n,) names or numbers of what was recorded together.
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

        Rows of `confusion` are the truth, columns the prediction. `note` says
        when the intervals deserve little trust.

    Raises:
        DataError: if there is no clip, or the arrays do not fit each other.
    """
    clips = _checked(y_true, probabilities, labels, groups)
    if resamples < 1:
        raise DataError(f"resamples is {resamples}; at least 1 is needed")
    whole = clips.tally(np.ones(len(clips.truth)))
    drawn = _resampled(clips, resamples, seed)
    values, intervals = {}, {}
    for name, metric in METRICS.items():
        values[name] = _number(metric.function(whole))
        intervals[name] = _interval(metric.function(drawn), values[name])
    pairs = np.bincount(clips.truth * clips.classes + clips.guess, minlength=clips.classes**2)
    return {
        **values,
        "intervals": intervals,
        "per_class": _per_class(whole, drawn, labels),
        "calibration_error": calibration_error(clips.truth, np.asarray(probabilities, np.float64)),
        "labels": list(labels),
        "confusion": pairs.reshape(clips.classes, clips.classes).tolist(),
        "clips": len(clips.truth),
        "groups": clips.groups,
        "bootstrap": {"level": LEVEL, "resamples": resamples, "seed": seed},
        "note": _note(clips.groups, errors=int((clips.truth != clips.guess).sum())),
    }


def score_change(
    y_true: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    labels: Sequence[str],
    groups: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score two models on the same clips, and their difference.

    The bootstrap is paired: each resample of groups scores both models, so what is
    hard in a clip for both does not widen the interval of their difference
    (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", 8.3).

    Args:
        y_true: (n,) integers, positions in `labels`.
        before: (n, classes) probabilities of one model.
        after: (n, classes) of the other.
        labels: names of the classes; a class that a model does not know has
            probability 0 there.
        groups: (n,) names or numbers of what was recorded together.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        A dict ready for JSON: `before`, `after`, `difference` (after less before)
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
        difference = _number(values[1] - values[0])
        result["before"][name], result["after"][name] = map(_number, values)
        result["difference"][name] = difference
        result["intervals"][name] = _interval(function(drawn[1]) - function(drawn[0]), difference)
    changed = int((pair[0].guess != pair[1].guess).sum())
    return {
        **result,
        "clips": len(pair[0].truth),
        "groups": pair[0].groups,
        "decided_otherwise": changed,
        "bootstrap": {"level": LEVEL, "resamples": resamples, "seed": seed},
        "note": _note(pair[0].groups, errors=1),
    }


def _per_class(whole: Tally, drawn: Tally, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {
        label: {"support": int(n), "intervals": {}}
        for label, n in zip(labels, whole.support, strict=True)
    }
    for name, metric in CLASS_METRICS.items():
        values, spread = metric.function(whole), metric.function(drawn)
        for column, row in enumerate(rows.values()):
            row[name] = _number(values[column])
            row["intervals"][name] = _interval(spread[:, column], row[name])
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
        raise DataError("labels holds a name twice; the scores of classes need distinct names")
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
    # Written so that NaN, which compares false with everything, is refused too.
    if not (np.all(chances >= 0) and np.all(np.abs(sums - 1.0) <= SUM_TOLERANCE)):
        raise DataError(
            "probabilities must be finite, not negative and sum to 1 in each row; "
            "pass softmax outputs, not logits"
        )
    truth = truth.astype(np.int64)
    # Keras normalises, then clips.
    right = np.clip((chances / sums)[np.arange(len(truth)), truth], SMALLEST_PROBABILITY, 1.0)
    return _Clips(
        truth=truth,
        guess=chances.argmax(axis=1).astype(np.int64),
        loss=-np.log(right),
        group=np.unique(names, return_inverse=True)[1].astype(np.int64),
        classes=len(labels),
    )


def _resampled(clips: _Clips, resamples: int, seed: int) -> Tally:
    # A resample is a weight for each clip: how often its group was drawn. Going
    # through them one by one keeps memory at resamples x classes, whatever the
    # number of clips and groups.
    count = clips.groups
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        parts.append(clips.tally(times[clips.group].astype(np.float64)))
    names = [field.name for field in fields(Tally)]
    return Tally(**{name: np.stack([getattr(part, name) for part in parts]) for name in names})


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(values: Floats, value: float | None) -> list[float] | None:
    defined = values[~np.isnan(values)]
    if value is None or not len(defined):
        return None
    tail = (1.0 - LEVEL) / 2.0
    return [float(bound) for bound in np.quantile(defined, (tail, 1.0 - tail))]


def _note(groups: int, errors: int) -> str | None:
    notes = []
    if groups < FEW_GROUPS:
        noun = "group" if groups == 1 else "groups"
        notes.append(
            f"The intervals come from only {groups} {noun}; they are too narrow to be trusted "
            f"(at least {FEW_GROUPS} groups are needed, 20 or more are better)."
        )
    if errors == 0:
        # The rule of three: Hanley and Lippman-Hand 1983, JAMA 249 (13).
        bound = min(1.0, 3.0 / groups)
        notes.append(
            f"No clip was wrong, so the bootstrap sees no spread; by the rule of three up to "
            f"{bound:.0%} of new groups may still hold errors."
        )
    return " ".join(notes) or None
