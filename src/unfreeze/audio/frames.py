"""Log-mel frames of a waveform on the CPU, fast, without Keras.

The window, the mel matrix and the padding are those of YAMNet's reference
(tensorflow/models, research/audioset/yamnet, features.py, Apache 2.0). The
in-graph layer `unfreeze.audio.logmel.LogMel` uses the same constants and
agrees with this to 1e-4, on any sound.

The transform runs in float64. In float32, as in the reference, the empty bands
of a loud tone or of a band-limited recording hold rounding noise as large as
the offset in the logarithm: up to 1e-2 in the result, and different with each
FFT library. In float64 the result is the same everywhere.
"""

import functools
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse

from unfreeze.backbones.frontend import FrontEnd

# Frames computed at once, so that their spectra stay in the processor's cache.
_CHUNK = 128


def log_mel_frames(waveform: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Compute the log-mel frames of one waveform, padded as the reference pads.

    It takes about 0.2 ms a second of sound on one core. Threads may call this
    at once; nothing here starts threads of its own.

    Args:
        waveform: (samples,) mono, at the front end's sample rate, in [-1, 1].
        front_end: the settings.

    Returns:
        (frames, bands) float32, C order; `front_end.frames(samples)` rows.

    Raises:
        ValueError: the waveform has not exactly one axis.
    """
    if waveform.ndim != 1:
        raise ValueError(f"A waveform has one axis, this one has shape {waveform.shape}.")
    padding = front_end.padded_samples(len(waveform)) - len(waveform)
    samples = np.pad(np.asarray(waveform, dtype=np.float32), (0, padding))
    windows = np.lib.stride_tricks.sliding_window_view(samples, front_end.window)
    windows = windows[:: front_end.hop]
    window, mel = hann_window(front_end.window), _sparse_mel(front_end)
    result = np.empty((len(windows), front_end.bands), dtype=np.float32)
    padded = np.zeros((min(_CHUNK, len(windows)), front_end.fft), dtype=np.float64)
    for start in range(0, len(windows), _CHUNK):
        rows = windows[start : start + _CHUNK]
        frames = padded[: len(rows)]
        np.multiply(rows, window, out=frames[:, : front_end.window])
        magnitudes = np.abs(scipy.fft.rfft(frames, axis=1)).astype(np.float32)
        # A sparse product: few of the matrix's entries are not zero, and the
        # dense one would wake the threads of the BLAS for every chunk.
        result[start : start + _CHUNK] = (mel @ magnitudes.T).T
    result += np.float32(front_end.log_offset)
    np.log(result, out=result)
    return result


def patch_starts(frames: int, front_end: FrontEnd) -> np.ndarray:
    """Return the row of the first frame of each patch.

    Args:
        frames: rows of the log-mel frames.
        front_end: the settings.

    Returns:
        (patches,) int64; empty when there are fewer frames than one patch has.
    """
    last = frames - front_end.patch_frames
    return np.arange(0, last + 1, front_end.patch_hop, dtype=np.int64)


@functools.cache
def hann_window(length: int) -> np.ndarray:
    """Return the periodic Hann window, 0.5 - 0.5 cos(2 pi n / length).

    Args:
        length: samples.

    Returns:
        (length,) float64, read-only.
    """
    window: np.ndarray = 0.5 - 0.5 * np.cos(2 * np.pi / length * np.arange(length))
    window.flags.writeable = False
    return window


@functools.cache
def mel_matrix(front_end: FrontEnd) -> np.ndarray:
    """Return the weights from spectrum bins to mel bands.

    Triangles that are straight in the HTK mel scale, 1127 ln(1 + f / 700), of
    height 1, the first bin (0 Hz) left out: as tf.signal.linear_to_mel_weight_matrix.

    Args:
        front_end: the settings.

    Returns:
        (fft / 2 + 1, bands) float64, read-only.
    """
    hertz = np.linspace(0.0, front_end.sample_rate / 2, front_end.fft // 2 + 1)
    bins = _hertz_to_mel(hertz)[:, np.newaxis]
    edges = np.linspace(
        _hertz_to_mel(np.float64(front_end.low_hz)),
        _hertz_to_mel(np.float64(front_end.high_hz)),
        front_end.bands + 2,
    )
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    matrix: np.ndarray = np.maximum(0.0, np.minimum(rising, falling))
    matrix[0] = 0.0
    matrix.flags.writeable = False
    return matrix


@functools.cache
def _sparse_mel(front_end: FrontEnd) -> Any:
    return scipy.sparse.csr_array(mel_matrix(front_end).T.astype(np.float32))


def _hertz_to_mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(hertz / 700.0)
