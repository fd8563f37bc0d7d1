import threading
import time

import pytest

from unfreeze.detection.scan import Ended, run_ahead


def results(make, items, workers=2):
    found = {}
    for number, result in run_ahead(make, items, workers, expected=KeyError):
        found.setdefault(number, []).append(result)
    return found


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_of_each_item_come_in_order(workers):
    found = results(lambda n: iter(range(n)), [3, 0, 50, 7], workers)
    assert {n: found[n][:-1] for n in found} == {
        0: [0, 1, 2], 1: [], 2: list(range(50)), 3: list(range(7)),
    }  # fmt: skip
    assert all(isinstance(items[-1], Ended) and items[-1].error is None for items in found.values())


def broken(error):
    yield 1
    raise error


def test_an_expected_error_ends_its_own_item_only():
    found = results(lambda n: broken(KeyError("x")) if n == 1 else iter([n]), [0, 1, 2])
    assert isinstance(found[1][-1].error, KeyError)
    assert found[1][0] == 1
    assert found[2][0] == 2


def test_another_error_is_raised_and_the_threads_end():
    with pytest.raises(ZeroDivisionError):
        results(lambda n: broken(ZeroDivisionError()), [0, 1, 2])
    assert not [t for t in threading.enumerate() if t.name.startswith("unfreeze-ahead")]


def test_only_a_few_results_are_made_ahead():
    made = []

    def make(_):
        for i in range(1000):
            made.append(i)
            yield i

    stream = run_ahead(make, [0], 1, expected=KeyError)
    next(stream)
    time.sleep(0.3)
    # One taken, two that wait, one in the thread's hand.
    assert len(made) <= 4
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("unfreeze-ahead")]


def test_nothing_to_do():
    assert results(iter, []) == {}
