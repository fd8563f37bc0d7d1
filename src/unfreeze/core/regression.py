"""Logistic regression: the weights of a dense layer, solved, not stepped.

No Keras here: a head on vectors that are known is solved where nothing else needs it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Inverse strengths of the L2 penalty, as scikit-learn's `C`, in the order of trial. The first
#: is strong: a second stage gains most from a head that does not fit the training data closely.
STRENGTHS = (0.01, 0.1, 1.0, 0.03, 0.3, 0.003, 3.0)
_ITERATIONS = 300


def regression(
    inputs: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    strength: float,
    units: int,
    activation: str,
    *,
    use_bias: bool = True,
    sides: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The weights of a dense layer by logistic regression.

    Args:
        inputs: (samples, numbers).
        labels: numbers of classes, (samples,) or (samples, 1); or (samples, classes), one-hot
            for softmax, 0 or 1 for each class for sigmoid, shares between where samples are
            mixed; for sigmoid, one below 0 is not known,
            and leaves the sample out for that class.
        weights: (samples,), with mean 1.
        strength: inverse of the penalty.
        units: of the layer, a class each.
        activation: "softmax", or "sigmoid" for classes that are judged each by itself.
        use_bias: whether the layer has a bias.
        sides: (units, 2), more weights for sigmoid: of 0 and of 1 for each class.

    Returns:
        kernel (numbers, units) and bias (units,), float32. A class without a sample gets
        a bias that never wins.
    """
    kernel, bias = np.zeros((inputs.shape[1], units)), np.full(units, -20.0)
    if activation == "softmax":
        if labels.shape[1:] == (units,):
            inputs, classes, weights = _of_one_class(inputs, labels, weights)
        else:
            classes = labels.reshape(-1)
        known, coefficients, intercepts = _fitted(inputs, classes, weights, strength, use_bias)
        if len(known) == 2:
            # One row for two classes: half of it for each gives the same probabilities.
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        kernel[:, known.astype(int)] = coefficients.T
        bias[known.astype(int)] = intercepts
    else:
        columns = labels.reshape(len(labels), units)
        for unit in range(units):
            known = columns[:, unit] >= 0
            share = columns[known, unit]
            both = np.stack([1 - share, share], axis=1)
            rows, truth, own = _of_one_class(inputs[known], both, weights[known])
            if truth.all() or not truth.any():
                # Without a single known sample, a class is never there.
                bias[unit] = 20.0 if len(truth) and truth.all() else -20.0
                continue
            truth = truth > 0
            if sides is not None:
                own = own * np.where(truth, *sides[unit][::-1])
            _, row, intercept = _fitted(rows, truth, own, strength, use_bias)
            kernel[:, unit], bias[unit] = row[0], intercept[0]
    return kernel.astype(np.float32), bias.astype(np.float32)


def _of_one_class(
    inputs: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples of one class each: one mixed of two stands for both, by their shares.

    Args:
        inputs: (samples, numbers).
        labels: (samples, classes) shares, one-hot where nothing is mixed.
        weights: (samples,).

    Returns:
        Inputs, numbers of classes and weights; as many as were given where nothing is mixed.
    """
    rows, classes = np.nonzero(labels > 0)
    # Labels that are smoothed over all classes would make as many samples of each.
    if len(rows) == len(labels) or len(rows) > 2 * len(labels):
        return inputs, labels.argmax(axis=1), weights
    return inputs[rows], classes, weights[rows] * labels[rows, classes]


def _fitted(
    inputs: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray,
    strength: float,
    use_bias: bool,
) -> Sequence[Any]:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    known = np.unique(classes)
    if len(known) == 1:
        return known, np.zeros((1, inputs.shape[1])), np.zeros(1)
    model = LogisticRegression(C=strength, max_iter=_ITERATIONS, fit_intercept=use_bias)
    with threadpool_limits(1):
        model.fit(inputs, classes, sample_weight=weights)
    return model.classes_, model.coef_, model.intercept_
