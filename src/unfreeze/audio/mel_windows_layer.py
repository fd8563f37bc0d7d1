"""The front end of BirdNET as a layer: waveform in, patches out, inside the model.

As in `unfreeze.audio.logmel_layer`, there is no FFT operation, so that it runs on every
backend and exports to every format. The mel values of a window are a linear function of its
samples, since only the real part of the transform is used: so one matrix product gives them.

The samples are multiplied with the Hann window in float32, as in the published graph, and
each product is split into a coarse part, a multiple of 2**-8, and the small rest (see
`logmel_layer`); the matrix, too. Coarse by coarse is a sum of multiples of 2**-16, exact
below 256. So the patches agree with `mel_windows` wherever they are not close to 0.
"""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from unfreeze.audio import logmel_layer
from unfreeze.audio.mel_windows import mel_bands, rounded_window
from unfreeze.backbones.frontend import Mel, MelWindows, front_end_from

_GRID = 256.0


@keras.saving.register_keras_serializable(package="unfreeze")
class MelPatches(keras.layers.Layer):
    """Waveforms to the patches of BirdNET, padded with zeros to whole patches.

    Input: (batch, samples) mono waveforms; any length, known or not when the graph is built.
    Output: (batch, patches, *patch_shape) float32, computed in float32 under every policy.
    It has no weights.

    Args:
        front_end: the settings.

    Raises:
        ValueError: `window` is not a multiple of `hop`.
    """

    def __init__(self, front_end: MelWindows, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(trainable=False, **kwargs)
        self.front_end = front_end
        if front_end.window % front_end.hop:
            raise ValueError(
                f"window must be a multiple of hop, got {front_end.window} and {front_end.hop}."
            )

    def call(self, waveform: Any) -> Any:
        """Compute the patches."""
        front = self.front_end
        x = logmel_layer.padded(waveform, front)
        hops = ops.reshape(x, (ops.shape(x)[0], -1, front.hop))
        parts = front.window // front.hop
        patches = ops.shape(hops)[1] - parts + 1
        x = ops.concatenate([hops[:, i : i + patches] for i in range(parts)], axis=2)
        x = x - ops.min(x, axis=2, keepdims=True)
        x = x / (ops.max(x, axis=2, keepdims=True) + 1e-6)
        x = (x - 0.5) * 2.0
        return ops.stack([self._mel(x, mel) for mel in front.mels], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[Any, ...]:
        """Return (batch, patches, *patch_shape); None where unknown."""
        batch, samples = input_shape
        patches = None if samples is None else self.front_end.patches(samples)
        return (batch, patches, *self.front_end.patch_shape)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs, as plain values."""
        config: dict[str, Any] = super().get_config()
        config.pop("trainable", None)
        return config | {"front_end": self.front_end.as_plain()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MelPatches":
        """Build the layer from `get_config`'s result."""
        values = dict(config)
        front_end = front_end_from(values.pop("front_end"))
        assert isinstance(front_end, MelWindows)
        return cls(front_end=front_end, **values)

    def _mel(self, x: Any, mel: Mel) -> Any:
        front = self.front_end
        coarse_matrix, fine_matrix = _matrices(front, mel)
        products = _windows(x, mel, front.columns) * _constant(rounded_window(mel.fft))
        coarse = ops.round(products * _GRID) / _GRID
        value = ops.matmul(coarse, _constant(coarse_matrix))
        value += ops.matmul(products - coarse, _constant(coarse_matrix))
        value += ops.matmul(products, _constant(fine_matrix))
        return ops.power(value * value, mel.power)


def _windows(x: Any, mel: Mel, columns: int) -> Any:
    """(batch, patches, samples) to (batch, patches, columns, fft), without a gather.

    The samples are laid out in rows of one hop; a window is some rows side by side.
    """
    parts = -(-mel.fft // mel.hop)
    rows = columns + parts - 1
    missing = rows * mel.hop - x.shape[2]
    if missing > 0:
        x = ops.pad(x, [[0, 0], [0, 0], [0, missing]])
    shape = ops.shape(x)
    x = ops.reshape(x[:, :, : rows * mel.hop], (shape[0], shape[1], rows, mel.hop))
    beside = [x[:, :, i : i + columns] for i in range(parts)]
    beside[-1] = beside[-1][..., : mel.fft - (parts - 1) * mel.hop]
    return ops.concatenate(beside, axis=3)


def _constant(values: np.ndarray) -> Any:
    return ops.convert_to_tensor(values, dtype="float32")


@functools.cache
def _matrices(front_end: MelWindows, mel: Mel) -> tuple[np.ndarray, np.ndarray]:
    """The matrix from the products of a window to its mel values, as coarse part and rest.

    Returns:
        Two arrays (fft, bands) float32, whose sum it is.
    """
    rate = front_end.sample_rate / front_end.slow_down
    bands = mel_bands(mel, rate, front_end.bands).astype(np.float64)
    used = np.nonzero(bands.any(axis=1))[0]
    angles = 2 * np.pi / mel.fft * (np.arange(mel.fft)[:, np.newaxis] * used % mel.fft)
    matrix = np.cos(angles) @ bands[used]
    coarse = np.round(matrix * _GRID) / _GRID
    return coarse.astype(np.float32), (matrix - coarse).astype(np.float32)
