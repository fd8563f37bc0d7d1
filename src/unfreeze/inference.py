"""From recordings to class probabilities, with a trained patch model.

Audio is decoded and turned into patches by the fast path; the result equals
that of the saved clip model to 1e-4.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.decode import decode
from unfreeze.audio.frames import log_mel_frames, patch_starts
from unfreeze.audio.patches import PatchView, clip_means
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError

BATCH = 256
SHAPES = (4, 32, BATCH)


def waveform_scores(model: Any, front_end: FrontEnd, waveform: np.ndarray) -> np.ndarray:
    """Mean class probabilities (classes,) of a mono waveform in [-1, 1] at the model's rate.

    Raises:
        DataError: not one-dimensional, empty, or not finite.
    """
    samples = np.asarray(waveform, dtype=np.float32)
    if samples.ndim != 1 or not samples.size:
        raise DataError(f"a waveform must be a row of samples (mono), not of shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise DataError("the waveform holds NaN or infinite samples")
    frames = log_mel_frames(samples, front_end)
    total, count = 0.0, 0
    for patches in _patch_batches(frames, front_end):
        scores = patch_scores(model, patches)
        total, count = total + scores.sum(axis=0, dtype=np.float64), count + len(scores)
    return np.asarray(total / count, dtype=np.float32)


def file_scores(model: Any, front_end: FrontEnd, path: Path) -> np.ndarray:
    """Mean class probabilities (classes,) of a recording.

    Raises:
        DataError: the file cannot be read; names it and the cause.
    """
    return waveform_scores(model, front_end, decode(path, front_end.sample_rate))


def view_scores(model: Any, view: PatchView, n_clips: int) -> np.ndarray:
    """Mean class probabilities (n_clips, classes) of clips in a feature store.

    Args:
        model: patches to probabilities.
        view: patches of some clips.
        n_clips: clips in the store; rows of clips that are not in the view are NaN.
    """
    parts = [
        patch_scores(model, view[np.arange(start, min(start + BATCH, len(view)))])
        for start in range(0, len(view), BATCH)
    ]
    return clip_means(np.concatenate(parts), view.clip, n_clips)


def _patch_batches(frames: np.ndarray, front_end: FrontEnd) -> Iterator[np.ndarray]:
    starts = patch_starts(len(frames), front_end)
    rows = np.arange(front_end.patch_frames)
    for first in range(0, len(starts), BATCH):
        yield frames[starts[first : first + BATCH, None] + rows]


def patch_scores(model: Any, patches: np.ndarray) -> np.ndarray:
    """Class probabilities (n, classes) of up to `BATCH` patches (n, frames, bands)."""
    # Few shapes for the compiled function: a smaller batch is filled up.
    n = len(patches)
    size = next(size for size in SHAPES if n <= size)
    if n < size:
        patches = np.concatenate([patches, np.repeat(patches[-1:], size - n, axis=0)])
    return np.asarray(model.predict_on_batch(patches))[:n]
