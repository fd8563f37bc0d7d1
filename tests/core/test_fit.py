"""`fit`: what it gives, and the same from data of any kind."""

import functools
import gc
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from small_runs import HEAD, HELD, Batches, X, Y, assert_same_weights, make, run
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import fit
from unfreeze.core.schedule import Plateau, ReduceRate, Schedule, Stage
from unfreeze.errors import DataError, ScheduleError, StageError


def test_a_run_tells_what_it_did():
    model = make()
    before = model.get_layer("conv").get_weights()
    result = run(model)
    assert [row["stage"] for row in result.history] == ["head", "head", "all", "all"]
    assert [row["step"] for row in result.history] == [1, 2, 3, 4]
    assert set(result.history[0]) >= {"loss", "val_loss", "accuracy", "learning_rate", "seconds"}
    assert [row["learning_rate"] for row in result.history] == pytest.approx(
        [0.05, 0.05, 0.01, 0.01]
    )
    head, all_ = result.stages
    assert head.cache.startswith("cached")
    assert all_.cache.startswith("not cached: no frozen layer")
    assert head.monitor == "val_loss"
    assert head.best_value == min(row["val_loss"] for row in head.rows)
    assert (head.trained_weights, all_.trained_weights) == (8, 54 + 8)
    moved = {layer.layer: layer.moved for layer in result.audit.stages[0].layers}
    assert (moved["conv"], moved["bn"]) == (0.0, 0.0)
    assert moved["head"] > 0
    assert {layer.layer for layer in result.audit.stages[1].layers if layer.moved} == {
        "conv",
        "head",
    }
    assert result.model is model
    assert not np.array_equal(model.get_layer("conv").get_weights()[0], before[0])
    # Compiled, with the best weights.
    logs = model.evaluate(*HELD, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(min(row["val_loss"] for row in result.history), rel=1e-5)


@pytest.mark.several_steps
# test_fit_determinism.py does the same by day, in two processes.
@pytest.mark.slow_on("tensorflow", "jax")
@pytest.mark.on_each_backend
def test_the_same_seed_gives_the_same_run_and_another_one_does_not():
    first, second, other = make(), make(), make()
    a, b, c = run(first), run(second), run(other, seed=2)
    assert_same_weights(first, second)
    assert [r["loss"] for r in a.history] == [r["loss"] for r in b.history]
    assert [r["loss"] for r in a.history] != [r["loss"] for r in c.history]
    assert (a.seed, c.seed) == (1, 2)


@pytest.mark.slow_on("jax")
def test_without_a_seed_one_is_drawn_and_told():
    first, second = make(), make()
    result = run(first, HEAD, seed=None)
    run(second, HEAD, seed=result.seed)
    assert_same_weights(first, second)


@pytest.mark.slow_on("jax")
def test_without_validation_data_the_training_loss_decides():
    rules = {"until": Plateau("val_loss", 1), "reduce": ReduceRate("val_loss", patience=1)}
    stage = Stage("head", "head", epochs=9, learning_rate=30.0, **rules)
    result = run(schedule=[stage], validation_data=None).stages[0]
    assert result.monitor == "loss"
    assert "val_loss" not in result.rows[0]
    assert result.best_value == min(row["loss"] for row in result.rows)
    assert result.epochs < 9


BY_ACCURACY = Schedule(
    (
        Stage("head", "head", epochs=6, learning_rate=0.3),
        Stage("all", "all", epochs=4, learning_rate=0.06),
    ),
    monitor="auto",
)


@pytest.mark.slow_on("jax")
def test_the_best_epoch_is_that_of_the_schedules_monitor():
    ways = {"val_accuracy": lambda row: (-row["val_accuracy"], row["val_loss"])}
    ways["val_loss"] = lambda row: row["val_loss"]
    kept = {}
    # With this seed the two do not agree. The first is what "auto" takes.
    for monitor, given in (("val_accuracy", "auto"), ("val_loss", "val_loss")):
        model = make()
        result = run(model, replace(BY_ACCURACY, monitor=given), seed=3)
        for stage in result.stages:
            assert stage.monitor == monitor
            best = min(stage.rows, key=ways[monitor])
            assert (stage.best_epoch, stage.best_value) == (best["epoch"], best[monitor])
            assert [row["best"] for row in stage.rows] == [row is best for row in stage.rows]
        # The best of all stages, too, and the model has its weights.
        best = min(result.history, key=ways[monitor])
        assert result.best_stage == best["stage"]
        logs = model.evaluate(*HELD, verbose=0, return_dict=True)
        assert logs["accuracy"] == pytest.approx(best["val_accuracy"])
        kept[monitor] = [stage.best_epoch for stage in result.stages]
    assert kept["val_accuracy"] != kept["val_loss"]


@pytest.mark.slow_on("jax")
def test_a_model_without_accuracy_goes_by_its_loss():
    x = make()
    model = keras.Model(x.input, keras.layers.Dense(1, name="out")(x.get_layer("drop").output))
    schedule = replace(HEAD.with_changes(epochs=1), monitor="auto")
    result = run(model, schedule, (X, Y.astype("float32")), validation_data=None, loss="mse")
    assert result.stages[0].monitor == "loss"
    held = (HELD[0], HELD[1].astype("float32"))
    result = run(model, schedule, (X, Y.astype("float32")), validation_data=held, loss="mse")
    assert result.stages[0].monitor == "val_loss"


# Data.


def array_like():
    class Lazy:
        shape, dtype = X.shape, X.dtype
        fingerprint = "these very rows"

        def __len__(self):
            return 24

        def __getitem__(self, rows):
            return X[rows]

    return Lazy(), Y


@functools.cache
def from_arrays():
    """A run on plain arrays, to compare with."""
    model = make()
    return model, [row["loss"] for row in run(model, HEAD, validation_data=None).history]


def memory_map(folder):
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r"), Y


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize(
    "kind", ["memory map", "array-like", "list", "dict", "float64", "tensors", "one-hot"]
)
def test_rows_of_any_kind_give_the_same_run(kind, tmp_path):
    data = {
        "memory map": lambda: memory_map(tmp_path),
        "array-like": array_like,
        "list": lambda: ([X], Y),
        "dict": lambda: ({"x": X, "more": Y}, Y),
        "float64": lambda: (X.astype("float64"), Y),
        "tensors": lambda: (keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y)),
        "one-hot": lambda: (X, np.eye(2)[Y]),
    }[kind]()
    model, (wanted, losses) = make(), from_arrays()
    found = run(model, HEAD, data=data, validation_data=None).history
    assert_same_weights(model, wanted, atol=1e-6)
    assert [r["loss"] for r in found] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"weights": True}, {"named": True}])
def test_a_dataset_trains_the_same_cached_and_uncached(options):
    runs = {}
    for cache in ("always", "never"):
        runs[cache] = make()
        schedule = HEAD.with_changes(cache=cache)
        result = run(runs[cache], schedule, data=Batches(**options), validation_data=Batches())
        assert result.stages[0].cache.startswith("cached" if cache == "always" else "not cached")
    assert_same_weights(runs["always"], runs["never"], atol=1e-6)


@pytest.mark.slow_on("jax")
def test_the_order_of_a_datasets_batches_follows_the_seed():
    first, second, other = make(), make(), make()
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        run(model, HEAD.with_changes(cache="never"), data=Batches(), seed=seed)
    assert_same_weights(first, second)
    assert np.abs(first.get_weights()[-1] - other.get_weights()[-1]).max() > 1e-5


def test_a_dataset_that_augments_trains_uncached_with_the_reason():
    result = run(schedule=HEAD, data=Batches(noise=0.5))
    assert "change from pass to pass" in result.stages[0].cache
    result = run(schedule=HEAD.with_changes(views=3), data=Batches(noise=0.5))
    assert result.stages[0].cache.startswith("cached")


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_augmentation_in_the_model_trains_uncached_or_in_views():
    result = run(make(augment=True), HEAD)
    assert "flip draws at random" in result.stages[0].cache
    model = make(augment=True)
    result = run(model, HEAD.with_changes(views=4))
    assert result.stages[0].cache.startswith("cached")
    again = make(augment=True)
    run(again, HEAD.with_changes(views=4))
    assert_same_weights(model, again)


def test_a_batch_size_that_a_dataset_cannot_have_is_noted():
    notes = []

    class Listener(StageCallback):
        def on_note(self, text):
            notes.append(text)

    stages = [Stage("s", "head", epochs=1, batch_size=16)]
    run(schedule=stages, data=Batches(), callbacks=[Listener()])
    assert any("batch_size=16 is ignored" in note and "own batches of 8" in note for note in notes)


@pytest.mark.parametrize(
    "kind", ["tf.data", pytest.param("torch loader", marks=pytest.mark.slow_on("tensorflow"))]
)
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_datasets_of_other_libraries_train_the_same_cached_and_uncached(kind):
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow")
        whole = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    else:
        torch = pytest.importorskip("torch")
        pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
        whole = torch.utils.data.DataLoader(pairs, batch_size=8)
    runs = {}
    for cache, word in (("always", "cached"), ("never", "not cached")):
        runs[cache] = make()
        schedule = HEAD.with_changes(cache=cache)
        result = run(runs[cache], schedule, data=whole, validation_data=whole)
        assert result.stages[0].cache.startswith(word)
    # In the dataset's own order and batches, whatever the seed.
    assert_same_weights(runs["always"], runs["never"], atol=1e-6)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_tf_data_that_shuffles_or_has_no_end():
    tf = pytest.importorskip("tensorflow")
    whole = tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).shuffle(24, seed=0).batch(8)
    assert run(schedule=HEAD, data=whole).stages[0].cache.startswith("cached")
    with pytest.raises(DataError, match="endless"):
        run(data=whole.repeat())
    stage = Stage("s", "head", epochs=1)
    assert len(run(schedule=[stage], data=whole.repeat().take(3)).history) == 1


@pytest.mark.parametrize(
    "cache", ["always", pytest.param("never", marks=pytest.mark.slow_on("tensorflow"))]
)
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_sample_and_class_weights_count(cache):
    schedule = [Stage("s", "head", epochs=2, cache=cache, learning_rate=0.05)]
    by_class, by_sample, plain = make(), make(), make()
    run(by_class, schedule, class_weight={0: 1.0, 1: 5.0}, validation_data=None)
    weighted = (X, Y, np.where(Y == 1, 5.0, 1.0))
    run(by_sample, schedule, data=weighted, validation_data=None)
    run(plain, schedule, validation_data=None)
    assert_same_weights(by_class, by_sample, atol=1e-6)
    assert np.abs(by_class.get_weights()[-1] - plain.get_weights()[-1]).max() > 1e-4


def test_both_weights_together_are_refused_before_training():
    for data in ((X, Y, np.ones(24)), Batches(weights=True)):
        with pytest.raises(DataError, match="class_weight and sample weights"):
            run(data=data, class_weight={0: 1.0, 1: 2.0})
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    with pytest.raises(DataError, match="does not work with a DataLoader"):
        run(data=torch.utils.data.DataLoader(pairs), class_weight={0: 1.0, 1: 2.0})


@pytest.mark.slow_on("jax")
def test_a_compiled_model_brings_its_loss_and_a_second_run_may_have_other_labels():
    labels = {"data": (X, np.eye(2)[Y]), "validation_data": (X[:8], np.eye(2)[Y[:8]])}
    model = make()
    model.compile(loss="mse", metrics=["mae"])
    assert "mae" in run(model, HEAD, **labels).history[0]
    model = make()
    run(model, HEAD)
    assert "accuracy" in run(model, HEAD, **labels).history[0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("model.keras", r"the text 'model\.keras'.*: load the model first: keras\.models\.load_m"),
        (Path("a/model.keras"), r"load the model first: keras\.models\.load_model\('a/model\.kera"),
        (keras.Model, "the class Model, not a Keras model"),
        (None, "an object of type NoneType, not a Keras model"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(model, message):
    with pytest.raises(ScheduleError, match=message) as caught:
        fit(model, HEAD, (X, Y))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, None])
def test_a_batch_size_must_be_a_whole_number_above_0(size):
    with pytest.raises(DataError, match=f"batch_size is {size!r}: it must be a whole number"):
        run(batch_size=size)


@pytest.mark.filterwarnings("error::ResourceWarning", "error::UserWarning")
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_a_lone_stage_is_a_schedule_and_the_saved_model_loads_without_a_warning(tmp_path):
    result = run(schedule=Stage("only", "head", epochs=1))
    assert [row["stage"] for row in result.history] == ["only"]
    result.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # Iterations, rate, and two moments of kernel and bias.
    assert len(loaded.optimizer.variables) == len(result.model.optimizer.variables) == 6
    del result
    gc.collect()


def test_nan_in_the_first_batch_of_a_dataset_is_noted_before_training(caplog):
    class Broken(Batches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            x = np.where(np.arange(len(x))[:, None, None, None] == 1, np.nan, x)
            return x, y

    with pytest.raises(StageError):
        run(schedule=HEAD, data=Broken())
    assert caplog.messages[0] == (
        "NaN or infinity in x of train, batch 0: does the model expect that?"
    )
