"""Small networks without a head, as if pretrained, and data for them."""

import keras
import numpy as np
from keras import layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 8, 6, 2)).astype("float32")
Y = RNG.integers(0, 3, 60)
# What tells the classes apart is the contrast of the first channel.
X[..., 0] *= 1 + Y[:, None, None]
IDS = RNG.integers(1, 20, (60, 6))
IDS[np.arange(6) >= RNG.integers(2, 7, (60, 1))] = 0


def fill(model: keras.Model, seed: int = 0) -> keras.Model:
    """The same weights on every backend, and statistics as if pretrained."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        if v.name == "moving_variance" or v.name == "gamma":
            v.assign(rng.uniform(0.6, 1.5, v.shape))
        else:
            v.assign(rng.normal(0, 1.2 / np.sqrt(np.prod(v.shape[:-1]) or 1), v.shape))
    return model


def images(last: str = "relu") -> keras.Model:
    """Three blocks of 3, 4 and 5 filters; 8 x 6 pixels, then 4 x 3."""
    inputs = x = keras.Input((8, 6, 2), name="x")
    for number, (filters, stride) in enumerate([(3, 1), (4, 2), (5, 1)], 1):
        x = layers.Conv2D(filters, 3, stride, "same", name=f"block{number}_conv")(x)
        x = layers.BatchNormalization(name=f"block{number}_bn")(x)
        x = layers.ReLU(name=f"block{number}_relu")(x)
    if last == "dropout":
        x = layers.Dropout(0.3, name="drop")(x)
    return fill(keras.Model(inputs, x, name="images"))


def tokens() -> keras.Model:
    """A transformer of three blocks on numbers of words; 0 is padding.

    The norms come first: Keras takes the mask from what an attention layer reads, so that
    sums with it have none.
    """
    inputs = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(20, 8, mask_zero=True, name="words")(inputs)
    for number in range(3):
        y = layers.LayerNormalization(name=f"norm_a{number}")(x)
        y = layers.MultiHeadAttention(2, 4, name=f"attention_{number}")(y, y)
        x = layers.Add(name=f"sum_a{number}")([x, y])
        y = layers.LayerNormalization(name=f"norm_f{number}")(x)
        y = layers.Dense(12, "relu", name=f"wide_{number}")(y)
        x = layers.Add(name=f"sum_f{number}")([x, layers.Dense(8, name=f"narrow_{number}")(y)])
    x = layers.LayerNormalization(name="norm_out")(x)
    return fill(keras.Model(inputs, x, name="tokens"))
