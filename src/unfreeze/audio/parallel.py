"""One function over many files, on all cores, by threads.

Threads and not processes: libsndfile, soxr, the FFT and the hashes release the
interpreter's lock; a process would cost the imports again, need a guarded main
module and could not be forked safely beside TensorFlow. Files are handed out in
small bunches, because handing out one short clip costs as much as reading it.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

Progress = Callable[[int, int], None]

_T = TypeVar("_T")
_R = TypeVar("_R")

_BUNCH = 16


def run_all(
    function: Callable[[_T], _R],
    items: Sequence[_T],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[_R]:
    """Call a function on every item and return the results in order.

    Args:
        function: called from several threads at once.
        items: its arguments.
        workers: threads; None takes one a core that this process may use.
        progress: called as progress(done, total) from the calling thread.

    Returns:
        One result an item, in the order of the items.

    Raises:
        Exception: the first that a call raised; calls not yet begun are dropped.
    """
    workers = workers or available_cores()
    # A few long recordings must not end up in one bunch.
    size = max(min(_BUNCH, len(items) // (8 * workers)), 1)
    bunches = [range(i, min(i + size, len(items))) for i in range(0, len(items), size)]
    results: dict[int, _R] = {}
    stop = threading.Event()

    def work(bunch: range) -> int:
        for index in bunch:
            if stop.is_set():
                break
            results[index] = function(items[index])
        return len(bunch)

    done = 0
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="unfreeze-audio") as pool:
        try:
            for future in as_completed([pool.submit(work, bunch) for bunch in bunches]):
                done += future.result()
                if progress is not None:
                    progress(done, len(items))
        except BaseException:
            # Ctrl-C too: without this the pool would first finish every file.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [results[index] for index in range(len(items))]


def available_cores() -> int:
    """Return the cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1
