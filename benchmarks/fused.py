"""Training YAMNet whole: BatchNorm in training mode, frozen, and fused into the convolutions.

    python -m benchmarks.fused [--batch 128] [--steps 4] [--rounds 5]

The three take turns in each round; ratios are taken round by round and their
median is shown, with the range. Weights and patches are random.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from unfreeze.audio.clip_model import patch_model
from unfreeze.backbones.registry import get_backbone
from unfreeze.core.graph import flatten
from unfreeze.core.runner import joined_model
from unfreeze.core.schedule import Stage
from unfreeze.core.select import apply, select
from unfreeze.core.split import find_cut


def trainer(policy, fuse, batch):
    """A function that trains the whole network for some steps."""
    model = patch_model(get_backbone("yamnet").build(weights=None), 10, seed=0)
    graph = flatten(model)
    selection = select(graph, Stage("all", batch_norm=policy))
    apply(model, selection)
    updating = frozenset(id(v) for v in selection.updating)
    whole = joined_model(find_cut(graph, selection.live), model, updating, fused=fuse)
    whole.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, 96, 64), dtype=np.float32), rng.integers(0, 10, batch)

    def run(steps):
        for _ in range(steps):
            whole.train_on_batch(x, y)

    return run


def main():
    """Measure and print a table in Markdown."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    runs = {
        "BatchNorm in training mode, as plain Keras": trainer("train", False, chosen.batch),
        "BatchNorm frozen, as plain Keras": trainer("frozen", False, chosen.batch),
        "BatchNorm frozen, fused (our default)": trainer("frozen", True, chosen.batch),
    }
    for run in runs.values():
        run(2)
    rates = {name: [] for name in runs}
    for _ in range(chosen.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run(chosen.steps)
            rates[name].append(chosen.steps * chosen.batch / (time.perf_counter() - began))
    base = np.array(next(iter(rates.values())))
    print(f"backend {keras.backend.backend()}, batch {chosen.batch}, {os.cpu_count()} cores\n")
    print("| | patches/s | times training mode (range) |")
    print("|---|---|---|")
    for name, found in rates.items():
        ratio = np.array(found) / base
        spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        print(f"| {name} | {np.median(found):,.0f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
