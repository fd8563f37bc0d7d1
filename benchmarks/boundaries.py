"""What a freeze boundary of YAMNet saves: cache size and training speed, block by block.

    python -m benchmarks.boundaries [--batch 32] [--steps 8] [--rounds 5]

For each boundary the suffix trains on random patches behind a cached prefix, as
`unfreeze.fit` would train it (convolution and BatchNorm fused). Boundaries take
turns in each round, so that a machine that slows down slows all of them; the
ratio to the whole model is taken round by round and its median is shown.
Weights are random: speed does not depend on them.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from unfreeze.audio.clip_model import patch_model
from unfreeze.backbones.registry import get_backbone
from unfreeze.core.boundary import find_cut
from unfreeze.core.graph import flatten
from unfreeze.core.layers import apply, select
from unfreeze.core.schedule import Stage
from unfreeze.core.step_model import suffix_model

BLOCKS = range(1, 15)


def trainer(model, graph, first, batch, policy):
    """A function that trains the part from block `first` up for some steps, and its cut."""
    names = [f"block{block}_*" for block in BLOCKS if block >= max(first, 2)]
    names += ["conv1*"] if first <= 1 else []
    stage = Stage("part", train=["transfer_*", *names], batch_norm=policy)
    selection = select(graph, stage)
    cut = find_cut(graph, selection.live)
    updating = frozenset(id(v) for v in selection.updating)
    suffix = suffix_model(cut, model, updating)
    shapes = [graph.shapes[index][1:] for index in (*cut.frontier, *cut.passed)]
    rng = np.random.default_rng(0)
    x = [rng.random((batch, *shape), dtype=np.float32) for shape in shapes]
    y = rng.integers(0, 10, batch)

    def run(steps):
        apply(model, selection)
        for _ in range(steps):
            suffix.train_on_batch(x if len(x) > 1 else x[0], y)

    apply(model, selection)
    suffix.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    return run, cut


def main():
    """Measure and print a table in Markdown."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    model = patch_model(get_backbone("yamnet").build(weights=None), 10, seed=0)
    graph = flatten(model)
    runs = {first: trainer(model, graph, first, chosen.batch, "frozen") for first in (*BLOCKS, 15)}
    for run, _ in runs.values():
        run(2)
    rates = {first: [] for first in runs}
    for _ in range(chosen.rounds):
        for first, (run, _) in runs.items():
            steps = chosen.steps * (1 if first < 9 else 4)
            began = time.perf_counter()
            run(steps)
            rates[first].append(steps * chosen.batch / (time.perf_counter() - began))
    full = np.array(rates[1])
    print(f"backend {keras.backend.backend()}, batch {chosen.batch}, {os.cpu_count()} cores\n")
    print("| trains from | cache a patch, float32 | patches/s | times the whole model |")
    print("|---|---|---|---|")
    for first, (_, cut) in runs.items():
        size = cut.bytes_per_sample() if cut.frontier else 0
        name = "the head" if first == 15 else "conv1 (all)" if first == 1 else f"block {first}"
        ratio = np.median(np.array(rates[first]) / full)
        text = f"{size / 1024:,.0f} KB" if size else "none"
        print(f"| {name} | {text} | {np.median(rates[first]):,.0f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
