"""One small model, its data and a run on them, for the tests of `fit`."""

import functools

import keras
import numpy as np
from keras import layers

from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import FitResult, fit
from unfreeze.core.schedule import Schedule, Stage

X = np.random.default_rng(0).normal(size=(24, 6, 6, 2)).astype("float32")
Y = (X.mean(axis=(1, 2, 3)) > 0).astype("int64")
HELD = (X[:8], Y[:8])
HEAD = Schedule((Stage("head", "head", epochs=2, learning_rate=0.05),))
TWO = Schedule((*HEAD, Stage("all", "all", epochs=2, learning_rate=0.01)))
# On TensorFlow the head's steps run several in a call; a stage of all layers too.
LONG = Schedule(
    (
        Stage("head", "head", epochs=3, learning_rate=0.05),
        Stage("all", "all", epochs=3, learning_rate=0.01, batch_norm="train"),
    )
)


def make(augment: bool = False, drop: float = 0.2, **head) -> keras.Model:
    """A convolution with BatchNorm as base, and a head; the same weights in each call."""
    keras.utils.set_random_seed(3)
    x = y = keras.Input((6, 6, 2), name="x")
    if augment:
        y = layers.RandomFlip("horizontal", name="flip")(y)
    y = layers.Conv2D(3, 3, use_bias=False, name="conv")(y)
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.Activation("tanh")(y)
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    y = layers.Dropout(drop, name="drop")(y)
    y = layers.Dense(2, **{"activation": "softmax", "name": "head", **head})(y)
    model = keras.Model(x, y)
    # Not the backend's random numbers: PyTorch has others on a GPU than on the processor.
    rng = np.random.default_rng(12)
    for kernel in (model.get_layer("conv").kernel, model.get_layer("head").kernel):
        kernel.assign(rng.uniform(-0.5, 0.5, kernel.shape))
    bn = model.get_layer("bn")
    bn.moving_mean.assign(np.array([0.1, -0.1, 0.2]))
    bn.moving_variance.assign(np.array([0.5, 1.0, 2.0]))
    return model


def run(model=None, schedule=TWO, data=(X, Y), **options) -> FitResult:
    """`fit` with settings that suit the data; 3 batches of 8 an epoch."""
    options = {"validation_data": HELD, "batch_size": 8, "seed": 1, "verbose": 0, **options}
    return fit(model or make(), schedule, data, **options)


@functools.cache
def whole(schedule: Schedule = TWO) -> FitResult:
    """An unbroken run of a fresh model, shared by all tests of a process: only to look at."""
    return run(schedule=schedule)


def told(result: FitResult) -> list[dict]:
    """The history without the clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]


def weights_of(model: keras.Model) -> list[np.ndarray]:
    """A copy of all weights."""
    return [np.array(w) for w in model.get_weights()]


def assert_same_weights(model: keras.Model, other: keras.Model, atol: float = 0.0) -> None:
    """Compare all weights, to the bit unless a tolerance is given."""
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


class Batches(keras.utils.PyDataset):
    """The data in batches, with noise that is drawn anew in each pass if asked for."""

    def __init__(self, noise: float = 0.0, weights: bool = False, named: bool = False) -> None:
        super().__init__()
        self.noise, self.weights, self.named = noise, weights, named
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        span = slice(index * 8, (index + 1) * 8)
        noise = self.noise * self.rng.normal(size=X[span].shape)
        x, y = (X[span] + noise).astype("float32"), Y[span]
        x = {"x": x, "id": np.arange(len(y))} if self.named else x
        return (x, y, 1.0 + y) if self.weights else (x, y)


class Rates(StageCallback):
    """The rate of the optimizer in each step; may ask to stop after some epochs."""

    def __init__(self, last: int = 99) -> None:
        super().__init__()
        self.seen, self.done, self.last = [], 0, last

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    def on_epoch_end(self, epoch, logs=None):
        self.done += 1

    def wants_to_stop(self):
        return self.done >= self.last
