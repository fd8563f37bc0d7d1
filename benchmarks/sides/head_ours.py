"""The head stage with `unfreeze.fit`, from an empty cache. Args: train, validation, epochs."""


def prepare(args):
    """The whole program is what is timed, imports included."""

    def run():
        import unfreeze
        from benchmarks.sides import classic

        x, y = classic.random_patches(args["train"], seed=0)
        held = classic.random_patches(args["validation"], seed=1)
        stage = unfreeze.Stage(
            "head",
            train="transfer_*",
            epochs=args["epochs"],
            learning_rate=1e-3,
            reduce=unfreeze.ReduceRate(factor=0.5, patience=3),
        )
        unfreeze.fit(
            classic.build(),
            [stage],
            (x, y),
            validation_data=held,
            batch_size=classic.BATCH,
            loss="categorical_crossentropy",
            metrics=["accuracy"],
            seed=0,
            verbose=0,
        )

    return run
