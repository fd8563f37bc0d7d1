"""How many steps of a stage go into one call of the backend.

A small suffix on cached outputs (a head on embeddings) computes for a fraction
of the time that each call costs in Python. On TensorFlow on 2 CPU cores, a head
of 1024-64-20 on 20,000 cached rows trained 1.5 to 2.4 times as fast with 16
steps a call as with one (batches of 128: 82,000 to 88,000 rows a second; of 32:
30,000), to the same weights, bit by bit. More steps a call gained nothing more.
"""

from collections.abc import Iterable

import keras

from unfreeze.core.internals import graph_loops_pay
from unfreeze.core.plan import multiply_adds
from unfreeze.core.stage import Ready
from unfreeze.core.watch import StageCallback

_STEPS = 16
# Multiply-adds of a step, forward, above which the call's cost no longer counts:
# about 2 ms of forward and backward at 50 GFLOP/s.
_SMALL_STEP = 20_000_000
_BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


def steps_a_call(ready: Ready, callbacks: Iterable[keras.callbacks.Callback]) -> int:
    """Number for `compile(steps_per_execution=...)`.

    1 where a step is large, or a callback wants to hear of each batch.
    """
    if not graph_loops_pay() or any(hears_batches(callback) for callback in callbacks):
        return 1
    size = getattr(ready.train, "batch_size", None)
    program = ready.model.program
    work = [multiply_adds(program.graph, s) for s in (*program.frozen, *program.steps)]
    if size is None or any(part is None for part in work):
        return 1
    return _STEPS if size * sum(part or 0 for part in work) <= _SMALL_STEP else 1


def hears_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback overrides a method that Keras calls for each batch.

    A `StageCallback` does not count: its batch methods are for progress displays.
    """
    if isinstance(callback, StageCallback):
        return False
    base = keras.callbacks.Callback
    own = vars(callback)  # where a LambdaCallback has them
    return any(n in own or getattr(type(callback), n) is not getattr(base, n) for n in _BATCH_HOOKS)
