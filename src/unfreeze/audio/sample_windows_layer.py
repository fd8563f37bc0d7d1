"""Windows of samples as a layer, and the place of a frozen network in a saved model.

A network in a file of its own cannot be part of a Keras model. `FrozenNetwork` stands for it:
it knows which file is needed, by its checksum, and runs it, outside of Keras' graph. So a
saved model is whole as long as that file is there. (The ONNX export holds both.)
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from unfreeze.audio import logmel_layer
from unfreeze.backbones import network_file
from unfreeze.backbones.frontend import (
    FrontEnd,
    NetworkOutputs,
    SampleWindows,
    front_end_from,
)


def whole_windows(waveform: Any, front_end: FrontEnd) -> Any:
    """Windows of waveforms, padded with zeros: (batch, samples) to (batch, windows, window).

    Without a gather, so that every format takes it. The window is a whole number of hops.
    """
    x = logmel_layer.padded(waveform, front_end)
    hops = ops.reshape(x, (ops.shape(x)[0], -1, front_end.hop))
    parts = front_end.window // front_end.hop
    count = ops.shape(hops)[1] - parts + 1
    return ops.concatenate([hops[:, i : i + count] for i in range(parts)], axis=2)


def overlapping(x: Any, count: int, size: int, hop: int) -> Any:
    """Parts of windows that overlap: (batch, windows, samples) to (batch, windows, count, size).

    Without a gather: the samples are laid out in rows of one hop; a part is some rows side by
    side. What is missing at the end is 0.

    Args:
        x: windows.
        count: parts of each.
        size: samples in a part.
        hop: samples from one part to the next.
    """
    beside = -(-size // hop)
    rows = count + beside - 1
    missing = rows * hop - x.shape[2]
    if missing > 0:
        x = ops.pad(x, [[0, 0], [0, 0], [0, missing]])
    shape = ops.shape(x)
    x = ops.reshape(x[:, :, : rows * hop], (shape[0], shape[1], rows, hop))
    parts = [x[:, :, i : i + count] for i in range(beside)]
    parts[-1] = parts[-1][..., : size - (beside - 1) * hop]
    return ops.concatenate(parts, axis=3)


class _Windows(keras.layers.Layer):
    """What both layers share: settings, and no weights.

    Layers of other modules cannot derive from it: whichever module imports Keras first is
    half-way through its own import when the others are imported (see `unfreeze`).
    """

    def __init__(self, front_end: SampleWindows, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(trainable=False, **kwargs)
        self.front_end = front_end
        if front_end.window % front_end.hop:
            raise ValueError(
                f"window must be a multiple of hop, got {front_end.window} and {front_end.hop}."
            )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[Any, ...]:
        """Return (batch, windows, *patch_shape); None where unknown."""
        batch, samples = input_shape
        windows = None if samples is None else self.front_end.patches(samples)
        return (batch, windows, *self.front_end.patch_shape)

    def compute_output_spec(self, waveform: Any) -> Any:
        """The shape is known without a call, which may need a file."""
        return keras.KerasTensor(self.compute_output_shape(waveform.shape), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs, as plain values."""
        config: dict[str, Any] = super().get_config()
        config.pop("trainable", None)
        return config | {"front_end": self.front_end.as_plain()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Build the layer from `get_config`'s result."""
        values = dict(config)
        front_end = front_end_from(values.pop("front_end"))
        assert isinstance(front_end, SampleWindows)
        return cls(front_end=front_end, **values)


@keras.saving.register_keras_serializable(package="unfreeze")
class SamplePatches(_Windows):
    """Waveforms (batch, samples) to windows of samples (batch, windows, window).

    Args:
        front_end: the settings.

    Raises:
        ValueError: `window` is not a multiple of `hop`.
    """

    def call(self, waveform: Any) -> Any:
        """Cut the windows."""
        return whole_windows(waveform, self.front_end)


@keras.saving.register_keras_serializable(package="unfreeze")
class FrozenNetwork(_Windows):
    """Waveforms (batch, samples) to what a network makes of each window.

    Output: (batch, windows, numbers). The network runs in its own runtime, on values: in
    eager mode on every backend, and inside a function on TensorFlow. Its file is opened at
    the first call.

    Args:
        front_end: the settings, which name the file.

    Raises:
        ValueError: `window` is not a multiple of `hop`.
    """

    def call(self, waveform: Any) -> Any:
        """Run the network.

        Raises:
            WeightsError: its file is gone or has changed.
        """
        windows = whole_windows(waveform, self.front_end)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            given = tf.numpy_function(self._numbers, [windows], tf.float32)
            return tf.reshape(given, (*tf.unstack(tf.shape(windows))[:2], self._size))
        return ops.convert_to_tensor(self._numbers(ops.convert_to_numpy(windows)))

    @property
    def _size(self) -> int:
        return self.front_end.frame_values

    def _numbers(self, windows: np.ndarray) -> np.ndarray:
        assert isinstance(self.front_end, NetworkOutputs)
        network = network_file.open_network(self.front_end)
        found = network(windows.reshape(-1, windows.shape[-1]))
        return found.reshape(*windows.shape[:2], self._size)
