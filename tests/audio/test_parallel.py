import threading
import time

import pytest

from unfreeze.audio.parallel import available_cores, run_all


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
    barrier = threading.Barrier(2, timeout=10)
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


def test_at_least_one_core() -> None:
    assert available_cores() >= 1
