"""The model of a sound classifier, from a waveform to the probabilities of a clip.

Two views of the same layers: the *patch model* (patch in, probabilities out) trains on
patches that were computed once; the *clip model* (waveform in) wraps it and is what is
saved. A clip's probabilities are the mean over its patches.

`own_scores` keeps the classes that a backbone was published with beside those of a new
head. Layers that no stage changed are shared; from the first changed layer on, a copy with
the published weights leads to the published top: one dense layer more after a run of the
head alone, a second backbone after a run of all layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

# The module, not the class: importing Keras imports both of our modules with
# layers (see `unfreeze`), and one may be half-way through its own import.
from unfreeze.audio import (
    augment_layer,
    logmel_layer,
    logmel_windows_layer,
    mel_windows_layer,
    sample_windows_layer,
)
from unfreeze.audio.augmentation import Augmentation
from unfreeze.audio.clip_parts import ClipParts, OwnPart
from unfreeze.backbones.frontend import (
    FrontEnd,
    LogMelWindows,
    MelWindows,
    NetworkOutputs,
    SampleWindows,
)

#: Names of the layer that makes patches of a waveform, by its kind.
LOG_MEL, MEL_WINDOWS, LOG_MEL_WINDOWS, SAMPLE_WINDOWS, FROZEN_NETWORK = FRONT_ENDS = (
    *("log_mel", "mel_windows", "log_mel_windows"),
    *("sample_windows", "frozen_network"),
)
PATCH_MODEL = "patch_classifier"
OUTPUT = "transfer_output"
CLASSES_MEAN = "clip_mean"
# Put behind a backbone's `published_key`.
_MEAN = "_mean"


@dataclass(frozen=True, eq=False)
class OwnClasses:
    """The classes that a backbone was published with, kept beside those of a new head.

    Attributes:
        scores: a tensor in the graph of the patch model.
        labels: their names, in the order of the scores.
        key: their name in the model's outputs.
        title: what people call them.
    """

    scores: Any
    labels: Sequence[str]
    key: str
    title: str


def own_scores(trained: keras.Model, published: keras.Model, prefix: str) -> keras.KerasTensor:
    """Connect the published scores to the input of a trained model.

    Args:
        trained: patches to anything; of the published model's layers, by name.
        published: patches to scores, as it was before any training.
        prefix: put before the names of the layers that are copied.

    Returns:
        The published model's output, as a tensor of the graph of `trained`.
    """
    from unfreeze.core.graph import flatten, take_again

    graph = flatten(published)
    mine = {layer.name: layer for layer in trained.layers}
    tensors = dict(zip(graph.inputs, trained.inputs, strict=True))
    untouched, copies = set(graph.inputs), dict[int, Any]()
    for step in graph.steps:
        layer = mine.get(step.path)
        if layer is not None and untouched.issuperset(step.inputs) and _same(layer, step.operation):
            tensors[step.outputs[0]] = layer.output
            untouched.update(step.outputs)
        else:
            take_again(step, tensors, prefix + step.path.replace("/", "_"), copies)
    for layer in copies.values():
        layer.trainable = False
    return tensors[graph.outputs[0]]


def is_as_published(trained: keras.Model, published: keras.Model) -> bool:
    """Whether a model's layers have the weights of a published network, as far as it has them."""
    mine = {layer.name: layer for layer in trained.layers}
    return all(
        _same(mine[layer.name], layer)
        for layer in published.layers
        if layer.weights and layer.name in mine
    )


def _same(layer: keras.layers.Layer, published: Any) -> bool:
    return type(layer) is type(published) and all(
        np.array_equal(a, b)
        for a, b in zip(layer.get_weights(), published.get_weights(), strict=True)
    )


@keras.saving.register_keras_serializable(package="unfreeze")
class PatchRows(keras.layers.Layer):
    """(batch, patches, *patch_shape) -> (batch * patches, *patch_shape)."""

    def call(self, patches: Any) -> Any:
        """Put the patches of all clips on one axis."""
        return ops.reshape(patches, (-1, *patches.shape[2:]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the result; the number of patches is not known."""
        return (None, *input_shape[2:])


@keras.saving.register_keras_serializable(package="unfreeze")
class ClipMean(keras.layers.Layer):
    """Mean of the scores of each clip's patches; keeps what is said of them in the model.

    Args:
        labels: name of each class, in the order of the scores.
        title: what people call these classes, where they are a backbone's own.
        notice: the licence that goes with the model; empty for none.
    """

    def __init__(
        self, labels: Sequence[str], title: str = "", notice: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.labels, self.title, self.notice = tuple(labels), title, notice

    def call(self, scores: Any, patches: Any) -> Any:
        """(batch * patches, classes) and the patches they came from -> (batch, classes)."""
        by_clip = ops.reshape(scores, (-1, ops.shape(patches)[1], len(self.labels)))
        return ops.mean(by_clip, axis=1)

    def compute_output_shape(
        self, scores_shape: tuple[int | None, ...], patches_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """One row per clip."""
        return (patches_shape[0], len(self.labels))

    def get_config(self) -> dict[str, Any]:
        """For saving; the labels travel with the model."""
        said = {"title": self.title, "notice": self.notice}
        said = {name: text for name, text in said.items() if text}
        return {**super().get_config(), "labels": list(self.labels), **said}


def patch_model(
    backbone: keras.Model,
    classes: int,
    seed: int,
    taps: str | Sequence[str] | None = None,
    augmentation: Augmentation | None = None,
    activation: str = "softmax",
    front_end: FrontEnd | None = None,
) -> keras.Model:
    """Put a new head on a backbone; its layers are named `transfer_*`.

    Args:
        backbone: patches to embeddings (batch, numbers).
        classes: number of classes.
        seed: of the head's first weights, of dropout and of augmentation.
        taps: where the backbone is read: "auto" at every depth, or patterns
            (`unfreeze.core.read_out`; the model then needs `adapt`). None reads the
            embedding, with the head of the classic recipe: Dense(64, relu), Dropout(0.5),
            Dense(classes, softmax).
        augmentation: random changes of patches in training, None for none. The
            backbone's layers are then copied.
        activation: of the head: "softmax", or "sigmoid" for independent classes.
        front_end: the backbone's, for what is changed at random; YAMNet's if not given.

    Raises:
        ScheduleError: a tap matches no layer.
    """
    if augmentation is not None:
        usual = FrontEnd()
        front = front_end or usual
        # Settings are for YAMNet's patches; those of others are changed in proportion.
        pairs = zip(front.patch_shape, usual.patch_shape, strict=False)
        scale = [ours / theirs for ours, theirs in pairs]
        changes = augment_layer.AugmentPatches(
            *(augmentation, seed, front.powers, scale),
            unit=front.logs.unit,
            name="augment",
        )
        backbone = _after(changes, backbone)
    if taps is not None:
        from unfreeze.core.read_out import read_out

        model = read_out(
            backbone, classes, taps=taps, pool="time", activation=activation, seed=seed
        )
        # The one input itself: Keras warns of an array where it was shown a list.
        return keras.Model(model.inputs[0], model.outputs[0], name=PATCH_MODEL)
    return _classic(backbone, classes, seed, activation)


def mixup_of(model: keras.Model) -> float:
    """How a patch model's training samples are mixed (`Augmentation.mixup`); 0 if not."""
    kinds = (layer for layer in model.layers if isinstance(layer, augment_layer.AugmentPatches))
    return next((float(layer.augmentation.mixup) for layer in kinds), 0.0)


def _after(layer: keras.layers.Layer, backbone: keras.Model) -> keras.Model:
    """A copy of the backbone that begins with another layer."""
    from unfreeze.core.graph import copied_behind

    (given,) = backbone.inputs
    patches = keras.Input(given.shape[1:], dtype=given.dtype, name=given.name)
    return copied_behind(backbone, layer(patches), patches)


def _classic(backbone: keras.Model, classes: int, seed: int, activation: str) -> keras.Model:

    def start(offset: int) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=seed + offset)

    layers = keras.layers
    x = backbone.output
    x = layers.Dense(64, "relu", kernel_initializer=start(0), name="transfer_dense")(x)
    x = layers.Dropout(0.5, seed=seed, name="transfer_dropout")(x)
    x = layers.Dense(classes, activation, kernel_initializer=start(1), name=OUTPUT)(x)
    return keras.Model(backbone.input, x, name=PATCH_MODEL)


def head_input(model: keras.Model) -> keras.KerasTensor:
    """What the head of a patch model reads: the embedding, or the projected read-out."""
    names = {layer.name for layer in model.layers}
    first = "transfer_dense" if "transfer_dense" in names else OUTPUT
    return model.get_layer(first).input


def clip_model(
    patches_to_scores: keras.Model,
    front_end: FrontEnd,
    labels: Sequence[str],
    own: OwnClasses | None = None,
    notice: str = "",
) -> Any:
    """Wrap a patch model: mono waveforms (batch, samples) in, (batch, classes) out.

    Args:
        patches_to_scores: from `patch_model`; its layers are shared, not copied.
        front_end: the backbone's.
        labels: name of each class.
        own: the backbone's own classes; the tensor is in the graph of `patches_to_scores`.
        notice: the licence that goes with the model; empty for none.

    Returns:
        A model with one output; with `own` it has two, in a dict: `classes` and the
        key of the own classes (`audioset`), each (batch, names), the mean over the clip's
        patches.
    """
    # A model of its own around the same layers: the one that was trained is
    # compiled, and its optimizer would be saved with it.
    outputs = patches_to_scores.outputs[0]
    if own is not None:
        outputs = [outputs, own.scores]
    bare = keras.Model(patches_to_scores.input, outputs, name=PATCH_MODEL)
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    patches = front_end_layer(front_end)(waveform)
    scores = bare(PatchRows(name="patch_rows")(patches))
    if own is None:
        means = ClipMean(labels, notice=notice, name=CLASSES_MEAN)(scores, patches)
    else:
        of_own = ClipMean(own.labels, title=own.title, name=own.key + _MEAN)
        means = {
            "classes": ClipMean(labels, notice=notice, name=CLASSES_MEAN)(scores[0], patches),
            own.key: of_own(scores[1], patches),
        }
    return keras.Model(waveform, means, name="sound_classifier")


def front_end_layer(front_end: FrontEnd) -> keras.layers.Layer:
    """The layer from waveforms to patches of a front end, whichever kind it is."""
    if isinstance(front_end, MelWindows):
        return mel_windows_layer.MelPatches(front_end, name=MEL_WINDOWS)
    if isinstance(front_end, LogMelWindows):
        return logmel_windows_layer.LogMelPatches(front_end, name=LOG_MEL_WINDOWS)
    if isinstance(front_end, NetworkOutputs):
        return sample_windows_layer.FrozenNetwork(front_end, name=FROZEN_NETWORK)
    if isinstance(front_end, SampleWindows):
        return sample_windows_layer.SamplePatches(front_end, name=SAMPLE_WINDOWS)
    return logmel_layer.LogMel(front_end, name=LOG_MEL)


def parts_of(model: keras.Model) -> tuple[keras.Model, FrontEnd, tuple[str, ...]]:
    """The patch model, the front end and the labels inside a clip model.

    The patch model has one output, whatever else the clip model gives.

    Raises:
        ValueError: it is not the model of a sound classifier.
    """
    names = {layer.name for layer in model.layers}
    makers = [name for name in FRONT_ENDS if name in names]
    if not makers or not {PATCH_MODEL, CLASSES_MEAN} <= names:
        raise ValueError("not a model of a sound classifier")
    patches = model.get_layer(PATCH_MODEL)
    if len(patches.outputs) > 1:
        patches = keras.Model(patches.input, patches.outputs[0], name=PATCH_MODEL)
    front_end = model.get_layer(makers[0]).front_end
    return patches, front_end, model.get_layer(CLASSES_MEAN).labels


def has_independent_classes(model: keras.Model) -> bool:
    """Whether a patch model judges each class by itself: a clip may have several labels."""
    return bool(model.get_layer(OUTPUT).activation is keras.activations.sigmoid)


def own_part_of(model: keras.Model) -> OwnPart | None:
    """The part for the backbone's own classes; None if the clip model has the new ones alone."""
    means = [layer for layer in model.layers if isinstance(layer, ClipMean)]
    own = next((layer for layer in means if layer.name != CLASSES_MEAN), None)
    if own is None:
        return None
    patches = model.get_layer(PATCH_MODEL)
    both = keras.layers.Concatenate(name="both")(patches.outputs)
    key = own.name.removesuffix(_MEAN)
    # Models from before there were others do not say.
    title = own.title or "AudioSet"
    return OwnPart(keras.Model(patches.input, both), own.labels, key, title)


def notice_of(model: keras.Model) -> str:
    """The licence that goes with a clip model; empty for none."""
    return str(model.get_layer(CLASSES_MEAN).notice)


def clip_parts_of(model: keras.Model) -> ClipParts:
    """All that a clip model consists of.

    Raises:
        ValueError: it is not the model of a sound classifier.
    """
    patches, front_end, labels = parts_of(model)
    several = has_independent_classes(patches)
    return ClipParts(patches, front_end, labels, several, notice_of(model), own_part_of(model))
