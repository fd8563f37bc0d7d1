"""mixup: inputs and labels mixed by the same shares, live and cached, never for validation."""

import keras
import numpy as np
import pytest

import unfreeze
from unfreeze.core.data import Rows, ShuffledRows
from unfreeze.core.graph import flatten
from unfreeze.core.mixup import MixedRows, Mixture, mixed_rows
from unfreeze.core.objective import KnownBinaryCrossentropy
from unfreeze.core.presets import preset
from unfreeze.core.regression import regression
from unfreeze.errors import DataError, ScheduleError

N, NUMBERS, CLASSES = 40, 6, 3
RNG = np.random.default_rng(0)
Y = np.arange(N) % CLASSES
# What tells the classes apart is in the first numbers, and nothing else.
X = (np.eye(CLASSES)[Y] @ np.eye(CLASSES, NUMBERS)).astype(np.float32)
SOFT = np.eye(CLASSES, dtype=np.float32)[Y]


def build(activation="softmax", seed=1):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((NUMBERS,))
    x = keras.layers.Dense(8, activation="relu", name="base")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation=activation, name="head")(x))


def rows(weight=None, unknown=False, y=SOFT, alpha=0.4):
    return MixedRows((X,), y, weight, N, alpha=alpha, unknown=unknown)


def test_labels_are_mixed_as_inputs_are():
    mixed = rows().variant(3, 5)
    x, y, _ = mixed.take(np.arange(N))
    # The inputs hold the classes, so that they must be the labels.
    np.testing.assert_allclose(x[0][:, :CLASSES], y, atol=1e-6)
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-6)
    # Each sample leads, and many of 40 are mixed with another class.
    assert (y[np.arange(N), Y] >= 0.5).all()
    assert 5 < (y.max(axis=1) < 0.999).sum() < N
    assert isinstance(mixed.x[0], Mixture)
    assert (mixed.x[0].shape, mixed.x[0].dtype, len(mixed.x[0])) == (X.shape, np.float32, N)


def test_an_epoch_decides_the_pairs():
    def labels(*seeds):
        return rows().variant(*seeds).y

    assert (labels(3, 5) == labels(3, 5)).all()
    assert (labels(3, 5) != labels(3, 6)).any()
    assert (labels(3, 5) != labels(4, 5)).any()
    # A large alpha mixes halves, a small one hardly mixes.
    leads = [rows(alpha=a).variant(0).x[0].share.mean() for a in (0.01, 10)]
    assert leads[0] > 0.98
    assert leads[1] < 0.65


def test_the_loss_of_a_pair_is_the_mix_of_both_losses():
    weight = np.array([1.0, 3.0, 0.5], np.float32)[Y]
    mixed = rows(weight).variant(1, 0)
    partner, share = mixed.x[0].partner, mixed.x[0].share
    chances = RNG.dirichlet(np.ones(CLASSES), N).astype(np.float32)
    crosses = -np.log(chances)
    single = weight[:, None] * SOFT * crosses, weight[partner, None] * SOFT[partner] * crosses
    expected = share * single[0].sum(1) + (1 - share) * single[1].sum(1)
    loss = keras.losses.CategoricalCrossentropy(reduction=None)(mixed.y, chances)
    found = mixed.weight * keras.ops.convert_to_numpy(loss)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_several_labels_are_mixed_and_what_is_unknown_stays_so():
    heard = RNG.integers(0, 2, (N, CLASSES)).astype(np.float32)
    heard[:10, 0] = -1
    mixed = rows(unknown=True, y=heard).variant(2, 0)
    partner, share = mixed.x[0].partner, mixed.x[0].share[:, None]
    unknown = (heard < 0) | (heard[partner] < 0)
    assert (mixed.y[unknown] == -1).all()
    expected = share * heard + (1 - share) * heard[partner]
    np.testing.assert_allclose(mixed.y[~unknown], expected[~unknown], atol=1e-6)
    # Of a loss with weights of "heard" as well, the mix is that of both losses.
    known = KnownBinaryCrossentropy(np.array([[1.0, 1.0], [1.0, 4.0], [1.0, 0.5]]))
    chances = RNG.uniform(0.1, 0.9, (N, CLASSES)).astype(np.float32)

    def loss(y):
        found = known.call(np.where(unknown, -1, y).astype(np.float32), chances)
        return keras.ops.convert_to_numpy(found)

    both = share[:, 0] * loss(heard) + (1 - share[:, 0]) * loss(heard[partner])
    np.testing.assert_allclose(loss(mixed.y), both, rtol=1e-4)


def seen_by(model, schedule, tmp_path, monkeypatch, **given):
    """The batches that a run trains on, by epoch, and those that it is validated on."""
    found = {"train": [], "held": []}
    plain = ShuffledRows._batch

    def batch(self, index):
        made = plain(self, index)
        found["held" if self.seed is None else "train"].append((self.epoch, *made))
        return made

    monkeypatch.setattr(ShuffledRows, "_batch", batch)
    result = unfreeze.fit(
        *(model, schedule, X, Y),
        validation_data=(X[:9], Y[:9]),
        seed=4,
        verbose=0,
        mixup=0.4,
        cache_dir=tmp_path,
        **given,
    )
    return found, result


@pytest.mark.on_each_backend
@pytest.mark.parametrize("cached", [False, True])
def test_a_stage_trains_on_mixed_samples(cached, tmp_path, monkeypatch):
    how = {"cache": "always", "views": 3} if cached else {"cache": "never"}
    stage = unfreeze.Stage("head", train="head", epochs=3, learning_rate=1e-2, **how)
    found, result = seen_by(build(), stage, tmp_path, monkeypatch)
    assert result.stages[0].cache.startswith("cached" if cached else "not cached")
    base = build().get_layer("base")
    for _, x, y in found["train"]:
        assert y.shape[1:] == (CLASSES,)
        # The first numbers of the inputs are the labels, mixed alike.
        whole = (y @ np.eye(CLASSES, NUMBERS)).astype(np.float32)
        expected = keras.ops.convert_to_numpy(base(whole)) if cached else whole
        np.testing.assert_allclose(x, expected, atol=1e-5)
    first, second = (
        np.concatenate([y for e, _, y in found["train"] if e == epoch]) for epoch in (0, 1)
    )
    assert (first.max(axis=1) < 0.999).any()
    assert not np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))
    for _, _, y in found["held"]:
        assert set(np.unique(y)) == {0, 1}


def test_views_are_mixed_alike_in_all_runs(tmp_path, monkeypatch):
    stage = unfreeze.Stage("head", train="head", epochs=1, cache="always", views=2)
    notes = [seen_by(build(), stage, tmp_path, monkeypatch)[1].stages[0].cache for _ in "ab"]
    assert [note.split(":")[0] for note in notes] == ["cached", "reused"]
    plain = unfreeze.fit(
        build(), stage, X, SOFT, validation_data=(X[:9], SOFT[:9]), verbose=0, cache_dir=tmp_path
    )
    # What is not mixed has a cache of its own, with one view.
    assert plain.stages[0].cache.startswith("cached")


def test_a_stage_that_does_not_augment_is_not_mixed(tmp_path, monkeypatch):
    stage = unfreeze.Stage("head", train="head", epochs=1, cache="always", augment=False)
    found, _ = seen_by(build(), stage, tmp_path, monkeypatch, class_weight={0: 2.0})
    for _, _, y, weight in found["train"]:
        assert set(np.unique(y)) == {0, 1}
        np.testing.assert_array_equal(weight, np.where(y.argmax(axis=1) == 0, 2, 1))


def test_class_weights_count_as_without_mixing(tmp_path):
    stage = unfreeze.Stage("all", train="*", epochs=2, cache="never", augment=False)
    given = {"seed": 2, "verbose": 0, "class_weight": {0: 5.0, 1: 0.2}}
    models = []
    for more in ({}, {"mixup": 0.3}):
        models.append(build())
        unfreeze.fit(models[-1], stage, X, Y, validation_data=(X, Y), **given, **more)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_solved_head_counts_a_mixed_sample_for_both_classes(tmp_path):
    head = unfreeze.Stage("head", train="head", epochs=1, solve=True, cache="always", views=2)
    model = build()
    unfreeze.fit(model, head, X, Y, seed=1, verbose=0, mixup=0.4, cache_dir=tmp_path)
    base = build().get_layer("base")
    views = [rows().variant(number) for number in range(2)]
    x = np.concatenate([view.x[0][np.arange(N)] for view in views])
    y = np.concatenate([view.y for view in views])
    inputs = keras.ops.convert_to_numpy(base(x)).astype(float)
    kernel, _ = regression(
        np.repeat(inputs, CLASSES, axis=0),
        np.tile(np.arange(CLASSES), len(y)),
        y.reshape(-1).astype(float),
        0.01,
        CLASSES,
        "softmax",
    )
    np.testing.assert_allclose(model.get_layer("head").get_weights()[0], kernel, atol=2e-3)


def test_a_solved_head_of_one_view_is_not_mixed():
    stage = unfreeze.Stage("head", train="head", epochs=1, solve=True)
    heads = []
    for more in ({}, {"mixup": 0.4}):
        model = build()
        unfreeze.fit(model, stage, X, Y, seed=1, verbose=0, **more)
        heads.append(model.get_layer("head").get_weights()[0])
    np.testing.assert_allclose(*heads, atol=1e-6)


def test_the_default_preset_is_mixed_where_it_trains_by_steps(tmp_path, monkeypatch):
    schedule = preset("probe_tune")
    schedule = schedule.with_changes(epochs=1, batch_norm="frozen")
    found, result = seen_by(build(), schedule, tmp_path, monkeypatch)
    assert result.stages[0].cache.startswith("cached")
    assert any((y.max(axis=1) < 0.999).any() for _, _, y in found["train"])


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
@pytest.mark.parametrize("loss", [None, "categorical_crossentropy", "crossentropy"])
def test_numbers_of_classes_may_be_floats(shape, loss):
    made = mixed_rows(
        *(Rows((X,), Y.reshape(shape).astype(np.float64), None, N), None),
        *(flatten(build()), loss, 0.2, {1: 3.0}),
    )[0]
    np.testing.assert_array_equal(made.y, SOFT)
    np.testing.assert_array_equal(made.weight, np.where(Y == 1, 3, 1))


def test_a_run_on_classes_as_floats_is_that_on_integers():
    stage = unfreeze.Stage("all", train="*", epochs=3, cache="never", learning_rate=0.03)
    models = []
    for y in (Y, Y.astype("float32")):
        models.append(build())
        held = (X[:9], y[:9])
        unfreeze.fit(models[-1], stage, X, y, validation_data=held, mixup=1.0, seed=2, verbose=0)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_measured_labels_stay_as_they_are():
    """Numbers for a loss of the user's own, where the output is no softmax."""
    y = np.linspace(0, 5, N)
    made = mixed_rows(Rows((X,), y, None, N), None, flatten(build(None)), lambda a, b: a, 0.2, None)
    np.testing.assert_allclose(made[0].y, y, rtol=1e-6)


def own(y_true, y_pred):
    """A loss for numbers of classes."""
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


SPARSE = keras.losses.SparseCategoricalCrossentropy()
SPARSE_TOP = keras.metrics.SparseTopKCategoricalAccuracy(2)
FLOATS = Y.astype("float32")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mixup": -1}, "above 0, at most 10"),
        ({"mixup": 11}, "above 0, at most 10"),
        ({"loss": "sparse_categorical_crossentropy"}, "loss='categorical_crossentropy'"),
        ({"train": X.astype(np.int32)}, "takes floats and uint8"),
        ({"y": Y + 1}, "labels from 1 to 3 do not fit"),
        ({"y": FLOATS + 1}, "labels from 1 to 3 do not fit"),
        ({"y": FLOATS, "loss": SPARSE}, "SparseCategoricalCrossentropy takes numbers of classes"),
        ({"loss": [SPARSE]}, "SparseCategoricalCrossentropy takes numbers of classes"),
        ({"y": Y + 0.5}, "the label 0.5 of sample 0 is no number of a class"),
        ({"validation_data": (X, Y + 0.5)}, "not whole in validation_data"),
        ({"loss": own}, "give one-hot labels"),
        ({"loss": own, "y": FLOATS}, "give one-hot labels"),
        ({"loss": "mse"}, "give one-hot labels"),
        ({"metrics": ["sparse_categorical_accuracy"]}, "give categorical_accuracy"),
        ({"metrics": [SPARSE_TOP]}, "the metric SparseTopK.*: give TopKCategoricalAccuracy"),
    ],
)
def test_what_cannot_be_mixed_is_refused(change, reason):
    given = {"train": X, "y": Y, "mixup": 0.2, "verbose": 0, **change}
    with pytest.raises(DataError, match=reason):
        unfreeze.fit(build(), "head_only", **given)


def test_numbers_of_classes_for_logits_need_a_loss():
    stage = unfreeze.Stage("head", train="head", epochs=1)
    with pytest.raises(DataError, match=r"one-hot labels and loss=.*from_logits=True"):
        unfreeze.fit(build(None), stage, X, Y, mixup=0.2, verbose=0)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    result = unfreeze.fit(build(None), stage, X, Y, loss=loss, mixup=0.2, verbose=0)
    assert np.isfinite(result.history[0]["loss"])


def test_maps_of_numbers_are_refused():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(inputs))
    x, y = np.zeros((6, 4, 4, 2), np.float32), np.zeros((6, 4, 4), np.int64)
    with pytest.raises(DataError, match="these are numbers of classes: give one-hot labels"):
        unfreeze.fit(model, "head_only", x, y, mixup=0.2, verbose=0)


def test_a_stream_is_not_mixed():
    class Source(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return X, Y

    with pytest.raises(DataError, match="let it mix its own batches"):
        unfreeze.fit(build(), "head_only", Source(), mixup=0.2, verbose=0)


def test_a_cache_of_one_view_cannot_be_mixed():
    stage = unfreeze.Stage("head", train="head", epochs=1, cache="always")
    with pytest.raises(ScheduleError, match=r"mixup draws other pairs in each epoch \(views=k"):
        unfreeze.fit(build(), stage, X, Y, mixup=0.2, verbose=0)


def test_labels_keep_their_kind():
    graph = flatten(build())
    data, held = Rows((X,), Y, None, N), Rows((X[:5],), Y[:5], None, 5)
    mixed, same = mixed_rows(data, held, graph, None, 0.2, {1: 3.0})
    np.testing.assert_array_equal(mixed.y, SOFT)
    np.testing.assert_array_equal(same.y, SOFT[:5])
    assert mixed.weight.tolist() == [3.0 if y == 1 else 1.0 for y in Y]
    soft = mixed_rows(Rows((X,), SOFT, None, N), held, graph, None, 0.2, None)[0]
    np.testing.assert_array_equal(soft.y, SOFT)
    assert soft.weight is None
