"""A run that is asked to stop: it ends after the step under way, and keeps what it has.

Who asks is a listener (`StageCallback.wants_to_stop`); the command line's does so
on Ctrl-C. It is asked before each step, which costs 2 microseconds where the smallest
steps take a thousand, and never while validation runs: the epoch is then all but
done, and is kept.
"""

from collections.abc import Callable
from typing import Any

import keras

from unfreeze.errors import Stopped


class StopWhenAsked(keras.callbacks.Callback):
    """Ends a stage's `fit` by raising `Stopped`.

    It must come after all that keeps something at the end of an epoch. It uses no
    hook at the end of steps: for one of those, Keras would wait for each step.

    Args:
        asked: whether to stop.
        keep: called before; writes what is not yet on disk.
    """

    def __init__(self, asked: Callable[[], bool], keep: Callable[[], None]) -> None:
        super().__init__()
        self.asked, self.keep = asked, keep

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Stop before another step begins."""
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop between two epochs; after the last one the stage ends, and is recorded."""
        if not self.model.stop_training and epoch + 1 < self.params["epochs"]:
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.asked():
            self.keep()
            raise Stopped
