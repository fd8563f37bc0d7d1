import threading
import time
from collections.abc import Iterator

import pytest

from unfreeze.audio.parallel import available_cores, run_all, run_bunches


@pytest.mark.parametrize("count", [0, 1, 7, 300])
@pytest.mark.parametrize("workers", [1, 3, None])
def test_results_are_in_the_order_of_the_items(count: int, workers: int | None) -> None:
    seen: list[tuple[int, int]] = []
    result = run_all(
        lambda x: x * x, range(count), workers=workers, progress=lambda *at: seen.append(at)
    )
    assert result == [x * x for x in range(count)]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(total == count for _, total in seen)
    assert not seen or seen[-1] == (count, count)


def test_two_threads_work_at_once() -> None:
    # Neither call returns before the other has begun.
    barrier = threading.Barrier(2, timeout=60)
    run_all(lambda _: barrier.wait(), range(2), workers=2)


def test_the_first_error_ends_the_work() -> None:
    calls: list[int] = []

    def fail(item: int) -> None:
        calls.append(item)
        if item == 20:
            raise KeyError("broken")
        time.sleep(0.001)

    with pytest.raises(KeyError, match="broken"):
        run_all(fail, range(10_000), workers=2)
    assert len(calls) < 1_000


@pytest.mark.parametrize("workers", [1, 3])
def test_bunches_are_consecutive_and_in_order(workers: int) -> None:
    seen: list[tuple[int, int]] = []
    bunches = run_bunches(list, range(1_000), workers=workers, progress=lambda *at: seen.append(at))
    assert [x for bunch in bunches for x in bunch] == list(range(1_000))
    assert {len(bunch) for bunch in bunches[:-1]} == {16}
    assert seen[-1] == (1_000, 1_000)
    assert len(seen) == len(bunches)


def test_slow_items_share_the_threads_and_quick_ones_do_not() -> None:
    def threads(seconds: float) -> int:
        def work(_: int) -> int:
            time.sleep(seconds)
            return threading.get_ident()

        return len(set(run_all(work, range(200), workers=2)[64:]))

    assert threads(0.001) == 2
    # Nobody sleeps here: two threads would only wait for each other.
    assert len(set(run_all(lambda _: threading.get_ident(), range(5_000), workers=2)[2_500:])) == 1


def test_quick_items_and_then_slow_ones() -> None:
    used = run_all(
        lambda x: time.sleep(0.002 * (x >= 500)) or threading.get_ident(), range(800), workers=2
    )
    assert len(set(used[600:])) >= 2


def test_an_error_ends_a_bunch_that_has_begun() -> None:
    def work(items: Iterator[int]) -> int:
        first = next(items)
        if first == 0:
            raise KeyError("broken")
        done = 1
        for _ in items:
            done += 1
            time.sleep(0.01)
        counts.append(done)
        return done

    counts: list[int] = []
    with pytest.raises(KeyError, match="broken"):
        run_bunches(work, range(5_000), workers=2)
    assert sum(counts) < 40


def test_at_least_one_core() -> None:
    assert available_cores() >= 1
