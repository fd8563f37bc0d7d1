"""Stage after stage: what is handed on, what is refused."""

import keras
import numpy as np
import pytest
from keras import layers

from small_runs import HEAD, HELD, TWO, X, Y, assert_same_weights, make, run, weights_of
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import fit
from unfreeze.core.schedule import Plateau, Reached, Stage
from unfreeze.core.stage_caching import make_ready
from unfreeze.errors import ScheduleError, StageError


def test_the_best_stage_wins():
    model = make()
    worse = Stage("worse", "head", epochs=1, learning_rate=300.0, optimizer="sgd")
    result = run(model, [*HEAD, worse])
    assert result.best_stage == "head"
    assert result.history[-1]["val_loss"] > result.stages[0].best_value
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
    prepared, notes = [], []

    def watched(whole, selection, *args):
        prepared.append(selection.stage.name)
        return make_ready(whole, selection, *args)

    class Listener(StageCallback):
        def on_note(self, text):
            notes.append(text)

    monkeypatch.setattr("unfreeze.core.fit.make_ready", watched)
    stages = [Stage("idle", "conv", epochs=0, cache="always"), Stage("head", "head", epochs=1)]
    result = run(schedule=stages, callbacks=[Listener()])
    assert [stage.stage for stage in result.stages] == prepared == ["head"]
    assert "stage 'idle' has 0 epochs: skipped" in notes


def test_layers_named_twice_train_once():
    once, twice = make(), make()
    run(once, [Stage("s", ["head"], epochs=2)])
    result = run(twice, [Stage("s", ["head", "head", "h*", twice.get_layer("head")], epochs=2)])
    assert_same_weights(once, twice)
    assert result.stages[0].trained_weights == 8


def test_each_stage_starts_from_the_best_weights_of_the_one_before():
    starts = []

    class Starts(StageCallback):
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


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
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
        Stage("plateau", "head", epochs=20, learning_rate=2.0, until=Plateau(patience=2)),
        Stage("reached", "head", epochs=9, learning_rate=1e-3, until=Reached("val_loss", 99.0)),
    ]
    result = run(schedule=stages)
    assert result.stages[0].epochs < 20
    assert result.stages[1].epochs == 1


def test_a_rule_for_a_metric_that_is_not_there_says_what_there_is():
    message = r"'val_recall', which the training log will not have.*It will have: .*val_accuracy"
    with pytest.raises(ScheduleError, match=message):
        run(schedule=[Stage("s", "head", until=Plateau("val_recall"))])


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
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


@pytest.mark.parametrize("where", ["fit", "stage"])
def test_backups_of_one_fit_are_refused(where, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    stage = Stage("s", "head", epochs=1, callbacks=[backup] if where == "stage" else [])
    with pytest.raises(ScheduleError, match="give run_dir instead"):
        run(schedule=[stage], callbacks=[backup] if where == "fit" else [])


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


@pytest.mark.parametrize(
    ("name", "value"),
    [("conv", True), pytest.param("head", False, marks=pytest.mark.slow_on("tensorflow"))],
)
@pytest.mark.parametrize(
    "last", [pytest.param(False, marks=pytest.mark.slow_on("tensorflow")), True]
)
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_flags_that_a_callback_changes_in_a_stage_are_found(name, value, last):
    """The common mistake: unfreezing (or freezing) without a new compile."""
    model = make()

    class Flip(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == int(last):
                model.get_layer(name).trainable = value

    with pytest.raises(
        StageError, match=f"'s': `trainable` was changed while the stage ran, for {name}"
    ):
        run(model, [Stage("s", "head", epochs=2)], callbacks=[Flip()])


def test_flags_that_a_callback_sets_to_what_they_are_do_no_harm():
    model = make()

    class Set(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            model.get_layer("conv").trainable = False
            model.get_layer("head").trainable = True

    assert run(model, [Stage("s", "head", epochs=2)], callbacks=[Set()]).history


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_flags_that_change_within_an_epoch_are_found_too():
    model = make()

    class Flip(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            model.get_layer("conv").trainable = True

    with pytest.raises(StageError, match="`trainable` was changed while the stage ran, for conv"):
        run(model, [Stage("s", "head", epochs=1, cache="never")], callbacks=[Flip()])


def test_a_callback_that_moves_frozen_weights_is_caught():
    model = make()

    class Meddle(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            kernel = model.get_layer("conv").kernel
            kernel.assign(keras.ops.convert_to_numpy(kernel) + 1.0)

    with pytest.raises(StageError, match=r"keeps frozen: conv \(kernel\)"):
        run(model, [Stage("s", "head", epochs=2)], callbacks=[Meddle()])


def below_zero(shape, dtype=None):
    return -np.ones(shape, "float32")


def test_units_without_a_gradient_fail_the_stage_after_its_first_epoch():
    model = make(activation="relu", kernel_initializer="zeros", bias_initializer=below_zero)
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
    with pytest.raises(ScheduleError, match=r"overrides `train_step`.*UnfreezeSchedule"):
        fit(Own(x, layers.Dense(1)(x)), "full", (np.ones((4, 2)), np.ones(4)))
