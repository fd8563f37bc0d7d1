"""The front end of BirdNET as a layer: waveform in, patches out, inside the model.

As in `unfreeze.audio.logmel_layer`, there is no FFT operation, so that it runs on every
backend and exports to every format. The mel values of a window are a linear function of its
samples, since only the real part of the transform is used: so one matrix product gives them.

The samples are multiplied with the Hann window in float32, as in the published graph. Where
a recording holds no sound, all that is left of a mel value is the rounding of these
products, 1e-6, and the exponents make much of it. So the sums must be nearly exact, whatever
the order in which a runtime adds. Each product is split into three parts, and so is the
matrix: multiples of 2**-8, multiples of 2**-16, and the rest (see `logmel_layer`). The sums
of the large parts are then exact in float32, and the others are small. As cosines are even,
the two halves of a window are added first, which halves the work.
"""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from unfreeze.audio import sample_windows_layer
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
        x = sample_windows_layer.whole_windows(waveform, front)
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
        matrices = _matrices(front, mel)
        windows = sample_windows_layer.overlapping(x, front.columns, mel.fft, mel.hop)
        products = windows * _constant(rounded_window(mel.fft))
        coarse = ops.round(products * _GRID) / _GRID
        rest = products - coarse
        middle = ops.round(rest * _GRID**2) / _GRID**2
        fine = _folded(rest - middle)
        coarse, middle = _folded(coarse), _folded(middle)
        by_coarse, by_middle, by_fine, whole = (_constant(matrix) for matrix in matrices)
        # From the largest to the smallest: what is left after they cancel is not lost.
        value = ops.matmul(coarse, by_coarse)
        value += ops.matmul(coarse, by_middle) + ops.matmul(middle, by_coarse)
        value += ops.matmul(coarse, by_fine) + ops.matmul(middle, by_middle)
        value += ops.matmul(middle, by_fine) + ops.matmul(fine, whole)
        return ops.power(value * value, mel.power)


def _folded(x: Any) -> Any:
    """(..., fft) to (..., fft / 2 + 1): each sample and the one as far from the end, added."""
    half = x.shape[-1] // 2
    behind = ops.flip(x[..., half + 1 :], axis=-1)
    both = x[..., 1:half] + behind
    return ops.concatenate([x[..., :1], both, x[..., half : half + 1]], axis=-1)


def _constant(values: np.ndarray) -> Any:
    return ops.convert_to_tensor(values, dtype="float32")


@functools.cache
def _matrices(front_end: MelWindows, mel: Mel) -> tuple[np.ndarray, ...]:
    """The matrix from the products of half a window to its mel values.

    Returns:
        Four arrays (fft / 2 + 1, bands) float32: its parts, coarse, middle and fine, whose
        sum it is, and all of it.
    """
    rate = front_end.sample_rate / front_end.slow_down
    bands = mel_bands(mel, rate, front_end.bands).astype(np.float64)
    used = np.nonzero(bands.any(axis=1))[0]
    turns = np.arange(mel.fft // 2 + 1)[:, np.newaxis] * used % mel.fft
    matrix = np.cos(2 * np.pi / mel.fft * turns) @ bands[used]
    coarse = np.round(matrix * _GRID) / _GRID
    middle = np.round((matrix - coarse) * _GRID**2) / _GRID**2
    parts = coarse, middle, matrix - coarse - middle, matrix
    return tuple(part.astype(np.float32) for part in parts)
