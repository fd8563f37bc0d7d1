"""The head stage in plain Keras: base frozen, compiled, fitted. Args: train, validation, epochs."""

import tempfile


def prepare(args):
    """The whole program is what is timed, imports included."""

    def run():
        from benchmarks.sides import classic

        x, y = classic.random_patches(args["train"], seed=0)
        held = classic.random_patches(args["validation"], seed=1)
        model = classic.build()
        classic.freeze_base(model)
        classic.compile_it(model)
        with tempfile.TemporaryDirectory() as folder:
            model.fit(
                x,
                y,
                validation_data=held,
                batch_size=classic.BATCH,
                epochs=args["epochs"],
                callbacks=classic.callbacks(folder),
                verbose=0,
            )

    return run
