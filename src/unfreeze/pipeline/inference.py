"""From recordings to class probabilities, and what else is to be known of a recording.

Audio is decoded and turned into patches outside Keras, which is faster; the result
agrees with that of the saved clip model to 1e-4. The model is one of Keras, or its light form
(`unfreeze.pipeline.light_form`), for which Keras is not imported.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Decoders, using
from unfreeze.audio.frame_writer import waveform_frames
from unfreeze.audio.front_ends import cut_patches, frame_maker, frames_of
from unfreeze.audio.logmel import patch_starts
from unfreeze.audio.patches import PatchView, clip_means, clip_peaks
from unfreeze.audio.rules import SILENT, as_warnings
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError
from unfreeze.pipeline.light_form import LightModel

if TYPE_CHECKING:
    from unfreeze.audio.noisy_patches import NoisyView

#: A file, or a mono waveform in [-1, 1] at the model's rate.
Sound = str | Path | np.ndarray

# Patches per batch of the network; of large patches fewer, as memory grows with the batch.
_BATCHES, _BATCHES_OF_LARGE = (4, 32, 256), (4, 32)
# Values from which a patch is large: those of YAMNet have 6,144, of BirdNET 98,112.
_LARGE = 1 << 15


def batch_sizes(patch_shape: Sequence[int]) -> tuple[int, ...]:
    """How many patches go through a network at once; smaller batches are filled up to these.

    Args:
        patch_shape: of one patch.

    Returns:
        The sizes that functions are compiled for, rising.
    """
    return _BATCHES if math.prod(patch_shape) < _LARGE else _BATCHES_OF_LARGE


def batch_size(front_end: FrontEnd) -> int:
    """Patches in a full batch."""
    return batch_sizes(front_end.patch_shape)[-1]


def waveform_scores(model: Any, front_end: FrontEnd, waveform: np.ndarray) -> np.ndarray:
    """Mean class probabilities (classes,) of a mono waveform in [-1, 1] at the model's rate.

    Raises:
        DataError: it is not one-dimensional, or its samples are not finite.
    """
    samples = np.asarray(waveform, dtype=np.float32)
    if samples.ndim != 1 or not samples.size:
        raise DataError(f"a waveform must have shape (samples,) (mono), not {samples.shape}")
    if not np.isfinite(samples).all():
        raise DataError("the waveform holds NaN or infinite samples")
    return _mean_scores(model, front_end, iter([frames_of(samples, front_end)]))


def file_scores(
    model: Any, front_end: FrontEnd, path: Path, decoders: Decoders | None = None
) -> np.ndarray:
    """Mean class probabilities (classes,) of a recording of any length, in constant memory.

    Args:
        model: patches to probabilities.
        front_end: how waveforms become patches.
        path: the recording.
        decoders: processes to read with; None starts some for this call.

    Raises:
        DataError: the file cannot be read; names it and the cause.
    """
    resampler = Resampler(front_end.sample_rate, front_end.channel)
    with (
        using(decoders) as reading,
        reading.waveform(path, resampler) as sound,
    ):
        frames = waveform_frames(sound.blocks, frame_maker(front_end))
        return _mean_scores(model, front_end, frames)


def sound_scores(
    model: Any, front_end: FrontEnd, sound: Sound, decoders: Decoders | None = None
) -> np.ndarray:
    """Mean class probabilities (classes,) of a recording or a waveform.

    Raises:
        DataError: as `file_scores` and `waveform_scores`.
    """
    if isinstance(sound, str | Path):
        return file_scores(model, front_end, Path(sound), decoders)
    return waveform_scores(model, front_end, sound)


def each_sound(
    sounds: Sound | Sequence[Sound], score: Callable[[Sound], np.ndarray], classes: int
) -> np.ndarray:
    """Score one sound, or each of a list.

    Args:
        sounds: one, or a list of them.
        score: returns (classes,) for one.
        classes: their number, for the shape of an empty list's result.

    Returns:
        (classes,) for one sound, (sounds, classes) for a list.
    """
    if isinstance(sounds, str | Path) or (
        isinstance(sounds, np.ndarray) and sounds.ndim == 1 and sounds.dtype.kind == "f"
    ):
        return score(sounds)
    rows = [score(sound) for sound in sounds]
    return np.stack(rows) if rows else np.zeros((0, classes), np.float32)


def all_scores(
    model: Any, patches: "np.ndarray | PatchView | NoisyView", first: int = 0
) -> np.ndarray:
    """Class probabilities (patches, classes) of any number of patches, at least one.

    Args:
        model: patches to probabilities.
        patches: (patches, *patch_shape).
        first: the first of them to score.
    """
    parts, at, sizes = [], first, batch_sizes(patches.shape[1:])
    while at < len(patches):
        # Some small batches take less time than one that is mostly padding.
        size = sizes[-1] if len(patches) - at > sizes[-1] // 2 else sizes[-2]
        parts.append(patch_scores(model, patches[np.arange(at, min(at + size, len(patches)))]))
        at += size
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def view_scores(
    model: Any, view: "PatchView | NoisyView", n_clips: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and largest class probabilities of clips in a feature store, over their patches.

    Args:
        model: patches to probabilities.
        view: patches of some clips.
        n_clips: clips in the store; rows of clips outside the view are NaN.

    Returns:
        Means and peaks, each (n_clips, classes).
    """
    scores = all_scores(model, view)
    return clip_means(scores, view.clip, n_clips), clip_peaks(scores, view.clip, n_clips)


def fused(model: Any) -> Any:
    """Return a model that computes the same with fewer operations, for long recordings.

    Each convolution and the BatchNorm after it run as one (`unfreeze.core.fusing`);
    with YAMNet this takes four fifths of the time. Outputs agree to 1e-5.

    Args:
        model: patches to probabilities; its layers are shared. A `LightModel` is returned as
            it is: its operations were fused when it was written.
    """
    if isinstance(model, LightModel):
        return model
    from unfreeze.core.boundary import inference_cut
    from unfreeze.core.fusing import fuse_steps
    from unfreeze.core.graph import flatten
    from unfreeze.core.step_model import Program, StepModel

    graph = flatten(model)
    # Nothing is trained, so all steps are before the cut.
    cut = inference_cut(graph)
    steps = fuse_steps(cut.prefix, cut, frozenset())
    program = Program(graph=graph, inputs=graph.inputs, outputs=graph.outputs, frozen=steps)
    return StepModel(program, model)


def _mean_scores(model: Any, front_end: FrontEnd, frames: Iterator[np.ndarray]) -> np.ndarray:
    total, count = 0.0, 0
    for patches in _patch_batches(frames, front_end):
        scores = patch_scores(model, patches)
        total, count = total + scores.sum(axis=0, dtype=np.float64), count + len(scores)
    return np.asarray(total / count, dtype=np.float32)


def _patch_batches(pieces: Iterator[np.ndarray], front_end: FrontEnd) -> Iterator[np.ndarray]:
    """Cut frames that come in pieces into patches; all batches but the last are full."""
    batch = batch_size(front_end)
    frames = np.zeros((0, front_end.frame_values), np.float32)
    for piece in pieces:
        frames = np.concatenate([frames, piece]) if len(frames) else piece
        starts = patch_starts(len(frames), front_end)
        while len(starts) > batch:
            yield cut_patches(frames, starts[:batch], front_end)
            frames = frames[starts[batch] :]
            starts = patch_starts(len(frames), front_end)
    if len(starts := patch_starts(len(frames), front_end)):
        yield cut_patches(frames, starts, front_end)


def patch_scores(model: Any, patches: np.ndarray) -> np.ndarray:
    """Class probabilities (n, classes) of up to a full batch of patches (n, *patch_shape)."""
    n = len(patches)
    if isinstance(model, LightModel):
        return model.predict_on_batch(patches)
    # A smaller batch is padded, so that the function is compiled for few shapes.
    size = next(size for size in batch_sizes(patches.shape[1:]) if n <= size)
    if n < size:
        patches = np.concatenate([patches, np.repeat(patches[-1:], size - n, axis=0)])
    return np.asarray(model.predict_on_batch(patches))[:n]


@dataclass(frozen=True)
class Examined:
    """What is to be known of a recording, beside its classes.

    Attributes:
        silent: whether it holds digital silence alone: not one sample other than 0.
        seconds: its length.
        warnings: a clause each, such as that the header states another length, that channels
            cancel, or that nearly all of the energy is above what the network hears.
    """

    silent: bool
    seconds: float
    warnings: tuple[str, ...]


def examine_recording(path: Path, front_end: FrontEnd, decoders: Decoders) -> Examined:
    """Read a recording to its end, and say what is to be known of it.

    Args:
        path: the recording.
        front_end: says what the network hears.
        decoders: to read with.

    Raises:
        DataError: the file cannot be read.
    """
    hears = front_end.high_hz / front_end.slow_down
    resampler = Resampler(front_end.sample_rate, front_end.channel, hears)
    with decoders.waveform(path, resampler, judge=True) as sound:
        # To the end: what is wrong shows only there.
        blocks = [(bool(block.any()), len(block)) for block in sound.blocks]
        silent = not any(sounding for sounding, _ in blocks)
        rest = [one for one in sound.findings if not (silent and one[0] == SILENT)]
        seconds = sum(length for _, length in blocks) / front_end.sample_rate
        return Examined(silent, seconds, as_warnings(rest, front_end.slow_down))
