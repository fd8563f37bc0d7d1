"""A stage's `cache` setting becomes a decision, with a reason in words."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.cache_room import CacheRoom
from unfreeze.core.data import SeededBatches, ShuffledRows, as_data
from unfreeze.core.graph import flatten
from unfreeze.core.keras_internals import flatten_layers
from unfreeze.core.layers import apply, select
from unfreeze.core.schedule import Stage
from unfreeze.core.stage_caching import Batches, Ready, Source, Whole, check_caches, make_ready
from unfreeze.errors import ScheduleError, StageError

X = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype("float32")
Y = np.arange(40) % 2


def make(augment=False, drop=True, width=2) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = y = keras.Input((8, 8, 1), name="x")
    if augment:
        y = layers.RandomFlip("horizontal", name="flip")(y)
    y = layers.Conv2D(2, 3, name="conv1")(y)
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.Dropout(0.3, name="inside")(y) if drop else y
    y = layers.Conv2D(width, 3, name="conv2")(y)
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    y = layers.Dropout(0.3, name="above")(y)
    return keras.Model(x, layers.Dense(2, activation="softmax", name="head")(y))


def prepare(folder, model=None, data=(X, Y), held=None, limit=None, **stage) -> Ready:
    model = model or make()
    graph = flatten(model)
    selection = select(graph, Stage("probe", **{"train": "head", "epochs": 3, **stage}))
    apply(model, selection)
    held = None if held is None else as_data(held, model)
    source = Source(as_data(data, model), held, {})
    room = CacheRoom(folder, limit)
    return make_ready(Whole(model, graph), selection, source, room, Batches(16, 7))


def first_steps(ready: Ready) -> list[str]:
    return [s.path for s in (*ready.model.program.frozen, *ready.model.program.steps)]


def test_a_frozen_base_is_cached_and_only_the_rest_trains(tmp_path):
    ready = prepare(tmp_path, held=(X[:8], Y[:8]))
    assert ready.note == "cached: 5 frozen steps run once (0.0 MB)"
    assert first_steps(ready) == ["above", "head"]
    assert ready.train.rows.x[0].shape == (40, 2)
    assert ready.validation.rows.n == 8
    assert ready.validation.seed is None
    assert ready.cut.silenced == ("inside",)
    assert len(list(tmp_path.iterdir())) == 2


def test_reuse_is_told(tmp_path):
    prepare(tmp_path)
    assert prepare(tmp_path).note.startswith("reused")
    # A longer head stage, other rates: the base is the same.
    assert prepare(tmp_path, epochs=9, learning_rate=1.0).note.startswith("reused")
    assert prepare(tmp_path, cache="float16").note.startswith("cached")
    assert prepare(tmp_path, held=(X[:8], Y[:8])).note.startswith("cached")
    assert prepare(tmp_path, held=(X[:8], Y[:8])).note.startswith("reused")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"train": "all"}, "no frozen layer with weights"),
        ({"cache": "never"}, "cache='never'"),
        ({"epochs": 1}, "one epoch"),
        ({"limit": 100}, "0.0 GB are allowed"),
        ({"model": "augmenting"}, "flip draws at random.*views=k"),
        ({"model": "wide", "train": ["conv2", "head"]}, "it would save 1.5% of the work"),
    ],
)
def test_where_it_does_not_pay_it_says_why_and_trains_uncached(tmp_path, options, reason):
    options = dict(options)
    if "model" in options:
        kinds = {"augmenting": {"augment": True}, "wide": {"width": 32}}
        options["model"] = make(**kinds[options["model"]])
    ready = prepare(tmp_path, held=(X[:8], Y[:8]), **options)
    assert ready.note.startswith("not cached: ")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(ready.note)
    assert isinstance(ready.train, ShuffledRows)
    assert ready.train.rows.x[0] is X
    assert "head" in first_steps(ready)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"cache": "always"}, {"cache": "float16"}, {"cache": "bfloat16"}, {"views": 2}]
)
def test_who_insists_gets_an_error_with_the_reason(tmp_path, options):
    model = make(augment=True) if "views" in options else make()
    with pytest.raises(StageError, match=r"asks for a cache, but: it would take"):
        prepare(tmp_path, model, limit=100, **options)


def test_who_insists_may_still_train_everything(tmp_path):
    assert prepare(tmp_path, train="all", cache="always").note.startswith("not cached")


def test_who_insists_is_refused_before_the_run_where_the_size_is_known(tmp_path):
    model = make()
    graph = flatten(model)
    source = Source(as_data((X, Y), model), None, {})
    stages = [Stage("a", "all"), Stage("b", "head", cache="always")]
    selections = [select(graph, stage) for stage in stages]
    check_caches(graph, selections, source, CacheRoom(tmp_path))
    with pytest.raises(ScheduleError, match="'b' asks for a cache"):
        check_caches(graph, selections, source, CacheRoom(tmp_path, limit=100))
    idle = [select(graph, Stage("b", "head", cache="always", epochs=0))]
    check_caches(graph, idle, source, CacheRoom(tmp_path, limit=100))


def test_half_the_numbers_need_half_the_room(tmp_path):
    assert prepare(tmp_path, limit=40 * 2 * 2, cache="float16").note.startswith("cached")
    with pytest.raises(StageError):
        prepare(tmp_path, limit=40 * 2 * 4 - 1, cache="always")


def test_bfloat16_computes_coarsely_and_leaves_the_layers_as_they_were(tmp_path):
    model = make()
    policies = [layer.dtype_policy.name for layer in flatten_layers(model)]
    exact = prepare(tmp_path, model, cache="always")
    coarse = prepare(tmp_path, model, cache="bfloat16")
    assert coarse.note.startswith("cached")
    assert [layer.dtype_policy.name for layer in flatten_layers(model)] == policies
    a, b = np.asarray(exact.train.rows.x[0]), np.asarray(coarse.train.rows.x[0])
    assert b.dtype == np.float16
    # bfloat16 has eight bits of precision, float16 eleven: these were rounded to eight.
    assert 1e-4 < np.abs(a - b).max() / np.abs(a).max() < 2e-2
    rounded = keras.ops.cast(keras.ops.cast(b.astype("float32"), "bfloat16"), "float32")
    np.testing.assert_array_equal(b.astype("float32"), keras.ops.convert_to_numpy(rounded))
    assert prepare(tmp_path, model, cache="bfloat16").note.startswith("reused")


def test_views_of_a_model_that_augments(tmp_path):
    model, other = make(augment=True), make()
    other.set_weights(model.get_weights())
    ready = prepare(tmp_path, model, held=(X[:8], Y[:8]), views=3)
    assert ready.note.startswith("cached: 6 frozen steps")
    rows = np.asarray(ready.train.rows.x[0]).reshape(3, 40, 2)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    # Validation data are not augmented.
    plain = prepare(tmp_path, other, data=(X[:8], Y[:8]))
    np.testing.assert_allclose(ready.validation.rows.x[0], plain.train.rows.x[0], atol=1e-5)


def test_views_of_what_does_not_augment_are_one(tmp_path):
    ready = prepare(tmp_path, views=5)
    assert len(ready.train.rows.x[0]) == 40
    assert ready.train.views == 1


class Augmenting(keras.utils.PyDataset):
    def __init__(self, noise=1.0):
        super().__init__()
        self.noise, self.rng = noise, np.random.default_rng(0)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        x = X[index * 10 : index * 10 + 10]
        noise = self.noise * self.rng.normal(size=x.shape)
        return (x + noise).astype("float32"), Y[index * 10 : index * 10 + 10]


def test_a_dataset_that_augments_is_not_cached_and_the_note_says_so(tmp_path):
    ready = prepare(tmp_path, data=Augmenting())
    assert ready.note.startswith("not cached: the data change from pass to pass")
    assert "views=k" in ready.note
    assert isinstance(ready.train, SeededBatches)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StageError, match="change from pass to pass"):
        prepare(tmp_path, data=Augmenting(), cache="always")


def test_a_dataset_that_augments_is_cached_in_views(tmp_path):
    ready = prepare(tmp_path, data=Augmenting(), views=3)
    assert ready.note.startswith("cached")
    assert ready.train.rows.x[0].shape == (3 * 40, 2)
    (x, y) = ready.train[0]
    assert (x.shape, y.shape) == ((16, 2), (16,))


def test_a_dataset_that_stays_the_same_is_cached_in_its_own_batches(tmp_path):
    ready = prepare(tmp_path, data=Augmenting(noise=0.0))
    assert ready.note.startswith("cached")
    direct = prepare(tmp_path, data=Augmenting(noise=0.0), cache="never").train
    for _ in range(3):
        for i in range(4):
            np.testing.assert_array_equal(ready.train[i][1], direct[i][1])
        ready.train.on_epoch_end(), direct.on_epoch_end()


def test_the_models_memory_of_itself_is_not_in_the_way(tmp_path):
    model = make()
    before = [np.array(keras.ops.convert_to_numpy(w)) for w in model.weights]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    for cache in ("always", "never"):
        prepare(tmp_path, model, cache=cache)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), old)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes


def test_progress_is_told_for_both_sets(tmp_path):
    model = make()
    graph = flatten(model)
    selection = select(graph, Stage("probe", "head"))
    source = Source(as_data((X, Y), model), as_data((X[:8], Y[:8]), model), {})
    seen = []
    make_ready(
        Whole(model, graph),
        selection,
        source,
        CacheRoom(tmp_path),
        Batches(16, 7),
        lambda *told: seen.append(told),
    )
    assert seen == [("train", 40, 40), ("validation", 8, 8)]
