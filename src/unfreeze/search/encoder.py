"""What turns a window of sound into a vector: a network, read where a head would read it.

With a run, a vector is what the run's head reads, and the run's probabilities come with it.
Without one, it is the embedding of the published backbone, brought down to 256 numbers by a fixed
projection that is drawn at random (W. Johnson and J. Lindenstrauss, "Extensions of Lipschitz
Mappings into a Hilbert Space", 1984): measured in `benchmarks/search_vectors.py`, nothing that is
fitted finds more, and what is fitted to some recordings finds less in others. Either way the
index keeps the model, as a clip model in a `.keras` file: new recordings and example clips go
through the same numbers, and a new head on a vector is a classifier of sounds. (In the model
without a run, the head has one class that nothing reads.)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.clip_model import (
    OUTPUT,
    PATCH_MODEL,
    clip_model,
    has_independent_classes,
    head_input,
    parts_of,
)
from unfreeze.audio.rules import content_hash
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.pretrained_weights import resolve_weights, settle_licence
from unfreeze.backbones.registry import Backbone, get_backbone
from unfreeze.core.read_out import PROJECTION
from unfreeze.core.read_out_layers import Projection
from unfreeze.errors import RunError, show
from unfreeze.files import atomic_path
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.inference import fused
from unfreeze.pipeline.saved_model import load_classifier, load_clip_model, write_clip_model

#: In a vector without a run, at most.
NUMBERS = 256
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


def write_head(encoder: Encoder, file: Path) -> None:
    """Write the head of a run's model, where it is one dense layer on the vectors.

    So what only compares heads needs no network. Of a gate behind it, nothing is written.

    Args:
        encoder: of a run.
        file: where to; `kernel` (numbers, units) and `bias` (units,).
    """
    patches = parts_of(encoder.clip_model)[0]
    head = patches.get_layer(OUTPUT)
    weights = head.get_weights()
    # The classic recipe has another dense layer before it.
    if head.input is head_input(patches) and len(weights) == 2:
        with atomic_path(file) as partial, partial.open("wb") as opened:
            np.savez(opened, kernel=weights[0], bias=weights[1])


def open_vectors(file: Path) -> tuple[Any, FrontEnd]:
    """Patches to vectors, from the file of an index that was made without a run."""
    encoder = open_encoder(file, with_run=False)
    return encoder.model, encoder.front_end


def open_vectors_and_scores(file: Path) -> tuple[Any, FrontEnd]:
    """Patches to vectors with the run's probabilities, from the file of an index of a run."""
    encoder = open_encoder(file, with_run=True)
    return encoder.model, encoder.front_end


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
        return content_hash(file)[:16]
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


def write_encoder(backbone: Backbone, file: Path) -> None:
    """Make the model of an encoder from a backbone, and write it.

    Args:
        backbone: the network.
        file: where to write the model.

    Raises:
        WeightsError: the weights cannot be found.
    """
    base = backbone.build(weights=resolve_weights(backbone.weights))
    x, size = base.outputs[0], int(base.outputs[0].shape[-1])
    if size > NUMBERS:
        fixed = Projection(NUMBERS, name=PROJECTION)
        x = fixed(x)
        # Columns at right angles: angles between vectors change as little as they can.
        columns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, NUMBERS)))
        fixed.kernel.assign(columns.astype(np.float32))
    head = keras.layers.Dense(len(_NOTHING), "sigmoid", kernel_initializer="zeros", name=OUTPUT)
    model = keras.Model(base.inputs[0], head(x), name=PATCH_MODEL)
    whole = clip_model(model, backbone.front_end, _NOTHING, notice=backbone.notice)
    write_clip_model(whole, file)
