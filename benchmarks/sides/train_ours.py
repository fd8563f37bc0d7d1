"""A part of the network, or all of it, as `unfreeze.fit` trains it. Args: train, patches, batch.

`train` are layer patterns, as in a stage. Where frozen layers come first, their
outputs are read from a file, as from a cache; they are random. BatchNorm
statistics are fixed and fused with the convolutions, as is our default.
"""

import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks.sides import classic
from unfreeze.core.boundary import find_cut, multiply_adds
from unfreeze.core.data import Rows, ShuffledRows
from unfreeze.core.graph import flatten
from unfreeze.core.layers import apply, select
from unfreeze.core.schedule import Stage
from unfreeze.core.stage_caching import Ready
from unfreeze.core.stage_fit import feed_by_threads
from unfreeze.core.step_model import joined_model, suffix_model


def prepare(args):
    """One warm-up, then one epoch a round."""
    model = classic.build(weights=None)
    graph = flatten(model)
    selection = select(graph, Stage("part", train=args["train"]))
    apply(model, selection)
    cut = find_cut(graph, selection.live)
    updating = frozenset(id(v) for v in selection.updating)
    x, y = classic.random_patches(args["patches"], seed=0)
    cached = cut.saves_work
    if cached:
        trained = suffix_model(cut, model, updating)
        inputs = tuple(_kept(graph.shapes[index][1:], len(x)) for index in cut.frontier)
    else:
        trained = joined_model(cut, model, updating)
        inputs = (x,)
    trained.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    feed = ShuffledRows(Rows(inputs, y, None, len(x)), args["batch"], seed=0)
    feed_by_threads(Ready(trained, feed, None, cut, ""))
    work = training_work(graph) * len(x)

    def run():
        began = time.perf_counter()
        trained.fit(feed, epochs=1, verbose=0, shuffle=False)
        seconds = time.perf_counter() - began
        found = {"seconds": seconds, "items": len(x)}
        # Counted for the whole network, so it means nothing for a part of it.
        return found if cached else {**found, "gmacs": work / seconds / 1e9}

    run()
    return run


def training_work(graph):
    """Multiply-adds of a training step for one patch, all layers training.

    Forward, the gradient of each layer's weights and that of its input: three
    times the forward work, but that the first layer's input needs no gradient.
    """
    work = [count for step in graph.steps if (count := multiply_adds(graph, step))]
    return 3 * sum(work) - work[0]


def _kept(shape, count):
    """Random rows in a file that goes when the process does."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "rows.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (count, *shape))
    rows[:] = np.random.default_rng(0).random(rows.shape, dtype=np.float32)
    rows.flush()
    _FOLDERS.append(folder)
    return np.load(path, mmap_mode="r")


_FOLDERS = []
