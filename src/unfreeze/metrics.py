"""The scores: each a function of a few counts, with the direction that is better.

A metric owns its direction, so nobody picks the worst model by mistake. Every
metric is a function of a `Tally`, never of single clips; a bootstrap resample is
then only a reweighting of groups.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unfreeze.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """Counts that all metrics are made of; leading axes may hold resamples.

    Attributes:
        hits: (..., classes) clips of a class that were predicted as it.
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
            DataError: if there is no number among the values.
        """
        numbers = [(i, v) for i, v in enumerate(values) if v is not None and not math.isnan(v)]
        if not numbers:
            raise DataError(f"no value of {self.name} to choose the best from")
        sign = -1.0 if self.higher_is_better else 1.0
        return min(numbers, key=lambda pair: sign * pair[1])[0]


def _accuracy(tally: Tally) -> Floats:
    return _ratio(tally.hits.sum(-1), tally.support.sum(-1))


def _balanced_accuracy(tally: Tally) -> Floats:
    return _mean_of_defined(_recall(tally))


def _macro_f1(tally: Tally) -> Floats:
    return _mean_of_defined(_f1(tally))


def _loss(tally: Tally) -> Floats:
    return _ratio(tally.loss, tally.support.sum(-1))


def _precision(tally: Tally) -> Floats:
    return _ratio(tally.hits, tally.predicted)


def _recall(tally: Tally) -> Floats:
    return _ratio(tally.hits, tally.support)


def _f1(tally: Tally) -> Floats:
    return _ratio(2.0 * tally.hits, tally.support + tally.predicted)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", True, _accuracy),
        Metric("balanced_accuracy", True, _balanced_accuracy),
        Metric("macro_f1", True, _macro_f1),
        Metric("loss", False, _loss),
    )
}
"""The overall scores. Accuracy: share of clips that are right. Balanced accuracy:
mean recall over the classes that occur in the truth. Macro F1: mean F1 over the
classes that occur in truth or predictions. Loss: mean cross-entropy a clip, nats."""

CLASS_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("precision", True, _precision),
        Metric("recall", True, _recall),
        Metric("f1", True, _f1),
    )
}
"""Scores of single classes; their values keep the classes axis."""


def _ratio(part: Floats, whole: Floats) -> Floats:
    empty: Floats = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=empty, where=whole > 0)
    return empty


def _mean_of_defined(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1).astype(np.float64))
