"""EfficientAT in Keras 3: log-mel windows in, embeddings or AudioSet scores out.

`unfreeze.backbones.efficientat_spec` has its facts and sources. Layer names are stable and
part of the interface: `block0_conv`, the stem; for each block N from 1 to 15 `blockN_expand`,
`blockN_depthwise`, `blockN_squeeze...`, `blockN_excite...`, `blockN_project` and `blockN_add`;
`block16_conv`; and `embedding` at the end. Behind a convolution, `_bn` is its BatchNorm, and
`_relu` or `_hard_swish` its activation.
"""

import os
from typing import Any

import keras

from unfreeze.backbones.efficientat_spec import (
    CLASSES,
    FRONT_END,
    HIDDEN,
    LAST,
    TOP,
    Block,
    Size,
    weights_spec,
)
from unfreeze.backbones.pretrained_weights import load_tensors, resolve_weights
from unfreeze.backbones.weight_files import Progress

_LAST_AXIS = "channels_last"
_BN_EPSILON = 1e-3
# The reference has 0.01, which PyTorch counts from the other end.
_BN_MOMENTUM = 0.99

Weights = str | os.PathLike[str] | None


def build_efficientat(
    size: Size, weights: Weights = "auto", *, progress: Progress | None = None
) -> keras.Model:
    """Build EfficientAT up to its embedding.

    Args:
        size: which of the networks.
        weights: "auto" finds the weights on this machine, a path uses that file, None leaves
            the layers at their random start.
        progress: called as progress(done, total) in bytes while downloading.

    Returns:
        A functional model named `efficientat` from `patches` (batch, 200, 128), the log-mel
        spectrogram of 2 s of sound, to `embedding` (batch, `size.embedding_size`).

    Raises:
        WeightsError: the weights cannot be found, or are wrong.
    """
    patches, embedding = _network(size)
    model = keras.Model(patches, embedding, name="efficientat")
    _load(model, size, weights, progress)
    return model


def efficientat_with_top(
    size: Size, weights: Weights = "auto", *, progress: Progress | None = None
) -> keras.Model:
    """Build EfficientAT with its AudioSet classes, as published.

    Args:
        size: as for `build_efficientat`.
        weights: as for `build_efficientat`.
        progress: as for `build_efficientat`.

    Returns:
        A functional model from `patches` (batch, 200, 128) to `scores` (batch, 527), each in
        [0, 1] and independent of the others; their names are
        `efficientat_spec.class_names()`. The reference ends at the layer before, `logits`.

    Raises:
        WeightsError: as `build_efficientat`.
    """
    layers = keras.layers
    patches, embedding = _network(size)
    hidden = layers.Dense(size.hidden, activation="hard_silu", name=HIDDEN)(embedding)
    logits = layers.Dense(CLASSES, name=TOP)(hidden)
    scores = layers.Activation("sigmoid", name="scores")(logits)
    model = keras.Model(patches, scores, name="efficientat_audioset")
    _load(model, size, weights, progress)
    return model


def _network(size: Size) -> tuple[Any, Any]:
    layers = keras.layers
    patches = keras.Input(FRONT_END.patch_shape, name="patches")
    x = layers.Reshape((*FRONT_END.patch_shape, 1), name="channel")(patches)
    x = _activated(_conv(x, size.stem, "block0_conv", 3, 2), "block0_conv", hard_swish=True)
    for number, block in enumerate(size.blocks, start=1):
        x = _block(x, block, f"block{number}")
    last = f"block{LAST}_conv"
    x = _activated(_conv(x, size.embedding_size, last), last, hard_swish=True)
    return patches, layers.GlobalAveragePooling2D(data_format=_LAST_AXIS, name="embedding")(x)


def _block(x: Any, block: Block, name: str) -> Any:
    layers, entered = keras.layers, x
    if block.expands:
        x = _conv(x, block.expanded, f"{name}_expand")
        x = _activated(x, f"{name}_expand", hard_swish=block.hard_swish)
    x = _conv(x, None, f"{name}_depthwise", block.kernel, block.stride)
    x = _activated(x, f"{name}_depthwise", hard_swish=block.hard_swish)
    if block.squeezed:
        mean = layers.GlobalAveragePooling2D(
            data_format=_LAST_AXIS, keepdims=True, name=f"{name}_squeeze"
        )
        squeeze, excite = (
            layers.Conv2D(units, 1, data_format=_LAST_AXIS, name=f"{name}_{part}_conv")
            for part, units in (("squeeze", block.squeezed), ("excite", block.expanded))
        )
        share = layers.ReLU(name=f"{name}_squeeze_relu")(squeeze(mean(x)))
        share = layers.Activation("sigmoid", name=f"{name}_excite")(excite(share))
        x = layers.Multiply(name=f"{name}_scale")([x, share])
    x = _norm(_conv(x, block.filters, f"{name}_project"), f"{name}_project")
    if block.adds:
        x = layers.Add(name=f"{name}_add")([x, entered])
    return x


def _conv(x: Any, filters: int | None, name: str, kernel: int = 1, stride: int = 1) -> Any:
    """A convolution, depthwise without `filters`, that is padded alike on all sides."""
    layers, padding = keras.layers, "same"
    if stride == 2:
        # "same" would pad one position more at the end.
        pad = layers.ZeroPadding2D(kernel // 2, data_format=_LAST_AXIS, name=f"{name}_pad")
        x, padding = pad(x), "valid"
    shared = {"data_format": _LAST_AXIS, "use_bias": False, "name": name}
    if filters is None:
        return layers.DepthwiseConv2D(kernel, stride, padding, **shared)(x)
    return layers.Conv2D(filters, kernel, stride, padding, **shared)(x)


def _norm(x: Any, name: str) -> Any:
    norm = keras.layers.BatchNormalization(
        axis=-1, momentum=_BN_MOMENTUM, epsilon=_BN_EPSILON, name=f"{name}_bn"
    )
    return norm(x)


def _activated(x: Any, name: str, *, hard_swish: bool) -> Any:
    """BatchNorm and an activation behind a convolution."""
    x = _norm(x, name)
    if hard_swish:
        return keras.layers.Activation("hard_silu", name=f"{name}_hard_swish")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _load(model: keras.Model, size: Size, weights: Weights, progress: Progress | None) -> None:
    if weights is None:
        return
    spec = weights_spec(size)
    path = None if weights == "auto" else weights
    tensors = load_tensors(resolve_weights(spec, path=path, progress=progress), spec)
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(tensors[f"{layer.name}/{variable.name}"])
