"""The head on embeddings from `model.predict`, as TensorFlow's tutorial for YAMNet has it.

Args: train, validation, epochs. Gives up what comes after: the result is a head
alone, and a second stage on the whole network starts from nothing.
"""

import tempfile


def prepare(args):
    """The whole program is what is timed, imports included."""

    def run():
        import keras

        from benchmarks.sides import classic
        from unfreeze.backbones.registry import get_backbone

        x, y = classic.random_patches(args["train"], seed=0)
        held_x, held_y = classic.random_patches(args["validation"], seed=1)
        base = get_backbone("yamnet").build()
        embeddings = base.predict(x, verbose=0)
        held = base.predict(held_x, verbose=0)
        head = keras.Sequential(
            [
                keras.Input((embeddings.shape[1],)),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(classic.CLASSES, activation="softmax"),
            ]
        )
        classic.compile_it(head)
        with tempfile.TemporaryDirectory() as folder:
            head.fit(
                embeddings,
                y,
                validation_data=(held, held_y),
                batch_size=classic.BATCH,
                epochs=args["epochs"],
                callbacks=classic.callbacks(folder),
                verbose=0,
            )

    return run
