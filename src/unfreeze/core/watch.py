"""Who watches while a stage trains: listeners, and guards against what must not be.

Plain Keras callbacks, so that they work in any `fit` on any backend.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from unfreeze.core.internals import flatten_layers, own_weights
from unfreeze.errors import StageError


class StageCallback(keras.callbacks.Callback):
    """A Keras callback that also hears of stages; for progress displays and logs.

    Give it to `fit` among the other callbacks and override what you need. Where
    steps are small, its batch methods are called once for several batches.
    """

    def on_stage_begin(self, plan: Any) -> None:
        """A stage is about to train; `plan` is its `StagePlan`."""

    def on_cache(self, what: str, done: int, total: int) -> None:
        """The prefix runs over the data: `done` of `total` samples (0 when not known)."""

    def on_note(self, text: str) -> None:
        """Something worth a line in the log, such as why a stage is not cached."""

    def on_stage_end(self, result: Any) -> None:
        """A stage has ended; `result` is its `StageResult`."""

    def wants_to_stop(self) -> bool:
        """Whether the run is to end after the step under way; asked before each step.

        `fit` then keeps the state of the last epoch's end in its `run_dir` and
        raises `Stopped`.
        """
        return False


class FirstEpochGuard(keras.callbacks.Callback):
    """Runs a check after the first epoch, so that a stage that cannot work ends there.

    Waits for the first epoch with a step: under mixed_float16 the first steps may
    be left out, until the loss scale is low enough.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self.check: Callable[[], None] | None = check

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check once. A loss that is not finite is the recorder's to report."""
        if self.check is None or not np.isfinite(float((logs or {}).get("loss", 0.0))):
            return
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if int(keras.ops.convert_to_numpy(inner.iterations)):
            self.check()
            self.check = None


class FlagGuard(keras.callbacks.Callback):
    """Finds `trainable` flags that change while a stage runs, which has no effect or a wrong one.

    Looks at the whole model, also at what the cache has left out of training.

    Args:
        stage: the stage's name, for the message.
        model: the whole model, its flags set for the stage.
    """

    def __init__(self, stage: str, model: keras.Model) -> None:
        super().__init__()
        self.stage, self.whole = stage, model
        self._before = _flags(model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """See what other callbacks did at the end of the epoch before."""
        self.check()

    def check(self) -> None:
        """Compare with the flags at the start.

        Raises:
            StageError: names the layers.
        """
        now = _flags(self.whole)
        changed = [name for name, flag in now.items() if self._before.get(name) != flag]
        if changed:
            layers = list(dict.fromkeys(name.rpartition("/")[0] or name for name in changed))
            more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
            raise StageError(
                f"stage {self.stage!r}: `trainable` was changed while it ran, of "
                f"{', '.join(layers[:5])}{more}. A stage trains what it was compiled for: give "
                "the schedule a further stage instead of changing flags in a callback"
            )


def _flags(model: keras.Model) -> dict[str, bool]:
    """All flags by a name that says the layer; numbered, as names may repeat."""
    found: dict[str, bool] = {}
    for number, layer in enumerate(flatten_layers(model)):
        found[f"{layer.path or layer.name}/#{number}"] = layer.trainable
        for variable in own_weights(layer)[0]:
            found[f"{layer.path or layer.name}/{variable.name}#{number}"] = variable.trainable
    return found
