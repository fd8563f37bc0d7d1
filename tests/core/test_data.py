"""Users' data in two forms, and what does not fit is refused with a reason."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.data import Rows, Stream, as_data
from unfreeze.errors import DataError

X = np.arange(20, dtype="float32").reshape(10, 2)
Y = np.arange(10)


def model_of(*shapes, names=None, as_dict=False) -> keras.Model:
    names = names or [f"in{i}" for i in range(len(shapes))]
    inputs = [keras.Input(shape, name=name) for shape, name in zip(shapes, names, strict=True)]
    flat = [layers.Flatten()(x) for x in inputs]
    made = layers.Dense(1)(layers.Concatenate()(flat) if len(flat) > 1 else flat[0])
    if as_dict:
        return keras.Model(dict(zip(names, inputs, strict=True)), made)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], made)


class Batches(keras.utils.PyDataset):
    def __init__(self, x=X, y=Y, size=4):
        super().__init__()
        self.x, self.y, self.size, self.events = x, y, size, []

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        span = slice(index * self.size, (index + 1) * self.size)
        return self.x[span], self.y[span]

    def on_epoch_begin(self):
        self.events.append("begin")

    def on_epoch_end(self):
        self.events.append("end")


class ArrayLike:
    """Has what the engine needs and nothing else."""

    def __init__(self, array):
        self.array, self.reads = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray)
        self.reads.append(len(rows))
        return self.array[rows]


def test_arrays_become_rows_and_are_not_copied():
    data = as_data((X, Y), model_of((2,)))
    assert isinstance(data, Rows)
    assert data.x[0] is X
    assert data.y is Y
    assert (data.n, data.weight) == (10, None)
    sizes = [len(batch[0][0]) for batch in data.batches(4)]
    assert sizes == [4, 4, 2]
    x, y, weight = data.take(np.array([7, 1]))
    np.testing.assert_array_equal(x[0], X[[7, 1]])
    np.testing.assert_array_equal(y, [7, 1])
    assert weight is None


def test_memory_maps_stay_on_disk(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    data = as_data((mapped, Y), model_of((2,)))
    assert data.x[0] is mapped


def test_array_likes_are_read_by_rows_only():
    lazy = ArrayLike(X)
    data = as_data((lazy, Y), model_of((2,)))
    assert lazy.reads == []
    for _ in data.batches(4):
        pass
    assert lazy.reads == [4, 4, 2]


@pytest.mark.parametrize("kind", ["list", "backend tensor"])
def test_lists_and_tensors_are_turned_into_arrays(kind):
    x = X if kind == "list" else keras.ops.convert_to_tensor(X)
    y = Y.tolist() if kind == "list" else keras.ops.convert_to_tensor(Y)
    data = as_data(([x] if kind == "list" else x, y), model_of((2,)))
    (taken,), labels, _ = data.take(np.array([3]))
    np.testing.assert_array_equal(taken, X[[3]])
    np.testing.assert_array_equal(labels, [3])


def test_several_inputs_come_as_a_list_or_by_name():
    a, b = X, np.arange(30, dtype="float32").reshape(10, 3)
    model = model_of((2,), (3,), names=["zz", "aa"])
    for x in ([a, b], (a, b), {"aa": b, "zz": a}, {"aa": b, "zz": a, "id": Y}):
        data = as_data((x, Y), model)
        assert [part.shape[1] for part in data.x] == [2, 3]
    # A model of dict inputs is asked by keys, in the sorted order that Keras uses.
    data = as_data(({"aa": b, "zz": a}, Y), model_of((2,), (3,), names=["zz", "aa"], as_dict=True))
    assert [part.shape[1] for part in data.x] == [3, 2]


def test_labels_and_weights_may_be_structures():
    y = {"one": Y, "two": [Y, Y]}
    data = as_data((X, y, np.ones(10)), model_of((2,)))
    _, taken, weight = data.take(np.array([2]))
    assert taken["two"][1].tolist() == [2]
    assert isinstance(taken["two"], tuple)  # as TensorFlow needs it
    assert weight.tolist() == [1.0]


def test_samples_to_try_with_lie_far_apart():
    x, _, _ = as_data((X, Y), model_of((2,))).first()
    np.testing.assert_array_equal(x[0], X[[0, 5]])
    x, _, _ = as_data((X[:1], Y[:1]), model_of((2,))).first()
    assert len(x[0]) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((X,), "must be"),
        ((X, Y, Y, Y), "4 parts"),
        ((X, Y[:9]), "different lengths: 10, 9"),
        ((X, Y, np.ones(3)), "different lengths: 10, 10, 3"),
        (([X, X], Y), "has 1 input, the data 2. A list is one array for each input"),
        (({"wrong": X}, Y), "x has no in0"),
        ((X[:0], Y[:0]), "no samples"),
        ((X, 3), "a single number"),
        ((object(), Y), "not an array"),
        ((np.array([[1], [1, 2]], dtype=object), Y[:2]), "Python objects"),
        ((np.ones((10, 3)), Y), "do not fit the input 'in0' of shape \\(2,\\)"),
        ((np.ones((10, 2, 2)), Y), "do not fit"),
        (X, "is ndarray"),
        ([X, Y], "is list"),
        ((b for b in [(X, Y)]), "can be read only once"),
        ("train.csv", "is str"),
        (None, "is NoneType"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(data, reason):
    with pytest.raises(DataError, match=reason):
        as_data(data, model_of((2,)))


def test_the_message_names_the_argument():
    with pytest.raises(DataError, match=r"^validation_data"):
        as_data((X,), model_of((2,)), "validation_data")


def test_a_last_axis_of_one_may_be_left_out_as_in_keras():
    assert as_data((np.ones((3, 4)), Y[:3]), model_of((4, 1))).n == 3
    assert as_data((np.ones((3, 2, 1)), Y[:3]), model_of((2,))).n == 3


def test_a_py_dataset_is_a_stream_with_its_hooks_called():
    source = Batches()
    data = as_data(source, model_of((2,)))
    assert isinstance(data, Stream)
    assert data.indexed
    source.events.clear()
    batches = list(data.batches())
    assert [len(y) for _, y, _ in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([x[0] for x, _, _ in batches]), X)
    assert source.events == ["begin", "end"]


def test_the_first_batch_is_drawn_once():
    source = Batches()
    data = as_data(source, model_of((2,)))
    assert data.first() is data.first()
    assert source.events == ["begin"]


def test_streams_that_do_not_end_or_do_not_fit_are_refused():
    class Endless(Batches):
        num_batches = None

    with pytest.raises(DataError, match="an endless PyDataset"):
        as_data(Endless(), model_of((2,)))
    with pytest.raises(DataError, match="do not fit"):
        as_data(Batches(), model_of((3,)))
    with pytest.raises(DataError, match="no batches"):
        as_data(Batches(X[:0], Y[:0]), model_of((2,)))

    class Odd(Batches):
        def __getitem__(self, index):
            return {"x": self.x}

    with pytest.raises(DataError, match=r"must give \(x, y\)"):
        as_data(Odd(), model_of((2,)))


def test_streams_of_dicts_are_put_in_the_models_order():
    class Named(Batches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return {"aa": x[:, :1], "zz": x}, y, np.ones(len(y))

    data = as_data(Named(), model_of((2,), (1,), names=["zz", "aa"]))
    x, _, weight = next(data.batches())
    assert [part.shape for part in x] == [(4, 2), (4, 1)]
    assert weight.shape == (4,)


@pytest.mark.on_each_backend
def test_tf_data():
    tf = pytest.importorskip("tensorflow")
    whole = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    data = as_data(whole, model_of((2,)))
    assert not data.indexed
    for _ in range(2):  # more than one pass
        batches = list(data.batches())
        assert [len(y) for _, y, _ in batches] == [4, 4, 2]
        assert all(isinstance(x[0], np.ndarray) for x, _, _ in batches)
    with pytest.raises(DataError, match="endless"):
        as_data(whole.repeat(), model_of((2,)))
    assert as_data(whole.repeat(3), model_of((2,)))


@pytest.mark.on_each_backend
def test_torch_loaders():
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    data = as_data(torch.utils.data.DataLoader(pairs, batch_size=4), model_of((2,)))
    batches = list(data.batches())
    np.testing.assert_array_equal(np.concatenate([x[0] for x, _, _ in batches]), X)
    assert all(isinstance(y, np.ndarray) for _, y, _ in batches)


@pytest.mark.needs_backend("torch", "jax")
def test_text_is_refused_where_keras_cannot_read_it():
    words = keras.Input((1,), dtype="string", name="words")
    model = keras.Model(words, keras.layers.StringLookup(vocabulary=["a", "b"])(words))
    with pytest.raises(DataError, match="'words' is text, which Keras reads on TensorFlow only"):
        as_data((np.array(["a", "b"]), Y[:2]), model)


def test_missing_text_is_named():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    texts = np.array(["a", float("nan"), "b"], dtype=object)
    with pytest.raises(DataError, match=r"x is text, but sample 1 is nan: put '' there"):
        as_data((texts, Y[:3]), model)
    with pytest.raises(DataError, match=r"sample 2 is None"):
        as_data((np.array([["a"], ["b"], [None]], dtype=object), Y[:3]), model)
