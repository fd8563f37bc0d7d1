"""The frozen prefix as our cache runs it, fused. Args: folder, times, bfloat16.

`bfloat16` is what a stage with `cache="bfloat16"` does.
"""

import numpy as np

from benchmarks.sides import classic
from benchmarks.sides.forward import measured
from unfreeze.core.boundary import find_cut
from unfreeze.core.graph import flatten
from unfreeze.core.layers import apply, select
from unfreeze.core.schedule import Stage
from unfreeze.core.step_model import prefix_model


def prepare(args):
    """A batch of 128 at a time."""
    model = classic.build()
    graph = flatten(model)
    selection = select(graph, Stage("head", train="transfer_*"))
    apply(model, selection)
    cut = find_cut(graph, selection.live)
    prefix = prefix_model(cut, model, bfloat16=args["bfloat16"])

    def embed(x):
        found = prefix.predict_on_batch(x)
        return np.asarray(found[0], dtype=np.float32)

    return measured(args["folder"], embed, args["times"])
