"""Weights averaged over steps (`use_ema=True`): what is validated, kept and handed back.

Keras validates the weights of the last step and puts the averages in at the very end of
`fit`. A stage chooses its best epoch by validation, so here the averages are in the model
from before the validation of an epoch until its last callback that reads weights, and the
weights of the last step come back before the next epoch.
"""

from typing import Any

import keras
import numpy as np

from unfreeze.core.keras_internals import averages_of

KEPT_ANYWAY = (
    "a stage validates and keeps the averages of use_ema by itself, and a second swap would undo "
    "that; leave the callback out"
)


def swaps_averages(callback: Any) -> bool:
    """Whether a callback, or a class of callbacks, is Keras' own for averages."""
    kind = keras.callbacks.SwapEMAWeights
    return callback is kind or isinstance(callback, kind)


class AveragedWeights(keras.callbacks.Callback):
    """Swaps weights and averages; does nothing for an optimizer without averages.

    It must come before all callbacks that read weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Train on from the last step."""
        self.take_out()

    def on_test_begin(self, logs: Any = None) -> None:
        """Validate the averages."""
        self._put_in()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Where nothing is validated, the averages are kept all the same."""
        self._put_in()

    def take_out(self) -> None:
        """Put the weights of the last step back, if the averages are in."""
        if self.inside:
            self._swap()
            self.inside = False

    def _put_in(self) -> None:
        optimizer = self.model.optimizer
        steps = getattr(optimizer, "inner_optimizer", optimizer).iterations
        # Before the first step that counts (mixed_float16 skips some) averages are zeros.
        if not self.inside and int(keras.ops.convert_to_numpy(steps)):
            self._swap()
            self.inside = True

    def _swap(self) -> None:
        for variable, average in averages_of(self.model.optimizer):
            pair = [np.array(keras.ops.convert_to_numpy(v), copy=True) for v in (variable, average)]
            variable.assign(pair[1])
            average.assign(pair[0])


class TakeOut(keras.callbacks.Callback):
    """Puts the weights of the last step back at the end of an epoch: for what saves them."""

    def __init__(self, averages: AveragedWeights) -> None:
        super().__init__()
        self.averages = averages

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Swap back."""
        self.averages.take_out()


def start_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Let the averages of a new optimizer begin at the weights instead of at zero.

    The first step overwrites them. Before it, Keras may end `fit` with them.
    """
    for variable, average in averages_of(optimizer):
        # A copy: JAX refuses to take one buffer for two variables.
        average.assign(np.array(keras.ops.convert_to_numpy(variable), copy=True))
