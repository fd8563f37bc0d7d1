"""The frozen prefix as our cache runs it, fused. Args: folder, times, policy.

`policy` is Keras' dtype policy: "float32", or "mixed_bfloat16" where the user
allows it.
"""

import keras

from benchmarks.sides import classic
from benchmarks.sides.forward import measured
from unfreeze.core.graph import flatten
from unfreeze.core.runner import prefix_model
from unfreeze.core.schedule import Stage
from unfreeze.core.select import apply, select
from unfreeze.core.split import find_cut


def prepare(args):
    """A batch of 128 at a time."""
    keras.config.set_dtype_policy(args["policy"])
    model = classic.build()
    graph = flatten(model)
    selection = select(graph, Stage("head", train="transfer_*"))
    apply(model, selection)
    prefix = prefix_model(find_cut(graph, selection.live), model)

    def embed(x):
        found = prefix.predict_on_batch(x)
        return found[0] if isinstance(found, list | tuple) else found

    return measured(args["folder"], embed, args["times"])
