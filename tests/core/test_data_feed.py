"""The order of batches is decided by the seed alone, and each epoch holds every sample once."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.core.data import Rows, SeededBatches, ShuffledRows, Stream, for_fit


def make_rows(n: int = 10) -> Rows:
    return Rows((np.arange(n, dtype="float32")[:, None],), np.arange(n), None, n)


def epoch_of(feed) -> list[list[int]]:
    """Labels of one epoch, batch by batch."""
    found = [np.asarray(feed[i][1]).tolist() for i in range(len(feed))]
    feed.on_epoch_end()
    return found


def flat(batches) -> list[int]:
    return [label for batch in batches for label in batch]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_each_epoch_holds_every_sample_once_in_an_order_of_its_own(n, size, seed):
    feed = ShuffledRows(make_rows(n), size, seed)
    epochs = [epoch_of(feed) for _ in range(3)]
    for epoch in epochs:
        assert sorted(flat(epoch)) == list(range(n))
        assert [len(batch) for batch in epoch[:-1]] == [size] * (len(epoch) - 1)
    again = ShuffledRows(make_rows(n), size, seed)
    assert [epoch_of(again) for _ in range(3)] == epochs
    later = ShuffledRows(make_rows(n), size, seed, epoch=2)
    assert epoch_of(later) == epochs[2]
    if n > 12:
        assert flat(epochs[0]) != flat(epochs[1])


def test_inputs_labels_and_weights_stay_together():
    n = 10
    rows = Rows(
        (np.arange(n)[:, None], 10 * np.arange(n)), {"a": np.arange(n)}, np.arange(n) / 10, n
    )
    feed = ShuffledRows(rows, 4, 0)
    for i in range(len(feed)):
        (first, second), y, weight = feed[i]
        np.testing.assert_array_equal(first[:, 0], y["a"])
        np.testing.assert_array_equal(second, 10 * y["a"])
        np.testing.assert_allclose(weight, y["a"] / 10)


def test_no_seed_keeps_the_order():
    feed = ShuffledRows(make_rows(), 4, None)
    assert epoch_of(feed) == epoch_of(feed) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_views_are_drawn_anew_in_each_epoch():
    n, views = 50, 3
    made = np.repeat(np.arange(views), n)[:, None] * 100 + np.tile(np.arange(n), views)[:, None]
    rows = Rows((made, np.arange(n)), np.arange(n), None, n)
    feed = ShuffledRows(rows, 8, 1, views=views)
    seen = []
    for _ in range(2):
        drawn = {}
        for i in range(len(feed)):
            (x, same), y, _ = (*feed[i], None)
            np.testing.assert_array_equal(x[:, 0] % 100, y)
            np.testing.assert_array_equal(same, y)
            drawn.update(zip(y.tolist(), (x[:, 0] // 100).tolist(), strict=True))
        assert sorted(drawn) == list(range(n))
        assert set(drawn.values()) == {0, 1, 2}
        seen.append(drawn)
        feed.on_epoch_end()
    assert seen[0] != seen[1]
    fixed = ShuffledRows(rows, 8, None, views=views)
    assert all((fixed[i][0][0] < 100).all() for i in range(len(fixed)))


class Batches(keras.utils.PyDataset):
    def __init__(self, size=4, **options):
        super().__init__(**options)
        self.size, self.events = size, []

    def __len__(self):
        return -(-10 // self.size)

    def __getitem__(self, index):
        labels = np.arange(10)[index * self.size : (index + 1) * self.size]
        return labels[:, None].astype("float32"), labels

    def on_epoch_begin(self):
        self.events.append("begin")

    def on_epoch_end(self):
        self.events.append("end")


def test_a_cached_dataset_comes_in_the_same_batches_as_the_dataset_itself():
    direct = SeededBatches(Batches(), seed=5)
    cached = ShuffledRows(make_rows(), 32, 5, sizes=[4, 4, 2])
    epochs = [epoch_of(direct) for _ in range(6)]
    assert [epoch_of(cached) for _ in range(6)] == epochs
    assert all(sorted(map(len, epoch)) == [2, 4, 4] for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) > 2
    assert cached.batch_size == 4


def test_a_dataset_of_fixed_order_keeps_it_and_still_draws_its_views():
    made = np.arange(20)[:, None]
    rows = Rows((made,), np.arange(10), None, 10)
    feed = ShuffledRows(rows, 4, 3, views=2, sizes=[4, 4, 2], keep_order=True)
    drawn = set()
    for _ in range(4):
        assert flat([feed[i][1].tolist() for i in range(3)]) == list(range(10))
        drawn.add(tuple(flat([feed[i][0][:, 0].tolist() for i in range(3)])))
        feed.on_epoch_end()
    assert len(drawn) > 1


def test_hooks_and_workers_of_a_dataset_are_passed_on():
    source = Batches(workers=3, max_queue_size=7)
    feed = SeededBatches(source, seed=0)
    assert (feed.workers, feed.use_multiprocessing, feed.max_queue_size) == (3, False, 7)
    feed.on_epoch_begin()
    feed.on_epoch_end()
    assert source.events == ["begin", "end"]


def test_for_fit_chooses_by_the_form_of_the_data():
    assert isinstance(for_fit(make_rows(), 4, 0), ShuffledRows)
    assert isinstance(for_fit(Stream(Batches(), ("x",)), 4, 0), SeededBatches)
    other = [(np.ones((2, 1)), np.ones(2))]
    assert for_fit(Stream(other, ("x",)), 4, 0) is other


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_seed_none_means_no_shuffling_of_datasets_either(seed):
    labels = [epoch_of(SeededBatches(Batches(size=1), seed)) for _ in range(2)]
    assert labels[0] == labels[1]
    assert (flat(labels[0]) == list(range(10))) == (seed is None)
