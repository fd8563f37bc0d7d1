"""The classic recipe in plain Keras, compiled again before stage 2. Args: patches, epochs.

Gives a log of (seconds since the start, validation loss) for each epoch.
"""

import tempfile
import time


def prepare(args):
    """The whole program is what is timed, imports included."""

    def run():
        began = time.perf_counter()
        import keras

        from benchmarks.sides import classic

        x, y, held_x, held_y = classic.saved_patches(args["patches"])
        keras.utils.set_random_seed(0)
        model = classic.build(classes=y.shape[1])
        clock, log = classic.losses_over_time(began)

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
