"""Log-mel frames of a waveform on the CPU, fast, without Keras.

The window, the mel matrix and the padding are those of YAMNet's reference
(tensorflow/models, research/audioset/yamnet, features.py, Apache 2.0). The
in-graph layer `unfreeze.audio.logmel_layer.LogMel` uses the same constants and
agrees with these frames to 1e-4, on any sound.

The transform runs in float64. In float32, as in the reference, the empty bands
of a loud tone or of a band-limited recording hold rounding noise as large as
the offset in the logarithm: up to 1e-2 in the result, and different with each
FFT library. In float64 the result is the same everywhere.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from unfreeze.backbones.frontend import FrontEnd

# Frames computed at once. Fewer leave the fixed cost of each call in sight,
# more leave the second-level cache (1.5 MB of work space at 128).
_CHUNK = 128


def log_mel_frames(waveform: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Compute the log-mel frames of one waveform, padded as the reference pads.

    It takes about 0.2 ms per second of sound on one core. Threads may call it at
    once; it starts no threads of its own. For many waveforms `FrameMaker` is
    faster, because it keeps its work space.

    Args:
        waveform: (samples,) mono, at the front end's sample rate, in [-1, 1].
        front_end: the settings.

    Returns:
        (frames, bands) float32, C order; `front_end.frames(samples)` rows.

    Raises:
        ValueError: the waveform has not exactly one axis.
    """
    return FrameMaker(front_end, chunk=min(_CHUNK, front_end.frames(waveform.size)))([waveform])


class FrameMaker:
    """Computes log-mel frames of many waveforms, several at once.

    It keeps its work space and computes the frames of several short waveforms in
    one call: for clips of half a second, the fixed cost of the calls would be a
    third of the time. A waveform's frames do not depend on the others. One thread
    at a time may use it.

    Args:
        front_end: the settings.
        chunk: frames computed at once.
    """

    def __init__(self, front_end: FrontEnd, chunk: int = _CHUNK) -> None:
        self.front_end, self._chunk = front_end, chunk
        self._window = np.tile(hann_window(front_end.window), (chunk, 1))
        self._first_bin, self._last_bin, self._mel = _sparse_mel(front_end)
        # numpy pads by a slow path of its own; the zeros at the end stay.
        self._frames = np.zeros((chunk, front_end.fft), dtype=np.float64)
        bins = self._last_bin - self._first_bin
        self._bins = np.empty(bins * chunk, dtype=np.complex64)
        self._magnitudes = np.empty(bins * chunk, dtype=np.float32)

    def __call__(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the frames of each waveform, one waveform after the other.

        Args:
            waveforms: as for `log_mel_frames`.

        Returns:
            (frames, bands) float32; `front_end.frames(samples)` rows for each.

        Raises:
            ValueError: a waveform has not exactly one axis.
        """
        for waveform in waveforms:
            if waveform.ndim != 1:
                raise ValueError(f"A waveform has one axis, this one has shape {waveform.shape}.")
        front = self.front_end
        counts = [front.frames(len(waveform)) for waveform in waveforms]
        # Frames after the last sample hold padding only.
        sounding = [
            min(-(-len(waveform) // front.hop), count)
            for waveform, count in zip(waveforms, counts, strict=True)
        ]
        mel = np.empty((sum(sounding), front.bands), dtype=np.float32)
        done = filled = 0
        for waveform, count in zip(waveforms, sounding, strict=True):
            windows = _windows(waveform, count, front)
            while len(windows):
                rows = windows[: self._chunk - filled]
                windows = windows[len(rows) :]
                frames = self._frames[filled : filled + len(rows), : front.window]
                np.multiply(rows, self._window[: len(rows)], out=frames)
                filled += len(rows)
                if filled == self._chunk:
                    self._mel_magnitudes(mel[done : done + filled])
                    done, filled = done + filled, 0
        if filled:
            self._mel_magnitudes(mel[done:])
        mel += np.float32(front.log_offset)
        np.log(mel, out=mel)
        return mel if sounding == counts else _spread(mel, sounding, counts, front)

    def _mel_magnitudes(self, out: np.ndarray) -> None:
        count = len(out)
        spectra = np.fft.rfft(self._frames[:count], axis=1)
        # Bins by frames, as the sparse product wants it. Rounded to float32
        # only here, where no further sum can lose what is small.
        shape = (self._last_bin - self._first_bin, count)
        bins = self._bins[: shape[0] * count].reshape(shape)
        bins[...] = spectra[:, self._first_bin : self._last_bin].T
        magnitudes = self._magnitudes[: bins.size].reshape(shape)
        np.abs(bins, out=magnitudes)
        # A sparse product: few of the matrix's entries are not zero, and the
        # dense one would wake the threads of the BLAS for every chunk.
        out[...] = (self._mel @ magnitudes).T


def _spread(
    frames: np.ndarray, sounding: list[int], counts: list[int], front_end: FrontEnd
) -> np.ndarray:
    """Put the frames of padding after each waveform's own."""
    result = np.empty((sum(counts), front_end.bands), dtype=np.float32)
    at = done = 0
    for own, count in zip(sounding, counts, strict=True):
        result[at : at + own] = frames[done : done + own]
        result[at + own : at + count] = np.log(np.float32(front_end.log_offset))
        at, done = at + count, done + own
    return result


def _windows(waveform: np.ndarray, count: int, front_end: FrontEnd) -> np.ndarray:
    """Return (count, window) views of a waveform, with zeros after its end."""
    samples = np.ascontiguousarray(waveform, dtype=np.float32)
    needed = (count - 1) * front_end.hop + front_end.window if count else 0
    if len(samples) < needed:
        padded = np.zeros(needed, dtype=np.float32)
        padded[: len(samples)] = samples
        samples = padded
    step = samples.itemsize
    # Made at once: `sliding_window_view` takes as long as ten frames.
    return np.ndarray(
        (count, front_end.window), np.float32, samples, 0, (front_end.hop * step, step)
    )


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
    The scale is that of the slowed sound, which the network hears.

    Args:
        front_end: the settings.

    Returns:
        (fft / 2 + 1, bands) float64, read-only.
    """
    slow = front_end.slow_down
    hertz = np.linspace(0.0, front_end.sample_rate / slow / 2, front_end.fft // 2 + 1)
    bins = _hertz_to_mel(hertz)[:, np.newaxis]
    edges = np.linspace(
        _hertz_to_mel(np.float64(front_end.low_hz / slow)),
        _hertz_to_mel(np.float64(front_end.high_hz / slow)),
        front_end.bands + 2,
    )
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    matrix: np.ndarray = np.maximum(0.0, np.minimum(rising, falling))
    matrix[0] = 0.0
    matrix.flags.writeable = False
    return matrix


@functools.cache
def _sparse_mel(front_end: FrontEnd) -> tuple[int, int, Any]:
    """Return the first bin that some band uses, the end, and (bands, bins) sparse."""
    return sparse_mel(mel_matrix(front_end), np.float32)


def sparse_mel(matrix: np.ndarray, dtype: Any) -> tuple[int, int, Any]:
    """Return the first bin of a mel matrix that some band uses, the end, and the rest of it.

    Args:
        matrix: (bins, bands).
        dtype: of the result.

    Returns:
        The two bins, and a sparse array (bands, end - first).
    """
    used = np.nonzero(matrix.any(axis=1))[0]
    first, end = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
    return first, end, scipy.sparse.csr_array(matrix[first:end].T.astype(dtype))


def _hertz_to_mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(hertz / 700.0)
