"""Windows of samples, and what a frozen network makes of them; on the CPU, without Keras.

The layers for the saved model are in `unfreeze.audio.sample_windows_layer`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from unfreeze.backbones.frontend import NetworkOutputs, SampleWindows, WholeWindows
from unfreeze.backbones.network_file import open_network


def sample_windows(waveform: np.ndarray, front_end: SampleWindows) -> np.ndarray:
    """Cut a waveform into windows, padded with zeros at its end until the last is full.

    Args:
        waveform: (samples,) mono, at the front end's sample rate.
        front_end: the settings.

    Returns:
        (windows, window) float32, a copy; `front_end.frames(samples)` rows.

    Raises:
        ValueError: the waveform has not exactly one axis.
    """
    if waveform.ndim != 1:
        raise ValueError(f"A waveform has one axis, this one has shape {waveform.shape}.")
    count = front_end.frames(len(waveform))
    windows = np.zeros((count, front_end.window), np.float32)
    for row in range(count):
        samples = waveform[row * front_end.hop : row * front_end.hop + front_end.window]
        windows[row, : len(samples)] = samples
    return windows


def patches_of_windows(
    waveforms: Sequence[np.ndarray],
    front_end: WholeWindows,
    fill: Callable[[np.ndarray, np.ndarray], None],
) -> np.ndarray:
    """Compute the patch of each window of waveforms, one waveform after the other.

    Args:
        waveforms: (samples,) each, mono, at the front end's sample rate.
        front_end: the settings.
        fill: called with a window's samples, at the end of a waveform fewer than `window`, and the
            patch to fill, of shape `front_end.patch_shape`.

    Returns:
        (patches, frame_values) float32; `front_end.frames(samples)` rows for each, each a patch
        in C order.

    Raises:
        ValueError: a waveform has not exactly one axis.
    """
    for waveform in waveforms:
        if waveform.ndim != 1:
            raise ValueError(f"A waveform has one axis, this one has shape {waveform.shape}.")
    counts = [front_end.frames(len(waveform)) for waveform in waveforms]
    patches = np.empty((sum(counts), *front_end.patch_shape), np.float32)
    row = 0
    for waveform, count in zip(waveforms, counts, strict=True):
        for start in range(0, count * front_end.hop, front_end.hop):
            fill(waveform[start : start + front_end.window], patches[row])
            row += 1
    return patches.reshape(len(patches), front_end.frame_values)


class SampleWindowMaker:
    """Cuts waveforms into windows; see `sample_windows`.

    Args:
        front_end: the settings.
    """

    def __init__(self, front_end: SampleWindows) -> None:
        self.front_end = front_end

    def __call__(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return the windows, one waveform after the other: (windows, window) float32."""
        return np.concatenate([sample_windows(waveform, self.front_end) for waveform in waveforms])


class NetworkOutputMaker:
    """Runs a frozen network on the windows of waveforms.

    Args:
        front_end: the settings.

    Raises:
        WeightsError: the network's file is gone or has changed.
    """

    def __init__(self, front_end: NetworkOutputs) -> None:
        self.front_end = front_end
        self._network = open_network(front_end)

    def __call__(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return the network's numbers, one waveform after the other: (windows, numbers) float32.

        Raises:
            WeightsError: the network fails.
        """
        parts = [self._network(sample_windows(one, self.front_end)) for one in waveforms]
        return np.concatenate(parts)
