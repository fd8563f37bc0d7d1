"""What computes the frames of a front end, whichever kind it is; no Keras needed."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from unfreeze.audio.logmel import FrameMaker, log_mel_frames, patch_starts
from unfreeze.audio.logmel_windows import LogMelWindowMaker
from unfreeze.audio.mel_windows import MelWindowMaker, mel_windows
from unfreeze.audio.sample_windows import NetworkOutputMaker, SampleWindowMaker
from unfreeze.backbones.frontend import (
    EncodedWindows,
    FrontEnd,
    LogMelWindows,
    MelWindows,
    NetworkOutputs,
    SampleWindows,
    WholeWindows,
)


class Maker(Protocol):
    """Computes frames of waveforms; see `frame_maker`."""

    @property
    def front_end(self) -> FrontEnd:
        """The settings."""

    def __call__(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return the frames of waveforms, (samples,) each, one waveform after the other."""


def frame_maker(front_end: FrontEnd) -> Maker:
    """What computes the frames of many waveforms; one thread at a time may use it."""
    if isinstance(front_end, MelWindows):
        return MelWindowMaker(front_end)
    if isinstance(front_end, LogMelWindows):
        return LogMelWindowMaker(front_end)
    if isinstance(front_end, NetworkOutputs):
        return NetworkOutputMaker(front_end)
    if isinstance(front_end, SampleWindows):
        return SampleWindowMaker(front_end)
    return FrameMaker(front_end)


def frames_of(waveform: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Compute the frames of one waveform, padded to whole patches.

    Args:
        waveform: (samples,) mono, at the front end's sample rate, in [-1, 1].
        front_end: the settings.

    Returns:
        (frames, frame_values) float32.
    """
    if isinstance(front_end, MelWindows):
        return mel_windows(waveform, front_end)
    if isinstance(front_end, WholeWindows):
        return frame_maker(front_end)([waveform])
    return log_mel_frames(waveform, front_end)


def cut_patches(frames: np.ndarray, starts: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Cut patches out of frames.

    Args:
        frames: (frames, frame_values).
        starts: (n,) int, the first frame of each patch.
        front_end: the settings.

    Returns:
        (n, *patch_shape), a copy.
    """
    rows = starts[:, np.newaxis] + np.arange(front_end.patch_frames)
    cut: np.ndarray = frames[rows].reshape(len(starts), *front_end.patch_shape)
    return cut


def patches_of(waveform: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Compute the patches of one waveform, (patches, *patch_shape) float32."""
    return patches_of_all([waveform], front_end)[0]


def patches_of_all(waveforms: Sequence[np.ndarray], front_end: FrontEnd) -> list[np.ndarray]:
    """Compute the patches of some waveforms, (patches, *patch_shape) float32 for each."""
    if isinstance(front_end, EncodedWindows):
        inner = patches_of_all(waveforms, front_end.inner)
        # All at once: a model takes as long for a few patches as for a full batch.
        vectors = front_end.encode(np.concatenate(inner))
        return np.split(vectors, np.cumsum([len(own) for own in inner])[:-1])
    return [_patches(waveform, front_end) for waveform in waveforms]


def _patches(waveform: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    frames = frames_of(waveform, front_end)
    return cut_patches(frames, patch_starts(len(frames), front_end), front_end)
