"""`fit`: whole runs on small models, whatever the data, the policy or the settings."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core import stage as stage_module
from unfreeze.core.run import fit
from unfreeze.core.runner import StepModel
from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage
from unfreeze.core.watch import StageCallback
from unfreeze.errors import DataError, RunError, ScheduleError, StageError

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6, 6, 2)).astype("float32")
Y = (X.mean(axis=(1, 2, 3)) > 0).astype("int64")
HELD = (X[:8], Y[:8])
TWO = Schedule(
    (
        Stage("head", "head", epochs=2, learning_rate=0.05),
        Stage("all", "all", epochs=2, learning_rate=0.01),
    )
)


def make(augment=False, **head) -> keras.Model:
    keras.utils.set_random_seed(3)
    x = y = keras.Input((6, 6, 2), name="x")
    if augment:
        y = layers.RandomFlip("horizontal", name="flip")(y)
    y = layers.Conv2D(3, 3, use_bias=False, name="conv")(y)
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.Activation("tanh")(y)
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    y = layers.Dropout(0.2, name="drop")(y)
    y = layers.Dense(2, **{"activation": "softmax", "name": "head", **head})(y)
    model = keras.Model(x, y)
    bn = model.get_layer("bn")
    bn.moving_mean.assign(np.array([0.1, -0.1, 0.2]))
    bn.moving_variance.assign(np.array([0.5, 1.0, 2.0]))
    return model


def run(model=None, schedule=TWO, data=(X, Y), **options):
    options = {"validation_data": HELD, "batch_size": 8, "seed": 1, "verbose": 0, **options}
    return fit(model or make(), schedule, data, **options)


def weights_of(model) -> list[np.ndarray]:
    return [np.array(w) for w in model.get_weights()]


def assert_same_weights(model, other, atol=0.0):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# The result.


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


def test_the_same_seed_gives_the_same_run_and_another_one_does_not():
    first, second, other = make(), make(), make()
    a, b, c = run(first), run(second), run(other, seed=2)
    assert_same_weights(first, second)
    assert [r["loss"] for r in a.history] == [r["loss"] for r in b.history]
    assert [r["loss"] for r in a.history] != [r["loss"] for r in c.history]
    assert (a.seed, c.seed) == (1, 2)


def test_without_a_seed_one_is_drawn_and_told():
    first, second = make(), make()
    result = run(first, TWO[:1] if isinstance(TWO, list) else [TWO.stages[0]], seed=None)
    run(second, [TWO.stages[0]], seed=result.seed)
    assert_same_weights(first, second)


def test_without_validation_data_the_training_loss_decides():
    stage = Stage("head", "head", epochs=9, until=Plateau("val_loss", 1), learning_rate=1e-7)
    reduce = ReduceRate("val_loss", patience=1)
    result = run(
        schedule=[stage, Stage("b", "head", epochs=1, reduce=reduce)], validation_data=None
    )
    assert result.stages[0].monitor == "loss"
    assert "val_loss" not in result.history[0]
    assert result.stages[0].best_value == min(r["loss"] for r in result.stages[0].rows)


# Stages.


def test_the_best_stage_wins_and_the_first_of_equals():
    class Score(keras.callbacks.Callback):
        """Overwrites what was measured; first among the callbacks that come after the recorder."""

    model = make()
    result = run(
        model, [Stage("a", "head", epochs=2), Stage("b", "all", epochs=1, learning_rate=9.0)]
    )
    assert result.best_stage == "a"
    assert len(result.stages) == 2
    logs = model.evaluate(*HELD, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(result.stages[0].best_value, rel=1e-5)


def test_tied_scores_keep_the_first_epoch_and_the_first_stage():
    def constant(y, p):  # one value whatever the weights, with a gradient all the same
        return keras.ops.sum(p[:, :1] - keras.ops.stop_gradient(p[:, :1]), axis=-1)

    model = make()
    result = run(model, TWO, loss=constant)
    assert {row["val_loss"] for row in result.history} == {0.0}
    assert result.best_stage == "head"
    assert [stage.best_epoch for stage in result.stages] == [1, 1]
    alone = make()
    run(alone, [Stage("head", "head", epochs=1, learning_rate=0.05)], loss=constant)
    assert_same_weights(model, alone)


def test_a_stage_of_no_epochs_costs_nothing_and_is_noted(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a stage of no epochs must not be prepared")

    notes = []

    class Listener(StageCallback):
        def on_note(self, text):
            notes.append(text)

    stages = [Stage("idle", "conv", epochs=0, cache="always"), Stage("head", "head", epochs=1)]
    result = run(schedule=stages, callbacks=[Listener()])
    assert [stage.stage for stage in result.stages] == ["head"]
    assert "stage 'idle' has 0 epochs: left out" in notes
    monkeypatch.setattr("unfreeze.core.loop.make_ready", refuse)
    with pytest.raises(AssertionError):
        run(schedule=[Stage("head", "head", epochs=1)])


def test_layers_named_twice_train_once():
    once, twice = make(), make()
    run(once, [Stage("s", ["head"], epochs=2)])
    result = run(twice, [Stage("s", ["head", "head", "h*", twice.get_layer("head")], epochs=2)])
    assert_same_weights(once, twice)
    assert result.stages[0].trained_weights == 8


def test_each_stage_starts_from_the_best_weights_of_the_one_before():
    starts = []

    class Starts(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            starts.append(self.model.get_layer("head").get_weights()[0])

    # The rate of the second epoch wrecks what the first has learned.
    wreck = keras.callbacks.LearningRateScheduler(lambda epoch: [0.01, 50.0][epoch])
    stages = [
        Stage("a", "head", epochs=2, callbacks=[wreck]),
        Stage("b", "head", epochs=1, learning_rate=1e-6),
    ]
    result = run(schedule=stages, callbacks=[Starts()])
    assert result.stages[0].best_epoch == 1
    assert result.history[1]["val_loss"] > result.history[0]["val_loss"]
    alone = make()
    run(alone, [Stage("a", "head", epochs=1, learning_rate=0.01)])
    np.testing.assert_array_equal(starts[1], alone.get_layer("head").get_weights()[0])


@pytest.mark.parametrize("policy", ["frozen", "affine", "train"])
def test_batch_norm_policies(policy):
    model = make()
    bn = model.get_layer("bn")
    before = {v.name: np.array(v.numpy()) for v in bn.weights}
    run(model, [Stage("s", "all", epochs=2, batch_norm=policy, learning_rate=0.05)])
    moved = {v.name for v in bn.weights if not np.array_equal(v.numpy(), before[v.name])}
    affine, statistics = {"gamma", "beta"}, {"moving_mean", "moving_variance"}
    assert moved == {"frozen": set(), "affine": affine, "train": affine | statistics}[policy]


def test_batch_norm_policies_one_after_the_other():
    # On TensorFlow a flag that has its value already is not passed on (internals.set_trainable).
    model = make()
    common = {"epochs": 1, "learning_rate": 0.05}
    stages = [
        Stage("a", "all", batch_norm="affine", **common),
        Stage("b", "all", batch_norm="frozen", **common),
        Stage("c", "all", batch_norm="train", **common),
        Stage("d", "head", **common),
    ]
    result = run(model, stages)
    trained = [
        {layer.layer for layer in stage.layers if layer.moved} for stage in result.audit.stages
    ]
    assert trained == [{"conv", "bn", "head"}, {"conv", "head"}, {"conv", "bn", "head"}, {"head"}]
    assert [stage.trained_weights for stage in result.stages] == [68, 62, 68, 8]
    assert [v.path for v in model.trainable_variables] == ["head/kernel", "head/bias"]


def test_stages_end_by_their_rules():
    stages = [
        Stage("plateau", "head", epochs=9, learning_rate=1e-9, until=Plateau(patience=2)),
        Stage("reached", "head", epochs=9, learning_rate=1e-3, until=Reached("val_loss", 99.0)),
    ]
    with pytest.raises(StageError, match="float32 rounds it away"):
        run(schedule=stages[:1])
    stages[0] = Stage("plateau", "head", epochs=9, learning_rate=30.0, until=Plateau(patience=2))
    result = run(schedule=stages)
    assert result.stages[0].epochs < 9
    assert result.stages[1].epochs == 1


def test_a_rule_for_a_metric_that_is_not_there_says_what_there_is():
    with pytest.raises(StageError, match=r"'val_recall'.*it has: .*val_accuracy"):
        run(schedule=[Stage("s", "head", until=Plateau("val_recall"))])


def test_factors_of_the_rate_reach_the_layers():
    model = make()
    rates = {"default": 0.01, "conv": 0.1}
    before = weights_of(model)
    stage = Stage("s", "all", epochs=1, learning_rate=rates, optimizer="sgd")
    result = run(model, [stage], batch_size=24)
    plain = make()
    plain.get_layer("bn").trainable = False
    run(plain, [Stage("s", "all", epochs=1, learning_rate=0.01, optimizer="sgd")], batch_size=24)
    step = [np.abs(a - b).max() for a, b in zip(weights_of(model), before, strict=True)]
    whole = [np.abs(a - b).max() for a, b in zip(weights_of(plain), before, strict=True)]
    assert step[0] == pytest.approx(0.1 * whole[0], rel=1e-3)  # conv
    assert step[-1] == pytest.approx(whole[-1], rel=1e-3)  # head
    assert result.history[0]["learning_rate"] == pytest.approx(0.01)


# Data.


class Batches(keras.utils.PyDataset):
    def __init__(self, noise=0.0, weights=False, size=8, named=False):
        super().__init__()
        self.noise, self.weights, self.size, self.named = noise, weights, size, named
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 24 // self.size

    def __getitem__(self, index):
        span = slice(index * self.size, (index + 1) * self.size)
        noise = self.noise * self.rng.normal(size=X[span].shape)
        x, y = (X[span] + noise).astype("float32"), Y[span]
        x = {"x": x, "id": np.arange(len(y))} if self.named else x
        return (x, y, 1.0 + y) if self.weights else (x, y)


def array_like():
    class Lazy:
        shape, dtype = X.shape, X.dtype
        fingerprint = "these very rows"

        def __len__(self):
            return 24

        def __getitem__(self, rows):
            return X[rows]

    return Lazy(), Y


def memory_map(folder):
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r"), Y


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
    held = (HELD[0], np.eye(2)[HELD[1]]) if kind == "one-hot" else HELD
    wanted, model = make(), make()
    expected = run(wanted).history
    found = run(model, data=data, validation_data=held).history
    assert_same_weights(model, wanted, atol=1e-6)
    assert [r["loss"] for r in found] == pytest.approx([r["loss"] for r in expected], rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"weights": True}, {"named": True}])
def test_a_dataset_trains_the_same_cached_and_uncached(options):
    runs = {}
    for cache in ("always", "never"):
        runs[cache] = make()
        schedule = TWO.with_changes(cache=cache)
        result = run(runs[cache], schedule, data=Batches(**options), validation_data=Batches())
        assert result.stages[0].cache.startswith("cached" if cache == "always" else "not cached")
    assert_same_weights(runs["always"], runs["never"], atol=1e-6)


def test_the_order_of_a_datasets_batches_follows_the_seed():
    first, second, other = make(), make(), make()
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        run(model, TWO.with_changes(cache="never"), data=Batches(), seed=seed)
    assert_same_weights(first, second)
    assert np.abs(first.get_weights()[-1] - other.get_weights()[-1]).max() > 1e-5


def test_a_dataset_that_augments_trains_uncached_with_the_reason():
    result = run(data=Batches(noise=0.5))
    assert "change from pass to pass" in result.stages[0].cache
    result = run(schedule=TWO.with_changes(views=3), data=Batches(noise=0.5))
    assert result.stages[0].cache.startswith("cached")


def test_augmentation_in_the_model_trains_uncached_or_in_views():
    result = run(make(augment=True))
    assert "flip draws at random" in result.stages[0].cache
    model = make(augment=True)
    result = run(model, TWO.with_changes(views=4))
    assert result.stages[0].cache.startswith("cached")
    again = make(augment=True)
    run(again, TWO.with_changes(views=4))
    assert_same_weights(model, again)


def test_a_batch_size_that_a_dataset_cannot_have_is_noted():
    notes = []

    class Listener(StageCallback):
        def on_note(self, text):
            notes.append(text)

    stages = [Stage("s", "head", epochs=1, batch_size=16)]
    run(schedule=stages, data=Batches(), callbacks=[Listener()])
    assert any("batch_size=16 is not used" in note and "own batches of 8" in note for note in notes)


@pytest.mark.parametrize("cache", ["always", "never"])
def test_tf_data(cache):
    tf = pytest.importorskip("tensorflow")
    whole = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    model = make()
    result = run(model, TWO.with_changes(cache=cache), data=whole, validation_data=whole.take(1))
    assert result.stages[0].cache.startswith("cached" if cache == "always" else "not cached")
    # In the dataset's own order and batches, cached or not.
    wanted = make()
    run(wanted, TWO.with_changes(cache="never"), data=whole, validation_data=whole.take(1))
    assert_same_weights(model, wanted, atol=1e-6)


def test_tf_data_that_shuffles_or_has_no_end():
    tf = pytest.importorskip("tensorflow")
    whole = tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).shuffle(24, seed=0).batch(8)
    assert run(data=whole).stages[0].cache.startswith("cached")
    with pytest.raises(DataError, match="endless"):
        run(data=whole.repeat())
    assert run(data=whole.repeat().take(3), schedule=[Stage("s", "head", epochs=1)])


@pytest.mark.parametrize("cache", ["always", "never"])
def test_torch_loaders(cache):
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = torch.utils.data.DataLoader(pairs, batch_size=8)
    model, wanted = make(), make()
    result = run(model, TWO.with_changes(cache=cache), data=loader)
    assert result.stages[0].cache.startswith("cached" if cache == "always" else "not cached")
    run(wanted, TWO.with_changes(cache="never"), data=loader)
    assert_same_weights(model, wanted, atol=1e-6)


@pytest.mark.parametrize("cache", ["always", "never"])
def test_sample_and_class_weights_count(cache):
    schedule = [Stage("s", "head", epochs=2, cache=cache, learning_rate=0.05)]
    by_class, by_sample, plain = make(), make(), make()
    run(by_class, schedule, class_weight={0: 1.0, 1: 5.0})
    run(by_sample, schedule, data=(X, Y, np.where(Y == 1, 5.0, 1.0)))
    run(plain, schedule)
    assert_same_weights(by_class, by_sample, atol=1e-6)
    assert np.abs(by_class.get_weights()[-1] - plain.get_weights()[-1]).max() > 1e-4


def test_both_weights_together_are_refused_before_training():
    with pytest.raises(DataError, match="class_weight and sample weights"):
        run(data=(X, Y, np.ones(24)), class_weight={0: 1.0, 1: 2.0})


# The cache across runs.


def count_prefixes(monkeypatch) -> list:
    made = []
    original = stage_module.prefix_model

    def counting(*args, **kwargs):
        made.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(stage_module, "prefix_model", counting)
    return made


def test_a_repeated_run_does_not_compute_the_prefix_again(tmp_path, monkeypatch):
    made = count_prefixes(monkeypatch)
    first, second = make(), make()
    assert run(first, cache_dir=tmp_path).stages[0].cache.startswith("cached")
    assert made
    made.clear()
    assert run(second, cache_dir=tmp_path).stages[0].cache.startswith("reused")
    assert made == []
    assert_same_weights(first, second)


def test_a_second_stage_on_the_same_boundary_reuses_the_cache():
    stages = [Stage("a", "head", epochs=2), Stage("b", "head", epochs=2, learning_rate=1e-4)]
    result = run(schedule=stages)
    assert [stage.cache.split(":")[0] for stage in result.stages] == ["cached", "reused"]


def test_a_float16_cache_comes_close():
    exact, half = make(), make()
    a = run(exact, [Stage("s", "head", epochs=3)])
    b = run(half, [Stage("s", "head", epochs=3, cache="float16")])
    losses = [[row["loss"] for row in r.history] for r in (a, b)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_caches_are_kept_with_the_run_or_where_asked_within_the_limit(tmp_path):
    run(run_dir=tmp_path / "run")
    assert len(list((tmp_path / "run" / "cache").iterdir())) == 2
    run(cache_dir=tmp_path / "shared", cache_limit=10_000)
    assert len(list((tmp_path / "shared").iterdir())) == 2
    # A limit that holds one of them: the older ones go at the end of the stage.
    run(cache_dir=tmp_path / "shared", cache_limit=500, data=(X + 1, Y))
    assert len(list((tmp_path / "shared").iterdir())) == 1


def test_a_cache_that_does_not_fit_is_refused_up_front_where_it_was_asked_for():
    model = make()
    before = weights_of(model)
    with pytest.raises(ScheduleError, match="'head' asks for a cache, but"):
        run(model, TWO.with_changes(cache="always"), cache_limit=10)
    assert all((a == b).all() for a, b in zip(before, weights_of(model), strict=True))
    assert run(cache_limit=10).stages[0].cache.startswith("not cached: it would take")


# Runs that were broken off.


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, second = make(), make()
    run(first, run_dir=tmp_path)

    class Refuse(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise AssertionError("nothing is left to train")

    result = run(second, run_dir=tmp_path, callbacks=[Refuse()])
    assert_same_weights(first, second)
    assert [row["stage"] for row in result.history] == ["head", "head", "all", "all"]
    assert second.evaluate(*HELD, verbose=0)


def test_a_run_without_a_seed_goes_on_with_the_seed_that_it_drew(tmp_path):
    first = run(run_dir=tmp_path, seed=None)
    assert run(run_dir=tmp_path, seed=None).seed == first.seed


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 5}, "seed"),
        ({"schedule": TWO.with_changes(epochs=1)}, "schedule"),
        ({"data": (X[::-1], Y)}, "data"),
        ({"validation_data": None}, "data"),
        ({"batch_size": 4}, "settings"),
        ({"loss": "mse"}, "settings"),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path_factory, options, named):
    folder = tmp_path_factory.getbasetemp() / "one_run_for_all"
    run(run_dir=folder)
    with pytest.raises(RunError, match=f"another {named}"):
        run(run_dir=folder, **options)


def test_resume_without_early_stopping(tmp_path):
    class Stop(keras.callbacks.Callback):
        stages = 0

        def on_epoch_end(self, epoch, logs=None):
            if self.params["epochs"] == 3 and epoch == 1:
                raise KeyboardInterrupt

    stages = [Stage("a", "head", epochs=2), Stage("b", "all", epochs=3, learning_rate=1e-3)]
    whole, broken = make(), make()
    run(whole, stages)
    with pytest.raises(KeyboardInterrupt):
        run(broken, stages, run_dir=tmp_path, callbacks=[Stop()])
    resumed = make()
    result = run(resumed, stages, run_dir=tmp_path)
    assert_same_weights(whole, resumed)
    assert [stage.epochs for stage in result.stages] == [2, 3]


# What goes wrong.


def test_a_failed_run_leaves_the_flags_as_they_were():
    model = make()
    model.get_layer("conv").trainable = False
    flags = {v.path: v.trainable for v in model.variables}

    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(model, callbacks=[Fail()])
    assert {v.path: v.trainable for v in model.variables} == flags


@pytest.mark.parametrize("name", ["conv", "head"])
@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("last", [False, True])
def test_flags_that_a_callback_changes_in_a_stage_are_found(name, value, last):
    """The common mistake: unfreezing (or freezing) without a new compile."""
    model = make()

    class Flip(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == int(last):
                model.get_layer(name).trainable = value

    stages = [Stage("s", "head", epochs=2)]
    if (name == "head") == value:  # as it was
        run(model, stages, callbacks=[Flip()])
        return
    with pytest.raises(StageError, match=f"'s': `trainable` was changed while it ran, of {name}"):
        run(model, stages, callbacks=[Flip()])


def test_flags_that_change_within_an_epoch_are_found_too():
    model = make()

    class Flip(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            model.get_layer("conv").trainable = True

    with pytest.raises(StageError, match="`trainable` was changed while it ran, of conv"):
        run(model, [Stage("s", "head", epochs=1, cache="never")], callbacks=[Flip()])


def test_a_callback_that_moves_frozen_weights_is_caught():
    model = make()

    class Meddle(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            kernel = model.get_layer("conv").kernel
            kernel.assign(kernel.numpy() + 1.0 if BACKEND != "torch" else np.ones(kernel.shape))

    with pytest.raises(StageError, match=r"holds frozen: conv \(kernel\)"):
        run(model, [Stage("s", "head", epochs=2)], callbacks=[Meddle()])


def test_units_without_a_gradient_fail_the_stage_after_its_first_epoch():
    model = make(
        activation="relu",
        kernel_initializer="zeros",
        bias_initializer=lambda s, dtype: -np.ones(s, "float32"),
    )
    ends = []

    class Ends(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            ends.append(epoch)

    with pytest.raises(StageError, match=r"did not move.*head \(kernel, bias\).*Nothing moved"):
        run(
            model,
            [Stage("s", "head", epochs=50)],
            loss="mse",
            data=(X, np.eye(2)[Y]),
            validation_data=None,
            callbacks=[Ends()],
        )
    assert ends == [0]


def test_a_loss_that_is_not_finite_ends_the_run_with_the_best_weights():
    class Wreck(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.optimizer.learning_rate = np.float32(np.inf)

    model = make()
    with pytest.raises(StageError, match=r"not finite in epoch 3.*weights of epoch"):
        run(
            model,
            [Stage("s", "head", epochs=5)],
            callbacks=[Wreck()],
            loss="mse",
            data=(X, np.eye(2)[Y]),
            validation_data=None,
        )
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_validation_that_is_never_finite_is_an_error():
    held = (np.full_like(X[:8], np.nan), Y[:8])
    with pytest.raises(StageError, match="val_loss was not finite in any epoch"):
        run(schedule=[Stage("s", "head", epochs=2)], validation_data=held)


def test_models_that_train_in_their_own_way_are_refused():
    class Own(keras.Model):
        def train_step(self, data):
            return {}

    x = keras.Input((2,))
    with pytest.raises(ScheduleError, match="overrides `train_step`.*UnfreezeSchedule"):
        fit(Own(x, layers.Dense(1)(x)), "full", (np.ones((4, 2)), np.ones(4)))


# Callbacks, and what is left of a run.


def test_keras_callbacks_work_in_stages(tmp_path):
    def half(epoch, rate):
        return rate / 2

    model = make()
    stages = [Stage("a", "head", epochs=3), Stage("b", "all", epochs=2, learning_rate=1e-3)]
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "w.weights.h5", save_weights_only=True),
        keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True),
        keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True),
        keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=10.0),
        keras.callbacks.LearningRateScheduler(half),
        keras.callbacks.TerminateOnNaN(),
    ]
    result = run(model, stages, callbacks=callbacks)
    saved = keras.models.load_model(tmp_path / "best.keras")
    assert [layer.name for layer in saved.layers] == [layer.name for layer in model.layers]
    assert saved(X[:2]).shape == (2, 2)
    make().load_weights(tmp_path / "w.weights.h5")
    assert len((tmp_path / "log.csv").read_text().splitlines()) >= 5
    rates = [row["learning_rate"] for row in result.history]
    assert rates[1] < rates[0] < 1e-3
    assert len(result.history) == 5


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorflow")
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    run(callbacks=[board])
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_stage_callbacks_hear_of_everything():
    heard = []

    class Listener(StageCallback):
        def on_stage_begin(self, plan):
            heard.append(("begin", plan.stage))

        def on_cache(self, what, done, total):
            heard.append((what, done, total))

        def on_stage_end(self, result):
            heard.append(("end", result.stage))

    run(callbacks=[Listener()])
    assert heard == [
        ("begin", "head"),
        ("train", 24, 24),
        ("validation", 8, 8),
        ("end", "head"),
        ("begin", "all"),
        ("end", "all"),
    ]


def test_a_stages_own_callbacks_are_used_in_it_alone():
    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            type(self).epochs += 1

    stages = [Stage("a", "head", epochs=2, callbacks=[Count]), Stage("b", "head", epochs=3)]
    run(schedule=stages)
    assert Count.epochs == 2


def test_repeated_runs_leave_nothing_on_the_model(tmp_path):
    model = make()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    made = weakref.WeakSet()
    original = StepModel.__init__

    def remember(self, *args, **kwargs):
        original(self, *args, **kwargs)
        made.add(self)

    StepModel.__init__ = remember
    try:
        for _ in range(3):
            run(model)
    finally:
        StepModel.__init__ = original
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    # The last stage's model may live on in the optimizer's or the backend's caches.
    keras.backend.clear_session()
    gc.collect()
    assert len(made) <= 3
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same_weights(clone, model)
    model.fit(X, Y, verbose=0)  # goes on as a plain Keras model


def test_a_compiled_model_brings_its_loss_and_a_second_run_may_have_other_labels():
    model = make()
    model.compile(loss="mse", metrics=["mae"])
    result = run(model, data=(X, np.eye(2)[Y]), validation_data=(X[:8], np.eye(2)[Y[:8]]))
    assert "mae" in result.history[0]
    model = make()
    run(model)
    run(model, data=(X, np.eye(2)[Y]), validation_data=(X[:8], np.eye(2)[Y[:8]]))


# Precision and compilation.


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("cache", ["always", "never"])
def test_mixed_precision(policy, cache):
    keras.config.set_dtype_policy(policy)
    model = make(dtype="float32")
    result = run(model, TWO.with_changes(cache=cache))
    assert result.stages[0].cache.startswith("cached" if cache == "always" else "not cached")
    assert all(np.isfinite(row["loss"]) for row in result.history)
    assert {v.dtype for v in model.weights} == {"float32"}


def test_mixed_precision_cached_is_uncached():
    keras.config.set_dtype_policy("mixed_bfloat16")
    runs = [make(dtype="float32"), make(dtype="float32")]
    for model, cache in zip(runs, ("always", "never"), strict=True):
        run(model, TWO.with_changes(cache=cache, optimizer="sgd"))
    assert_same_weights(*runs, atol=2e-3)


def test_float16_steps_that_overflow_are_waited_for():
    keras.config.set_dtype_policy("mixed_float16")
    model = make(dtype="float32")
    scale = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**24)
    stage = Stage("s", "all", epochs=30, optimizer=scale, learning_rate=1e-3)
    result = run(model, [stage], data=(100 * X, Y), batch_size=24)
    assert result.stages[0].epochs == 30


@pytest.mark.parametrize("compiled", [True, False])
def test_with_and_without_compilation(compiled):
    if compiled and BACKEND == "torch":
        pytest.skip("torch.compile takes minutes on a CPU: see test_compiled_stages_on_torch")
    model, plain = make(), make()
    run(model, jit_compile=compiled)
    run(plain, jit_compile=False)
    assert_same_weights(model, plain, atol=1e-4)
