"""What a model was compiled with is used by stages, or refused."""

import keras
import numpy as np
import pytest

from small_runs import HEAD, X, Y, assert_same_weights, make, run
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.objective import compile_settings
from unfreeze.core.optimizers import compiled_before, with_compiled
from unfreeze.core.presets import preset
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.errors import ScheduleError

LOSS = "sparse_categorical_crossentropy"


class Look(StageCallback):
    """The model of the stage, as it was compiled; and the notes."""

    def __init__(self) -> None:
        super().__init__()
        self.settings, self.notes = [], []

    def on_train_begin(self, logs=None):
        model = self.model
        settings = (model.run_eagerly, model.steps_per_execution, model.jit_compile)
        self.settings.append((type(model.optimizer).__name__, *settings))

    def on_note(self, text):
        self.notes.append(text)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_optimizer_eager_steps_and_weights_of_losses_are_taken_over():
    model, look = make(), Look()
    sgd = keras.optimizers.SGD(7.0, momentum=0.5)
    weights = {"loss_weights": [3.0], "weighted_metrics": ["accuracy"]}
    model.compile(sgd, LOSS, run_eagerly=True, **weights)
    result = run(model, HEAD, callbacks=[look])
    assert look.settings == [("SGD", True, 1, False)]
    note = "SGD, with which the model was compiled, is the optimizer of 'head', at their rates"
    assert note in look.notes
    # As if the stage had that optimizer, and the loss were three times as large.
    other = make()
    stage = Stage("head", "head", epochs=2, learning_rate=0.05, optimizer=sgd)
    told = run(other, [stage], loss=lambda y, p: 3 * keras.losses.get(LOSS)(y, p))
    assert_same_weights(model, other, atol=1e-6)
    assert result.history[0]["loss"] == pytest.approx(told.history[0]["loss"], rel=1e-5)
    assert "val_weighted_accuracy" in result.history[0] or "val_accuracy" in result.history[0]
    # The model is left as the user had compiled it, and a second run begins from there.
    assert model.run_eagerly
    assert compiled_before(model) is sgd
    assert sgd.get_config()["learning_rate"] == pytest.approx(7.0)
    # A loss given to `fit` takes the place of the loss alone.
    row = run(model, HEAD.with_changes(epochs=1), loss=LOSS).history[0]
    assert {"weighted_accuracy", "accuracy"} & set(row)
    assert row["loss"] > 1.0


@pytest.mark.needs_backend("tensorflow", "jax")
def test_several_steps_in_a_call_are_those_of_the_user():
    model, look = make(), Look()
    model.compile("adam", LOSS, steps_per_execution=2, jit_compile=False)
    run(model, HEAD.with_changes(epochs=1), callbacks=[look])
    assert look.settings == [("Adam", False, 2, False)]
    assert model.steps_per_execution == 2


def test_several_steps_on_a_backend_without_them_are_refused(monkeypatch):
    model = make()
    model.compile("adam", LOSS, steps_per_execution=2)
    monkeypatch.setattr("unfreeze.core.objective.takes_several_steps", lambda: False)
    with pytest.raises(ScheduleError, match="steps_per_execution=2, which Keras does not have"):
        run(model, HEAD)


def test_how_steps_are_run():
    assert compile_settings(make(), "auto") == {"jit_compile": "auto"}
    model = make()
    model.compile("adam", LOSS, auto_scale_loss=False, jit_compile=True)
    assert compile_settings(model, "auto") == {"jit_compile": True}
    assert compile_settings(model, False)["jit_compile"] is False
    model.compile("adam", LOSS, run_eagerly=True)
    assert compile_settings(model, "auto")["steps_per_execution"] == 1


def test_without_loss_scale_where_the_user_turned_it_off():
    keras.config.set_dtype_policy("mixed_float16")
    model, look = make(dtype="float32"), Look()
    model.compile(keras.optimizers.SGD(), LOSS, auto_scale_loss=False)
    run(model, HEAD.with_changes(epochs=1), callbacks=[look], data=(X, Y))
    assert look.settings[0][0] == "SGD"


def test_only_stages_without_an_optimizer_take_it():
    plan = Schedule([*HEAD, Stage("own", optimizer="sgd"), Stage("solved", "head", solve=True)])
    rms = keras.optimizers.RMSprop(3.0, rho=0.7)
    stages = with_compiled(plan, rms).stages
    assert [type(s.optimizer).__name__ for s in stages] == ["RMSprop", "str", "NoneType"]
    config = stages[0].optimizer.get_config()
    assert (config["rho"], config["learning_rate"]) == (0.7, pytest.approx(1e-3))
    # The default one, however it is given, is no change: older run folders stay valid.
    for same in (None, "adam", keras.optimizers.Adam(0.3, name="mine")):
        assert with_compiled(plan, same) is plan
    assert with_compiled(plan, keras.optimizers.Adam(beta_1=0.8)) is not plan
    assert with_compiled(preset("probe"), rms).stages == preset("probe").stages


def test_what_cannot_be_taken_over_is_refused():
    many = keras.optimizers.MultiOptimizer(lambda v: keras.optimizers.SGD())
    with pytest.raises(ScheduleError, match=r"stage 'head' has no optimizer.*a MultiOptimizer"):
        with_compiled(HEAD, many)
    model = make()
    model.compile(many, LOSS)
    before = model.get_weights()
    with pytest.raises(ScheduleError, match="give the stage one, or compile the model with"):
        run(model, HEAD)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
