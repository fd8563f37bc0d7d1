"""Factors scale the learning rate, exactly, whatever else the optimizer does."""

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from unfreeze.core.optimizers import (
    LayerRates,
    get_learning_rate,
    match_factors,
    set_learning_rate,
    stage_optimizer,
)
from unfreeze.errors import ScheduleError

pytestmark = pytest.mark.on_each_backend

TENSORFLOW = keras.backend.backend() == "tensorflow"
FACTORS = {"low": 0.0, "mid": 0.1, "top": 0.5}  # "out" is not named: 1
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(),
    "adamw": lambda: keras.optimizers.AdamW(weight_decay=0.1),
    "sgd": lambda: keras.optimizers.SGD(momentum=0.9, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(),
    "clipped": lambda: keras.optimizers.SGD(clipnorm=0.2),
    "globally_clipped": lambda: keras.optimizers.SGD(global_clipnorm=0.2),
    "scaled_loss": lambda: keras.optimizers.SGD(global_clipnorm=0.2, loss_scale_factor=16.0),
    "averaged": lambda: keras.optimizers.Adam(use_ema=True),
}


def make_model() -> keras.Model:
    """Four layers; the first two inside a submodel, so that paths change on reload."""
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, name="low", activation="tanh"),
            layers.Dense(5, name="mid", activation="tanh"),
        ],
        name="base",
    )
    inputs = keras.Input((4,))
    x = layers.Dense(5, name="top", activation="tanh")(base(inputs))
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


def factors_of(model: keras.Model) -> dict[int, float]:
    named = [(v, v.path.split("/")[-2]) for v in model.trainable_variables]
    return {id(v): FACTORS[name] for v, name in named if name in FACTORS}


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 4)).astype("float32"), rng.normal(size=(16, 2)).astype("float32")


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {"/".join(v.path.split("/")[-2:]): v.numpy() for v in model.trainable_variables}


def layered_and_plain(
    optimizer: object, rate: object, **compile_options: object
) -> tuple[keras.Model, keras.Model]:
    """The same model twice: with factors and without."""
    layered, plain = make_model(), make_model()
    for model, factors in ((layered, factors_of(layered)), (plain, {})):
        made = stage_optimizer(optimizer, rate, model.trainable_variables, factors)
        # What the other is compared with need not be traced, which takes longer than a step.
        eagerly = TENSORFLOW and not factors and not compile_options
        model.compile(made, "mse", run_eagerly=eagerly, **compile_options)
    return layered, plain


def moves(model: keras.Model, **fit: object) -> dict[str, np.ndarray]:
    before = weights(model)
    model.fit(*batch(), batch_size=16, shuffle=False, verbose=0, **fit)
    return {name: value - before[name] for name, value in weights(model).items()}


def assert_scaled(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tol: float) -> None:
    assert len(got) == 8
    for name, move in wanted.items():
        factor = FACTORS.get(name.split("/")[0], 1.0)
        size = np.abs(move).max()
        assert size > 0.0, name
        if factor == 0.0:
            assert np.abs(got[name]).max() == 0.0, name
        else:
            assert np.abs(got[name] / factor - move).max() <= tol * size / factor, name


# Keras' own code is of each backend where it scales the loss or keeps averages, not in the rules.
@pytest.mark.parametrize(
    "kind",
    [
        kind
        if kind in ("scaled_loss", "averaged")
        else pytest.param(kind, marks=pytest.mark.slow_on("tensorflow", "jax"))
        for kind in OPTIMIZERS
    ],
)
def test_the_first_step_is_scaled_by_the_factor(kind: str) -> None:
    layered, plain = layered_and_plain(OPTIMIZERS[kind](), 0.1)
    reference = moves(plain)
    assert_scaled(moves(layered), reference, tol=1e-4)
    if kind == "globally_clipped":  # the limit is reached
        norm = np.sqrt(sum(np.square(move).sum() for move in reference.values()))
        assert norm == pytest.approx(0.1 * 0.2, rel=1e-3)
    if kind == "adam":  # which moves each weight by the rate at first
        change = layered.get_layer("base").get_layer("mid").kernel.numpy()
        start = make_model().get_layer("base").get_layer("mid").kernel.numpy()
        assert np.median(np.abs(change - start)) == pytest.approx(0.1000 * 0.1, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    factors=st.lists(st.floats(0.0, 4.0, width=32), min_size=1, max_size=5),
    rate=st.floats(1e-3, 0.5),
)
def test_any_factors(factors: list[float], rate: float) -> None:
    variables = [keras.Variable(np.zeros(3), name=f"v{i}") for i, _ in enumerate(factors)]
    chosen = {id(v): f for v, f in zip(variables, factors, strict=True)}
    optimizer = stage_optimizer("sgd", rate, variables, chosen)
    # Given in another order than the factors were.
    optimizer.build(variables[::-1])
    optimizer.apply([keras.ops.ones(3) for _ in variables], variables[::-1])
    for variable, factor in zip(variables, factors, strict=True):
        np.testing.assert_allclose(
            variable.numpy(), np.full(3, -rate * factor), rtol=1e-5, atol=1e-30
        )


def test_accumulated_gradients() -> None:
    template = keras.optimizers.Adam(gradient_accumulation_steps=2)
    layered, plain = layered_and_plain(template, 0.01)
    assert all(np.abs(move).max() == 0.0 for move in moves(layered).values())
    moves(plain)
    assert_scaled(moves(layered), moves(plain), tol=1e-4)


def test_a_global_norm_of_accumulated_gradients_is_refused() -> None:
    template = keras.optimizers.SGD(global_clipnorm=1.0, gradient_accumulation_steps=2)
    with pytest.raises(ScheduleError, match="cannot be combined"):
        layered_and_plain(template, 0.01)


@pytest.mark.parametrize(
    "policy",
    [
        "mixed_float16",
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow_on("tensorflow", "jax")),
    ],
)
def test_mixed_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        layered, plain = layered_and_plain("adam", 0.01)
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = isinstance(layered.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert_scaled(moves(layered), moves(plain), tol=1e-3)
    # Keras's callbacks reach the rate through the loss scaling.
    reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    layered.fit(*batch(), epochs=2, verbose=0, callbacks=[reduce])
    assert get_learning_rate(layered.optimizer) == pytest.approx(0.005)


@pytest.mark.slow_on("tensorflow", "jax")
def test_with_xla() -> None:
    jit = keras.backend.backend() != "torch"
    layered, plain = layered_and_plain("adam", 0.01, jit_compile=jit)
    assert_scaled(moves(layered), moves(plain), tol=1e-3)


def test_callbacks_change_the_one_rate_and_keep_the_proportions() -> None:
    layered, plain = layered_and_plain("sgd", 0.1)
    reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    history = layered.fit(*batch(), epochs=3, verbose=0, callbacks=[reduce]).history
    # The first epoch sets the mark, the second and third do not beat it.
    assert history["learning_rate"] == pytest.approx([0.1, 0.1, 0.05])
    assert get_learning_rate(layered.optimizer) == pytest.approx(0.025)

    layered, plain = layered_and_plain("sgd", 0.1)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.02)
    assert_scaled(moves(layered, callbacks=[schedule]), moves(plain, callbacks=[schedule]), 1e-4)
    assert get_learning_rate(layered.optimizer) == pytest.approx(0.02)


def test_schedules_count_steps_once_for_all_layers() -> None:
    decay = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.001])
    layered, plain = layered_and_plain("sgd", decay)
    first, second = moves(layered), moves(layered)
    assert_scaled(first, moves(plain), 1e-4)
    third = moves(layered)
    assert get_learning_rate(layered.optimizer) == pytest.approx(0.001)
    for name in ("mid/kernel", "out/kernel"):
        assert np.abs(second[name]).max() > 20 * np.abs(third[name]).max() > 0.0


@pytest.mark.slow_on("tensorflow", "jax")
def test_setting_the_rate() -> None:
    layered, plain = layered_and_plain("sgd", 0.1)
    for model in (layered, plain):
        set_learning_rate(model.optimizer, 0.3)
        assert get_learning_rate(model.optimizer) == pytest.approx(0.3)
    assert_scaled(moves(layered), moves(plain), 1e-4)


def test_a_model_with_rates_by_layer_saves_and_loads(tmp_path: Path) -> None:
    template = keras.optimizers.AdamW(weight_decay=0.01, global_clipnorm=1.0)
    layered, _ = layered_and_plain(template, 0.01)
    moves(layered)
    set_learning_rate(layered.optimizer, 0.02)
    layered.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    paths = [v.path for v in layered.trainable_variables]
    assert paths[0] == "base/low/kernel"
    assert loaded.trainable_variables[0].path == "low/kernel"
    assert isinstance(loaded.optimizer, LayerRates)
    assert get_learning_rate(loaded.optimizer) == pytest.approx(0.02)
    # Slots too: the second step is the same for both.
    expected, got = moves(layered), moves(loaded)
    for name, move in expected.items():
        np.testing.assert_allclose(got[name], move, rtol=1e-4, atol=1e-8)
    assert np.abs(got["low/kernel"]).max() == 0.0
    assert 0.0 < np.abs(got["mid/kernel"]).max() < 0.2 * np.abs(got["out/kernel"]).max()


@pytest.mark.slow_on("tensorflow", "jax")
def test_a_schedule_saves_and_loads(tmp_path: Path) -> None:
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    layered, _ = layered_and_plain("sgd", decay)
    moves(layered)
    layered.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert get_learning_rate(loaded.optimizer) == pytest.approx(0.05)


@pytest.mark.slow_on("tensorflow", "jax")
def test_layer_rates_can_be_a_template() -> None:
    layered, plain = layered_and_plain("sgd", 0.1)
    moves(layered)
    optimizer = stage_optimizer(layered.optimizer, 0.2)
    assert isinstance(optimizer, LayerRates)
    assert not optimizer.built
    again = make_model()
    for variable, value in zip(layered.trainable_variables, again.get_weights(), strict=True):
        variable.assign(value)
    layered.compile(optimizer, "mse")
    plain.optimizer.learning_rate = 0.2
    assert_scaled(moves(layered), moves(plain), 1e-4)


def test_paths_are_matched_by_their_ends() -> None:
    saved = [("base/a/kernel", 0.1), ("a/kernel", 0.2), ("b/kernel", 0.3)]
    # In order, even where names repeat after loading.
    assert match_factors(["a/kernel", "a/kernel", "b/kernel"], saved) == [0.1, 0.2, 0.3]
    assert match_factors(["x/base/a/kernel", "a/kernel", "y/b/kernel"], saved) == [0.1, 0.2, 0.3]
    # With other variables: the same path, else one that agrees, else 1.
    assert match_factors(["b/kernel", "a/kernel"], saved) == [0.3, 0.2]
    assert match_factors(["x/b/kernel", "bb/kernel", "kernel2"], saved) == [0.3, 1.0, 1.0]
    assert match_factors(["a/kernel"], []) == [1.0]
