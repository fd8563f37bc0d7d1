"""The whole network in plain Keras, BatchNorm in training mode. Args: patches, batch."""

from benchmarks.sides import classic


def prepare(args):
    """One warm-up, then one epoch a round."""
    model = classic.build(weights=None)
    for layer in model.layers:
        layer.trainable = True
    classic.compile_it(model)
    x, y = classic.random_patches(args["patches"], seed=0)

    def run():
        model.fit(x, y, batch_size=args["batch"], epochs=1, verbose=0)
        return {"items": len(x)}

    run()
    return run
