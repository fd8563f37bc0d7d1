"""How far to trust probabilities, and the probability from which a clip has a class.

Both are fitted on validation clips alone; the test clips only measure the result. The
probabilities of a model are not changed: the temperature is reported, not built in, so
that scores stay those of `model.keras`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unfreeze.errors import DataError, RunError

Floats = NDArray[np.float64]

BINS = 15
# Keras clips probabilities at its epsilon before the logarithm; the same bound
# keeps these losses comparable with those in the training history.
SMALLEST = 1e-7
# A temperature beyond these means only that there were too few clips to fit it.
TEMPERATURES = (0.05, 20.0)
# A few validation clips may be separable at any score; outside these bounds a
# threshold would pass everything, or nothing, in hours of other sound.
THRESHOLDS = (0.1, 0.95)
DEFAULT_THRESHOLD = 0.5


def calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error: how far confidence is from accuracy.

    Clips are put into bins of equal width by the probability of their predicted
    class; the error is the mean over the clips of |accuracy - mean confidence| of
    their bin (Naeini, Cooper and Hauskrecht 2015, "Obtaining Well Calibrated
    Probabilities Using Bayesian Binning"; 15 bins as in Guo et al. 2017, "On
    Calibration of Modern Neural Networks"). With few clips it is biased upwards.

    Args:
        truth: (n,) integers, the true columns.
        probabilities: (n, classes), rows sum to 1.
        bins: number of bins between 0 and 1.

    Returns:
        0 (perfect) to 1.

    Examples:
        >>> calibration_error(np.array([0, 1]), np.array([[0.9, 0.1], [0.9, 0.1]]))
        0.4
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, right - confidence, bins)
    return round(float(np.abs(gaps).sum() / len(truth)), 12)


def with_temperature(probabilities: np.ndarray, temperature: float) -> Floats:
    """Soften (above 1) or sharpen (below 1) probabilities: p^(1/T), scaled to sum to 1.

    For softmax outputs this is the softmax of the logits divided by T.

    Args:
        probabilities: (n, classes).
        temperature: above 0; 1 changes nothing.
    """
    powers = _logs(probabilities) / temperature
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    scaled: Floats = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Find the temperature that minimizes the cross-entropy (Guo et al. 2017).

    Args:
        truth: (n,) integers, the true columns.
        probabilities: (n, classes) of clips that were not trained on.

    Returns:
        Between 0.05 and 20; above 1 if the model is overconfident.

    Raises:
        DataError: there is no clip.
    """
    if not len(truth):
        raise DataError("fitting a temperature needs at least one clip")
    low, high = np.log(TEMPERATURES)
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: loss(truth, with_temperature(probabilities, float(np.exp(log)))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))


def best_threshold(there: np.ndarray, scores: Floats) -> float:
    """The score from which one class counts as present in a clip.

    This is the score with the largest F1 of "this class or not" over the clips; of equal
    ones, that in the widest gap between scores.

    Args:
        there: (n,) whether the class is present.
        scores: (n,) of the class.

    Returns:
        Between 0.1 and 0.95; 0.5 where the class is never present.
    """
    if not there.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(there[order])
    # A cut after the n best is possible only where the next score is smaller.
    below = np.append(ranked[1:], 0.0)
    gap = ranked - below
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + there.sum())
    f1[gap <= 0] = -1.0
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    cut = best[np.argmax(gap[best])]
    return float(np.clip((ranked[cut] + below[cut]) / 2, *THRESHOLDS))


def calibrate(
    labels: Sequence[str],
    fitted: tuple[np.ndarray, np.ndarray] | None,
    tested: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """Fit a temperature on validation clips; measure it, and thresholds, on test clips.

    Args:
        labels: names of the classes, in the order of the columns.
        fitted: truth (n,) and mean probabilities (n, classes) of the validation clips; None
            if there are none.
        tested: the same for the test clips, and peaks (n, classes): the largest patch score of
            each clip, which is what a detector in a long recording compares.
        thresholds: (classes,) for peaks; None if there are none.

    Returns:
        The entries `calibration` and `at_thresholds` of `metrics.json`: None
        without validation clips, or ::

            {"calibration": {"temperature": 1.3, "clips": 60, "bins": 15,
                             "validation": {"error": 0.08, "scaled_error": 0.05,
                                            "loss": 0.31, "scaled_loss": 0.28},
                             "test": {...} or None},
             "at_thresholds": {"dog": {"precision": 0.9, "recall": 1.0, "f1": 0.95}, ...}}

        `at_thresholds` is measured on the test clips; None without them.
    """
    if fitted is None:
        return {"calibration": None, "at_thresholds": None}
    truth, means = fitted
    temperature = fit_temperature(truth, means)
    return {
        "calibration": {
            "temperature": temperature,
            "clips": len(truth),
            "bins": BINS,
            "validation": _before_and_after(truth, means, temperature),
            "test": None if tested is None else _before_and_after(*tested[:2], temperature),
        },
        "at_thresholds": (
            None
            if tested is None or thresholds is None
            else _at_thresholds(labels, tested[0], tested[2], thresholds)
        ),
    }


def thresholds_of(
    metrics: Mapping[str, Any] | None, labels: Sequence[str], name: str = "thresholds"
) -> Floats:
    """Return a run's thresholds in the order of `labels`; 0.5 for a class without one.

    Args:
        metrics: of the run, or None.
        labels: names of the classes.
        name: of the entry of the metrics.

    Raises:
        RunError: they are not numbers.
    """
    known = (metrics or {}).get(name) or {}
    try:
        return np.array([float(known.get(label, DEFAULT_THRESHOLD)) for label in labels])
    except (AttributeError, TypeError, ValueError):
        raise RunError(f"The run's `{name}` are not numbers: train again") from None


def _before_and_after(
    truth: np.ndarray, probabilities: np.ndarray, temperature: float
) -> dict[str, float]:
    scaled = with_temperature(probabilities, temperature)
    return {
        "error": calibration_error(truth, probabilities),
        "scaled_error": calibration_error(truth, scaled),
        "loss": loss(truth, probabilities),
        "scaled_loss": loss(truth, scaled),
    }


def _at_thresholds(
    labels: Sequence[str], truth: np.ndarray, peaks: np.ndarray, thresholds: Floats
) -> dict[str, dict[str, float | None]]:
    found = {}
    for number, label in enumerate(labels):
        there, taken = truth == number, peaks[:, number] >= thresholds[number]
        hits = int((there & taken).sum())
        found[label] = {
            "precision": _ratio(hits, int(taken.sum())),
            "recall": _ratio(hits, int(there.sum())),
            "f1": _ratio(2 * hits, int(taken.sum() + there.sum())),
        }
    return found


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean cross-entropy in nats of (n,) true columns under (n, classes) probabilities."""
    return float(-_logs(probabilities)[np.arange(len(truth)), truth].mean())


def _logs(probabilities: np.ndarray) -> Floats:
    chances = np.asarray(probabilities, np.float64)
    logs: Floats = np.log(np.clip(chances, SMALLEST, 1.0))
    return logs
