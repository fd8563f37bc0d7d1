"""A stage's optimizer is always new, and its rates can be read, set and saved."""

import keras
import numpy as np
import pytest

from unfreeze.core.optimizers import (
    LayerRates,
    get_learning_rate,
    set_learning_rate,
    stage_optimizer,
)
from unfreeze.errors import ScheduleError

pytestmark = pytest.mark.on_each_backend


def make_variables(values: tuple[float, ...] = (1.0, -2.0)) -> list[keras.Variable]:
    return [keras.Variable(np.full((2, 3), value), name=f"v{i}") for i, value in enumerate(values)]


def one_step(optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]) -> list:
    before = [v.numpy() for v in variables]
    optimizer.apply([keras.ops.full((2, 3), 0.5) for _ in variables], variables)
    return [v.numpy() - old for v, old in zip(variables, before, strict=True)]


def test_adam_is_the_default() -> None:
    optimizer = stage_optimizer(None, 0.01)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert get_learning_rate(optimizer) == pytest.approx(0.01)
    assert get_learning_rate(stage_optimizer("sgd", None)) == pytest.approx(0.01)  # Keras's own
    assert isinstance(stage_optimizer("adamw", 1), keras.optimizers.AdamW)


def test_an_optimizer_object_is_a_template_only() -> None:
    template = keras.optimizers.Adam(0.02, beta_1=0.8, clipnorm=3.0, amsgrad=True)
    used = make_variables()
    one_step(template, used)
    state = [v.numpy() for v in template.variables]

    first, second = (stage_optimizer(template, 0.5) for _ in range(2))
    assert len({id(o) for o in (template, first, second)}) == 3
    assert (first.beta_1, first.clipnorm, first.amsgrad) == (0.8, 3.0, True)
    assert get_learning_rate(first) == pytest.approx(0.5)
    assert not first.built
    assert int(first.iterations) == 0
    one_step(first, make_variables())
    for variable, old in zip(template.variables, state, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    # Without a rate, the template's own, as it is now.
    template.learning_rate = 0.003
    assert get_learning_rate(stage_optimizer(template, None)) == pytest.approx(0.003)


def test_schedules_are_kept_or_replaced() -> None:
    decay = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.01])
    optimizer = stage_optimizer("sgd", decay)
    variables = make_variables()
    assert get_learning_rate(optimizer) == pytest.approx(0.1)
    one_step(optimizer, variables)
    one_step(optimizer, variables)
    assert get_learning_rate(optimizer) == pytest.approx(0.01)
    assert np.abs(one_step(optimizer, variables)[0] + 0.005).max() < 1e-6
    with pytest.raises(ScheduleError, match="follows a learning rate schedule"):
        set_learning_rate(optimizer, 0.5)
    # A schedule in the template gives way to the stage's number, and starts again from step 0.
    assert get_learning_rate(stage_optimizer(optimizer, 0.5)) == pytest.approx(0.5)
    assert get_learning_rate(stage_optimizer(optimizer, None)) == pytest.approx(0.1)


def test_weight_decay_exclusions_are_copied() -> None:
    template = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    template.exclude_from_weight_decay(var_names=["v0"])
    variables = make_variables((8.0, 8.0))
    moved = one_step(stage_optimizer(template, 0.1), variables)
    # Adam moves both by the rate; the decay takes 0.1 * 0.5 * 8 off the second.
    assert np.abs(moved[0] + 0.1).max() < 1e-4
    assert np.abs(moved[1] + 0.1 + 0.4).max() < 1e-4


def test_loss_scaling_stays_around() -> None:
    template = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, momentum=0.9), initial_scale=8.0, dynamic_growth_steps=5
    )
    optimizer = stage_optimizer(template, 0.25)
    assert optimizer is not template
    assert optimizer.inner_optimizer is not template.inner_optimizer
    assert (optimizer.initial_scale, optimizer.dynamic_growth_steps) == (8.0, 5)
    assert optimizer.inner_optimizer.momentum == 0.9
    assert get_learning_rate(optimizer) == pytest.approx(0.25)
    set_learning_rate(optimizer, 0.125)
    assert get_learning_rate(optimizer.inner_optimizer) == pytest.approx(0.125)


def test_rates_of_a_multi_optimizer_are_its_own() -> None:
    parts = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(0.2), {"v0": keras.optimizers.SGD(0.1)}
    )
    template = keras.optimizers.MultiOptimizer(parts)
    optimizer = stage_optimizer(template, None)
    assert get_learning_rate(optimizer) == pytest.approx(0.2)
    set_learning_rate(optimizer, 0.02)
    assert sorted(get_learning_rate(o) for o in optimizer.optimizers) == pytest.approx([0.01, 0.02])
    assert get_learning_rate(template) == pytest.approx(0.2)
    variables = make_variables()
    with pytest.raises(ScheduleError, match="rates of its own"):
        stage_optimizer(template, 0.1)
    with pytest.raises(ScheduleError, match="rates of its own"):
        stage_optimizer(template, None, variables, {id(variables[0]): 0.5})


def test_factors_of_one_need_no_layer_rates() -> None:
    variables = make_variables()
    assert type(stage_optimizer("sgd", 0.1, variables, {})) is not LayerRates
    assert type(stage_optimizer("sgd", 0.1, variables, {id(variables[0]): 1.0})) is not LayerRates
    assert type(stage_optimizer("sgd", 0.1, variables, {id(variables[0]): 0.5})) is LayerRates


def test_bad_settings_are_refused() -> None:
    variables = make_variables()
    for bad in ("no_such", 3, keras.optimizers.Adam, {"adam": 1}):
        with pytest.raises(ScheduleError, match="name that Keras knows"):
            stage_optimizer(bad, 0.1)
    for rate in (-0.1, float("nan"), float("inf"), "fast", [0.1]):
        with pytest.raises(ScheduleError, match="give a number"):
            stage_optimizer("adam", rate)
    for factor in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ScheduleError, match="must be 0 or more"):
            stage_optimizer("adam", 0.1, variables, {id(variables[0]): factor})

    class Odd(keras.optimizers.SGD):
        def __init__(self, learning_rate: float, size: int) -> None:
            super().__init__(learning_rate)

    with pytest.raises(ScheduleError, match="Odd cannot be copied"):
        stage_optimizer(Odd(0.1, size=3), 0.1)
