"""How much each class counts in training, and in choosing the best epoch.

The option `class_weight` is "balanced", "none", or a YAML file with a line such as
`dog: 2` for each class that counts more or less than 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from unfreeze.core import yaml_file
from unfreeze.errors import did_you_mean
from unfreeze.pipeline.train_options import BALANCED, UNWEIGHTED


def read_class_weights(name: str, labels: Sequence[str] | None = None) -> dict[str, float] | None:
    """The weights in a file, by class.

    Args:
        name: the option's value.
        labels: the classes of the data; None does not compare them.

    Returns:
        The weight of each class that the file names; None where the option is no file.

    Raises:
        ScheduleError: the file cannot be read, a weight is not above 0, or there is no such
            class.
    """
    if name in (BALANCED, UNWEIGHTED):
        return None
    root = yaml_file.compose(yaml_file.read_text(name), name)
    found = {}
    for label, (at, node) in yaml_file.pairs(root, "class weights").items():
        found[label] = float(yaml_file.number(node, label))
        if not found[label] > 0:
            reason = f"{label} {found[label]:g} must be above 0 (leave its clips out instead)"
            raise yaml_file.error_at(at, reason)
        if labels is not None and label not in labels:
            hint = did_you_mean(label, labels) or f" Classes: {', '.join(labels)}"
            raise yaml_file.error_at(at, f"no class is named {label!r}.{hint}")
    return found


def heard_weights(name: str, labels: Sequence[str]) -> np.ndarray | None:
    """Weights in the loss of independent classes, (classes, 2): of "not heard" and "heard".

    Args:
        name: the option's value.
        labels: the classes.

    Returns:
        1 and the weight in the file; None for "balanced" and "none": each class is judged
        by itself, so that no class outweighs another, and a threshold of its own makes up
        for being rare.

    Raises:
        ScheduleError: as `read_class_weights`.
    """
    given = read_class_weights(name, labels)
    if given is None:
        return None
    return np.array([[1.0, given.get(label, 1.0)] for label in labels])


def sample_weights(name: str, truth: np.ndarray, labels: Sequence[str]) -> dict[int, float] | None:
    """Weights of the classes of training samples; their mean over the samples is 1.

    Args:
        name: the option's value.
        truth: (samples,) numbers of classes.
        labels: the classes.

    Returns:
        By number of class: for "balanced", samples / (classes that occur * samples of the
        class), and 1 for a class without a sample; for a file, its weights, 1 for others.
        None for "none".

    Raises:
        ScheduleError: as `read_class_weights`.
    """
    if name == UNWEIGHTED:
        return None
    counts = np.bincount(truth, minlength=len(labels))
    given = read_class_weights(name, labels)
    if given is None:
        occurring = np.count_nonzero(counts)
        each = [len(truth) / (occurring * n) if n else 1.0 for n in counts.tolist()]
    else:
        plain = np.array([given.get(label, 1.0) for label in labels])
        each = (plain * len(truth) / (plain @ counts)).tolist()
    return dict(enumerate(each))


def clip_weights(
    name: str, clip: np.ndarray, truth: np.ndarray, labels: Sequence[str]
) -> np.ndarray:
    """Weights of validation patches, by which clips count the same, or as their classes do.

    Args:
        name: the option's value.
        clip: (patches,) the clip of each.
        truth: (patches,) the class of each, as a number.
        labels: the classes.

    Returns:
        (patches,) float32, with mean 1.

    Raises:
        ScheduleError: as `read_class_weights`.
    """
    weights: np.ndarray = 1 / np.bincount(clip)[clip]
    given = read_class_weights(name, labels)
    if given is not None:
        weights = weights * np.array([given.get(label, 1.0) for label in labels])[truth]
    elif name == BALANCED:
        weights = weights / np.bincount(truth, weights)[truth]
    mean = float(weights.mean())
    return np.asarray(weights / mean, np.float32)


def plain_weights(name: str) -> str | Mapping[str, float]:
    """The option as it is compared and kept: the content of a file, not its path."""
    given = read_class_weights(name)
    return name if given is None else given
