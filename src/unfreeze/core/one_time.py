"""A generator as training data: what can be read once, and where that ended."""

from collections.abc import Iterator
from typing import Any

import keras

from unfreeze.errors import DataError


class OneTime:
    """A generator, which can be read once: what has been looked at comes again, nothing else.

    Args:
        generator: of batches.

    Attributes:
        given: how many batches it has given.
        over: whether it has ended.
    """

    def __init__(self, generator: Iterator[Any]) -> None:
        self.given, self.over = 0, False
        self._rest = generator
        self._seen: list[Any] = []

    def peek(self) -> Any:
        """The next batch, which is still to come.

        Raises:
            DataError: there is none.
        """
        if not self._seen:
            try:
                self._seen.append(next(self._rest))
            except StopIteration:
                raise self.ended() from None
        return self._seen[0]

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                batch = self._seen.pop() if self._seen else next(self._rest)
            except StopIteration:
                self.over = True
                return
            self.given += 1
            yield batch

    def ended(self) -> DataError:
        """What to say where more batches are needed."""
        if not self.given:
            return DataError("the generator gives no batches")
        return DataError(
            f"the generator ended after {self.given} batches, in the middle of the run: it must "
            "give steps_per_epoch batches for each epoch of all stages, or never end (`while "
            "True:`)"
        )


class EndsTooSoon(keras.callbacks.Callback):
    """Ends a stage whose generator has no batches for the whole of an epoch.

    Keras would warn, and then train shorter epochs, none, or on TensorFlow the first batches
    again. A generator that ended may have been read ahead, so the steps are counted, too.

    Args:
        source: the generator.
        steps: of an epoch.
    """

    def __init__(self, source: OneTime, steps: int) -> None:
        super().__init__()
        self.source, self.steps = source, steps
        self.given, self.needed, self.done, self.of_epoch = source.given, 0, 0, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count; the optimizer leaves out what it skips (float16) or has yet to apply."""
        self.of_epoch = batch + 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compare the steps with those that there must be."""
        self.needed += self.steps
        self.done, self.of_epoch = self.done + self.of_epoch, 0
        # Steps beyond the batches are fewer than was told, or had the first batches again.
        if self.source.over and min(self.done, self.source.given - self.given) < self.needed:
            raise self.source.ended()
