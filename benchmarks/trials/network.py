"""Ways to train YAMNet's layers in TensorFlow, and where a step spends its time.

    python -m benchmarks.trials.network [--rounds 7] [--only conv,product] [--trace]

The bare network in TensorFlow's own operations, conv and BatchNorm fused, random
weights, batches of 128 unless said; forward, all gradients, no update. The ways
take turns in each round; ratios to `conv`, which is what Keras does, are taken
round by round. The two that set threads (halves, --trace) must be the first of
their process: give them alone.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.trials.rounds import show, take_turns

v1 = tf.compat.v1
BATCH = 128
BLOCKS = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024)]
BLOCKS.append((1, 1024))


def weights():
    """Random kernels and zero biases by name."""
    rng = np.random.default_rng(0)
    found = {"first": rng.normal(size=(3, 3, 1, 32)) * 0.3, "first_bias": np.zeros(32)}
    channels = 32
    for i, (_, filters) in enumerate(BLOCKS):
        found[f"depth{i}"] = rng.normal(size=(3, 3, channels, 1)) * 0.3
        found[f"depth{i}_bias"] = np.zeros(channels)
        found[f"point{i}"] = rng.normal(size=(1, 1, channels, filters)) * (2 / channels) ** 0.5
        found[f"point{i}_bias"] = np.zeros(filters)
        channels = filters
    return {name: value.astype(np.float32) for name, value in found.items()}


def network(x, w, way):
    """(batch, 96, 64) patches to (batch, 1024)."""
    add = (lambda h, b: h + b) if way == "addition" else tf.nn.bias_add
    h = tf.nn.relu(add(tf.nn.conv2d(x[..., None], w["first"], 2, "SAME"), w["first_bias"]))
    for i, (stride, _) in enumerate(BLOCKS):
        h = tf.nn.depthwise_conv2d(h, w[f"depth{i}"], [1, stride, stride, 1], "SAME")
        h = tf.nn.relu(add(h, w[f"depth{i}_bias"]))
        h = tf.nn.relu(add(pointwise(h, w[f"point{i}"], way), w[f"point{i}_bias"]))
    return tf.reduce_mean(h, [1, 2])


def pointwise(h, kernel, way):
    """A convolution of size 1."""
    channels, filters = kernel.shape[2:]
    if way == "all products":
        rows = tf.matmul(tf.reshape(h, (-1, channels)), kernel[0, 0])
        return tf.reshape(rows, (*h.shape[:3], filters))
    if way != "product":
        return tf.nn.conv2d(h, kernel, 1, "SAME")

    @tf.custom_gradient
    def run(h, kernel):
        def gradient(up):
            rows, ups = tf.reshape(h, (-1, channels)), tf.reshape(up, (-1, filters))
            product = tf.matmul(rows, ups, transpose_a=True)
            turned = tf.transpose(kernel, (0, 1, 3, 2))
            return tf.nn.conv2d(up, turned, 1, "SAME"), tf.reshape(product, kernel.shape)

        return tf.nn.conv2d(h, kernel, 1, "SAME"), gradient

    return run(h, kernel)


def session(way, train, batch=BATCH, halves=1, kind=tf.float32, constant=False, inter=0):
    """A function that runs one step, and one that traces it."""
    with tf.Graph().as_default():
        made = weights().items()
        if constant:
            kept = {k: tf.constant(v) for k, v in made}
        else:
            kept = {k: tf.identity(v1.get_variable(k, initializer=v)) for k, v in made}
        w = {k: tf.cast(v, kind) for k, v in kept.items()}
        x = v1.placeholder(tf.float32, (batch, 96, 64))
        outputs = [network(tf.cast(part, kind), w, way) for part in tf.split(x, halves)]
        step = tf.concat([tf.cast(y, tf.float32) for y in outputs], 0).op
        if train:
            losses = [tf.reduce_mean(tf.cast(y, tf.float32) ** 2) for y in outputs]
            slopes = [g for loss in losses for g in tf.gradients(loss, list(kept.values()))]
            step = tf.add_n([tf.reduce_sum(g) for g in slopes]).op
        intra = 1 if halves > 1 else 0
        config = v1.ConfigProto(
            intra_op_parallelism_threads=intra, inter_op_parallelism_threads=inter
        )
        running = v1.Session(config=config)
        running.run(v1.global_variables_initializer())
    fed = {x: np.random.default_rng(0).normal(size=(batch, 96, 64)).astype(np.float32)}

    def trace():
        said = v1.RunMetadata()
        running.run(step, fed, v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE), said)
        times = {}
        for device in said.step_stats.dev_stats:
            for node in device.node_stats:
                kind = node.timeline_label.split(" = ")[-1].split("(")[0]
                spent = node.op_end_rel_micros - node.op_start_rel_micros
                times[kind] = times.get(kind, 0) + spent / 1e3
        return sorted(times.items(), key=lambda item: -item[1])[:9]

    return lambda: running.run(step, fed), trace


def compiled_by_xla():
    """A training step compiled by XLA."""
    w = {name: tf.Variable(value) for name, value in weights().items()}
    x = tf.constant(np.random.default_rng(0).normal(size=(BATCH, 96, 64)).astype(np.float32))

    @tf.function(jit_compile=True)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(network(x, w, "conv") ** 2)
        return sum(tf.reduce_sum(g) for g in tape.gradient(loss, list(w.values())))

    return lambda: step().numpy()


def matrix_product():
    """2048 cubed."""
    a = tf.constant(np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32))
    return lambda: tf.matmul(a, a).numpy()


WAYS = {
    "train: conv": lambda: session("conv", True)[0],
    "train: kernel gradient as a product": lambda: session("product", True)[0],
    "train: all as products": lambda: session("all products", True)[0],
    "train: bias as an addition": lambda: session("addition", True)[0],
    "train: bfloat16": lambda: session("conv", True, kind=tf.bfloat16)[0],
    "train: batches of 32": lambda: session("conv", True, batch=32)[0],
    "forward: conv": lambda: session("conv", False)[0],
    "forward: weights as constants": lambda: session("conv", False, constant=True)[0],
    "forward: batches of 32": lambda: session("conv", False, batch=32)[0],
    "forward: bfloat16": lambda: session("conv", False, kind=tf.bfloat16)[0],
    "train: XLA": compiled_by_xla,
}
ALONE = {
    "train: halves, a thread each": lambda: session("conv", True, halves=2, inter=2)[0],
    "forward: halves, a thread each": lambda: session("conv", False, halves=2, inter=2)[0],
}


def main():
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--only", help="parts of names, with commas")
    options.add_argument("--trace", action="store_true", help="operations, one at a time")
    chosen = options.parse_args()
    known = ALONE if chosen.only == "halves" else WAYS
    names = [n for n in known if not chosen.only or any(p in n for p in chosen.only.split(","))]
    if chosen.trace:
        print_trace()
        return
    ways = {name: known[name]() for name in names}
    rates = take_turns({**ways, "product": matrix_product()}, chosen.rounds)
    speed = 2 * 2048**3 / np.median(rates.pop("product")) / 1e9
    print(f"float32 matrix product: {speed:.0f} GFLOP/s\n")
    items = {n: 32 if "of 32" in n else BATCH for n in names}
    for kind in ("train", "forward"):
        part = {n: np.array(rates[n]) / items[n] for n in names if n.startswith(kind)}
        if part:
            show(part, next(iter(part)), "patches/s")


def print_trace():
    """What a step does, each operation waiting for the one before."""
    step, trace = session("conv", True, inter=1)
    step()
    trace()
    print("\n| operation, one at a time | ms |\n|---|---|")
    for operation, spent in trace():
        print(f"| {operation} | {spent:.1f} |")


if __name__ == "__main__":
    main()
