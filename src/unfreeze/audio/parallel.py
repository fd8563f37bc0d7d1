"""Calls one function on many files, on all cores, in threads.

It uses threads, not processes: soxr, the FFT and the hashes release the interpreter's
lock, and a process would have to import everything again. Only what may crash is done in
processes (`unfreeze.audio.decode_processes`), for which the threads wait. Files are handed
out in small bunches, because handing out one short clip costs as much as reading it.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Progress = Callable[[int, int], None]

_T = TypeVar("_T")
_R = TypeVar("_R")

_BUNCH = 16
# Seconds per item below which one thread does a bunch alone: two would spend
# more time on passing the interpreter's lock than they could save.
_TINY = 250e-6


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
        workers: threads; None takes one per core that this process may use.
        progress: called as progress(done, total) from the calling thread.

    Returns:
        One result per item, in the order of the items.

    Raises:
        Exception: the first that a call raised; calls that have not begun are dropped.
    """

    def work(bunch: Iterator[_T]) -> list[_R]:
        return [function(item) for item in bunch]

    bunches = run_bunches(work, items, workers=workers, progress=progress)
    return [result for results in bunches for result in results]


def run_bunches(
    function: Callable[[Iterator[_T]], _R],
    items: Sequence[_T],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[_R]:
    """Call a function on small bunches of consecutive items, as `run_all`.

    Args:
        function: called from several threads at once, with the items of a
            bunch; the items end early when another call has failed.
        items: what to hand out.
        workers: as for `run_all`.
        progress: as for `run_all`, with counts of items.

    Returns:
        One result per bunch, in the order of the items.

    Raises:
        Exception: as `run_all`.
    """
    workers = workers or available_cores()
    # A few long recordings must not end up in one bunch.
    size = max(min(_BUNCH, len(items) // (8 * workers)), 1)
    bunches = deque(items[start : start + size] for start in range(0, len(items), size))
    total, done = len(bunches), 0
    stop, alone = threading.Event(), workers == 1
    results: dict[int, _R] = {}
    running: set[Future[tuple[int, float, _R]]] = set()

    def work(number: int, bunch: Sequence[_T]) -> tuple[int, float, _R]:
        began = time.perf_counter()
        result = function(_until(stop, bunch))
        return number, (time.perf_counter() - began) / len(bunch), result

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="unfreeze-audio") as pool:
        try:
            while bunches or running:
                finished = []
                # One more than there are threads, so that none waits for us.
                while bunches and not alone and len(running) <= workers:
                    running.add(pool.submit(work, total - len(bunches), bunches.popleft()))
                if running:
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    finished = [future.result() for future in ended]
                elif bunches:
                    finished = [work(total - len(bunches), bunches.popleft())]
                for number, seconds, result in finished:
                    results[number] = result
                    alone = workers == 1 or (size == _BUNCH and seconds < _TINY)
                    done += min(size, len(items) - number * size)
                    if progress is not None:
                        progress(done, len(items))
        except BaseException:
            # Ctrl-C too: without this the pool would first finish every file.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [results[number] for number in range(total)]


def _until(stop: threading.Event, items: Sequence[_T]) -> Iterator[_T]:
    for item in items:
        if stop.is_set():
            return
        yield item


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1
