"""Mel windows of a waveform on the CPU, without Keras: what BirdNET reads.

The steps are those of the graph of BirdNET 2.4 (see `unfreeze.backbones.birdnet_spec`), in
the precision that the TFLite runtime gives each of them: samples and window in float32, the
transform in float64, the rest in float32. The exponents, 0.2, make much of what is nearly
0, so where a recording holds no sound (bands above the rate that it was made with, silence)
the patch shows the rounding of the products of sample and window: with the same rounding
here, scores agree with the published file's to 1e-4 (in float64, a few differ by 1e-3).
The layer for exports is `unfreeze.audio.mel_windows_layer.MelPatches`.
"""

import functools
from collections.abc import Sequence

import numpy as np

from unfreeze.audio.logmel import sparse_mel
from unfreeze.audio.sample_windows import patches_of_windows
from unfreeze.backbones.frontend import Mel, MelWindows

# Windows of a spectrogram computed at once: 2 MB of work space for 2,048 samples.
_CHUNK = 128
# Added to the range of the samples, so that silence can be divided by it.
_RANGE_OFFSET = np.float32(1e-6)


def mel_windows(waveform: np.ndarray, front_end: MelWindows) -> np.ndarray:
    """Compute the patches of one waveform; it is padded with zeros to whole patches.

    Args:
        waveform: (samples,) mono, at the front end's sample rate.
        front_end: the settings.

    Returns:
        (patches, frame_values) float32; `front_end.frames(samples)` rows, each a patch of
        shape `front_end.patch_shape` in C order.

    Raises:
        ValueError: the waveform has not exactly one axis.
    """
    return MelWindowMaker(front_end)([waveform])


class MelWindowMaker:
    """Computes the patches of waveforms; see `mel_windows`. It keeps its work space.

    Args:
        front_end: the settings.
    """

    def __init__(self, front_end: MelWindows) -> None:
        self.front_end = front_end
        rate = front_end.sample_rate / front_end.slow_down
        self._spectra = [_Spectrogram(mel, rate, front_end) for mel in front_end.mels]

    def __call__(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the patches of each waveform: as `patches_of_windows`."""
        return patches_of_windows(waveforms, self.front_end, self._patch)

    def _patch(self, samples: np.ndarray, out: np.ndarray) -> None:
        scaled = np.zeros(self.front_end.window, np.float32)
        scaled[: len(samples)] = samples
        scaled -= scaled.min()
        scaled /= scaled.max() + _RANGE_OFFSET
        scaled -= np.float32(0.5)
        scaled *= np.float32(2)
        for number, spectrogram in enumerate(self._spectra):
            spectrogram(scaled, out[:, :, number])


class _Spectrogram:
    """One spectrogram of a patch."""

    def __init__(self, mel: Mel, rate: float, front_end: MelWindows) -> None:
        self._mel, self._window = mel, rounded_window(mel.fft)
        self._columns = front_end.columns
        self._first, self._end, self._bands = sparse_mel(
            mel_bands(mel, rate, front_end.bands), np.float64
        )
        self._products = np.empty((_CHUNK, mel.fft), np.float32)

    def __call__(self, samples: np.ndarray, out: np.ndarray) -> None:
        """Fill (columns, bands) from the scaled samples of a patch."""
        mel, step = self._mel, samples.itemsize
        windows = np.ndarray(
            (self._columns, mel.fft), np.float32, samples, 0, (mel.hop * step, step)
        )
        for at in range(0, self._columns, _CHUNK):
            rows = windows[at : at + _CHUNK]
            products = np.multiply(rows, self._window, out=self._products[: len(rows)])
            spectra = np.fft.rfft(products.astype(np.float64), axis=1)
            real = spectra[:, self._first : self._end].real.astype(np.float32)
            values = np.asarray(self._bands @ real.T.astype(np.float64), np.float32)
            np.multiply(values, values, out=values)
            np.power(values, np.float32(mel.power), out=values)
            out[at : at + len(rows)] = values.T


@functools.cache
def mel_bands(mel: Mel, rate: float, bands: int) -> np.ndarray:
    """Return the weights from the bins of a spectrogram to its bands, the highest first.

    Triangles that are straight in the HTK mel scale, as `unfreeze.audio.logmel.mel_matrix`,
    but rounded as TensorFlow's float32 rounds them: 1e-5, which counts where the terms of a
    band cancel.

    Args:
        mel: the spectrogram.
        rate: samples per second, as the network hears them.
        bands: their number.

    Returns:
        (fft / 2 + 1, bands) float32, read-only.
    """
    bins = _mel(_even_steps(np.float32(0), np.float32(rate / 2), mel.fft // 2 + 1)[1:])
    lowest, highest = _mel(np.array([mel.low_hz, mel.high_hz], np.float32))
    edges = _even_steps(lowest, highest, bands + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, np.newaxis] - low) / (centre - low)
    falling = (high - bins[:, np.newaxis]) / (high - centre)
    matrix = np.zeros((mel.fft // 2 + 1, bands), np.float32)
    matrix[1:] = np.maximum(np.float32(0), np.minimum(rising, falling))[:, ::-1]
    matrix.flags.writeable = False
    return matrix


def _mel(hertz: np.ndarray) -> np.ndarray:
    # The logarithm in float64: in float32 it depends on the processor.
    logarithm = np.log(1 + (hertz / np.float32(700)).astype(np.float64)).astype(np.float32)
    return np.asarray(np.float32(1127) * logarithm)


def _even_steps(first: np.float32, last: np.float32, count: int) -> np.ndarray:
    step = (last - first) / np.float32(count - 1)
    steps: np.ndarray = first + step * np.arange(count, dtype=np.float32)
    steps[-1] = last
    return steps


@functools.cache
def rounded_window(length: int) -> np.ndarray:
    """Return the periodic Hann window with the rounding of TensorFlow's float32.

    Args:
        length: samples.

    Returns:
        (length,) float32, read-only; the very bits of the published file.
    """
    turn = np.float32(2 * np.pi) * np.arange(length, dtype=np.float32) / np.float32(length)
    window: np.ndarray = np.float32(0.5) - np.float32(0.5) * _cosine(turn)
    window.flags.writeable = False
    return window


# Pi / 2 in three parts, of which the first has few bits, and the polynomials of cosine and
# sine around 0, highest power first: those of Eigen, the library of linear algebra that
# TensorFlow uses (Eigen/src/Core/arch/Default/GenericPacketMathFunctions.h, psincos_float).
_QUARTER = (1.5707960128784180, 3.1391647326017846e-7, 5.3903025299577648e-15)
_COSINE = (2.4372266125283204e-5, -1.3886520173400640e-3, 4.1666619479656219e-2, -0.5, 1.0)
_SINE = (-1.9592341140837029e-4, 8.3326873655616851e-3, -1.6666662029822983e-1)


def _cosine(angle: np.ndarray) -> np.ndarray:
    """The cosine of float32 angles from 0 to 2 pi, rounded as TensorFlow rounds it.

    Sums and products alone, which every processor rounds alike; numpy's own cosine of
    float32 does not.
    """
    quarter = np.rint(angle * np.float32(2 / np.pi))
    rest = angle
    for part in _QUARTER:
        rest = rest - quarter * np.float32(part)
    square = rest * rest
    cosine = _polynomial(_COSINE, square)
    sine = _polynomial(_SINE, square) * square * rest + rest
    number = quarter.astype(np.int32) % 4
    return np.choose(number, (cosine, -sine, -cosine, sine))


def _polynomial(factors: Sequence[float], x: np.ndarray) -> np.ndarray:
    value = np.full_like(x, factors[0])
    for factor in factors[1:]:
        value = value * x + np.float32(factor)
    return value
