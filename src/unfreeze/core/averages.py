"""Averaged weights, over steps (`use_ema`) or epochs ("swa"): validated, kept, handed back.

With `use_ema`, Keras validates the weights of the last step and puts the averages in at the
very end of `fit`. A stage chooses its best epoch by validation, so here the averages are in
the model from before the validation of an epoch until its last callback that reads weights,
and the weights of the last step come back before the next epoch. `EpochAverages` (stochastic weight
averaging) takes the same way. The statistics of BatchNorm belong to the weights that they
were measured with, so they must be fixed there.
"""

from collections.abc import Sequence
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


class EpochAverages:
    """The mean of the weights at the ends of a stage's last epochs (Izmailov et al., 2018).

    Attributes:
        first: the first epoch that counts, from 0: the last quarter does, at least two epochs.
        means: the means so far, in float32.

    Args:
        variables: the weights to average.
        epochs: of the stage.
    """

    def __init__(self, variables: Sequence[Any], epochs: int) -> None:
        self.first = max(0, min(epochs * 3 // 4, epochs - 2))
        self.variables = list(variables)
        self.means = [
            keras.Variable(_numbers(v), trainable=False, dtype="float32") for v in variables
        ]

    def add(self, epoch: int) -> bool:
        """Count the weights at the end of an epoch; False where it is too early for that."""
        before = epoch - self.first
        if before < 0:
            return False
        for variable, mean in zip(self.variables, self.means, strict=True):
            old = _numbers(mean).astype("float64")
            mean.assign(old + (_numbers(variable).astype("float64") - old) / (before + 1))
        return True

    def pairs(self) -> list[tuple[Any, Any]]:
        """Each weight with its mean."""
        return list(zip(self.variables, self.means, strict=True))


class AveragedWeights(keras.callbacks.Callback):
    """Swaps weights and averages; does nothing where there are no averages.

    It must come before all callbacks that read weights.

    Args:
        of_epochs: averages over epochs; None for those of the optimizer, if it has any.
    """

    def __init__(self, of_epochs: EpochAverages | None = None) -> None:
        super().__init__()
        self.of_epochs, self.inside, self.epoch = of_epochs, False, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Train on from the last step."""
        self.take_out()
        self.epoch = epoch

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
        if self.of_epochs is not None:
            if not self.inside and self.of_epochs.add(self.epoch):
                self._swap()
                self.inside = True
            return
        optimizer = self.model.optimizer
        steps = getattr(optimizer, "inner_optimizer", optimizer).iterations
        # Before the first step that counts (mixed_float16 skips some) averages are zeros.
        if not self.inside and int(keras.ops.convert_to_numpy(steps)):
            self._swap()
            self.inside = True

    def _swap(self) -> None:
        averages = self.of_epochs
        pairs = averages_of(self.model.optimizer) if averages is None else averages.pairs()
        for variable, average in pairs:
            before, mean = _numbers(variable), _numbers(average)
            variable.assign(mean)
            average.assign(before)


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
        average.assign(_numbers(variable))


def _numbers(variable: Any) -> np.ndarray:
    # A copy: JAX refuses to take one buffer for two variables.
    return np.array(keras.ops.convert_to_numpy(variable), copy=True)
