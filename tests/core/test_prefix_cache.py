"""The cache: exact, found again only where nothing changed, never half there."""

import json
import os
import time
import zlib

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.cache_room import CacheRoom
from unfreeze.core import prefix_cache
from unfreeze.core.boundary import find_cut
from unfreeze.core.data import Rows, Stream, as_data
from unfreeze.core.fingerprints import fingerprint
from unfreeze.core.graph import flatten
from unfreeze.core.keras_internals import seed_generators
from unfreeze.core.prefix_cache import NotCacheable, build, prune
from unfreeze.core.step_model import prefix_model

X = np.random.default_rng(0).normal(size=(70, 3)).astype("float32")
Y = np.arange(70)


def make(seed=0, **base) -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((3,), name="x")
    y = layers.Dense(4, name="base", **{"activation": "tanh", **base})(x)
    return keras.Model(x, layers.Dense(2, name="head")(y))


class Cacher:
    """Builds caches of a model in a folder, and counts the prefixes that it was asked for."""

    def __init__(self, folder, model=None, data=(X, Y), views=1):
        self.model = model or make()
        self.data = as_data(data, self.model) if isinstance(data, tuple) else data
        self.room = CacheRoom(folder)
        head = {id(v) for v in self.model.get_layer("head").weights}
        self.cut = find_cut(flatten(self.model), head, views=views)
        self.views, self.prefixes, self.seen = views, 0, []

    def build(self, **options):
        return build(
            self.cut,
            self.make_prefix,
            self.data,
            fingerprint(self.data),
            options.pop("room", self.room),
            views=self.views,
            batch_size=32,
            progress=lambda done, total: self.seen.append((done, total)),
            **options,
        )

    def make_prefix(self, cut, masks):
        self.prefixes += 1
        return prefix_model(cut, self.model, masks)

    def expected(self):
        x = self.data.x[0] if isinstance(self.data, Rows) else X
        return keras.ops.convert_to_numpy(self.model.get_layer("base")(np.asarray(x)))


def test_it_holds_the_prefixs_outputs_row_by_row(tmp_path):
    cacher = Cacher(tmp_path)
    cached = cacher.build()
    (rows,) = cached.rows.x
    np.testing.assert_allclose(rows, cacher.expected(), atol=1e-6)
    assert cached.rows.y is cacher.data.y
    assert (cached.nbytes, cached.reused, cached.views) == (70 * 4 * 4, False, 1)
    assert cacher.seen == [(32, 70), (64, 70), (70, 70)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [cached.folder.name]
    assert sorted(p.name for p in cached.folder.iterdir()) == ["meta.json", "part_0.bin"]


def test_it_is_found_again_without_running_the_prefix(tmp_path):
    first = Cacher(tmp_path).build()
    again = Cacher(tmp_path)
    cached = again.build()
    assert cached.reused
    assert again.prefixes == 0
    np.testing.assert_array_equal(cached.rows.x[0], first.rows.x[0])


def change_sample(cacher):
    x = X.copy()
    x[69, 2] += 1e-3
    cacher.data = as_data((x, Y), cacher.model)


def change_weight(cacher):
    bias = cacher.model.get_layer("base").bias
    bias.assign(keras.ops.convert_to_numpy(bias) + np.array([0, 0, 0, 1e-6], "float32"))


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (change_sample, {}),
        (change_weight, {}),
        (lambda cacher: None, {"half": True}),
        (lambda cacher: None, {"fused": False}),
    ],
)
def test_a_changed_sample_weight_or_setting_makes_a_new_one(tmp_path, change, options):
    first = Cacher(tmp_path).build()
    cacher = Cacher(tmp_path)
    change(cacher)
    cached = cacher.build(**options)
    assert not cached.reused
    assert cached.folder != first.folder
    np.testing.assert_allclose(cached.rows.x[0], cacher.expected(), atol=1e-3)


def test_a_changed_head_does_not(tmp_path):
    Cacher(tmp_path).build()
    cacher = Cacher(tmp_path)
    for weight in cacher.model.get_layer("head").weights:
        weight.assign(keras.ops.convert_to_numpy(weight) + 1)
    assert cacher.build().reused


def test_float16_takes_half_and_refuses_what_it_cannot_hold(tmp_path):
    cacher = Cacher(tmp_path)
    cached = cacher.build(half=True)
    assert cached.rows.x[0].dtype == np.float16
    assert cached.nbytes == 70 * 4 * 2
    np.testing.assert_allclose(cached.rows.x[0], cacher.expected(), atol=1e-3)
    loud = Cacher(tmp_path, make(activation=None, kernel_initializer="ones"), (X * 1e6, Y))
    with pytest.raises(NotCacheable, match="65,504"):
        loud.build(half=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_bfloat16_is_kept_without_loss(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    cached = Cacher(tmp_path).build()
    rows = np.asarray(cached.rows.x[0])
    assert rows.dtype == np.float32
    rounded = keras.ops.cast(keras.ops.cast(rows, "bfloat16"), "float32")
    np.testing.assert_array_equal(rows, keras.ops.convert_to_numpy(rounded))


def test_inputs_that_the_suffix_reads_are_not_written_again(tmp_path):
    x = keras.Input((3,), name="x")
    base = layers.Dense(2, name="base")(x)
    first = layers.Dense(2, name="head")(base)
    cacher = Cacher(tmp_path, keras.Model(x, layers.Concatenate()([first, x])))
    cached = cacher.build()
    assert cached.nbytes == 70 * 2 * 4
    assert cached.rows.x[1] is cacher.data.x[0]
    # A stream has no rows to look up: there they are kept.
    cached = Cacher(tmp_path, cacher.model, stream()).build()
    np.testing.assert_array_equal(cached.rows.x[1], X)


def test_masks_are_kept_and_remembered(tmp_path):
    ids = keras.Input((4,), dtype="int32")
    y = layers.Embedding(9, 3, mask_zero=True, name="words")(ids)
    y = layers.LSTM(3, return_sequences=True, name="lstm")(y)
    model = keras.Model(ids, layers.Dense(2, name="head")(y))
    data = np.random.default_rng(0).integers(0, 9, (50, 4)).astype("int32")
    first = Cacher(tmp_path, model, (data, np.zeros((50, 4)))).build()
    assert first.masks == (0,)
    np.testing.assert_array_equal(first.rows.x[-1], data != 0)
    again = Cacher(tmp_path, model, (data, np.zeros((50, 4)))).build()
    assert (again.reused, again.masks) == (True, (0,))


# What must not be kept.


class Mixing(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


def test_layers_that_mix_the_samples_of_a_batch_are_refused(tmp_path):
    x = keras.Input((3,))
    y = Mixing()(layers.Dense(4, name="base")(x))
    cacher = Cacher(tmp_path, keras.Model(x, layers.Dense(2, name="head")(y)))
    with pytest.raises(NotCacheable, match="mix the samples"):
        cacher.build()
    assert list(tmp_path.iterdir()) == []


def test_layers_that_add_a_loss_are_refused(tmp_path):
    cacher = Cacher(tmp_path, make(activity_regularizer="l2"))
    with pytest.raises(NotCacheable, match="a loss of its own"):
        cacher.build()


def test_a_regularizer_of_frozen_weights_is_no_such_loss(tmp_path):
    model = make(kernel_regularizer="l2")
    model.get_layer("base").trainable = False
    assert not Cacher(tmp_path, model).build().reused


def test_tensors_without_a_row_a_sample_are_refused(tmp_path):
    x = keras.Input((3,))
    y = keras.ops.sum(layers.Dense(4, name="base")(x), axis=0, keepdims=True)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    with pytest.raises(NotCacheable, match=r"mix the samples|one row per sample"):
        Cacher(tmp_path, model).build()


def test_shapes_that_change_from_batch_to_batch_are_refused(tmp_path):
    class Growing(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.ones((4, 3 + index, 2), "float32"), np.zeros((4, 3 + index))

    x = keras.Input((None, 2))
    y = layers.Conv1D(2, 1, name="base")(x)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    data = Stream(Growing(), ("x",))
    with pytest.raises(NotCacheable, match="changes its shape"):
        Cacher(tmp_path, model, data).build()


def test_a_limit_is_kept_and_nothing_stays_behind(tmp_path):
    with pytest.raises(NotCacheable, match=r"more than the 0\.0 GB"):
        Cacher(tmp_path).build(room=CacheRoom(tmp_path, limit=600))
    assert list(tmp_path.iterdir()) == []
    assert Cacher(tmp_path).build(room=CacheRoom(tmp_path, limit=70 * 16)).nbytes == 70 * 16


def test_a_full_disk_is_a_reason_and_not_a_crash(tmp_path, monkeypatch):
    def full(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prefix_cache._Writer, "_write", full)
    with pytest.raises(NotCacheable, match=r"cannot be written \(No space left"):
        Cacher(tmp_path).build()
    assert list(tmp_path.iterdir()) == []


# What may be lying about.


def test_a_folder_without_its_description_is_never_used(tmp_path):
    first = Cacher(tmp_path).build()
    whole = np.array(first.rows.x[0])
    (first.folder / "meta.json").unlink()
    (first.folder / "part_0.bin").write_bytes(b"rubbish")
    cached = Cacher(tmp_path).build()
    assert not cached.reused
    np.testing.assert_array_equal(cached.rows.x[0], whole)


def test_a_process_that_is_killed_leaves_nothing_that_counts(tmp_path):
    cacher = Cacher(tmp_path)

    def die(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(
            cacher.cut,
            cacher.make_prefix,
            cacher.data,
            fingerprint(cacher.data),
            cacher.room,
            progress=die,
        )
    assert list(tmp_path.iterdir()) == []


def test_leavings_of_killed_processes_go_after_a_day(tmp_path):
    for name, age in ((".partial-old", 2 * 86400), (".partial-new", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part_0.bin").write_bytes(b"x")
        then = time.time() - age
        for path in (tmp_path / name / "part_0.bin", tmp_path / name):
            os.utime(path, (then, then))
    Cacher(tmp_path).build()
    assert not (tmp_path / ".partial-old").exists()
    assert (tmp_path / ".partial-new").exists()


def test_two_at_once_end_with_one_whole_cache(tmp_path):
    slow, fast = Cacher(tmp_path), Cacher(tmp_path)
    results = []

    def overtake(done, total):
        if not results:
            results.append(fast.build())

    results.append(
        build(
            slow.cut,
            slow.make_prefix,
            slow.data,
            fingerprint(slow.data),
            slow.room,
            progress=overtake,
        )
    )
    first, second = results
    assert first.folder == second.folder
    np.testing.assert_array_equal(first.rows.x[0], second.rows.x[0])
    assert [p.name for p in tmp_path.iterdir()] == [first.folder.name]


def test_the_ones_used_longest_ago_are_removed_first(tmp_path):
    folders = []
    for seed in range(3):
        folders.append(Cacher(tmp_path, make(seed)).build().folder)
        os.utime(folders[-1], (seed, seed))
    Cacher(tmp_path, make(0)).build()  # used again: now the newest
    size = sum(f.stat().st_size for f in folders[0].iterdir())
    prune(tmp_path, 3 * size + 100)
    assert all(folder.is_dir() for folder in folders)
    prune(tmp_path, 2 * size + 100)
    assert [folder.is_dir() for folder in folders] == [True, False, True]
    prune(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
    prune(tmp_path / "missing", 0)


def test_memory_stays_flat_while_it_is_written(tmp_path):
    class Counting:
        """200 MB of numbers that are never there all at once."""

        shape, dtype = (50_000, 1000), np.dtype("float32")

        def __init__(self):
            self.most = 0

        def __len__(self):
            return self.shape[0]

        def __getitem__(self, rows):
            self.most = max(self.most, len(rows))
            return np.ones((len(rows), 1000), "float32")

        fingerprint = "ones"

    x = keras.Input((1000,))
    model = keras.Model(x, layers.Dense(1, name="head")(layers.Dense(2, name="base")(x)))
    lazy = Counting()
    cached = Cacher(tmp_path, model, (lazy, np.zeros(50_000))).build()
    assert lazy.most <= 32
    assert cached.rows.x[0].shape == (50_000, 2)


# Streams.


class Batches(keras.utils.PyDataset):
    """Deterministic, augmenting, or shuffling its samples in each pass."""

    def __init__(self, kind="same", size=16):
        super().__init__()
        self.kind, self.size, self.order = kind, size, np.arange(70)
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return -(-70 // self.size)

    def __getitem__(self, index):
        chosen = self.order[index * self.size : (index + 1) * self.size]
        noise = self.rng.normal(size=(len(chosen), 3)) * (self.kind == "augmenting")
        return (X[chosen] + noise).astype("float32"), Y[chosen], 1.0 + Y[chosen]

    def on_epoch_end(self):
        if self.kind == "shuffling":
            self.order = self.rng.permutation(70)


def stream(kind="same", **options) -> Stream:
    return Stream(Batches(kind, **options), ("x",))


def test_a_stream_is_kept_with_its_labels_weights_and_batches(tmp_path):
    cacher = Cacher(tmp_path, data=stream())
    cached = cacher.build()
    np.testing.assert_allclose(cached.rows.x[0], cacher.expected(), atol=1e-6)
    np.testing.assert_array_equal(cached.rows.y, Y)
    np.testing.assert_array_equal(cached.rows.weight, 1.0 + Y)
    assert cached.sizes == [16, 16, 16, 16, 6]
    assert cached.rows.n == 70
    again = Cacher(tmp_path, data=stream())
    assert (again.build().reused, again.prefixes) == (True, 0)


def test_a_stream_that_shuffles_is_kept_but_its_batches_are_not(tmp_path):
    cacher = Cacher(tmp_path, data=stream("shuffling"))
    cached = cacher.build()
    assert cached.sizes is None
    order = np.asarray(cached.rows.y)
    assert sorted(order) == list(range(70))
    np.testing.assert_allclose(cached.rows.x[0], cacher.expected()[order], atol=1e-6)
    # Found again whatever the order of this run; batches of one order are not
    # taken for those of another.
    Cacher(tmp_path / "b", data=stream()).build()
    other = Cacher(tmp_path / "b", data=stream(size=10)).build()
    assert (other.reused, other.sizes) == (True, None)


def test_a_stream_that_augments_is_refused_unless_views_are_asked_for(tmp_path):
    with pytest.raises(NotCacheable, match=r"change from pass to pass.*views=k"):
        Cacher(tmp_path, data=stream("augmenting")).build()
    assert list(tmp_path.iterdir()) == []
    cached = Cacher(tmp_path, data=stream("augmenting"), views=3).build()
    rows = np.asarray(cached.rows.x[0]).reshape(3, 70, 4)
    assert np.abs(rows[0] - rows[1]).max() > 0.1
    np.testing.assert_array_equal(np.asarray(cached.rows.y).reshape(3, 70), [Y] * 3)
    assert cached.rows.n == 70


def test_a_stream_that_ends_early_the_second_time_is_refused(tmp_path):
    class Shrinking(Batches):
        passes = 0

        def __len__(self):
            return 5 - (self.passes > 1)

        def on_epoch_end(self):
            self.passes += 1

    with pytest.raises(NotCacheable, match="70 samples in one pass, then 64"):
        Cacher(tmp_path, data=Stream(Shrinking("augmenting"), ("x",)), views=2).build()


def flip_model() -> keras.Model:
    x = keras.Input((4, 4, 1))
    y = layers.RandomFlip("horizontal", name="flip")(x)
    y = layers.Flatten()(layers.Conv2D(2, 2, name="base")(y))
    return keras.Model(x, layers.Dense(2, name="head")(y))


def test_views_of_a_model_that_augments_differ_and_follow_its_seeds(tmp_path):
    data = np.random.default_rng(0).normal(size=(20, 4, 4, 1)).astype("float32")
    model = flip_model()

    def seeded(seed):
        (generator,) = seed_generators(model.get_layer("flip"))
        generator.state.assign(np.array([seed, 0], dtype=generator.state.dtype))
        return Cacher(tmp_path, model, (data, np.zeros(20)), views=4).build()

    first = seeded(1)
    views = np.asarray(first.rows.x[0]).reshape(4, 20, -1)
    assert len({view.tobytes() for view in views}) == 4
    # Each variant is the sample or its mirror image, nothing else.
    assert all(len({v.tobytes() for v in views[:, i]}) <= 2 for i in range(20))
    assert seeded(1).reused
    assert not seeded(2).reused


def test_the_description_is_plain_json(tmp_path):
    cached = Cacher(tmp_path, data=stream()).build()
    meta = json.loads((cached.folder / "meta.json").read_text())
    (part, *_), content = meta["parts"], (cached.folder / "part_0.bin").read_bytes()
    assert part == {"dtype": "<f4", "shape": [4], "crc32": zlib.crc32(content)}
    assert (meta["samples"], meta["views"], meta["masks"]) == (70, 1, [])
