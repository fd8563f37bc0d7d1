"""The range test finds a usable rate and leaves no trace."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze.core.find_lr import LearningRateRange, find_lr
from unfreeze.core.optimizers import stage_optimizer
from unfreeze.errors import DataError, ScheduleError, StageError


def make_data(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)).astype("float32")
    return x, (x @ rng.normal(size=(6, 3))).argmax(axis=1)


def make_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, name="low"), layers.BatchNormalization()], name="base"
    )
    inputs = keras.Input((6,))
    x = layers.Dropout(0.3)(layers.ReLU()(base(inputs)))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))


def line() -> keras.Model:
    """One weight w, of loss (w - y)^2: descent diverges above the rate 1."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])


def points(n: int = 512) -> tuple[np.ndarray, np.ndarray]:
    y = np.random.default_rng(0).normal(3.0, 1.0, size=(n, 1)).astype("float32")
    return np.ones_like(y), y


LINE = (np.ones((8, 1), "float32"), np.full((8, 1), 3.0, "float32"))


def everything(model: keras.Model) -> dict[str, list[np.ndarray] | list[bool]]:
    found: dict[str, list] = {
        "variables": [v.numpy() for v in model.variables],
        "flags": [v.trainable for v in model.variables]
        + [layer.trainable for layer in model.layers],
    }
    if model.compiled:
        found["optimizer"] = [v.numpy() for v in model.optimizer.variables]
    return found


@pytest.mark.parametrize("frozen", ["nothing", "base", "statistics"])
def test_the_model_comes_back_as_it_was(frozen: str) -> None:
    model, (x, y) = make_model(), make_data()
    if frozen != "nothing":
        model.get_layer("base").trainable = False
    if frozen == "statistics":  # as the batch-norm policy "affine" does
        norm = model.get_layer("base").layers[-1]
        norm.gamma.trainable = norm.beta.trainable = True
    optimizer = keras.optimizers.Adam(0.003)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, verbose=0)  # the optimizer has slots, the dropout has drawn
    before = everything(model)

    found = find_lr(model, (x, y), steps=30, highest=10.0)

    after = everything(model)
    assert model.optimizer is optimizer
    assert len(before["optimizer"]) > 4
    for kind, values in before.items():
        for old, new in zip(values, after[kind], strict=True):
            np.testing.assert_array_equal(old, new, err_msg=kind)
    # It did train meanwhile, and the model can train on.
    assert np.ptp(found.smoothed) > 0.01
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(0.003)
    model.fit(x, y, verbose=0)


def test_the_known_limit_of_a_quadratic() -> None:
    options = {"optimizer": "sgd", "lowest": 1e-4, "highest": 100.0}
    found = find_lr(line(), points(), steps=121, batch_size=8, **options)
    np.testing.assert_allclose(np.diff(np.log(found.rates)), np.log(1e6) / 120, rtol=1e-6)
    assert found.rates[0] == pytest.approx(1e-4)
    # The mean of one loss, but for the rounding of its weight.
    assert found.losses[0] == pytest.approx(found.smoothed[0], rel=1e-15)
    # Above 1 the loss grows, so the test ends long before 100, and suggests far less than 1.
    assert found.diverged
    assert 1.0 < found.rates[-1] < 5.0
    assert 0.01 < found.suggestion < 0.5
    assert found.suggestion == min(found.steepest, found.tenth_of_minimum)
    assert f"{found.suggestion:.1e}" in str(found)
    assert "diverged" in str(found)


def test_the_losses_are_those_of_the_growing_rate() -> None:
    found = find_lr(line(), LINE, loss="mse", optimizer="sgd", lowest=1e-3, highest=0.1, steps=20)
    start = float((line().get_weights()[0][0, 0] - 3.0) ** 2)
    # Each step shrinks the distance to 3 by 1 - 2 * rate.
    factors = np.cumprod([1.0, *((1 - 2 * rate) ** 2 for rate in found.rates[:-1])])
    np.testing.assert_allclose(found.losses, start * factors, rtol=1e-4)
    assert not found.diverged


def test_the_suggestion_trains() -> None:
    x, y = make_data(400)
    model = make_model()
    found = find_lr(model, (x, y), steps=60)
    losses = {}
    for rate in (found.suggestion / 1000, found.suggestion):
        model = make_model()
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        losses[rate] = model.fit(x, y, epochs=6, verbose=0).history["loss"][-1]
    assert losses[found.suggestion] < 0.7 * losses[found.suggestion / 1000]


def test_loss_and_optimizer_are_taken_from_the_compiled_model() -> None:
    data = make_data()
    options = {"steps": 12, "lowest": 1e-3}
    guessed = find_lr(make_model(), data, **options)
    sparse = find_lr(make_model(), data, loss="sparse_categorical_crossentropy", **options)
    assert guessed.losses == pytest.approx(sparse.losses, rel=1e-5)

    compiled = make_model()
    compiled.compile(keras.optimizers.SGD(7.0), "mse")
    x, y = data
    one_hot = (x, np.eye(3, dtype="float32")[y])
    taken = find_lr(compiled, one_hot, **options)
    given = find_lr(make_model(), one_hot, loss="mse", optimizer="sgd", **options)
    assert taken.losses == pytest.approx(given.losses, rel=1e-5)
    assert abs(taken.losses[0] - guessed.losses[0]) > 0.1


def test_rates_by_layer_keep_their_proportions() -> None:
    model = line()
    half = {id(model.trainable_variables[0]): 0.5}
    model.compile(stage_optimizer("sgd", 0.1, model.trainable_variables, half), "mse")
    options = {"lowest": 1e-3, "highest": 0.1, "steps": 20}
    layered = find_lr(model, LINE, **options)
    plain = find_lr(line(), LINE, loss="mse", optimizer="sgd", lowest=5e-4, highest=0.05, steps=20)
    assert layered.losses == pytest.approx(plain.losses, rel=1e-4)


class _Batches(keras.utils.PyDataset):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.x, self.y = points(64)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(index * 16, (index + 1) * 16)
        return self.x[rows], self.y[rows]


def test_datasets_are_gone_through_again() -> None:
    # At rates too low to change anything, each batch keeps its loss.
    found = find_lr(line(), _Batches(4), loss="mse", lowest=1e-9, highest=1e-8, steps=10)
    assert len(set(np.round(found.losses[:4], 4))) == 4
    assert found.losses[4:8] == pytest.approx(found.losses[:4], rel=1e-5)
    assert found.losses[8:] == pytest.approx(found.losses[:2], rel=1e-5)
    with pytest.raises(DataError):
        find_lr(line(), _Batches(0), loss="mse", steps=10)


def test_sample_weights_count() -> None:
    x, y = make_data(64)
    none = find_lr(make_model(), (x, y, np.zeros(64, "float32")), steps=10)
    assert none.losses == (0.0,) * 10


def test_several_inputs_and_outputs() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    x = layers.Concatenate()([a, b])
    outputs = {"one": layers.Dense(1, name="one")(x), "two": layers.Dense(2, name="two")(x)}
    model = keras.Model({"a": a, "b": b}, outputs)
    rng = np.random.default_rng(0)
    data = {"b": rng.normal(size=(40, 2)), "a": rng.normal(size=(40, 3))}
    labels = {"one": np.zeros((40, 1)), "two": np.zeros((40, 2))}
    losses = {"one": "mse", "two": "mae"}
    found = find_lr(model, (data, labels), loss=losses, optimizer="sgd", lowest=1e-3, steps=15)
    assert found.losses[-1] < found.losses[0]
    with pytest.raises(DataError, match="give `loss`"):
        find_lr(model, (data, labels))


def test_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy("float32")
    before = everything(model)
    found = find_lr(model, make_data(), steps=20, lowest=1e-4)
    assert np.isfinite(found.losses).all()
    for old, new in zip(before["variables"], everything(model)["variables"], strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_plot_is_written(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "rates.png"
    found = find_lr(line(), LINE, steps=20, plot=file)
    assert file.read_bytes()[:4] == b"\x89PNG"
    assert found.plot(tmp_path / "rates.svg").axes[0].get_xlabel() == "learning rate"
    assert (tmp_path / "rates.svg").read_text().startswith("<?xml")
    assert found.plot()._repr_png_().startswith(b"\x89PNG")
    assert (tmp_path / "rates.svg").read_text().startswith("<?xml")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "rates.svg"]


def test_settings_that_make_no_sense() -> None:
    model = line()
    for options in (
        {"lowest": 0.0},
        {"lowest": 1.0, "highest": 0.1},
        {"highest": float("inf")},
        {"steps": 9},
        {"optimizer": "no_such"},
    ):
        with pytest.raises(ScheduleError):
            find_lr(model, LINE, loss="mse", **options)
    model.trainable = False
    with pytest.raises(ScheduleError, match="no layer of the model is trainable"):
        find_lr(model, LINE, loss="mse")


def test_nan_in_the_data_is_an_error_and_leaves_no_trace() -> None:
    model = make_model()
    x, y = make_data()
    before = everything(model)
    with pytest.raises(StageError, match="not finite after 0 steps"):
        find_lr(model, (np.full_like(x, np.nan), y))
    for old, new in zip(before["variables"], everything(model)["variables"], strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_range_is_plain_data() -> None:
    found = LearningRateRange((0.1, 0.2), (1.0, 0.5), (1.0, 0.7), 0.2, 0.02, False)
    assert found.suggestion == 0.02
    assert "ended at 2.0e-01" in str(found)


def test_a_curve_of_noise_suggests_nothing(caplog: pytest.LogCaptureFixture) -> None:
    x, _ = make_data()
    labels = np.random.default_rng(1).integers(0, 3, len(x))
    found = find_lr(make_model(), (x, labels), steps=40, batch_size=4, highest=1e-3)
    assert not found.clear
    assert found.suggestion is None
    assert "no learning rate to suggest" in str(found)
    assert "larger batch_size" in caplog.text
    # The readings are still there to look at.
    assert found.steepest > 0


def test_what_is_no_model_and_no_batch_size_is_refused() -> None:
    with pytest.raises(ScheduleError, match=r"find_lr: .*keras\.models\.load_model\('m\.keras'\)"):
        find_lr("m.keras", make_data())
    with pytest.raises(DataError, match="batch_size is 0: it must be a whole number, at least 1"):
        find_lr(make_model(), make_data(), batch_size=0)
