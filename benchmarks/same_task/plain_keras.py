"""The task in plain Keras: flags, `compile` and `fit` for each stage, by hand."""

from pathlib import Path

import keras
import numpy as np

from benchmarks.same_task.pictures import TARGET_CLASSES, Target
from benchmarks.same_task.vit_keras import pretrained

TOP = ("block_2", "block_3", "norm", "head")
STAGES = ((("head",), 20, 1e-3), (TOP, 15, 3e-4), (("",), 15, 1e-4))


def tune(weights: Path, target: Target, seed: int) -> np.ndarray:
    """Train in three stages; returns the classes of the test pictures."""
    keras.utils.set_random_seed(seed)
    model = pretrained(weights, TARGET_CLASSES)
    for names, epochs, rate in STAGES:
        for layer in model.layers:
            layer.trainable = layer.name.startswith(names)
        # Flags take effect when the model is compiled.
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        stopping = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
        model.fit(
            *target.train,
            batch_size=32,
            epochs=epochs,
            validation_data=target.validation,
            callbacks=[stopping],
            verbose=0,
        )
    return model.predict(target.test.x, verbose=0).argmax(1)
