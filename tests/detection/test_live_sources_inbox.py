import threading
import time

import numpy as np
import pytest

from unfreeze.detection.live_sources import Inbox


def ramp(start, count=10):
    return np.arange(start, start + count, dtype=np.float32)


def test_all_that_waits_is_taken_at_once_in_order():
    inbox = Inbox(100, waits=True)
    inbox.put(ramp(0))
    inbox.put(ramp(10, 5))
    assert inbox.waiting == 15
    taken = inbox.take(0)
    np.testing.assert_array_equal(taken.samples, ramp(0, 15))
    assert (taken.dropped, taken.over, inbox.waiting) == (0, False, 0)
    assert not len(inbox.take(0.01).samples)


def test_a_microphone_loses_the_oldest_and_it_is_counted():
    inbox = Inbox(25, waits=False)
    for start in range(0, 60, 10):
        assert inbox.put(ramp(start))
    taken = inbox.take(0)
    np.testing.assert_array_equal(taken.samples, ramp(40, 20))
    assert taken.dropped == 40
    assert inbox.take(0).dropped == 0


def test_a_pipe_waits_and_loses_nothing():
    inbox, sent = Inbox(25, waits=True), []

    def send():
        for start in range(0, 200, 10):
            inbox.put(ramp(start))
            sent.append(start)
        inbox.close()

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(0.2)
    assert len(sent) == 3
    got = []
    while not (taken := inbox.take(1)).over:
        got.append(taken.samples)
    thread.join()
    np.testing.assert_array_equal(np.concatenate(got), ramp(0, 200))


def test_close_lets_the_rest_be_taken_and_then_raises_its_error():
    inbox = Inbox(25, waits=True)
    inbox.put(ramp(0))
    inbox.close(ValueError("torn"))
    assert len(inbox.take(0).samples) == 10
    with pytest.raises(ValueError, match="torn"):
        inbox.take(0)
    assert not inbox.put(ramp(0))
