"""Data as `model.fit` takes them: apart or together, split, tables, without an end."""

import itertools

import keras
import numpy as np
import pytest

from small_runs import HEAD, HELD, Batches, X, Y, make, run, told
from unfreeze.core.data import Rows, Stream, for_fit
from unfreeze.core.find_lr import find_lr
from unfreeze.core.given_data import gather, split_last
from unfreeze.core.schedule import Stage
from unfreeze.errors import DataError, ScheduleError


class Endless(Batches):
    """The same three batches for ever."""

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return super().__getitem__(index % 3)


def batches():
    for index in itertools.count():
        yield Endless()[index]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return make()


def given(model, train, y=None, weight=None, held=None, split=0.0, steps=None, held_steps=None):
    return gather(model, train, y, weight, held, split, steps, held_steps)


def test_x_and_y_apart_are_x_and_y_together(model):
    apart, held = given(model, X, Y, Y + 1.0, held=HELD)
    together, _ = given(model, (X, Y, Y + 1.0))
    for found, wanted in zip(apart.take(np.arange(24)), together.take(np.arange(24)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert (apart.n, held.n) == (24, 8)
    assert given(model, X, Y)[1] is None


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        ((X, Y), {"y": HELD}, r"x and y are given twice.*name them: fit\(.*validation_data=\.\.\."),
        (Batches(), {"y": Batches()}, r"the Batches gives the labels itself.*validation_data=\.\."),
        (X, {"weight": Y}, "sample_weight is given without y"),
        ((X, Y), {"split": 0.2, "held": HELD}, "both given: leave one out"),
        ((X, Y), {"split": 1.5}, "validation_split is 1.5: it must lie between 0 and 1"),
        ((X, Y), {"split": 0.99}, "leaves 0 samples to train on and 24 to validate"),
        (Batches(), {"split": 0.2}, "last samples of arrays, and a Batches does not say which"),
        ((X, Y), {"steps": 3}, "arrays have an end.*all of their 24 samples. Leave"),
        ((X, Y), {"steps": 0}, "steps_per_epoch is 0: it must be a whole number, at least 1"),
        ((X, Y), {"held_steps": 2}, "validation_steps is given without validation_data"),
        ((X, Y), {"split": 0.2, "held_steps": 2}, "with validation_split leave it out"),
        (Batches(), {"steps": 2}, "2 steps per epoch are given, but the Batches ends after 3"),
        (Endless(), {}, r"train is an endless PyDataset: say how many.*\(steps_per_epoch, and"),
        ((X, Y), {"held": Endless()}, "validation_data is an endless PyDataset"),
        (batches(), {}, "can be read only once: with steps_per_epoch it may train, in one pass"),
        (iter(()), {"steps": 3}, "the generator gives no batches"),
        ((X, Y), {"held": iter(()), "held_steps": 1}, "the generator gives no batches"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_cure(model, train, options, message):
    with pytest.raises(DataError, match=message):
        given(model, train, **options)


def test_the_last_share_validates(model):
    train, held = given(model, X, Y, split=0.3)
    assert (train.n, held.n) == (16, 8)  # as keras does: floor(24 * 0.7)
    np.testing.assert_array_equal(held.take(np.arange(8))[0][0], X[16:])
    np.testing.assert_array_equal(train.take(np.arange(16))[1], Y[:16])

    class Numbered:
        """Rows that know nothing but arrays of numbers as an index."""

        shape, dtype = (24, 2), np.dtype("float32")

        def __len__(self):
            return 24

        def __getitem__(self, rows):
            assert isinstance(rows, np.ndarray)
            return np.stack([rows, rows], axis=1).astype("float32")

    _, held = split_last(Rows((Numbered(),), {"a": Y}, None, 24), 0.25)
    x, y, _ = held.take(np.array([0, 5]))
    assert x[0].tolist() == [[18, 18], [23, 23]]
    np.testing.assert_array_equal(y["a"], Y[[18, 23]])


def test_steps_as_many_as_there_are_batches_change_nothing(model):
    train, held = given(model, Batches(), steps=3, held=Batches(), held_steps=3)
    assert (train.steps, held.steps) == (None, None)


def test_of_validation_data_without_an_end_the_first_batches_are_taken(model):
    _, held = given(model, Batches(), held=Endless(), held_steps=2)
    assert isinstance(held, Stream)
    assert [len(batch[0][0]) for batch in held.batches()] == [8, 8]
    _, held = given(model, Batches(), held=batches(), held_steps=2)
    # In memory, so that each epoch sees the same ones.
    assert isinstance(held, Rows)
    np.testing.assert_array_equal(held.take(np.arange(16))[0][0], X[:16])


def test_a_generator_loses_no_batch_to_the_look_at_its_first(model):
    train, _ = given(model, batches(), steps=3)
    np.testing.assert_array_equal(train.first()[0][0], X[:8])
    np.testing.assert_array_equal(train.first()[1], Y[:8])
    fed = for_fit(train, 8, seed=1)
    np.testing.assert_array_equal(next(fed)[0], X[:8])
    np.testing.assert_array_equal(next(fed)[0], X[8:16])


def test_data_without_an_end_train_uncached_and_a_cache_is_refused():
    result = run(schedule=HEAD, data=batches(), steps_per_epoch=3, validation_data=HELD)
    (stage,) = result.stages
    assert stage.cache == "not cached: the generator has no end (steps_per_epoch=3)"
    assert len(result.history) == 2
    # The batches of a generator and those of a dataset come in their own order.
    same = run(schedule=HEAD, data=Endless(), steps_per_epoch=3, validation_data=HELD)
    assert told(same) == told(result)
    with pytest.raises(ScheduleError, match=r"asks for a cache, but: the Endless has no end"):
        run(schedule=Stage("h", "head", cache="always"), data=Endless(), steps_per_epoch=3)
    with pytest.raises(DataError, match="class_weight does not work with a generator"):
        run(data=batches(), steps_per_epoch=3, class_weight={0: 1.0, 1: 2.0})
    assert len(find_lr(make(), batches(), steps=12).rates) == 12


@pytest.mark.on_each_backend
def test_tensors_of_other_libraries_are_arrays(model):
    torch = pytest.importorskip("torch")
    numpy = pytest.importorskip("jax.numpy")
    for x, y in (
        (torch.tensor(X, requires_grad=True), torch.tensor(Y)),
        (numpy.asarray(X), numpy.asarray(Y)),
        (keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y)),
    ):
        data, _ = given(model, x, y, split=0.5)
        (found,), labels, _ = data.take(np.array([3, 1]))
        np.testing.assert_array_equal(found, X[[3, 1]])
        np.testing.assert_array_equal(labels, Y[[3, 1]])


def test_tables_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"b": [1.0, 2.0, 3.0], "a": [1, 2, 3], "c": [True, False, True]})
    labels = pandas.Series([0, 1, 0], index=[7, 8, 9])
    inputs = keras.Input((3,))
    one = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    data, _ = given(one, table, labels)
    (x,), y, _ = data.take(np.array([0, 1]))
    assert x.tolist() == [[1, 1, 1], [2, 2, 0]]
    assert y.tolist() == [0, 1]
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    two = keras.Model([a, b], keras.layers.Dense(2)(keras.layers.Concatenate()([a, b])))
    data, _ = given(two, table.assign(b=-table["b"]), labels)
    assert [part.tolist() for part in data.take(np.array([2]))[0]] == [[3], [-3]]
    with pytest.raises(DataError, match=r"columns of numbers and others \(name\): make numbers"):
        given(one, table.assign(name="x"), labels)
