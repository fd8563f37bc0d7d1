"""BirdNET 2.4 in Keras 3: mel windows in, embeddings or the scores of 6,522 classes out.

`unfreeze.backbones.birdnet_spec` has its facts and sources. The published weights have each
BatchNorm folded into the convolution before it, so there is none here, and nothing to fuse:
a convolution's kernel and bias train as they are. Layer names are stable and part of the
interface: `block0_norm`, `block0_conv` and `block0_pool...`, the stem; for each block N from 1
to 16 `blockN_expand`, `blockN_depthwise`, `blockN_squeeze...`, `blockN_excite...`,
`blockN_project` and `blockN_add`; `block17_norm`, `block17_conv`; and `embedding` at the end.
"""

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from unfreeze.backbones.birdnet_spec import (
    BIRDNET_WEIGHTS,
    BLOCKS,
    CLASSES,
    EMBEDDING_SIZE,
    FRONT_END,
    LAST,
    STEM,
    STEM_KERNEL,
    TOP,
    Block,
)
from unfreeze.backbones.pretrained_weights import load_tensors, resolve_weights
from unfreeze.backbones.weight_files import Progress

_LAST_AXIS = "channels_last"

Weights = str | os.PathLike[str] | None


def build_birdnet(
    weights: Weights = "auto", *, progress: Progress | None = None, accept_licence: bool = False
) -> keras.Model:
    """Build BirdNET 2.4 up to its embedding.

    Args:
        weights: "auto" finds or downloads the published weights, a path uses
            that file, None leaves the layers at their random start.
        progress: called as progress(done, total) in bytes while downloading.
        accept_licence: accept the licence of the weights, CC BY-NC-SA 4.0; it is remembered.

    Returns:
        A functional model named `birdnet` from `patches` (batch, 511, 96, 2), the
        two mel spectrograms of 3 s of sound, to `embedding` (batch, 1024), which is
        never negative.

    Raises:
        WeightsError: the weights cannot be found or downloaded, or are wrong, or their
            licence was not accepted.
    """
    patches, embedding = _network()
    model = keras.Model(patches, embedding, name="birdnet")
    _load(model, weights, progress, accept_licence)
    return model


def birdnet_with_top(
    weights: Weights = "auto", *, progress: Progress | None = None, accept_licence: bool = False
) -> keras.Model:
    """Build BirdNET 2.4 with its own classes, as published.

    Args:
        weights: as for `build_birdnet`.
        progress: as for `build_birdnet`.
        accept_licence: as for `build_birdnet`.

    Returns:
        A functional model from `patches` (batch, 511, 96, 2) to `scores`
        (batch, 6522), each in [0, 1] and independent of the others; their names are
        `birdnet_spec.class_names()`. The published file ends at the layer before,
        `logits`.

    Raises:
        WeightsError: as `build_birdnet`.
    """
    patches, embedding = _network()
    logits = keras.layers.Dense(CLASSES, name=TOP)(embedding)
    scores = keras.layers.Activation("sigmoid", name="scores")(logits)
    model = keras.Model(patches, scores, name="birdnet_classes")
    _load(model, weights, progress, accept_licence)
    return model


def _network() -> tuple[Any, Any]:
    layers = keras.layers
    patches = keras.Input(FRONT_END.patch_shape, name="patches")
    x = _norm("block0_norm")(patches)
    x = _conv(STEM, "block0_conv", STEM_KERNEL, 2)(x)
    x = layers.ReLU(name="block0_relu")(x)
    # Halves the time axis alone.
    pools = (
        layers.MaxPooling2D((2, 1), data_format=_LAST_AXIS, name="block0_pool_max"),
        layers.AveragePooling2D((2, 1), data_format=_LAST_AXIS, name="block0_pool_average"),
    )
    x = layers.Concatenate(name="block0_pool_join")([pool(x) for pool in pools])
    x = _conv(STEM, "block0_pool_conv")(x)
    for number, block in enumerate(BLOCKS, start=1):
        x = _block(x, block, f"block{number}")
    x = layers.ReLU(name=f"block{LAST}_norm_relu")(_norm(f"block{LAST}_norm")(x))
    x = _conv(EMBEDDING_SIZE, f"block{LAST}_conv", 3, padding="valid")(x)
    x = layers.ReLU(name=f"block{LAST}_relu")(x)
    return patches, layers.GlobalAveragePooling2D(data_format=_LAST_AXIS, name="embedding")(x)


def _block(x: Any, block: Block, name: str) -> Any:
    layers = keras.layers
    entered = x
    x = _silu(_conv(block.expanded, f"{name}_expand")(x), f"{name}_expand")
    padding = "same"
    if block.stride == 2:
        # One position on each side, where "same" would add one at the end alone.
        x = layers.ZeroPadding2D(1, data_format=_LAST_AXIS, name=f"{name}_pad")(x)
        padding = "valid"
    depthwise = layers.DepthwiseConv2D(
        3, block.stride, padding, data_format=_LAST_AXIS, name=f"{name}_depthwise"
    )
    x = _silu(depthwise(x), f"{name}_depthwise")
    if block.squeezed:
        mean = layers.GlobalAveragePooling2D(
            data_format=_LAST_AXIS, keepdims=True, name=f"{name}_squeeze"
        )
        squeeze = _conv(block.squeezed, f"{name}_squeeze_conv", use_bias=False)
        excite = _conv(block.expanded, f"{name}_excite_conv", use_bias=False)
        share = excite(_silu(squeeze(mean(x)), f"{name}_squeeze"))
        share = layers.Activation("sigmoid", name=f"{name}_excite")(share)
        x = layers.Multiply(name=f"{name}_scale")([x, share])
    x = _conv(block.filters, f"{name}_project", use_bias=False)(x)
    if block.stride == 1:
        x = layers.Add(name=f"{name}_add")([x, entered])
    return x


def _conv(
    filters: int,
    name: str,
    kernel: int | tuple[int, int] = 1,
    stride: int = 1,
    padding: str = "same",
    use_bias: bool = True,
) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        filters, kernel, stride, padding, data_format=_LAST_AXIS, use_bias=use_bias, name=name
    )


def _norm(name: str) -> keras.layers.Layer:
    """A BatchNorm whose statistics are folded in: a scale and an offset for each channel."""
    return keras.layers.DepthwiseConv2D(1, data_format=_LAST_AXIS, name=name)


def _silu(x: Any, name: str) -> Any:
    return keras.layers.Activation("silu", name=f"{name}_silu")(x)


def _load(
    model: keras.Model, weights: Weights, progress: Progress | None, accept_licence: bool
) -> None:
    if weights is None:
        return
    path = None if weights == "auto" else weights
    file = resolve_weights(
        BIRDNET_WEIGHTS, path=path, progress=progress, accept_licence=accept_licence
    )
    _assign(model, load_tensors(file, BIRDNET_WEIGHTS))


def _assign(model: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(tensors[f"{layer.name}/{variable.name}"])
