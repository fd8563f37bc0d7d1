"""The machine's float32 matrix product: the better of numpy and TensorFlow, 2048 cubed."""

import time

import numpy as np

SIZE = 2048


def prepare(args):
    """Some products a round; the fastest counts."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    a, b = (rng.random((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    with tf.device("/CPU:0"):
        ta, tb = tf.constant(a), tf.constant(b)
    products = (lambda: a @ b, lambda: tf.matmul(ta, tb).numpy())

    def run():
        best = min(_seconds(product) for product in products for _ in range(args["times"]))
        return {"seconds": best, "gmacs": SIZE**3 / best / 1e9}

    run()
    return run


def _seconds(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
