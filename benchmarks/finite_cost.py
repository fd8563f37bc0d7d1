"""How much of the training time goes into looking for NaN and infinity.

    python -m benchmarks.finite_cost [--samples 640] [--epochs 3]

Trains all of MobileNetV3Small (random weights, pictures of 96 x 96) with Adam, which keeps two
numbers for each weight, and times what is read after each epoch: weights, statistics and the
optimizer's state. The first epoch, which compiles, is left out. The epoch is a short one:
the longer it is, the smaller the share.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def measure(samples, epochs):
    """Train; gives a row of numbers."""
    from unfreeze.backend import import_keras

    import_keras()
    import keras
    import numpy as np

    import unfreeze
    from unfreeze.core import callbacks

    base = keras.applications.MobileNetV3Small(
        input_shape=(96, 96, 3), include_top=False, weights=None, pooling="avg"
    )
    head = keras.layers.Dense(5, activation="softmax", name="head")(base.output)
    model = keras.Model(base.input, head)
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 255, (samples, 96, 96, 3)).astype("float32")
    looks, look = [], callbacks.not_finite

    def timed(variables):
        began = time.process_time()
        try:
            return look(variables)
        finally:
            looks.append(time.process_time() - began)

    ends = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ends.append((time.process_time(), sum(looks)))

    callbacks.not_finite = timed
    stage = unfreeze.Stage("all", epochs=epochs, learning_rate=1e-4, batch_norm="train")
    try:
        unfreeze.fit(
            model, stage, x, np.arange(samples) % 5, callbacks=[Clock()], seed=0, verbose=0
        )
    finally:
        callbacks.not_finite = look
    (start, before), (end, after) = ends[0], ends[-1]
    return {
        "backend": keras.backend.backend(),
        "weights": int(model.count_params()),
        "samples": samples,
        "seconds_an_epoch": round((end - start) / (epochs - 1), 3),
        "looking_an_epoch": round((after - before) / (epochs - 1), 4),
        "share": round((after - before) / (end - start), 5),
    }


def main():
    """Print the numbers as JSON; seconds are of the processor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=3)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
