"""The classic recipe in plain Keras, compiled again before stage 2. Args: patches, epochs.

Gives a log of (seconds since the start, validation loss) for each epoch.
"""

import tempfile
import time
from pathlib import Path


def prepare(args):
    """The whole program is what is timed, imports included."""

    def run():
        began = time.perf_counter()
        import keras
        import numpy as np

        from benchmarks.sides import classic

        folder = Path(args["patches"])
        x, y, held_x, held_y = (
            np.load(folder / f"{part}_{what}.npy")
            for part in ("train", "validation")
            for what in ("x", "y")
        )
        keras.utils.set_random_seed(0)
        model = classic.build(classes=y.shape[1])
        log = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: log.append(
                (time.perf_counter() - began, float(logs["val_loss"]))
            )
        )

        def stage():
            classic.compile_it(model)
            with tempfile.TemporaryDirectory() as kept:
                model.fit(
                    x,
                    y,
                    validation_data=(held_x, held_y),
                    batch_size=classic.BATCH,
                    epochs=args["epochs"],
                    callbacks=[*classic.callbacks(kept), clock],
                    verbose=0,
                )

        classic.freeze_base(model)
        stage()
        for layer in model.layers:
            layer.trainable = True
        stage()
        return {"log": log}

    return run
