"""The log-mel front end as a layer: waveform in, patches out, inside the model.

The short-time Fourier transform is a convolution with a fixed kernel, the
windowed cosines and sines. Unlike any FFT operation, that runs on every backend
and exports to every format. For training data use `log_mel_frames`, which is
faster; both agree to 1e-4 on any sound.

A plain float32 convolution would be off by 1e-3 in the empty bands of a loud
tone, where the 400 products cancel. So the waveform and the kernel are each
split into a coarse part, a multiple of 2**-9, and the small rest. Coarse by
coarse is a sum of multiples of 2**-18, which float32 adds without rounding, in
whatever order a processor adds, as long as it stays below 64; the other products
are 500 times smaller, and so is their rounding. With a grid of 2**-10 the limit is
16: a full-scale chirp passes it in bins that end near 0, and was off by 5e-3 on
processors that add in another order. (The split is that of T. J. Dekker, "A floating-point
technique for extending the available precision", Numer. Math. 18, 1971.)
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from unfreeze.audio.logmel import hann_window, mel_matrix
from unfreeze.backbones.frontend import FrontEnd, front_end_from

_GRID = 512.0


@keras.saving.register_keras_serializable(package="unfreeze")
class LogMel(keras.layers.Layer):
    """Waveforms to log-mel patches, padded as YAMNet's reference pads.

    Input: (batch, samples) mono waveforms in [-1, 1]; any length, known or not
    when the graph is built. Output: (batch, patches, patch_frames, bands)
    float32. It always computes in float32, also under a mixed-precision policy,
    because the logarithm of a small number needs it. It has no weights.

    Args:
        front_end: the settings; YAMNet's by default.

    Raises:
        ValueError: `patch_frames` is not a multiple of `patch_hop`.
    """

    def __init__(self, front_end: FrontEnd | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(trainable=False, **kwargs)
        self.front_end = front_end or FrontEnd()
        if self.front_end.patch_frames % self.front_end.patch_hop:
            raise ValueError(
                f"patch_frames must be a multiple of patch_hop, got "
                f"{self.front_end.patch_frames} and {self.front_end.patch_hop}."
            )
        self._coarse, self._fine, self._mel = _constants(self.front_end)

    def call(self, waveform: Any) -> Any:
        """Compute the patches."""
        frames = self._log_mel(padded(waveform, self.front_end))
        # Patches overlap by whole hops: cut the frames into hops, then lay the
        # hops of each patch side by side. No gather, so every format takes it.
        front = self.front_end
        shape = ops.shape(frames)
        hops = ops.reshape(frames, (shape[0], -1, front.patch_hop, front.bands))
        parts = front.patch_frames // front.patch_hop
        patches = ops.shape(hops)[1] - parts + 1
        return ops.concatenate([hops[:, i : i + patches] for i in range(parts)], axis=2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[Any, ...]:
        """Return (batch, patches, patch_frames, bands); None where unknown."""
        batch, samples = input_shape
        front = self.front_end
        patches = None if samples is None else front.patches(samples)
        return (batch, patches, front.patch_frames, front.bands)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs, as plain values."""
        config: dict[str, Any] = super().get_config()
        # Fixed by the constructor, so it is no argument of it.
        config.pop("trainable", None)
        return config | {"front_end": self.front_end.as_plain()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LogMel":
        """Build the layer from `get_config`'s result."""
        values = dict(config)
        return cls(front_end=front_end_from(values.pop("front_end")), **values)

    def _log_mel(self, waveform: Any) -> Any:
        coarse = ops.round(waveform * _GRID) / _GRID
        rest = waveform - coarse
        # rest x coarse kernel + waveform x rest of the kernel, as two channels.
        spectrum = self._conv(ops.expand_dims(coarse, -1), self._coarse)
        spectrum += self._conv(ops.stack([rest, waveform], axis=-1), self._fine)
        bins = self._mel.shape[0]
        real, imaginary = spectrum[..., :bins], spectrum[..., bins:]
        magnitudes = ops.sqrt(real * real + imaginary * imaginary)
        mel = ops.matmul(magnitudes, ops.convert_to_tensor(self._mel, dtype="float32"))
        return ops.log(mel + self.front_end.log_offset)

    def _conv(self, channels: Any, kernel: np.ndarray) -> Any:
        return ops.conv(
            channels,
            ops.convert_to_tensor(kernel, dtype="float32"),
            strides=self.front_end.hop,
            padding="valid",
            data_format="channels_last",
        )


def padded(waveform: Any, front_end: FrontEnd) -> Any:
    """Pad waveforms (batch, samples) at their end, as `FrontEnd.padded_samples` says."""
    front = front_end
    hop = front.patch_hop * front.hop
    samples = ops.shape(waveform)[1]
    if isinstance(samples, int):
        padding = front.padded_samples(samples) - samples
        return ops.pad(waveform, [[0, 0], [0, padding]])
    # The length is only known when the graph runs (TensorFlow): pad by more
    # than enough, then cut; as `FrontEnd.padded_samples`.
    extra = ops.maximum(samples - front.min_samples, 0)
    total = front.min_samples + (extra + hop - 1) // hop * hop
    return ops.pad(waveform, [[0, 0], [0, front.min_samples + hop]])[:, :total]


def _constants(front_end: FrontEnd) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernels of the transform and the mel matrix, all float32.

    Only bins that some band uses are kept (235 of 257 for YAMNet).

    Returns:
        The coarse kernel (window, 1, 2 x bins), the kernel for the two small
        products (window, 2, 2 x bins), the mel matrix (bins, bands).
    """
    mel = mel_matrix(front_end)
    used = np.nonzero(mel.any(axis=1))[0]
    samples = np.arange(front_end.window)[:, np.newaxis]
    angles = 2 * np.pi / front_end.fft * (samples * used)
    window = hann_window(front_end.window)[:, np.newaxis]
    kernel = np.concatenate([np.cos(angles), -np.sin(angles)], axis=1) * window
    coarse = np.round(kernel * _GRID) / _GRID
    fine = np.stack([coarse, kernel - coarse], axis=1)
    return (
        coarse[:, np.newaxis, :].astype(np.float32),
        fine.astype(np.float32),
        mel[used].astype(np.float32),
    )
