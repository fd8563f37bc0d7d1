"""BatchNorm layers: which a stage's policy keeps as they are, and which are new.

The policies "frozen" and "affine" protect what pretraining put into a BatchNorm
layer. A layer that the user has just added holds nothing to protect: with its
statistics fixed as created (mean 0, variance 1) it would never normalize.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.core.internals import flatten_layers


def norms(layer: Any) -> list[Any]:
    """The BatchNorm layers that a layer is or has inside."""
    return [x for x in flatten_layers(layer) if isinstance(x, keras.layers.BatchNormalization)]


def new_norms(head: Sequence[Any], layers: Sequence[Any]) -> frozenset[int]:
    """Ids of BatchNorm layers that were added to a model and never trained.

    Their statistics are as created, and they are in the head, or other BatchNorm
    layers of the model have statistics from training. A base made with
    `weights=None` is not taken for new: its stages follow their policy.

    Args:
        head: the layers of the model's head.
        layers: all its layers, each once.
    """
    fresh = {id(norm): is_fresh(norm) for layer in layers for norm in norms(layer)}
    if not any(fresh.values()):
        return frozenset()
    if not all(fresh.values()):
        return frozenset(norm for norm, is_new in fresh.items() if is_new)
    return frozenset(id(norm) for layer in head for norm in norms(layer))


def is_fresh(norm: Any) -> bool:
    """Whether a BatchNorm layer's statistics are those it was created with."""
    mean = keras.ops.convert_to_numpy(norm.moving_mean)
    variance = keras.ops.convert_to_numpy(norm.moving_variance)
    return bool(np.all(mean == 0.0) and np.all(variance == 1.0))
