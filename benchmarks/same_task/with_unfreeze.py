"""The task with `unfreeze`: a schedule and one call."""

from pathlib import Path

import keras
import numpy as np

import unfreeze
from benchmarks.same_task.pictures import TARGET_CLASSES, Target
from benchmarks.same_task.vit_keras import pretrained

PATIENCE = unfreeze.Plateau("best", patience=5)
STAGES = [
    unfreeze.Stage("head", train="head", epochs=20, learning_rate=1e-3, until=PATIENCE),
    unfreeze.Stage("top", train="top:2", epochs=15, learning_rate=3e-4, until=PATIENCE),
    unfreeze.Stage("all", epochs=15, learning_rate=1e-4, layer_decay=0.8, until=PATIENCE),
]


def tune(weights: Path, target: Target, seed: int) -> np.ndarray:
    """Train in three stages; returns the classes of the test pictures."""
    keras.utils.set_random_seed(seed)
    model = pretrained(weights, TARGET_CLASSES)
    unfreeze.fit(
        model, STAGES, target.train, validation_data=target.validation, seed=seed, verbose=0
    )
    return model.predict(target.test.x, verbose=0).argmax(1)
