"""Callbacks without a `fit`: logs are fed to them."""

from types import SimpleNamespace

import keras
import numpy as np

from unfreeze.core.callbacks import Recorder
from unfreeze.core.optimizers import get_learning_rate


def model_stub(rate=0.1):
    return SimpleNamespace(optimizer=keras.optimizers.SGD(rate), stop_training=False)


def play(callbacks, logs, model=None) -> int:
    """Feed a log an epoch to the callbacks; the epoch (from 1) after which training stops."""
    model = model or model_stub()
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    for epoch, log in enumerate(logs):
        for callback in callbacks:
            callback.on_epoch_begin(epoch)
        for callback in callbacks:
            callback.on_epoch_end(epoch, log)
        if model.stop_training:
            return epoch + 1
    return len(logs)


def losses(*values, metric="val_loss"):
    return [{"loss": 1.0, metric: value} for value in values]


def record(values, monitor="val_loss", **options):
    """A recorder after these losses, and the variable that it watched, which counts epochs."""
    variable = keras.Variable(np.zeros(2, "float32"))

    class Count(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            variable.assign(np.full(2, epoch + 1.0))

    recorder = Recorder("s", [variable], monitor, get_learning_rate, 3)
    play([Count(), recorder], values)
    return recorder, variable
