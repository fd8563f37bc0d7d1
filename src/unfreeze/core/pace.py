"""How a stage's steps are called and fed: several in one call, batches made by threads.

A small suffix on cached outputs (a head on embeddings) computes for a fraction
of the time that each call costs in Python. On TensorFlow on 2 CPU cores, a head
of 1024-64-20 on 20,000 cached rows trained 1.5 to 2.4 times as fast with 16
steps a call as with one (batches of 128: 82,000 to 88,000 rows a second; of 32:
30,000), to the same weights, bit by bit. More steps a call gained nothing more.
"""

from collections.abc import Iterable

import keras

from unfreeze.core.feed import ShuffledRows
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
    return _STEPS if has_small_steps(ready) else 1


def has_small_steps(ready: Ready) -> bool:
    """Whether a step computes for no longer than the call that runs it costs."""
    size = getattr(ready.train, "batch_size", None)
    program = ready.model.program
    work = [multiply_adds(program.graph, s) for s in (*program.frozen, *program.steps)]
    if size is None or any(part is None for part in work):
        return False
    return bool(size * sum(part or 0 for part in work) <= _SMALL_STEP)


def feed_by_threads(ready: Ready) -> None:
    """Let threads make the batches of a stage with large steps, where that pays.

    On TensorFlow, Keras turns off the automatic tuning of `tf.data` for a dataset
    with several workers. With it, every second epoch or so ended with a pause of
    about a second, while the tuner's thread was waited for (1.5 s epochs took
    1.45 s or 2.5 s; without it 1.45 s). The workers cost 0.1 s an epoch to start,
    which is too much for small steps.
    """
    if not graph_loops_pay() or has_small_steps(ready):
        return
    for feed in (ready.train, ready.validation):
        if isinstance(feed, ShuffledRows):
            feed.workers, feed.max_queue_size = 2, 4


def hears_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback overrides a method that Keras calls for each batch.

    A `StageCallback` does not count: its batch methods are for progress displays.
    """
    if isinstance(callback, StageCallback):
        return False
    base = keras.callbacks.Callback
    own = vars(callback)  # where a LambdaCallback has them
    return any(n in own or getattr(type(callback), n) is not getattr(base, n) for n in _BATCH_HOOKS)
