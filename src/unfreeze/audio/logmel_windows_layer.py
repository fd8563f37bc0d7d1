"""The front end of EfficientAT as a layer: waveform in, patches out, inside the model.

As in `unfreeze.audio.logmel_layer`, the transform is a product with fixed matrices, not an
FFT operation, so that it runs on every backend and exports to every format. Powers do not
depend on where a frame's time begins: counted from its middle, the cosines and the window are
even and the sines odd. So the two halves of a frame are added and subtracted first, which
halves the work.

Samples and matrices are split into multiples of 2**-8 and the small rest, as there: the sums
of the large parts are then exact in float32 as long as they stay below 256, and what is left
of a loud tone in an empty band is no rounding.
"""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from unfreeze.audio import sample_windows_layer
from unfreeze.audio.logmel_windows import kaldi_bands, symmetric_hann
from unfreeze.backbones.frontend import LogMelWindows, front_end_from

_GRID = 256.0


@keras.saving.register_keras_serializable(package="unfreeze")
class LogMelPatches(keras.layers.Layer):
    """Waveforms to the patches of EfficientAT, padded with zeros to whole patches.

    Input: (batch, samples) mono waveforms in [-1, 1]; any length, known or not when the graph
    is built. Output: (batch, patches, *patch_shape) float32, computed in float32 under every
    policy. It has no weights.

    Args:
        front_end: the settings.

    Raises:
        ValueError: `window` is not a multiple of `hop`, or `frame` is odd.
    """

    def __init__(self, front_end: LogMelWindows, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(trainable=False, **kwargs)
        self.front_end = front_end
        if front_end.window % front_end.hop or front_end.frame % 2:
            raise ValueError(
                f"window must be a multiple of hop, got {front_end.window} and {front_end.hop}; "
                f"frame must be even, got {front_end.frame}."
            )

    def call(self, waveform: Any) -> Any:
        """Compute the patches."""
        front = self.front_end
        x = sample_windows_layer.whole_windows(waveform, front)
        x = x[:, :, 1:] - front.preemphasis * x[:, :, :-1]
        coarse = ops.round(x * _GRID) / _GRID
        coarse, rest = _frames(coarse, front), _frames(x - coarse, front)
        cosines, sines, mel = _matrices(front)
        real = _product(_folded(coarse, 1.0), _folded(rest, 1.0), cosines)
        imaginary = _product(_folded(coarse, -1.0), _folded(rest, -1.0), sines)
        powers = real * real + imaginary * imaginary
        sums = ops.matmul(powers, _constant(mel))
        return (ops.log(sums + front.log_offset) + front.shift) / front.divisor

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
    def from_config(cls, config: dict[str, Any]) -> "LogMelPatches":
        """Build the layer from `get_config`'s result."""
        values = dict(config)
        front_end = front_end_from(values.pop("front_end"))
        assert isinstance(front_end, LogMelWindows)
        return cls(front_end=front_end, **values)


def _frames(x: Any, front: LogMelWindows) -> Any:
    """(batch, patches, samples) to (batch, patches, columns, frame), mirrored at both ends."""
    half = front.frame // 2
    start = ops.flip(x[:, :, 1 : half + 1], axis=2)
    end = ops.flip(x[:, :, -half - 1 : -1], axis=2)
    x = ops.concatenate([start, x, end], axis=2)
    return sample_windows_layer.overlapping(x, front.columns, front.frame, front.frame_hop)


def _folded(frames: Any, sign: float) -> Any:
    """(..., frame) to (..., frame / 2): each sample and the one as far from the end."""
    half = frames.shape[-1] // 2
    return frames[..., :half] + sign * ops.flip(frames[..., half:], axis=-1)


def _product(coarse: Any, rest: Any, parts: tuple[np.ndarray, np.ndarray]) -> Any:
    """Halves of frames by a matrix that is given in two parts, coarse and fine."""
    by_coarse, by_fine = (_constant(part) for part in parts)
    small = ops.matmul(rest, by_coarse) + ops.matmul(coarse + rest, by_fine)
    return ops.matmul(coarse, by_coarse) + small


def _constant(values: np.ndarray) -> Any:
    return ops.convert_to_tensor(values, dtype="float32")


_Parts = tuple[np.ndarray, np.ndarray]


@functools.cache
def _matrices(front_end: LogMelWindows) -> tuple[_Parts, _Parts, np.ndarray]:
    """From half a frame to the real and the imaginary parts, and from powers to mel bands.

    Only bins that some band uses are kept.

    Returns:
        Cosines and sines by the window, each coarse and fine, (frame / 2, bins), and
        (bins, bands); float32.
    """
    mel = kaldi_bands(front_end)
    used = np.nonzero(mel.any(axis=1))[0]
    half = front_end.frame // 2
    time = np.arange(half)[:, np.newaxis] - (front_end.frame - 1) / 2
    angles = 2 * np.pi / front_end.fft * (time * used)
    window = symmetric_hann(front_end.frame)[:half, np.newaxis]

    def split(matrix: np.ndarray) -> _Parts:
        coarse = np.round(matrix * _GRID) / _GRID
        return coarse.astype(np.float32), (matrix - coarse).astype(np.float32)

    cosines, sines = split(np.cos(angles) * window), split(np.sin(angles) * window)
    return cosines, sines, mel[used]
