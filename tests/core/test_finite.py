"""No weight that is NaN or infinite is ever kept, and the samples at fault are named."""

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze import Stage, UnfreezeSchedule, fit
from unfreeze.core.data import Rows, ShuffledRows, Stream
from unfreeze.core.finite import faults, find_cause, is_finite, not_finite, warning
from unfreeze.errors import StageError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(48, 8, 8, 3)).astype("float32")
Y = np.arange(48) % 2
HELD = (X[:12], Y[:12])
ALL = {"train": "all", "batch_norm": "train", "learning_rate": 1e-3, "epochs": 2}


def spoiled(part: np.ndarray, row: int, value: float = np.nan) -> np.ndarray:
    part = part.copy()
    part[row] = value
    return part


def make(activation: str | None = "softmax") -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(6, 3, strides=2, use_bias=False, name="conv1")(x)
    y = layers.LeakyReLU()(layers.BatchNormalization(name="norm1")(y))
    y = layers.LeakyReLU()(layers.Conv2D(6, 2, name="conv2")(y))
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, layers.Dense(2, activation, name="head")(y))


def refused(model, stage, data, match, **more):
    """Fit, expect a `StageError`, and give the weights before and after."""
    before = model.get_weights()
    with pytest.raises(StageError, match=match):
        fit(model, [Stage(**{"name": "s", **stage})], data, seed=0, verbose=0, **more)
    after = model.get_weights()
    assert all(np.isfinite(w).all() for w in after)
    return before, after


@pytest.mark.parametrize(
    ("value", "more"),
    [(np.nan, {}), (np.nan, {"fuse": False}), (np.inf, {})],
    ids=["nan", "nan, plain", "inf"],
)
@pytest.mark.parametrize(
    "stage",
    [
        ALL,
        {**ALL, "batch_norm": "frozen", "keep": "last"},
        {"train": "head", "epochs": 3, "cache": "always"},
        {"train": "head", "epochs": 3, "cache": "never"},
    ],
    ids=["all", "last", "cached", "uncached"],
)
def test_one_bad_sample_ends_the_stage_and_leaves_the_model_as_it_was(stage, more, value):
    before, after = refused(
        make(), stage, (spoiled(X, 3, value), Y), "x of train, sample 3", **more
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_solver_names_the_sample_too():
    stage = {"train": "head", "solve": True, "epochs": 2}
    refused(make(), stage, (spoiled(X, 3), Y), r"frozen layers are not finite.*samples 3")
    weights = spoiled(np.ones(48, "float32"), 7)
    refused(make(), stage, (X, Y, weights), r"sample weights are not finite.*samples 7")


@pytest.mark.slow_on("tensorflow")
@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_nan_in_weights_of_samples_and_in_labels():
    weights = spoiled(np.ones(48, "float32"), 7)
    refused(make(), ALL, (X, Y, weights), "sample_weight of train, sample 7")
    labels = np.stack([Y, 1 - Y], axis=1).astype("float32")
    labels[[5, 9], 1] = np.inf
    refused(make(None), ALL, (X, labels), "y of train, samples 5, 9", loss="mse")


def test_a_bad_batch_of_a_dataset_is_named():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            part = slice(12 * index, 12 * index + 12)
            return spoiled(X, 30)[part], Y[part]

    refused(make(), ALL, Batches(), "x of train, batch 2")


def test_a_rate_that_is_too_high_is_said_to_be_one():
    stage = {**ALL, "optimizer": keras.optimizers.SGD(), "learning_rate": 1e30}
    refused(
        make(), stage, (X, Y), "rate that is too high; the data are finite", validation_data=HELD
    )


def test_validation_data_with_nan_end_the_stage_after_one_epoch():
    ends = []

    class Ends(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ends.append(epoch)

    before, after = refused(
        make(),
        {**ALL, "epochs": 4},
        (X, Y),
        r"val_loss was not finite in any epoch.*x of validation_data, sample 2\.",
        validation_data=(spoiled(HELD[0], 2), HELD[1]),
        callbacks=[Ends()],
    )
    assert ends == [0]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


class Break(keras.callbacks.Callback):
    """Makes a variable infinite before the third epoch."""

    def __init__(self, choose):
        super().__init__()
        self.choose, self.seen = choose, []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            variable = self.choose(self.model)
            variable.assign(np.full(variable.shape, np.inf))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(logs["loss"])


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_statistics_that_no_loss_shows_are_found_and_the_best_epoch_comes_back():
    # In training mode the statistics are written, but not read.
    broken = Break(lambda model: model.get_layer("norm1").moving_variance)
    model = make()
    kept = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept.append([w.copy() for w in model.get_weights()])

    refused(
        model,
        {**ALL, "epochs": 5},
        (X, Y),
        r"weights were not finite \(norm1/moving_variance\) in epoch 3.*weights of epoch 2",
        callbacks=[Keep(), broken],
    )
    assert np.isfinite(broken.seen).all()
    assert len(broken.seen) == 3
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), kept[1], strict=True))


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_an_optimizer_with_infinite_state_ends_the_stage():
    def largest(model):
        return next(v for v in model.optimizer.variables if "velocity_hat" in v.path)

    # Adam divides by it: such weights no longer move, and stay finite.
    refused(
        make(),
        {**ALL, "epochs": 5, "optimizer": keras.optimizers.Adam(amsgrad=True)},
        (X, Y),
        r"optimizer's state was not finite.*in epoch 3.*weights of epoch 2",
        callbacks=[Break(largest)],
    )


def test_an_error_of_a_callback_leaves_no_nan_behind():
    class Angry(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise ValueError("enough")

    model = make()
    with pytest.raises(ValueError, match="enough"):
        fit(
            model, [Stage("s", **ALL)], (np.full_like(X, np.nan), Y), callbacks=[Angry()], verbose=0
        )
    assert not not_finite(model.weights)


def test_scores_do_not_see_nan():
    def score(outputs):
        raise AssertionError("called")

    held = (spoiled(HELD[0], 2), HELD[1])
    with pytest.raises(StageError, match="outputs for validation samples 2 are NaN"):
        fit(
            make(),
            [Stage("s", **ALL)],
            (X, Y),
            validation_data=held,
            validation_scores=score,
            verbose=0,
        )


def test_a_model_that_is_broken_already_is_refused():
    model = make()
    model.get_layer("conv2").bias.assign(np.full(6, np.nan))
    with pytest.raises(StageError, match=r"before the first stage: conv2/bias\. Build or load"):
        fit(model, [Stage("s", **ALL)], (X, Y), verbose=0)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_inside_a_fit_of_ones_own():
    model = make()
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    schedule = UnfreezeSchedule([Stage("s", **ALL)])
    with pytest.raises(StageError, match=r"not finite.*epoch 1.*start of the stage"):
        model.fit(spoiled(X, 3), Y, epochs=2, verbose=0, callbacks=[schedule])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not not_finite(model.optimizer.variables)
    with pytest.raises(StageError, match=r"val_loss was not finite in any epoch.*start of the st"):
        model.fit(
            X, Y, validation_data=(spoiled(X, 3), Y), epochs=2, verbose=0, callbacks=[schedule]
        )
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_what_counts_as_finite():
    assert is_finite(np.zeros(0))
    assert is_finite(np.array(["a"]))
    assert is_finite(np.arange(3))
    assert not is_finite(np.array([1.0, np.nan]))
    assert not is_finite(np.array([-np.inf, 1.0]))
    half = keras.Variable(np.array([1.0, np.inf]), dtype="bfloat16")
    whole = keras.Variable([1, 2], dtype="int32", trainable=False)
    assert not_finite([half, keras.Variable(np.ones(2)), whole]) == [half.path]


def test_a_cache_that_overflows_is_told_from_bad_data():
    train = Rows((X,), Y, None, 48)
    bad = spoiled(np.zeros((48, 4), "float16"), 11, np.inf)
    fed = ShuffledRows(Rows((bad,), Y, None, 48), 8, 0)
    cause = find_cause(train, None, fed)
    assert "training samples 11, whose inputs are" in cause
    assert "cache='always'" in cause
    assert "sample 4" in find_cause(Rows((spoiled(X, 4),), Y, None, 48), None, fed)


def test_numbers_beyond_float32_are_infinite_to_the_model():
    rows = Rows((np.array([[1.0], [1e39]]),), np.zeros(2), None, 2)
    assert list(faults(rows, "train")) == ["x of train, sample 1"]


def test_data_with_nan_are_told_of_before_the_training():
    rows = Rows((X, spoiled(X, 5)), Y, None, 48)
    assert warning(rows, "train") == (
        "NaN or infinity in x[1] of train, sample 5: does the model expect that?"
    )
    assert warning(Rows((X,), Y, None, 48), "train") is None
    # Of a dataset, the first batch.
    assert warning(Stream([(X, Y), (spoiled(X, 5), Y)], ("x",)), "train") is None
    assert warning(Stream([(spoiled(X, 5), Y)], ("x",)), "validation_data") == (
        "NaN or infinity in x of validation_data, batch 0: does the model expect that?"
    )
