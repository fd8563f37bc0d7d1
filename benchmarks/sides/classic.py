"""The classic recipe in plain Keras, as shared by several sides.

YAMNet up to its embedding, Dense(64, relu), Dropout(0.5), Dense(n, softmax), the
new layers named `transfer_*`; Adam at 1e-3; categorical cross-entropy; batches
of 128; the best `val_loss` is kept, the rate halved after 3 epochs without a gain.
"""

import time
from pathlib import Path

import keras
import numpy as np

from unfreeze.backbones.registry import get_backbone

BATCH = 128
CLASSES = 10


def build(weights="auto", classes=CLASSES):
    """The model."""
    base = get_backbone("yamnet").build(weights=weights)
    x = keras.layers.Dense(64, activation="relu", name="transfer_dense")(base.output)
    x = keras.layers.Dropout(0.5, name="transfer_dropout")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="transfer_output")(x)
    return keras.Model(base.input, x)


def freeze_base(model):
    """Only the new layers train."""
    for layer in model.layers:
        layer.trainable = layer.name.startswith("transfer_")


def compile_it(model):
    """Compile as the recipe says."""
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )


def callbacks(folder):
    """Keep the best weights, halve the rate."""
    best = Path(folder) / "best.weights.h5"
    return [
        keras.callbacks.ModelCheckpoint(
            best, monitor="val_loss", save_best_only=True, save_weights_only=True
        ),
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=3),
    ]


def saved_patches(folder):
    """x, y, held-out x and held-out y, as `save_patches` wrote them."""
    parts = [(part, what) for part in ("train", "validation") for what in ("x", "y")]
    return [np.load(Path(folder) / f"{part}_{what}.npy") for part, what in parts]


def losses_over_time(began):
    """A callback, and the log of (seconds since `began`, validation loss) that it fills."""
    log = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: log.append(
            (time.perf_counter() - began, float(logs["val_loss"]))
        )
    )
    return clock, log


def random_patches(count, seed, classes=CLASSES):
    """Patches with the values of log-mel ones, and one-hot labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(-4, 2, (count, 96, 64)).astype(np.float32)
    return x, np.eye(classes, dtype=np.float32)[rng.integers(0, classes, count)]
