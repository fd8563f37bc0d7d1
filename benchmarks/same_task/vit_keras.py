"""The small vision transformer of `vit_torch` as a functional Keras model."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

WIDTH, HEADS, BLOCKS, PATCH, SIZE = 64, 4, 4, 8, 32


@keras.saving.register_keras_serializable("same_task")
class Positions(keras.layers.Layer):
    """Adds a trained vector to each token: (batch, tokens, width) to the same shape."""

    def build(self, shape: tuple[int, ...]) -> None:
        """Make the vectors."""
        self.vectors = self.add_weight(
            shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02)
        )

    def call(self, x: Any) -> Any:
        """Add them."""
        return x + self.vectors


def vit(classes: int) -> keras.Model:
    """Pictures (batch, 32, 32, 3) to the probabilities of the classes."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(WIDTH, PATCH, PATCH, name="patches")(inputs)
    x = layers.Reshape((-1, WIDTH), name="tokens")(x)
    x = Positions(name="positions")(x)
    for number in range(BLOCKS):
        name = f"block_{number}"
        seen = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm_1")(x)
        seen = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"{name}_attention")(
            seen, seen
        )
        x = layers.Add(name=f"{name}_add_1")([x, seen])
        seen = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm_2")(x)
        seen = layers.Dense(2 * WIDTH, activation="gelu", name=f"{name}_up")(seen)
        seen = layers.Dense(WIDTH, name=f"{name}_down")(seen)
        x = layers.Add(name=f"{name}_add_2")([x, seen])
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    outputs = layers.Dense(classes, activation="softmax", name="head")(x)
    return keras.Model(inputs, outputs)


def pretrained(weights: Path, classes: int) -> keras.Model:
    """The network with pretrained weights and a new head."""
    model = vit(classes)
    with np.load(weights) as kept:
        _load(model, dict(kept))
    return model


def _load(model: keras.Model, kept: dict[str, np.ndarray]) -> None:
    """Set all weights but the head's; PyTorch has outputs first where Keras has them last."""

    def dense(name: str) -> list[np.ndarray]:
        return [kept[f"{name}.weight"].T, kept[f"{name}.bias"]]

    def norm(name: str) -> list[np.ndarray]:
        return [kept[f"{name}.weight"], kept[f"{name}.bias"]]

    kernel = kept["patches.weight"].transpose(2, 3, 1, 0)
    model.get_layer("patches").set_weights([kernel, kept["patches.bias"]])
    model.get_layer("positions").set_weights([kept["positions"]])
    for number in range(BLOCKS):
        ours, theirs = f"block_{number}", f"blocks.{number}"
        model.get_layer(f"{ours}_norm_1").set_weights(norm(f"{theirs}.norm_1"))
        model.get_layer(f"{ours}_norm_2").set_weights(norm(f"{theirs}.norm_2"))
        model.get_layer(f"{ours}_up").set_weights(dense(f"{theirs}.up"))
        model.get_layer(f"{ours}_down").set_weights(dense(f"{theirs}.down"))
        parts = []
        for part in ("query", "key", "value"):
            kernel, bias = dense(f"{theirs}.{part}")
            parts += [kernel.reshape(WIDTH, HEADS, -1), bias.reshape(HEADS, -1)]
        kernel, bias = dense(f"{theirs}.out")
        parts += [kernel.reshape(HEADS, -1, WIDTH), bias]
        model.get_layer(f"{ours}_attention").set_weights(parts)
    model.get_layer("norm").set_weights(norm("norm"))
