"""Log-mel spectrograms of whole windows on the CPU, without Keras: what EfficientAT reads.

The steps are those of its reference, `AugmentMelSTFT` (github.com/fschmid56/EfficientAT,
models/preprocess.py), as it hears outside of training: emphasis, an STFT whose frames are
centred on their samples, so that both ends of the sound are mirrored, powers, Kaldi's mel
bands, a logarithm. The transform is in float64, so that it is the same with every FFT library.
The bands are rounded as the reference's are, which shows by 1e-4 in a loud band. The layer for
exports is `unfreeze.audio.logmel_windows_layer.LogMelPatches`.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

from unfreeze.audio.logmel import sparse_mel
from unfreeze.audio.sample_windows import patches_of_windows
from unfreeze.backbones.frontend import LogMelWindows


class LogMelWindowMaker:
    """Computes the patches of waveforms, padded with zeros to whole patches.

    Args:
        front_end: the settings.
    """

    def __init__(self, front_end: LogMelWindows) -> None:
        self.front_end = front_end
        self._hann = symmetric_hann(front_end.frame)
        self._first, self._end, self._mel = sparse_mel(kaldi_bands(front_end), np.float64)

    def __call__(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the patches of each waveform: as `patches_of_windows`."""
        return patches_of_windows(waveforms, self.front_end, self._patch)

    def _patch(self, given: np.ndarray, out: np.ndarray) -> None:
        front = self.front_end
        samples = np.zeros(front.window, np.float32)
        samples[: len(given)] = given
        emphasized = samples[1:] - np.float32(front.preemphasis) * samples[:-1]
        # A frame's middle is its sample number frame / 2, the first after the middle.
        before = front.frame // 2
        mirrored = np.pad(emphasized, before, mode="reflect")
        step = mirrored.itemsize
        frames = np.ndarray(
            (front.columns, front.frame), np.float32, mirrored, 0, (front.frame_hop * step, step)
        )
        spectra = np.fft.rfft(frames * self._hann, front.fft, axis=1)
        spectra = spectra[:, self._first : self._end]
        powers = spectra.real**2 + spectra.imag**2
        mel = (self._mel @ powers.T).T
        out[...] = (np.log(mel + front.log_offset) + front.shift) / front.divisor


@functools.cache
def kaldi_bands(front_end: LogMelWindows) -> np.ndarray:
    """Return the weights from spectrum bins to mel bands.

    Triangles that are straight in the HTK mel scale, as those of
    `unfreeze.audio.logmel.mel_matrix`, but rounded as PyTorch's float32 rounds them in
    torchaudio's `get_mel_banks`.

    Args:
        front_end: the settings.

    Returns:
        (fft / 2 + 1, bands) float32, read-only.
    """
    rate = front_end.sample_rate / front_end.slow_down
    low, high = (
        1127.0 * math.log(1.0 + hertz / front_end.slow_down / 700.0)
        for hertz in (front_end.low_hz, front_end.high_hz)
    )
    step = (high - low) / (front_end.bands + 1)
    hertz = np.float32(rate / front_end.fft) * np.arange(front_end.fft // 2, dtype=np.float32)
    # The logarithm in float64: in float32 it depends on the processor.
    logs = np.log((1 + hertz / np.float32(700)).astype(np.float64)).astype(np.float32)
    bins = (np.float32(1127) * logs)[:, np.newaxis]
    number = np.arange(front_end.bands, dtype=np.float32)
    left, centre, right = (
        np.float32(low) + (number + np.float32(more)) * np.float32(step) for more in (0, 1, 2)
    )
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    matrix = np.zeros((front_end.fft // 2 + 1, front_end.bands), np.float32)
    matrix[:-1] = np.maximum(np.float32(0), np.minimum(rising, falling))
    matrix.flags.writeable = False
    return matrix


@functools.cache
def symmetric_hann(length: int) -> np.ndarray:
    """Return the symmetric Hann window, whose first and last sample are 0.

    Args:
        length: samples.

    Returns:
        (length,) float64, read-only.
    """
    window: np.ndarray = np.hanning(length)
    window.flags.writeable = False
    return window
