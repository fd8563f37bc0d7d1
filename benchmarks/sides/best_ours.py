"""Our default: its schedule, batch size and head. Args: patches, epochs.

Gives a log of (seconds since the start, validation loss) for each epoch.
"""

import time


def prepare(args):
    """The whole program is what is timed, imports included."""

    def run():
        began = time.perf_counter()
        import keras

        import unfreeze
        from benchmarks.sides import classic
        from unfreeze.core.presets import DEFAULT, preset
        from unfreeze.core.schedule import Schedule
        from unfreeze.pipeline.train_options import DEFAULT_BATCH, HEAD

        x, y, held_x, held_y = classic.saved_patches(args["patches"])
        schedule = preset(DEFAULT, head=HEAD)
        schedule = Schedule(
            tuple(_capped(stage, args["epochs"]) for stage in schedule), schedule.name
        )
        keras.utils.set_random_seed(0)
        clock, log = classic.losses_over_time(began)
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
