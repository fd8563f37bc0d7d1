"""Our default: its schedule, batch size and head. Args: patches, epochs.

Gives a log of (seconds since the start, validation loss) for each epoch.
"""

import time
from pathlib import Path


def prepare(args):
    """The whole program is what is timed, imports included."""

    def run():
        began = time.perf_counter()
        import keras
        import numpy as np

        import unfreeze
        from benchmarks.sides import classic
        from unfreeze.core.presets import preset
        from unfreeze.core.schedule import Schedule
        from unfreeze.options import HEAD, TrainOptions
        from unfreeze.training import DEFAULT_BATCH

        folder = Path(args["patches"])
        x, y, held_x, held_y = (
            np.load(folder / f"{part}_{what}.npy")
            for part in ("train", "validation")
            for what in ("x", "y")
        )
        schedule = preset(TrainOptions.schedule, head=HEAD)
        schedule = Schedule(
            tuple(_capped(stage, args["epochs"]) for stage in schedule), schedule.name
        )
        keras.utils.set_random_seed(0)
        log = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: log.append(
                (time.perf_counter() - began, float(logs["val_loss"]))
            )
        )
        unfreeze.fit(
            classic.build(classes=y.shape[1]),
            schedule,
            (x, y),
            validation_data=(held_x, held_y),
            batch_size=DEFAULT_BATCH,
            loss="categorical_crossentropy",
            metrics=["accuracy"],
            callbacks=[clock],
            seed=0,
            verbose=0,
        )
        return {"log": log}

    return run


def _capped(stage, epochs):
    from dataclasses import replace

    return replace(stage, epochs=min(stage.epochs, epochs))
