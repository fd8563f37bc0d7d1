"""The standard error of the validation loss: equal to numpy by hand, and what it decides."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from small_runs import HELD, make, run
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import fit
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.standard_error import Moments

RNG = np.random.default_rng(5)
WEIGHTS = RNG.uniform(0.2, 2.0, size=8).astype("float32")


def schedule(monitor="val_loss", cache="auto", **fields):
    head = Stage("head", "head", epochs=2, learning_rate=0.05, cache=cache, **fields)
    last = Stage("last", "head", epochs=2, learning_rate=0.01, keep="last", cache=cache)
    return Schedule((head, last), monitor=monitor)


def losses_of(model, x=HELD[0], y=HELD[1]):
    likely = np.asarray(model.predict(x, verbose=0), float)[np.arange(len(y)), y]
    return -np.log(likely)


def error_of(values, weights=None):
    """By hand: of a mean with weights, in the log's scale."""
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    residuals = weights * (values - np.average(values, weights=weights))
    n = np.count_nonzero(weights)
    return np.sqrt((residuals**2).sum() * n / (n - 1)) / len(values)


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    "cache",
    ["always", pytest.param("never", marks=pytest.mark.slow_on("tensorflow", "jax"))],
)
def test_it_is_the_deviation_of_the_samples_losses(cache):
    model = make()
    # Batches of 3, so that the last one is smaller.
    result = run(model, schedule(cache=cache), batch_size=3)
    (_, last) = result.stages
    assert result.best_stage == "last"
    losses = losses_of(model)
    assert last.best_value == pytest.approx(losses.mean(), rel=1e-5)
    assert last.error == pytest.approx(losses.std(ddof=1) / np.sqrt(8), rel=1e-4)
    assert last.error == pytest.approx(error_of(losses), rel=1e-4)
    assert [row["val_loss_error"] > 0 for row in result.history] == [True] * 4


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_sample_weights_count():
    model = make()
    weights = np.where(np.arange(8) == 2, 0, WEIGHTS)
    result = run(model, schedule(), validation_data=(*HELD, weights), batch_size=3)
    losses = losses_of(model)
    assert result.stages[-1].best_value == pytest.approx((weights * losses).mean(), rel=1e-5)
    assert result.stages[-1].error == pytest.approx(error_of(losses, weights), rel=1e-4)


def test_regularization_has_no_error():
    plain, heavy = make(), make(kernel_regularizer=keras.regularizers.L2(0.1))
    for model in (plain, heavy):
        result = run(model, schedule())
        assert result.stages[-1].error == pytest.approx(error_of(losses_of(model)), rel=1e-4)
    assert result.stages[-1].best_value > losses_of(heavy).mean() + 1e-3


@pytest.mark.parametrize("monitor", ["val_accuracy", "auto"])
def test_accuracy_has_that_of_a_share(monitor):
    model = make()
    (_, last) = run(model, schedule(monitor), batch_size=3).stages
    share = (model.predict(HELD[0], verbose=0).argmax(1) == HELD[1]).mean()
    assert (last.monitor, last.best_value) == ("val_accuracy", pytest.approx(share))
    assert last.error == pytest.approx(np.sqrt(share * (1 - share) / 7), rel=1e-5)


def test_a_weighted_metric_has_that_of_a_weighted_share():
    model = make()
    metric = keras.metrics.SparseCategoricalAccuracy("share_accuracy")
    model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=[metric])
    (_, last) = run(
        model, schedule("val_share_accuracy"), validation_data=(*HELD, WEIGHTS), batch_size=3
    ).stages
    hits = (model.predict(HELD[0], verbose=0).argmax(1) == HELD[1]).astype(float)
    assert last.best_value == pytest.approx(np.average(hits, weights=WEIGHTS), rel=1e-5)
    expected = error_of(hits, WEIGHTS) * 8 / WEIGHTS.sum()
    assert last.error == pytest.approx(expected, rel=1e-5)


def test_a_mean_over_a_sample_s_numbers_counts_samples():
    # Eight samples of six numbers each are eight draws, not 48.
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="low"), layers.Dense(6)])
    x, y = RNG.normal(size=(20, 4)), RNG.normal(size=(20, 6))
    held = (RNG.normal(size=(8, 4)), RNG.normal(size=(8, 6)))
    stages = [Stage("a", "all", epochs=1), Stage("b", "all", epochs=1, keep="last")]
    plan = Schedule(tuple(stages), monitor="val_mae")
    result = fit(model, plan, (x, y), validation_data=held, batch_size=3, seed=1, verbose=0)
    wrong = np.asarray(model.predict(held[0], verbose=0), float) - held[1]
    row = result.history[-1]
    assert row["val_mae_error"] == pytest.approx(error_of(np.abs(wrong).mean(1)), rel=1e-4)
    assert row["val_loss_error"] == pytest.approx(error_of((wrong**2).mean(1)), rel=1e-4)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_losses_of_several_outputs_are_added_by_their_weights():
    model, x, y, held = two_outputs()
    result = fit(model, schedule(), (x, y), validation_data=held, batch_size=3, seed=1, verbose=0)
    first, second = (np.asarray(part, float) for part in model.predict(held[0], verbose=0))
    own = ((first - held[1][0]) ** 2).mean(1) + 3 * np.abs(second - held[1][1]).mean(1)
    assert result.stages[-1].best_value == pytest.approx(own.mean(), rel=1e-5)
    assert result.stages[-1].error == pytest.approx(error_of(own), rel=1e-4)


def two_outputs():
    inputs = keras.Input((4,))
    low = layers.Dense(5, "tanh", name="low")(inputs)
    outputs = [layers.Dense(2, name="head_a")(low), layers.Dense(3, name="head_b")(low)]
    model = keras.Model(inputs, outputs)
    model.compile("adam", loss=["mse", "mae"], loss_weights=[1.0, 3.0])
    x = RNG.normal(size=(29, 4)).astype("float32")
    y = [RNG.normal(size=(29, size)).astype("float32") for size in (2, 3)]
    held = (x[21:], [part[21:] for part in y])
    return model, x[:21], [part[:21] for part in y], held


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_masked_positions_and_reductions_are_those_of_the_loss(reduction):
    model, x, y = tagger()
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    stages = [Stage("a", "all", epochs=1), Stage("b", "all", epochs=1, keep="last")]
    result = fit(
        *(model, stages, (x, y)), validation_data=(x, y), loss=loss, metrics=[], seed=1, verbose=0
    )
    likely = np.take_along_axis(np.asarray(model.predict(x, verbose=0), float), y[..., None], 2)
    known = (x > 0).astype(float)
    losses = (-np.log(likely[..., 0]) * known).sum(1)
    total, counts = losses.sum(), known.sum(1)
    divisor = 1 if reduction == "sum" else counts.sum()
    assert result.stages[-1].best_value == pytest.approx(total / divisor, rel=1e-4)
    residuals = losses - total / counts.sum() * counts
    expected = np.sqrt((residuals**2).sum() * 12 / 11) / divisor
    assert result.stages[-1].error == pytest.approx(expected, rel=1e-3)


def tagger():
    inputs = keras.Input((5,), dtype="int32")
    hidden = layers.Embedding(9, 4, mask_zero=True, name="words")(inputs)
    outputs = layers.Dense(3, "softmax", name="head")(hidden)
    x = RNG.integers(1, 9, size=(12, 5))
    x[::2, 3:] = 0
    return keras.Model(inputs, outputs), x, RNG.integers(0, 3, size=(12, 5))


def test_it_decides_that_a_last_stage_is_kept():
    # The rate of the second stage is too high for its loss, but not by more than chance.
    head = Stage("head", "head", epochs=4, learning_rate=0.05)
    last = Stage("last", "head", epochs=1, learning_rate=0.01, optimizer="sgd", keep="last")
    notes = Notes()
    result = run(make(), [head, last], callbacks=[notes], class_weight={0: 30.0, 1: 1.0})
    first, second = result.stages
    assert 0 < second.best_value - first.best_value < np.hypot(first.error, second.error)
    assert result.best_stage == "last"
    assert any("by no more than its standard error" in note for note in notes.told)
    far = Stage("far", "head", epochs=1, learning_rate=50.0, optimizer="sgd", keep="last")
    assert run(make(), [head, far]).best_stage == "head"


def test_a_resumed_run_knows_the_errors_of_its_finished_stages(tmp_path):
    whole = run(make(), schedule(), run_dir=tmp_path)
    again = run(make(), schedule(), run_dir=tmp_path)
    assert [stage.error for stage in again.stages] == [stage.error for stage in whole.stages]
    assert again.stages[0].error > 0


class TrueScore(keras.metrics.Metric):
    """A score of which nobody knows that it is a mean over samples."""

    def __init__(self):
        super().__init__(name="true_score")
        self.value = self.add_variable((), "zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        labels = keras.ops.one_hot(keras.ops.reshape(y_true, (-1,)), 2)
        self.value.assign(keras.ops.sum(labels * y_pred))

    def result(self):
        return self.value + 0

    @classmethod
    def from_config(cls, config):
        return cls()


def test_a_monitor_that_is_no_mean_says_that_it_has_no_error():
    head, _ = schedule()
    worse = Stage("worse", "head", epochs=1, learning_rate=50.0, optimizer="sgd", keep="last")
    plan, notes = Schedule((head, worse), monitor="val_true_score"), Notes()
    result = run(make(), plan, metrics=[TrueScore()], callbacks=[notes])
    assert [stage.error for stage in result.stages] == [0.0, 0.0]
    assert result.best_stage == "head"
    assert any("val_true_score is not a mean over validation samples" in n for n in notes.told)


@pytest.mark.parametrize("kind", ["none", "call"])
def test_a_loss_without_values_of_samples_has_none(kind):
    class Whole(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(keras.ops.square(y_pred[:, 0] - y_true))

    class Own(Whole):
        def __call__(self, y_true, y_pred, sample_weight=None):
            y_true = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "float32")
            return keras.ops.mean(keras.ops.square(y_pred[:, 0] - y_true))

    result = run(make(), schedule(), loss=(Own if kind == "call" else Whole)(), metrics=[])
    assert [stage.error for stage in result.stages] == [0.0, 0.0]
    assert np.isfinite(result.history[-1]["val_loss"])


def test_nothing_is_added_to_the_log_where_it_decides_nothing():
    assert "val_loss_error" not in run(make(), "two_stage").history[-1]


@given(st.lists(st.floats(0, 1e3, width=32), min_size=2, max_size=40), st.integers(1, 7))
def test_batches_do_not_matter(values, size):
    moments = Moments("loss")
    array = np.array(values, "float32")
    for start in range(0, len(array), size):
        part = array[start : start + size]
        moments.update_state([(part, np.ones_like(part))])
    exact = np.std(array.astype(float), ddof=1) / np.sqrt(len(array))
    assert moments.error() == pytest.approx(exact, rel=1e-2, abs=1e-3 * float(array.max()))


class Notes(StageCallback):
    def __init__(self) -> None:
        super().__init__()
        self.told = []

    def on_note(self, text):
        self.told.append(text)
