"""YAMNet in Keras 3: patches in, embedding (or AudioSet scores) out.

Source: tensorflow/models, research/audioset/yamnet, yamnet.py (Apache 2.0).
Layer names are stable and part of the interface: `conv1`, `conv1_bn`,
`conv1_relu`, then for each block N from 2 to 14 `blockN_depthwise`,
`blockN_pointwise`, each with `_bn` and `_relu`, and `embedding` at the end.
"""

import os
from collections.abc import Mapping

import keras
import numpy as np

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.pretrained_weights import load_tensors, resolve_weights
from unfreeze.backbones.weight_files import Progress
from unfreeze.backbones.yamnet_spec import BLOCKS, CLASSES, STEM, TOP, YAMNET_WEIGHTS

# The reference leaves the momentum at the default of Keras.
_BN_MOMENTUM = 0.99
_BN_EPSILON = 1e-4
_LAST = "channels_last"

Weights = str | os.PathLike[str] | None


def build_yamnet(weights: Weights = "auto", *, progress: Progress | None = None) -> keras.Model:
    """Build YAMNet up to its embedding.

    Args:
        weights: "auto" finds or downloads the published weights, a path uses
            that file, None leaves the layers at their random start.
        progress: called as progress(done, total) in bytes while downloading.

    Returns:
        A functional model named `yamnet` from `patches` (batch, 96, 64),
        log-mel values, to `embedding` (batch, 1024), which is never negative.

    Raises:
        WeightsError: the weights cannot be found or downloaded, or are wrong.
    """
    patches, embedding = _network()
    model = keras.Model(patches, embedding, name="yamnet")
    _load(model, weights, progress)
    return model


def yamnet_with_top(weights: Weights = "auto", *, progress: Progress | None = None) -> keras.Model:
    """Build YAMNet with its AudioSet classes, as published.

    Args:
        weights: as for `build_yamnet`.
        progress: as for `build_yamnet`.

    Returns:
        A functional model from `patches` (batch, 96, 64) to `scores`
        (batch, 521), each in [0, 1] and independent of the others; their
        names are `yamnet_spec.class_names()`.

    Raises:
        WeightsError: the weights cannot be found or downloaded, or are wrong.
    """
    patches, embedding = _network()
    scores = keras.layers.Dense(CLASSES, activation="sigmoid", name=TOP)(embedding)
    model = keras.Model(patches, scores, name="yamnet_audioset")
    _load(model, weights, progress)
    return model


def _network() -> tuple[keras.KerasTensor, keras.KerasTensor]:
    front = FrontEnd()
    patches = keras.Input((front.patch_frames, front.bands), name="patches")
    x = keras.layers.Reshape((front.patch_frames, front.bands, 1), name="channel")(patches)
    filters, stride = STEM
    conv = keras.layers.Conv2D(
        filters, 3, stride, "same", data_format=_LAST, use_bias=False, name="conv1"
    )
    x = _norm_relu(conv(x), "conv1")
    for number, (filters, stride) in enumerate(BLOCKS, start=2):
        x = _block(x, filters, stride, f"block{number}")
    pool = keras.layers.GlobalAveragePooling2D(data_format=_LAST, name="embedding")
    return patches, pool(x)


def _block(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    depthwise = keras.layers.DepthwiseConv2D(
        3, stride, "same", data_format=_LAST, use_bias=False, name=f"{name}_depthwise"
    )
    x = _norm_relu(depthwise(x), f"{name}_depthwise")
    pointwise = keras.layers.Conv2D(
        filters, 1, 1, "same", data_format=_LAST, use_bias=False, name=f"{name}_pointwise"
    )
    return _norm_relu(pointwise(x), f"{name}_pointwise")


def _norm_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    norm = keras.layers.BatchNormalization(
        axis=-1,
        momentum=_BN_MOMENTUM,
        epsilon=_BN_EPSILON,
        center=True,
        scale=False,
        name=f"{name}_bn",
    )
    return keras.layers.ReLU(name=f"{name}_relu")(norm(x))


def _load(model: keras.Model, weights: Weights, progress: Progress | None) -> None:
    if weights is None:
        return
    path = None if weights == "auto" else weights
    file = resolve_weights(YAMNET_WEIGHTS, path=path, progress=progress)
    _assign(model, load_tensors(file, YAMNET_WEIGHTS))


def _assign(model: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(tensors[f"{layer.name}/{variable.name}"])
