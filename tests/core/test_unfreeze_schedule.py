"""`UnfreezeSchedule`: stages inside one `fit`, and everything that it refuses."""

import functools
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from unfreeze.core.callbacks import StageCallback
from unfreeze.core.optimizers import LayerRates
from unfreeze.core.presets import preset, two_stage
from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage
from unfreeze.core.unfreeze_schedule import UnfreezeSchedule
from unfreeze.errors import ScheduleError, StageError

layers = keras.layers
needs_graphs = pytest.mark.needs_backend("tensorflow", "jax")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
TRAIN, HELD = (X[:32], Y[:32]), (X[32:], Y[32:])
HEAD = Stage("head", train="head", epochs=2, learning_rate=1e-2)
ALL = Stage("all", train="all", epochs=2, learning_rate=5e-3)


def make(policy: str = "float32", kind: Any = keras.Model) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="base_dense", dtype=policy)(inputs)
    x = layers.BatchNormalization(name="base_norm", dtype=policy)(x)
    x = layers.Dense(8, activation="tanh", name="base_mix", dtype=policy)(x)
    outputs = layers.Dense(2, activation="softmax", name="head", dtype="float32")(x)
    return kind(inputs, outputs, name="toy")


def compiled(optimizer: Any = "adam", **more: Any) -> keras.Model:
    model = make(more.pop("policy", "float32"), more.pop("kind", keras.Model))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **more)
    return model


def fit(model: keras.Model, schedule: Any, *others: Any, **more: Any) -> UnfreezeSchedule:
    """A fit without validation data unless given: scoring them costs half of a stage's time."""
    callback = schedule if isinstance(schedule, UnfreezeSchedule) else UnfreezeSchedule(schedule)
    settings = {"epochs": 50, "batch_size": 8, "verbose": 0, **more}
    model.fit(*TRAIN, callbacks=[callback, *others], **settings)
    return callback


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {w.path: np.array(keras.ops.convert_to_numpy(w)) for w in model.weights}


def moved(callback: UnfreezeSchedule, number: int) -> set[str]:
    return {row.layer for row in callback.audit.stages[number].layers if row.max_abs > 0}


def test_each_stage_moves_exactly_its_layers_and_fit_ends_with_the_schedule() -> None:
    model = compiled()
    middle = Stage("middle", train=["head", "base_mix"], epochs=1, learning_rate=1e-2)
    callback = fit(model, [HEAD, middle, ALL], epochs=50)
    assert [result.stage for result in callback.results] == ["head", "middle", "all"]
    assert [result.epochs for result in callback.results] == [2, 1, 2]
    assert len(model.history.history["loss"]) == 5
    assert moved(callback, 0) == {"head"}
    assert moved(callback, 1) == {"head", "base_mix"}
    assert moved(callback, 2) == {"head", "base_mix", "base_dense"}
    assert [row["step"] for result in callback.results for row in result.rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("policy", ["frozen", "affine", "train"])
def test_batch_norm_policies(policy: Any) -> None:
    model = compiled()
    before = weights(model)
    fit(model, [HEAD, Stage("all", epochs=1, learning_rate=1e-2, batch_norm=policy)])
    after = weights(model)
    names = {"gamma", "beta", "moving_mean", "moving_variance"}
    changed = {
        n for n in names if not np.array_equal(before[f"base_norm/{n}"], after[f"base_norm/{n}"])
    }
    assert changed == {"frozen": set(), "affine": {"gamma", "beta"}, "train": names}[policy]


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_the_same_as_compiling_and_fitting_stage_by_stage() -> None:
    """Fresh slots, rates and variables in each stage: weights agree after five epochs."""
    one = compiled(keras.optimizers.Adam(0.5, beta_1=0.8))
    stages = [HEAD, Stage("all", train="all", epochs=3, learning_rate=5e-3, batch_norm="train")]
    callback = fit(one, stages, shuffle=False)
    two = make()
    for names, epochs, rate in (({"head"}, 2, 1e-2), (None, 3, 5e-3)):
        for layer in two.layers:
            layer.trainable = names is None or layer.name in names
        adam = keras.optimizers.Adam(rate, beta_1=0.8)
        two.compile(adam, "sparse_categorical_crossentropy")
        history = two.fit(*TRAIN, epochs=epochs, batch_size=8, shuffle=False, verbose=0)
    # The loss falls throughout, so the best epoch is the last.
    assert callback.results[-1].best_epoch == 3
    assert callback.results[-1].monitor == "loss"
    assert callback.results[-1].best_value == pytest.approx(history.history["loss"][-1], rel=1e-5)
    for (path, a), (other, b) in zip(weights(one).items(), weights(two).items(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=f"{path} {other}")


def test_the_best_weights_of_all_stages_are_kept() -> None:
    model = compiled()
    bad = Stage("bad", train="all", epochs=3, learning_rate=3.0)
    callback = fit(model, [HEAD, bad], validation_data=HELD)
    values = model.history.history["val_loss"]
    assert callback.best_stage == "head"
    assert callback.results[1].best_value > callback.results[0].best_value
    assert callback.results[0].best_value == pytest.approx(min(values[:2]))
    assert model.evaluate(*HELD, verbose=0)[0] == pytest.approx(min(values), rel=1e-5)


def test_the_next_stage_starts_from_the_best_epoch_not_the_last() -> None:
    model = compiled()
    # A good first epoch, and a rate that destroys it in the others.
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([4], [1e-2, 30.0])
    wild = Stage("wild", train="head", epochs=3, learning_rate=rate)
    tiny = Stage("tiny", train="head", epochs=1, learning_rate=1e-6)
    callback = fit(model, [wild, tiny], validation_data=HELD)
    values = model.history.history["val_loss"]
    assert callback.results[0].best_epoch == 1
    assert values[0] < min(values[1:3])
    assert values[3] == pytest.approx(values[0], rel=1e-3)


def test_tied_scores_keep_the_earlier_epoch() -> None:
    model = compiled()

    class Tie(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_loss"] = 0.5

    callback = UnfreezeSchedule([Stage("a", train="head", epochs=3)])
    model.fit(*TRAIN, validation_data=HELD, epochs=3, verbose=0, callbacks=[Tie(), callback])
    assert callback.results[0].best_epoch == 1


def test_by_accuracy_where_the_schedule_says_so() -> None:
    class Marks(keras.callbacks.Callback):
        """More and more is right, with a loss that rises."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_accuracy"] = [0.5, 0.6, 0.7, 0.7, 0.6][epoch]
            logs["val_loss"] = 1.0 + epoch

    stages = (Stage("a", "head", epochs=2), Stage("b", "head", epochs=9, until=Plateau("best", 2)))
    for monitor, best, kept in (("auto", [2, 1], "b"), ("val_loss", [1, 1], "a")):
        model = compiled()
        callback = UnfreezeSchedule(Schedule(stages, monitor=monitor))
        model.fit(*TRAIN, validation_data=HELD, epochs=11, verbose=0, callbacks=[Marks(), callback])
        assert [result.best_epoch for result in callback.results] == best
        assert [result.epochs for result in callback.results] == [2, 3]
        assert callback.best_stage == kept


def test_plateau_and_reached_end_their_stage_only() -> None:
    model = compiled()
    plateau = Stage(
        "a", train="head", epochs=9, learning_rate=1e-7, until=Plateau(patience=2, min_delta=0.1)
    )
    reached = Stage("b", train="head", epochs=9, until=Reached("accuracy", 0.01))
    callback = fit(model, [plateau, reached, ALL], validation_data=HELD)
    assert [result.epochs for result in callback.results] == [3, 1, 2]


def test_reduce_rate_lowers_the_rate_within_its_stage() -> None:
    model = compiled()
    rule = ReduceRate(factor=0.1, patience=1, min_delta=10.0)
    stage = Stage("a", train="head", epochs=3, learning_rate=1e-2, reduce=rule)
    callback = fit(model, [stage, ALL], validation_data=HELD)
    rates = [[row["learning_rate"] for row in r.rows] for r in callback.results]
    # A row tells the rate that its epoch trained with.
    assert rates[0] == pytest.approx([1e-2, 1e-2, 1e-3])
    assert rates[1] == pytest.approx([5e-3, 5e-3])


def test_optimizers_by_stage() -> None:
    kinds: list[tuple[str, float, float]] = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 0:
                optimizer = self.model.optimizer
                rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
                kinds.append((type(optimizer).__name__, rate, getattr(optimizer, "beta_1", -1.0)))

    model = compiled(keras.optimizers.Adam(0.5, beta_1=0.7))
    fit(
        model,
        [
            Stage("a", train="head", epochs=1, learning_rate=1e-2),
            Stage("b", train="head", epochs=1, learning_rate=1e-3, optimizer="sgd"),
            Stage("c", train="all", epochs=1, learning_rate=1e-4, layer_decay=0.5),
        ],
        Look(),
    )
    assert [kind for kind, _, _ in kinds] == ["Adam", "SGD", "LayerRates"]
    assert [rate for _, rate, _ in kinds] == pytest.approx([1e-2, 1e-3, 1e-4])
    assert kinds[0][2] == 0.7
    assert isinstance(model.optimizer, LayerRates)
    assert sorted({factor for _, factor in model.optimizer.factors}) == [0.5, 1.0]


def test_a_rate_schedule_starts_anew_in_its_stage() -> None:
    model = compiled()
    decay = keras.optimizers.schedules.PiecewiseConstantDecay([4], [1e-2, 1e-3])
    stages = [Stage(name, train="head", epochs=2, learning_rate=decay) for name in ("a", "b")]
    callback = fit(model, stages)
    for result in callback.results:
        assert result.rows[-1]["learning_rate"] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "policy",
    [pytest.param("mixed_bfloat16", marks=pytest.mark.slow_on("tensorflow")), "mixed_float16"],
)
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_mixed_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(policy=policy)
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = keras.optimizers.LossScaleOptimizer
    half = policy == "mixed_float16"
    assert isinstance(model.optimizer, scaled) is half
    callback = fit(model, [HEAD, Stage("all", epochs=2, learning_rate=1e-2, optimizer="sgd")])
    assert isinstance(model.optimizer, scaled) is half
    assert moved(callback, 0) == {"head"}
    assert moved(callback, 1) == {"head", "base_mix", "base_dense"}


@functools.cache
def executed(**setting: Any) -> dict[str, np.ndarray]:
    model = compiled(**setting)
    fit(model, [HEAD, ALL], shuffle=False, validation_data=HELD)
    return weights(model)


@pytest.mark.parametrize(
    "setting",
    [
        {"run_eagerly": True},
        # On PyTorch the one takes minutes, and Keras refuses the other.
        pytest.param({"jit_compile": True}, marks=needs_graphs),
        pytest.param({"steps_per_execution": 3}, marks=needs_graphs),
    ],
)
def test_ways_of_execution_give_the_same(setting: dict[str, Any]) -> None:
    for a, b in zip(executed().values(), executed(**setting).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@keras.saving.register_keras_serializable(package="unfreeze_tests")
class Counting(keras.Model):
    """A functional model with a loss of its own."""

    calls = 0

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        Counting.calls += 1
        return 2.0 * super().compute_loss(*args, **kwargs)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_a_model_with_a_training_method_of_its_own() -> None:
    """What `unfreeze.fit` has to refuse, this callback can do."""
    Counting.calls = 0
    callback = fit(compiled(kind=Counting), [HEAD, ALL])
    assert Counting.calls > 0
    assert moved(callback, 0) == {"head"}
    assert moved(callback, 1) == {"head", "base_mix", "base_dense"}


class Heard(keras.callbacks.Callback):
    """Writes down all that it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.events.append("begin")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.events.append(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.events.append(f"batch {batch}" if "loss" in logs else "no loss")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.events.append("test")

    def on_train_end(self, logs: Any = None) -> None:
        self.events.append("end")


def test_callbacks_of_a_stage_hear_their_stage_only() -> None:
    heard = Heard()
    stage = Stage("mine", train="head", epochs=2, callbacks=(heard,))
    fit(compiled(), [HEAD, stage, ALL], batch_size=16, validation_data=HELD)
    epoch = ["batch 0", "batch 1", "test"]
    assert heard.events == ["begin", 0, *epoch, 1, *epoch, "end"]


def test_early_stopping_of_a_stage_ends_that_stage() -> None:
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=100.0)
    stages = [Stage("a", train="head", epochs=9, callbacks=(stop,)), ALL]
    callback = fit(compiled(), stages, validation_data=HELD)
    assert [result.epochs for result in callback.results] == [2, 2]


def test_a_second_fit_runs_the_schedule_again_with_the_compiled_optimizer() -> None:
    model = compiled(keras.optimizers.Adam(beta_1=0.7))
    callback = UnfreezeSchedule([HEAD, Stage("all", epochs=1, optimizer="sgd")])
    for _ in range(2):
        fit(model, callback)
        assert [result.stage for result in callback.results] == ["head", "all"]
    fresh = fit(model, [HEAD])
    assert [result.stage for result in fresh.results] == ["head"]
    assert type(model.optimizer).__name__ == "Adam"
    assert model.optimizer.beta_1 == 0.7


def test_a_stage_with_zero_epochs_is_left_out() -> None:
    callback = fit(compiled(), [HEAD, Stage("none", epochs=0), ALL], epochs=4)
    assert [result.stage for result in callback.results] == ["head", "all"]


def test_presets_by_name_and_the_model_after_fit(tmp_path: Path) -> None:
    model = compiled()
    assert UnfreezeSchedule("two_stage").schedule == two_stage()
    callback = fit(model, two_stage().with_changes(epochs=2), validation_data=HELD)
    assert [result.stage for result in callback.results] == ["head", "all"]
    assert {v.path for v in model.trainable_variables} == {
        f"{name}/{part}"
        for name in ("base_dense", "base_mix", "head")
        for part in ("kernel", "bias")
    }
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6
    )


# Refusals


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (Stage("a", batch_size=8), "batch_size is fixed"),
        (Stage("a", cache="always"), "cache='always' needs unfreeze.fit"),
        (Stage("a", cache="float16"), "cache='float16' needs unfreeze.fit"),
        (Stage("a", views=2), "views=2 needs unfreeze.fit"),
    ],
)
def test_what_one_fit_cannot_do_is_refused_at_once(stage: Stage, reason: str) -> None:
    with pytest.raises(ScheduleError, match=f"stage 'a' inside one model.fit: {reason}"):
        UnfreezeSchedule([HEAD, stage])


def test_a_preset_by_name_leaves_the_batch_size_to_the_data() -> None:
    assert preset("classic").stages[0].batch_size == 128
    stages = UnfreezeSchedule("classic").schedule.stages
    assert [stage.batch_size for stage in stages] == [None, None]
    assert stages[0].epochs == 100


@pytest.mark.parametrize(
    ("schedule", "settings", "reason"),
    [
        ([HEAD, ALL], {"epochs": 3}, "may need 4 epochs, but `fit` has 3: give epochs=4"),
        ([HEAD, ALL], {"epochs": 5, "initial_epoch": 2}, "may need 4 epochs, but `fit` has 3"),
        ([HEAD, Stage("b", train="zzz")], {}, "stage 'b': 'zzz' matches no layer"),
        ([HEAD, Stage("b", optimizer="zzz")], {}, "optimizer 'zzz'"),
        ([HEAD, Stage("b", learning_rate={"default": 1, "zz": 2})], {}, "learning_rate names 'zz'"),
    ],
)
def test_schedules_that_do_not_fit_are_refused_before_training(
    schedule: Any, settings: dict[str, Any], reason: str
) -> None:
    model = compiled()
    before = weights(model)
    with pytest.raises(ScheduleError, match=reason):
        fit(model, schedule, **settings)
    after = weights(model)
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_a_model_that_is_not_compiled_is_refused() -> None:
    callback = UnfreezeSchedule([HEAD])
    with pytest.raises(StageError, match="'toy' is not compiled"):
        callback.set_model(make())


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (
            Stage("a", train="head", until=Reached("val_f1", 0.9)),
            "watches 'val_f1', which the log of `fit` does not have; it has accuracy, loss, val_a",
        ),
        (Stage("a", train="head", reduce=ReduceRate("val_auc")), "watches 'val_auc'"),
    ],
)
def test_a_metric_that_the_log_lacks_is_an_error(stage: Stage, reason: str) -> None:
    with pytest.raises(StageError, match=reason):
        fit(compiled(), [stage], validation_data=HELD)


class NoStep(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        raise AssertionError("a step")


@pytest.mark.parametrize("kind", [keras.Model, keras.Sequential])
@pytest.mark.parametrize(
    ("units", "loss"), [(2, "sparse_categorical_crossentropy"), (1, "binary_crossentropy")]
)
def test_a_metric_that_the_model_lacks_is_told_before_the_first_step(
    kind: Any, units: int, loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    model: Any = keras.Sequential([layers.Input((6,)), layers.Dense(units, "sigmoid")])
    if kind is keras.Model:
        model = keras.Model(model.inputs, model.outputs)
    model.compile("sgd", loss, metrics=["accuracy"])
    stage = Stage("a", train="*", until=Reached("val_accuracies", 0.9, mode="max"))
    schedule = Schedule([stage], monitor="val_f1")
    with pytest.raises(AssertionError, match="a step"):
        fit(model, schedule, NoStep(), validation_data=HELD)
    monitor, rule = (r.message for r in caplog.records if "watches" in r.message)
    assert "monitor watches 'val_f1', which `fit` logs only if a callback before Unf" in monitor
    assert "The model logs accuracy, loss, and the same with val_" in monitor
    assert "`until` of stage 'a' watches 'val_accuracies'" in rule
    assert "Did you mean 'val_accuracy'?" in rule


class OwnStep(keras.Model):
    """A model with code of its own: only its log shows what it measures."""

    def train_step(self, *args: Any) -> Any:
        return super().train_step(*args)


class NoSecondStep(keras.callbacks.Callback):
    """Ends `fit` after its first step. It listens, so that Keras waits for each log."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch:
            raise AssertionError("a second step")


@pytest.mark.on_each_backend
def test_what_a_model_with_code_of_its_own_lacks_is_told_after_the_first_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage("a", train="head", until=Reached("val_accuracies", 0.9, mode="max"))
    schedule = Schedule([stage], monitor="val_f1")
    with pytest.raises(AssertionError, match="a second step"):
        fit(compiled(kind=OwnStep), schedule, NoSecondStep(), validation_data=HELD)
    monitor, rule = (r.message for r in caplog.records if "watches" in r.message)
    assert "only if a callback before UnfreezeSchedule, or `test_step`, adds it" in monitor
    assert "The model logs accuracy, loss, and the same with val_" in monitor
    assert "Did you mean 'val_accuracy'?" in rule


def test_its_log_is_read_once_and_without_waiting_for_each_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = []
    good = Schedule([HEAD], monitor="val_accuracy")
    callback = UnfreezeSchedule(good)
    assert callback.async_safe
    compiled(kind=OwnStep).fit(
        X, Y, batch_size=8, epochs=9, validation_data=HELD, callbacks=[callback], verbose=0
    )
    assert callback.best_stage == HEAD.name
    assert not [r for r in caplog.records if "watches" in r.message]

    class Batches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(logs["loss"])

    own = Stage("a", train="head", epochs=1, callbacks=[Batches])
    assert not UnfreezeSchedule([own]).async_safe
    fit(compiled(), [own], validation_data=HELD)
    assert len(seen) == len(TRAIN[0]) // 8


def test_metrics_that_there_will_be_or_may_be_are_not_doubted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = Schedule([HEAD], monitor="val_accuracy")
    for model, schedule in (
        (compiled(), good),
        (compiled(kind=OwnStep), Schedule([HEAD], monitor="own_score")),
    ):
        with pytest.raises(AssertionError, match="a step"):
            fit(model, schedule, NoStep())
    assert not [r for r in caplog.records if "watches" in r.message]


def test_validation_in_some_epochs_only_is_an_error() -> None:
    with pytest.raises(StageError, match="validation_freq=1"):
        fit(compiled(), [HEAD, ALL], validation_data=HELD, validation_freq=2)


def test_training_ended_by_another_callback_is_an_error_that_names_what_is_left() -> None:
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=100.0)
    model = compiled()
    callback = UnfreezeSchedule([Stage("long", train="head", epochs=9), ALL])
    with pytest.raises(
        StageError, match=r"another callback ended training before these stages: all\."
    ):
        fit(model, callback, stop, validation_data=HELD)
    assert [result.stage for result in callback.results] == ["long"]


def test_early_stopping_in_the_last_stage_is_fine() -> None:
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=100.0)
    stage = Stage("only", train="head", epochs=9)
    callback = fit(compiled(), [stage], stop, validation_data=HELD)
    assert [result.epochs for result in callback.results] == [2]


def test_backup_and_restore_is_refused_when_it_would_resume(tmp_path: Path) -> None:
    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    model = compiled()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(model, [HEAD, ALL], backup, Crash())
    again = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(StageError, match="BackupAndRestore cannot resume"):
        fit(model, [HEAD, ALL], again)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_flags_changed_by_another_callback_are_an_error() -> None:
    class Meddle(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.get_layer("base_mix").trainable = True

    with pytest.raises(StageError, match=r"unfrozen without a new compile.*base_mix"):
        fit(compiled(), [HEAD, ALL], Meddle())


def test_frozen_weights_that_somebody_assigns_are_an_error() -> None:
    class Meddle(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.get_layer("base_mix").bias.assign(np.ones(8))

    with pytest.raises(
        StageError, match="stage 'head' moved layers that it keeps frozen: base_mix"
    ):
        fit(compiled(), [HEAD, ALL], Meddle())


def test_a_loss_that_diverges_is_an_error_and_the_best_weights_come_back() -> None:
    model = compiled("sgd")
    x = X.copy()
    x[0] = np.nan
    before = weights(model)
    with pytest.raises(StageError, match="stage 'head': the loss was not finite in its epoch 1"):
        model.fit(x, Y, epochs=4, verbose=0, callbacks=[UnfreezeSchedule([HEAD, ALL])])
    assert np.array_equal(before["base_mix/kernel"], weights(model)["base_mix/kernel"])


def test_it_works_inside_fit_only() -> None:
    with pytest.raises(StageError, match=r"inside model\.fit only"):
        UnfreezeSchedule([HEAD]).on_epoch_end(0, {})


def test_stage_callbacks_may_be_classes() -> None:
    class Mine(StageCallback):
        made = 0

        def on_train_begin(self, logs: Any = None) -> None:
            Mine.made += 1

    fit(compiled(), Schedule((Stage("a", train="head", epochs=1, callbacks=(Mine,)),)))
    assert Mine.made == 1


def test_without_validation_data_rules_watch_the_training_data() -> None:
    rules = {"until": Plateau("val_loss", patience=1, min_delta=10.0), "learning_rate": 0.01}
    stages = [Stage("a", train="head", epochs=5, **rules), Stage("b", epochs=5, **rules)]
    callback = fit(compiled(), stages)
    # The second epoch is no gain of 10.
    assert [result.epochs for result in callback.results] == [2, 2]


@pytest.mark.on_each_backend
def test_a_thread_of_keras_never_reads_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """On JAX the next step has them already."""
    reads = UnfreezeSchedule.model.fget
    seen = []

    def model(self: Any) -> Any:
        seen.append(threading.current_thread() is threading.main_thread())
        return reads(self)

    monkeypatch.setattr(UnfreezeSchedule, "model", property(model))
    fit(compiled(kind=OwnStep), [HEAD])
    assert seen
    assert all(seen)
