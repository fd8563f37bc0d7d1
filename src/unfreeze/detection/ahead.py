"""Runs iterators in threads, a few at once and only a few results ahead."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

# Results that wait for the reader, for each thread.
_DEPTH = 2
# Seconds after which a thread that cannot hand on its result looks whether it still should.
_LOOK = 0.1


@dataclass(frozen=True)
class Ended:
    """An item's iterator is over.

    Attributes:
        error: what ended it; None when it came to its end.
    """

    error: Exception | None = None


def run_ahead(
    make: Callable[[_T], Iterator[_R]],
    items: Sequence[_T],
    workers: int,
    *,
    expected: type[Exception],
) -> Iterator[tuple[int, _R | Ended]]:
    """Iterate over what `make` gives for each item, several items at once.

    Args:
        make: called from several threads at once, each with an item.
        items: what to work on; begun in order.
        workers: threads.
        expected: errors of this kind end their own item only.

    Yields:
        An item's number with its next result, or with `Ended`; the results of
        one item come in order.

    Raises:
        Exception: any other error of an item. The threads end then, as they do
            when the iteration is given up.
    """
    results: queue.Queue[tuple[int, _R | Ended]] = queue.Queue(_DEPTH * workers)
    stop = threading.Event()
    lock, numbers = threading.Lock(), iter(range(len(items)))

    def hand_on(result: tuple[int, _R | Ended]) -> None:
        while not stop.is_set():
            try:
                results.put(result, timeout=_LOOK)
            except queue.Full:
                continue
            return

    def work() -> None:
        while not stop.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            ended = Ended()
            try:
                for result in make(items[number]):
                    hand_on((number, result))
                    if stop.is_set():
                        return
            except Exception as error:
                ended = Ended(error)
            hand_on((number, ended))

    threads = [
        threading.Thread(target=work, name=f"unfreeze-ahead-{i}", daemon=True)
        for i in range(min(workers, len(items)))
    ]
    for thread in threads:
        thread.start()
    try:
        left = len(items)
        while left:
            number, result = results.get()
            if isinstance(result, Ended):
                left -= 1
                if result.error is not None and not isinstance(result.error, expected):
                    raise result.error
            yield number, result
    finally:
        stop.set()
        for thread in threads:
            thread.join()
