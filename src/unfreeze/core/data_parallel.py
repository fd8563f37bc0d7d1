"""Training on several devices of one machine: each step's batch is divided among them.

On JAX, through `keras.distribution.DataParallel`: every device holds all weights, and the
gradient of a batch is that of the whole batch, as on one device, rounding apart. JAX divides
a batch only into equal parts. So a training batch that is left over at the end of an epoch
loses the few samples that make it unequal, and validation batches that do not divide are
computed on every device as a whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from unfreeze.core.data import Rows, ShuffledRows, Stream, kind_of
from unfreeze.core.keras_internals import move_to_devices, processes
from unfreeze.errors import ScheduleError

_REASONS = {
    "tensorflow": "on TensorFlow Keras spreads a model by tf.distribute, whose variables must be "
    "made under its strategy: the stages of `fit` train layers of a model that is there "
    "already. Use the JAX backend (KERAS_BACKEND=jax), or build and compile the model under "
    "tf.distribute.MirroredStrategy and train it with model.fit and UnfreezeSchedule",
    "torch": "Keras has no training on several devices for PyTorch: use the JAX backend "
    "(KERAS_BACKEND=jax)",
}


def check_available(devices: int) -> None:
    """Refuse several devices where this machine or Keras' backend has none to train on.

    Raises:
        ScheduleError: says why, and what to do.
    """
    backend = keras.backend.backend()
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        raise ScheduleError(f"devices is {devices!r}: it must be a whole number, at least 1")
    if devices == 1:
        return
    if backend in _REASONS:
        raise ScheduleError(f"devices={devices}: {_REASONS[backend]}")
    if processes() > 1:
        raise ScheduleError(
            f"devices={devices}: this is one of {processes()} JAX processes, and stages are "
            "cached, audited and saved by one: run it as one, with the devices of one machine"
        )
    there = keras.distribution.list_devices()
    if devices > len(there):
        raise ScheduleError(f"devices={devices}: JAX sees {len(there)} ({', '.join(there)})")


def check_devices(
    devices: int, data: Rows | Stream, held: Rows | Stream | None, sizes: Iterable[int]
) -> None:
    """Refuse several devices where they would not train, or not alike.

    Args:
        devices: how many.
        data: the training data.
        held: the validation data, or None.
        sizes: samples in a step of each stage.

    Raises:
        ScheduleError: says why, and what to do.
    """
    check_available(devices)
    if devices == 1:
        return
    for part in (data, held):
        if isinstance(part, Stream):
            raise ScheduleError(
                f"devices={devices}: the {kind_of(part.source)} makes its own batches, which may "
                "not divide among the devices: give arrays, or anything that numbers index"
            )
    if isinstance(data, Rows) and data.n < devices:
        raise ScheduleError(f"devices={devices}: there are only {data.n} samples")
    for size in sizes:
        if size % devices:
            raise ScheduleError(
                f"devices={devices}: a batch of {size} does not divide among them. Give a "
                f"batch_size such as {size + devices - size % devices}"
            )


class EvenParts(keras.distribution.DataParallel):
    """Divides batches that divide, and gives others to every device."""

    def get_data_layout(self, data_shape: Any) -> Any:
        """The layout of a batch of this shape."""
        layout = super().get_data_layout(data_shape)
        if data_shape[0] % self.device_mesh.devices.size:
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
        return layout


@contextmanager
def on_devices(model: keras.Model, devices: int) -> Iterator[None]:
    """Hold a model's weights on several devices meanwhile; after it, on the first alone."""
    if devices == 1:
        yield
        return
    spread = EvenParts(devices=keras.distribution.list_devices()[:devices])
    with spread.scope():
        move_to_devices(model, spread)
        try:
            yield
        finally:
            move_to_devices(model, None)


def divided(feed: Any, devices: int) -> Any:
    """A feed of training data whose batches all divide among the devices."""
    if devices > 1 and isinstance(feed, ShuffledRows):
        feed.divide(devices)
    return feed


def whole_batches(count: int, size: int, devices: int) -> int:
    """A batch size for validation, with which all batches divide, or the first does not.

    Keras lays all batches of a pass out as the first.
    """
    return size if devices == 1 or not count % size % devices else size + 1


def left_out(data: Rows | Stream, sizes: Iterable[int], devices: int) -> str | None:
    """What is left out of each epoch, in words; None for nothing.

    Args:
        data: the training data.
        sizes: samples in a step of each stage.
        devices: among which a batch is divided.
    """
    if devices == 1 or isinstance(data, Stream):
        return None
    most = max((data.n % size % devices for size in sizes), default=0)
    if not most:
        return None
    return (
        f"{most} of {data.n} samples, others in each epoch, are left out: the last batch does not "
        f"divide among {devices} devices"
    )
