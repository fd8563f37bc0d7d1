"""Ways to train a head on cached rows, and what the end of an epoch costs.

    python -m benchmarks.trials.head [--rows 20000] [--rounds 5]

A head of 1024-64-10 with dropout on rows in a memory map, batches of 128, with
validation on a fourth as many. A `fit` of some epochs a round, after warming up.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.trials.rounds import show, take_turns
from unfreeze.core.data import Rows, ShuffledRows

BATCH = 128
EPOCHS = 5


def head(steps=16, jit=False, optimizer="adam", metrics=("accuracy",), unrolled=None):
    """The model, compiled."""
    inputs = keras.Input((1024,))
    x = keras.layers.Dense(64, activation="relu")(inputs)
    x = keras.layers.Dropout(0.5, seed=1)(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=list(metrics),
        steps_per_execution=steps, jit_compile=jit,
    )  # fmt: skip
    if unrolled:
        model.unrolled_steps_per_execution = unrolled
    return model


def epochs(model, train, held):
    """A function that trains some epochs in one `fit`."""

    def run():
        model.fit(train, validation_data=held, epochs=EPOCHS, shuffle=False, verbose=0)

    return run


def gathered(rows, seed):
    """Rows by `tf.data` from memory, shuffled by the same numbers as ours."""
    x, y = tf.constant(np.asarray(rows.x[0])), tf.constant(rows.y)
    drawn = [0]

    def orders():
        order = np.arange(rows.n)
        if seed is not None:
            order = np.random.default_rng((seed, drawn[0])).permutation(rows.n)
        drawn[0] += 1
        yield order

    data = tf.data.Dataset.from_generator(
        orders, output_signature=tf.TensorSpec((rows.n,), tf.int64)
    )
    data = data.flat_map(lambda order: tf.data.Dataset.from_tensor_slices(order).batch(BATCH))
    data = data.map(lambda places: (tf.gather(x, places), tf.gather(y, places)))
    size = -(-rows.n // BATCH)
    return data.apply(tf.data.experimental.assert_cardinality(size)).prefetch(8)


def by_workers(rows, seed):
    """Our feed with two worker threads."""
    feed = ShuffledRows(rows, BATCH, seed)
    feed.workers, feed.max_queue_size = 2, 4
    return feed


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.began)


def pauses(rounds):
    """Epochs of a stage with large steps, with one worker and with two: seconds of each."""
    x = keras.Input((96, 64, 1))
    y = keras.layers.Conv2D(48, 5, activation="relu")(x)
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(48, 5, strides=2)(y))
    model = keras.Model(x, keras.layers.Dense(10, activation="softmax")(y))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    rng = np.random.default_rng(0)
    rows = Rows((rng.random((512, 96, 64, 1), np.float32),), rng.integers(0, 10, 512), None, 512)
    found = {}
    for name, feed in (("one", ShuffledRows(rows, BATCH, 0)), ("two", by_workers(rows, 0))):
        clock = Clock()
        model.fit(feed, epochs=rounds + 1, shuffle=False, verbose=0, callbacks=[clock])
        found[name] = clock.seconds[1:]
    return found


def main():
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    rng = np.random.default_rng(0)
    n, few = chosen.rows, chosen.rows // 4
    with tempfile.TemporaryDirectory() as folder:
        rng.random((n, 1024), np.float32).tofile(Path(folder) / "rows")
        x = np.memmap(Path(folder) / "rows", np.float32, "r", shape=(n, 1024))
        y = rng.integers(0, 10, n)
        rows, held = Rows((x,), y, None, n), Rows((x[:few],), y[:few], None, few)
        ours, test = ShuffledRows(rows, BATCH, 0), ShuffledRows(held, BATCH, None)
        ways = {
            "16 steps a call (ours)": epochs(head(), ours, test),
            "1 step a call": epochs(head(1), ours, test),
            "64 steps a call": epochs(head(64), ours, test),
            "16 steps, unrolled": epochs(head(unrolled=16), ours, test),
            "XLA": epochs(head(jit=True), ours, test),
            "rows by tf.data": epochs(head(), gathered(rows, 0), gathered(held, None)),
            "two workers": epochs(head(), by_workers(rows, 0), by_workers(held, None)),
        }
        seconds = take_turns(ways, chosen.rounds)
    per_row = {name: np.array(found) / (n + few) / EPOCHS for name, found in seconds.items()}
    show(per_row, "16 steps a call (ours)", "rows/s")
    batch = tf.data.Dataset.from_tensors((x[:BATCH] * 1.0, y[:BATCH])).repeat(320)
    steps = {
        "a step with the data in place": epochs(head(), batch, None),
        "the same without metrics": epochs(head(metrics=()), batch, None),
        "the same with SGD": epochs(head(optimizer="sgd"), batch, None),
    }
    seconds = take_turns(steps, chosen.rounds)
    show({n: np.array(s) / 320 / EPOCHS for n, s in seconds.items()}, next(iter(steps)), "steps/s")
    for name, found in pauses(4 * chosen.rounds).items():
        listed = ", ".join(f"{value:.2f}" for value in sorted(found))
        print(f"epochs of large steps, {name} worker(s), seconds: {listed}")


if __name__ == "__main__":
    main()
