"""What counts of true and found events say: precision, recall, F1, average precision.

Counts come from `unfreeze.detection.event_scoring`; comparisons draw recordings from them
again and again.
"""

from collections.abc import Sequence

import numpy as np

from unfreeze.pipeline.bootstrap import Floats, plain_number

#: What is counted: true sounds, found events, true sounds that were found, found ones that
#: are right.
TRUE, FOUND, HIT, RIGHT = range(4)
#: False alarms of a class in an hour, up to which `polyphonic_score` looks.
MOST_ALARMS = 100.0


def rates(counts: np.ndarray) -> dict[str, float | None]:
    """Precision, recall and F1 of counts.

    Args:
        counts: (4,) in the order of `TRUE`, `FOUND`, `HIT`, `RIGHT`.

    Returns:
        Each 0 to 1; None where there is nothing to judge: precision where nothing was found,
        recall without true sounds, F1 without both.

    Examples:
        >>> rates(np.array([4, 2, 1, 1]))
        {'precision': 0.5, 'recall': 0.25, 'f1': 0.3333333333333333}
    """
    true, found, hit, right = (int(number) for number in counts)
    precision, recall = _share(right, found), _share(hit, true)
    f1 = None if not true and not found else 0.0
    if precision and recall:
        f1 = 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def average_precision(counts: np.ndarray) -> float | None:
    """The area under precision over recall, over all thresholds, of one class by one rule.

    Args:
        counts: (thresholds, 4), as `average_precisions` takes them.

    Returns:
        0 to 1; None without true sounds.

    Examples:
        >>> average_precision(np.array([[4, 8, 4, 4], [4, 2, 2, 2], [4, 0, 0, 0]]))
        0.75
    """
    return plain_number(average_precisions(counts))


def average_precisions(counts: np.ndarray) -> Floats:
    """The areas under precision over recall, over all thresholds, of many classes at once.

    At each recall counts the best precision that some threshold has at that recall or a
    larger one (M. Everingham et al., "The Pascal Visual Object Classes Challenge: A
    Retrospective", IJCV 111, 2015): a higher threshold may have a larger recall, as it cuts
    long events into those that they are.

    Args:
        counts: (..., thresholds, 4), in the order of `TRUE`, `FOUND`, `HIT`, `RIGHT`.

    Returns:
        (...,) 0 to 1; NaN without true sounds.
    """
    numbers = np.asarray(counts, np.float64)
    true, found, hit, right = (numbers[..., place] for place in (TRUE, FOUND, HIT, RIGHT))
    # Where nothing is found, nothing is right or wrong: no recall, so no area.
    recall, precision = _divided(hit, true), _divided(right, found)
    order = np.argsort(recall, axis=-1, kind="stable")
    recall = np.take_along_axis(recall, order, axis=-1)
    precision = np.take_along_axis(precision, order, axis=-1)
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    area = (np.diff(recall, axis=-1, prepend=0.0) * best).sum(axis=-1)
    areas: Floats = np.where(true.any(axis=-1), area, np.nan)
    return areas


def _divided(part: Floats, whole: Floats) -> Floats:
    shares: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return shares


def polyphonic_score(counts: np.ndarray, hours: float) -> float | None:
    """The polyphonic sound detection score, without cross-triggers.

    At each number of false alarms an hour, up to `MOST_ALARMS` of a class, each class has the
    best recall of any threshold with at most so many; the mean over classes less their standard
    deviation is what counts, and the score is its mean over all such numbers (C. Bilen et al.,
    "A Framework for the Robust Evaluation of Sound Event Detection", ICASSP 2020, with a weight
    of 1 for the spread over classes and of 0 for cross-triggers, as in scenario 1 of DCASE
    2021, task 4). Over all thresholds it is that of J. Ebbers et al., "Threshold Independent
    Evaluation of Sound Event Detection Scores", ICASSP 2022.

    Args:
        counts: (classes, thresholds, 4) by the rule `overlap`; classes without true sounds do not
            count.
        hours: of sound, above 0.

    Returns:
        0 to 1; None without true sounds.

    Examples:
        >>> polyphonic_score(np.array([[[4, 60, 3, 10], [4, 2, 2, 2], [4, 0, 0, 0]]]), 1.0)
        0.625
    """
    numbers = np.asarray(counts, np.float64)
    numbers = numbers[numbers[:, :, TRUE].any(axis=1)]
    if not len(numbers):
        return None
    alarms = (numbers[:, :, FOUND] - numbers[:, :, RIGHT]) / hours
    recalls = numbers[:, :, HIT] / numbers[:, :, TRUE]
    edges = np.unique(np.append(alarms[alarms < MOST_ALARMS], [0.0, MOST_ALARMS]))
    curves = np.zeros((len(numbers), len(edges) - 1))
    for curve, rates_of, recall in zip(curves, alarms, recalls, strict=True):
        order = np.argsort(rates_of, kind="stable")
        best = np.append(0.0, np.maximum.accumulate(recall[order]))
        curve[:] = best[np.searchsorted(rates_of[order], edges[:-1], side="right")]
    effective = np.maximum(curves.mean(axis=0) - curves.std(axis=0), 0.0)
    return float((np.diff(edges) * effective).sum() / MOST_ALARMS)


def best_precision(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best precision that some threshold has at each recall or a larger one.

    Args:
        recall: (thresholds,) 0 to 1.
        precision: (thresholds,) 0 to 1; NaN where nothing was found.

    Returns:
        The recalls, ascending, from 0, and the best precision from one to the next, which falls.
    """
    known = ~(np.isnan(recall) | np.isnan(precision))
    if not known.any():
        return np.zeros(0), np.zeros(0)
    order = np.argsort(recall[known], kind="stable")
    best = np.maximum.accumulate(precision[known][order][::-1])[::-1]
    return np.append(0.0, recall[known][order]), np.append(best[:1], best)


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are there; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
