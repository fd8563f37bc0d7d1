"""Binary cross-entropy for independent classes, where some labels are not known."""

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="unfreeze")
class KnownBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy over the labels that are known, for a sigmoid output.

    A label of 1 says that a class is there, 0 that it is not; one below 0 says that nobody
    knows, and neither adds to the loss nor gets a gradient. The loss of a sample is the
    sum over its known classes, divided by the number of all classes, in nats.

    Args:
        side_weights: (classes, 2), the weights of "not there" and "there" for each class;
            None for 1.
        name: of the loss.
    """

    def __init__(self, side_weights: Any = None, name: str = "known_binary_crossentropy") -> None:
        super().__init__(name=name)
        self.side_weights = None if side_weights is None else np.asarray(side_weights, np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """(batch, classes) labels and probabilities -> (batch,) losses."""
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        there = ops.cast(y_true > 0.5, y_pred.dtype)
        weights = ops.cast(y_true >= 0, y_pred.dtype)
        if self.side_weights is not None:
            sides = ops.cast(ops.convert_to_tensor(self.side_weights), y_pred.dtype)
            weights = weights * (sides[:, 0] * (1 - there) + sides[:, 1] * there)
        losses = ops.binary_crossentropy(there, y_pred)
        return ops.mean(weights * losses, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """For saving."""
        sides = None if self.side_weights is None else self.side_weights.tolist()
        return {"name": self.name, "side_weights": sides}
