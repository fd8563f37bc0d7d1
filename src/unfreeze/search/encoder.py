"""What turns a window of sound into a vector: a network, read where a head would read it.

With a run, a vector is what the run's head reads, and the run's probabilities come with it.
Without one, the published backbone is read at every depth (`unfreeze.core.read_out`), and a
projection fitted to windows of the first recordings brings that down to 256 numbers. Either
way the index keeps the model, as a clip model in a `.keras` file: new recordings and example
clips go through the same numbers, and a new head on a vector is a classifier of sounds. (In
the model without a run, the head has one class that nothing reads.)
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.clip_model import (
    clip_model,
    has_independent_classes,
    head_input,
    parts_of,
)
from unfreeze.audio.decode_processes import Decoders
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.pretrained_weights import resolve_weights, settle_licence
from unfreeze.backbones.registry import Backbone, get_backbone
from unfreeze.core.read_out import SAMPLES, adapt
from unfreeze.detection.scan import PatchBlock, read_patches
from unfreeze.errors import DataError, RunError, show
from unfreeze.files import atomic_path
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.inference import fused
from unfreeze.pipeline.patch_training import new_model
from unfreeze.pipeline.saved_model import load_classifier, load_clip_model

# Recordings that the projection is fitted to windows of, and bytes of all these windows.
_RECORDINGS, _BYTES = 128, 1 << 28
# The class of a model without a run.
_NOTHING = ("none",)


@dataclass(frozen=True, eq=False)
class Encoder:
    """Turns patches into vectors.

    Attributes:
        model: patches to (patches, numbers + classes): the vector, then the probabilities.
        clip_model: waveforms to probabilities; the model that is kept in the index.
        front_end: how waveforms become patches.
        numbers: in a vector.
        labels: the run's classes; empty without a run.
        several: whether each class is judged by itself.
    """

    model: Any
    clip_model: keras.Model
    front_end: FrontEnd
    numbers: int
    labels: tuple[str, ...]
    several: bool


def open_encoder(file: Path, *, with_run: bool) -> Encoder:
    """Load the model of a run or of an index.

    Args:
        file: `.keras` file.
        with_run: whether it has classes of a run.

    Raises:
        RunError: it is missing, damaged, or not the model of a sound classifier.
    """
    return encoder_of(load_clip_model(file), with_run=with_run)


def encoder_of(model: keras.Model, *, with_run: bool) -> Encoder:
    """Make an encoder of a clip model.

    Args:
        model: waveforms to probabilities.
        with_run: whether it has classes of a run.

    Raises:
        RunError: its head is none of ours.
    """
    patches, front_end, labels = parts_of(model)
    try:
        read = head_input(patches)
    except ValueError:
        raise RunError("This model has no head that `unfreeze train` makes") from None
    outputs, several = read, False
    if with_run:
        outputs = keras.layers.Concatenate(name="vector_and_scores")([read, patches.outputs[0]])
        several = has_independent_classes(patches)
    whole = keras.Model(patches.input, outputs)
    classes = labels if with_run else ()
    return Encoder(fused(whole), model, front_end, int(read.shape[-1]), tuple(classes), several)


def model_file(run: Path) -> Path:
    """The model of a finished run; the file itself, if a `.keras` file is given.

    Raises:
        RunError: the run is missing or not finished.
    """
    if run.is_file():
        return run
    run_folder.read_config(run)
    run_folder.read_scores(run)
    return run / run_folder.MODEL


def digest(file: Path) -> str:
    """The start of a model file's SHA-256, as a search for events keeps it in its journal.

    Raises:
        RunError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    except OSError as error:
        raise RunError(f"{show(file)} cannot be read ({error.strerror or error})") from None


def copy_of_run(run: Path, file: Path) -> None:
    """Put a copy of a run's model into an index.

    Args:
        run: the folder of a finished run, or a `.keras` file.
        file: where to write the copy.

    Raises:
        RunError: the run is missing, damaged or not finished.
    """
    load_classifier(run)
    with atomic_path(file) as partial:
        partial.write_bytes(model_file(run).read_bytes())


def usable_backbone(name: str, accept_licence: bool) -> Backbone:
    """A backbone whose licence is settled, before anything slow.

    Raises:
        UnfreezeError: there is none of this name, or its licence is not accepted.
    """
    backbone = get_backbone(name)
    settle_licence(backbone.weights, accept_licence)
    return backbone


def fit_to(backbone: Backbone, recordings: Sequence[Path], file: Path, decoders: Decoders) -> int:
    """Make the model of an encoder from a backbone, and write it.

    Args:
        backbone: the network.
        recordings: some windows of these are what the projection is fitted to.
        file: where to write the model.
        decoders: to read with.

    Returns:
        The number of these windows.

    Raises:
        DataError: no recording can be read.
        WeightsError: the weights cannot be found.
    """
    weights = resolve_weights(backbone.weights)
    model = new_model(backbone, weights, len(_NOTHING), 0, augment="none", several=True)
    patches = _some_patches(recordings, backbone.front_end, decoders)
    adapt(model, patches)
    whole = clip_model(model, backbone.front_end, _NOTHING, notice=backbone.notice)
    with atomic_path(file) as partial:
        whole.save(partial)
    return len(patches)


def _some_patches(
    recordings: Sequence[Path], front_end: FrontEnd, decoders: Decoders
) -> np.ndarray:
    """The first patches of recordings from all over the list, at most 2,048 in all."""
    most = min(SAMPLES, max(_BYTES // (4 * math.prod(front_end.patch_shape)), 2))
    apart = max(len(recordings) // _RECORDINGS, 1)
    hop = front_end.patch_samples // front_end.step
    chosen = [*recordings[::apart][:_RECORDINGS]]
    found, left, errors = list[np.ndarray](), most, list[DataError]()
    for number, path in enumerate(chosen):
        share = -(-left // (len(chosen) - number))
        try:
            for item in read_patches(path, front_end, hop, decoders):
                if isinstance(item, PatchBlock) and share:
                    found.append(item.patches[:share].copy())
                    share -= len(found[-1])
                    left -= len(found[-1])
                if not share:
                    break
        except DataError as error:
            errors.append(error)
    if not found:
        raise DataError(f"No recording can be read: {errors[0] if errors else 'none are given'}")
    return np.concatenate(found)
