"""The model of a sound classifier, from a waveform to the probabilities of a clip.

Two views of the same layers: the *patch model* (patch in, probabilities out) is
what trains, on patches that were computed once; the *clip model* (waveform in)
wraps it for use and is what is saved. A clip's probabilities are the mean over
its patches.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# The module, not the class: importing Keras imports both of our modules with
# layers (see `unfreeze`), and one may be half-way through its own import.
from unfreeze.audio import logmel
from unfreeze.backbones.frontend import FrontEnd

PATCH_MODEL = "patch_classifier"
CLASSES_MEAN, OWN_MEAN = "clip_mean", "audioset_mean"


@keras.saving.register_keras_serializable(package="unfreeze")
class PatchRows(keras.layers.Layer):
    """(batch, patches, frames, bands) -> (batch * patches, frames, bands)."""

    def call(self, patches: Any) -> Any:
        """Put the patches of all clips in one row."""
        return ops.reshape(patches, (-1, *patches.shape[2:]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the row, its length not known."""
        return (None, *input_shape[2:])


@keras.saving.register_keras_serializable(package="unfreeze")
class ClipMean(keras.layers.Layer):
    """Mean of the scores of each clip's patches; keeps the class names in the model.

    Args:
        labels: name of each class, in the order of the scores.
    """

    def __init__(self, labels: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.labels = tuple(labels)

    def call(self, scores: Any, patches: Any) -> Any:
        """(batch * patches, classes) and the patches they came from -> (batch, classes)."""
        by_clip = ops.reshape(scores, (-1, ops.shape(patches)[1], len(self.labels)))
        return ops.mean(by_clip, axis=1)

    def compute_output_shape(
        self, scores_shape: tuple[int | None, ...], patches_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """One row a clip."""
        return (patches_shape[0], len(self.labels))

    def get_config(self) -> dict[str, Any]:
        """For saving; the labels travel with the model."""
        return {**super().get_config(), "labels": list(self.labels)}


def patch_model(backbone: keras.Model, classes: int, seed: int) -> keras.Model:
    """Put a new head on a backbone.

    The head is that of the classic recipe: Dense(64, relu), Dropout(0.5),
    Dense(classes, softmax), all named `transfer_*`.

    Args:
        backbone: patches to embeddings (batch, numbers).
        classes: number of classes.
        seed: of the head's first weights and of dropout.
    """

    def start(offset: int) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=seed + offset)

    layers = keras.layers
    x = backbone.output
    x = layers.Dense(64, "relu", kernel_initializer=start(0), name="transfer_dense")(x)
    x = layers.Dropout(0.5, seed=seed, name="transfer_dropout")(x)
    x = layers.Dense(classes, "softmax", kernel_initializer=start(1), name="transfer_output")(x)
    return keras.Model(backbone.input, x, name=PATCH_MODEL)


def clip_model(
    patches_to_scores: keras.Model,
    front_end: FrontEnd,
    labels: Sequence[str],
    own: tuple[keras.KerasTensor, Sequence[str]] | None = None,
) -> Any:
    """Wrap a patch model: mono waveforms (batch, samples) in, (batch, classes) out.

    Args:
        patches_to_scores: from `patch_model`; its layers are shared, not copied.
        front_end: the backbone's.
        labels: name of each class.
        own: the scores of the backbone's own classes, a tensor in the graph of
            `patches_to_scores`, and their names.

    Returns:
        A model with one output; with `own` it has two, in a dict: `classes` and
        `audioset`, each (batch, names), the mean over the clip's patches.
    """
    # A model of its own around the same layers: the one that was trained is
    # compiled, and its optimizer would be saved with it.
    outputs = patches_to_scores.outputs[0]
    if own is not None:
        outputs = [outputs, own[0]]
    bare = keras.Model(patches_to_scores.inputs, outputs, name=PATCH_MODEL)
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    patches = logmel.LogMel(front_end, name="log_mel")(waveform)
    scores = bare(PatchRows(name="patch_rows")(patches))
    if own is None:
        means = ClipMean(labels, name=CLASSES_MEAN)(scores, patches)
    else:
        means = {
            "classes": ClipMean(labels, name=CLASSES_MEAN)(scores[0], patches),
            "audioset": ClipMean(own[1], name=OWN_MEAN)(scores[1], patches),
        }
    return keras.Model(waveform, means, name="sound_classifier")


def parts_of(model: keras.Model) -> tuple[keras.Model, FrontEnd, tuple[str, ...]]:
    """The patch model, the front end and the labels inside a clip model.

    The patch model has one output, whatever else the clip model gives.

    Raises:
        ValueError: it is some other model.
    """
    names = {layer.name for layer in model.layers}
    if not {PATCH_MODEL, "log_mel", CLASSES_MEAN} <= names:
        raise ValueError("not a model of a sound classifier")
    patches = model.get_layer(PATCH_MODEL)
    if len(patches.outputs) > 1:
        patches = keras.Model(patches.inputs, patches.outputs[0], name=PATCH_MODEL)
    front_end = model.get_layer("log_mel").front_end
    return patches, front_end, model.get_layer(CLASSES_MEAN).labels


def own_part_of(model: keras.Model) -> tuple[keras.Model, tuple[str, ...]] | None:
    """The patch model of all classes, and the names of the backbone's own.

    Returns:
        A model from patches to the scores of the new classes and then of the
        backbone's own, in one row, so that both cost one pass; and the names
        of the latter. None if the clip model gives the new classes alone.
    """
    if OWN_MEAN not in {layer.name for layer in model.layers}:
        return None
    patches = model.get_layer(PATCH_MODEL)
    both = keras.layers.Concatenate(name="both")(patches.outputs)
    return keras.Model(patches.inputs, both), model.get_layer(OWN_MEAN).labels
