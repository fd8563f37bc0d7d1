"""Digests notice every change of the data, and for streams nothing but that."""

import importlib
import os

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unfreeze.core import fingerprints
from unfreeze.core.data import Rows, Stream
from unfreeze.core.fingerprints import StreamDigest, describe, fingerprint

X = np.arange(20, dtype="float32").reshape(10, 2)
Y = np.arange(10)


def rows(x=X, y=Y, weight=None) -> Rows:
    return Rows((x,), y, weight, len(x))


class Batches(keras.utils.PyDataset):
    """Batches of the given sizes, in the given order of samples."""

    def __init__(self, order=range(10), size=4, x=X, y=Y):
        super().__init__()
        self.order, self.size, self.x, self.y = np.array(order), size, x, y

    def __len__(self):
        return -(-len(self.order) // self.size)

    def __getitem__(self, index):
        chosen = self.order[index * self.size : (index + 1) * self.size]
        return self.x[chosen], self.y[chosen]


def stream(**options) -> Stream:
    return Stream(Batches(**options), ("x",))


def test_the_same_rows_have_the_same_digest_however_they_are_kept(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    wanted = fingerprint(rows())
    assert fingerprint(rows(X.copy())) == wanted
    assert fingerprint(rows(mapped)) == wanted
    assert fingerprint(rows(), batch_size=3) == wanted
    assert wanted.order == ""


@given(arrays.arrays(np.float32, (6, 3), elements=st.floats(-5, 5, width=32)), st.data())
def test_any_changed_number_changes_the_digest(x, data):
    changed = x.copy()
    row, column = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 2))
    changed[row, column] = np.nextafter(x[row, column], np.float32(9))
    assert fingerprint(rows(changed, Y[:6])) != fingerprint(rows(x, Y[:6]))


def test_what_else_changes_the_digest():
    labels, weights = Y.copy(), np.ones(10)
    labels[3] = 7
    others = [
        rows(y=labels),
        rows(weight=weights),
        rows(X[::-1]),
        rows(X.astype("float64")),
        rows(X.reshape(10, 2, 1)),
        rows(X[:9], Y[:9]),
    ]
    digests = {fingerprint(data).content for data in (rows(), *others)}
    assert len(digests) == 7


def test_an_array_like_is_taken_at_its_word():
    class Known:
        shape, dtype = X.shape, X.dtype

        def __init__(self, fingerprint):
            self.fingerprint = fingerprint

        def __len__(self):
            return 10

        def __getitem__(self, rows):
            raise AssertionError("rows must not be read")

    first = fingerprint(rows(Known("a")))
    assert first == fingerprint(rows(Known("a")))
    assert first != fingerprint(rows(Known("b")))


@given(st.permutations(list(range(10))), st.integers(1, 10))
def test_a_streams_content_does_not_depend_on_its_order_or_batches(order, size):
    wanted, found = fingerprint(stream()), fingerprint(stream(order=order, size=size))
    assert found.content == wanted.content
    same = list(order) == list(range(10)) and -(-10 // size) == 3 and size == 4
    assert (found.order == wanted.order) == same


def test_a_stream_notices_lost_repeated_and_changed_samples():
    changed = X.copy()
    changed[4, 1] += 1e-6 * 9
    swapped = Y.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    others = [
        stream(order=range(9)),
        stream(order=[*range(9), 8]),
        stream(order=[*range(10), 0]),
        stream(x=changed),
        stream(y=swapped),
    ]
    digests = {fingerprint(data).content for data in (stream(), *others)}
    assert len(digests) == 6


def test_parts_of_a_sample_do_not_run_into_each_other():
    first, second = StreamDigest(), StreamDigest()
    first.add(([np.array([[1, 2]], "uint8")], np.array([[3]], "uint8"), None))
    second.add(([np.array([[1]], "uint8")], np.array([[2, 3]], "uint8"), None))
    assert first.fingerprint() != second.fingerprint()


def test_description_for_telling_runs_apart():
    assert describe(None) == ""
    assert describe(rows()) == fingerprint(rows()).content
    text = describe(stream())
    assert text == "Batches of float32(2,), int64()"
    # A stream that augments is the same run all the same.
    assert describe(stream(x=X + 1)) == text
    assert describe(stream(x=X[:, :1])) != text


@pytest.mark.parametrize("kind", ["tf", "torch"])
@pytest.mark.on_each_backend
def test_streams_of_other_libraries(kind):
    if kind == "tf":
        tf = pytest.importorskip("tensorflow")
        source = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
        shuffled = source.unbatch().shuffle(10, seed=1).batch(4)
    else:
        torch = pytest.importorskip("torch")
        pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
        source = torch.utils.data.DataLoader(pairs, batch_size=4)
        shuffled = torch.utils.data.DataLoader(pairs, batch_size=4, shuffle=True)
    wanted = fingerprint(Stream(source, ("x",)))
    assert wanted == fingerprint(stream())
    found = fingerprint(Stream(shuffled, ("x",)))
    assert found.content == wanted.content
    assert found.order != wanted.order


def test_a_class_that_is_reloaded_from_its_file_is_other_code(tmp_path, monkeypatch):
    file = tmp_path / "reloaded_layers.py"
    file.write_text("class Scale:\n    def call(self, x):\n        return x * 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = importlib.import_module("reloaded_layers").Scale
    before = fingerprints._code(kind)
    assert fingerprints._code(kind) == before
    # As notebooks do it, the class stays the same object.
    file.write_text("class Scale:\n    def call(self, x):\n        return x * 3\n")
    os.utime(file, ns=(0, 1))
    assert "x * 3" in fingerprints._code(kind)
