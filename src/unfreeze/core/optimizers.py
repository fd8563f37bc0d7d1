"""The optimizer of a stage: always a new one, with a learning rate for each layer if asked.

A user's optimizer is a template: its settings are copied, its slots never are.
Rates by layer scale the *rate*; Adam and its kin divide by the gradient's size,
so a scaled gradient would change nothing (`unfreeze.core.layer_rates`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import keras

from unfreeze.core.layer_rates import LayerRates, Template, to_float
from unfreeze.errors import ScheduleError

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


def stage_optimizer(
    optimizer: str | keras.optimizers.Optimizer | None,
    learning_rate: Rate | None,
    variables: Sequence[keras.Variable] = (),
    factors: Mapping[int, float] | None = None,
) -> keras.optimizers.Optimizer:
    """Make a fresh optimizer, to be given to `compile`.

    Args:
        optimizer: a name, a template object (never used itself) or None for Adam.
        learning_rate: a number or a schedule; None keeps the template's.
        variables: the variables that will be trained; needed with `factors`.
        factors: factor of the learning rate by `id(variable)`, at least 0; a variable
            that is not named has 1. With 0 a variable does not move at all.

    Returns:
        A new optimizer, not built yet; a `LayerRates` if some factor is not 1.

    Raises:
        ScheduleError: no such optimizer, a template that cannot be copied, a rate or
            factor below 0, or factors for a `MultiOptimizer`, which has its own.
    """
    template = _template(optimizer)
    chosen = {id(v): float((factors or {}).get(id(v), 1.0)) for v in variables}
    for variable in variables:
        if not (math.isfinite(chosen[id(variable)]) and chosen[id(variable)] >= 0):
            raise ScheduleError(
                f"learning-rate factor {chosen[id(variable)]} of {variable.path}: must be 0 or more"
            )
    if isinstance(template, keras.optimizers.LossScaleOptimizer):
        inner = stage_optimizer(template.inner_optimizer, learning_rate, variables, factors)
        settings = ("initial_scale", "dynamic_growth_steps", "name")
        return keras.optimizers.LossScaleOptimizer(
            inner, **{name: getattr(template, name) for name in settings}
        )
    if all(factor == 1.0 for factor in chosen.values()):
        return _fresh(template, learning_rate)
    if isinstance(template, keras.optimizers.MultiOptimizer):
        raise ScheduleError(
            "rates by layer do not go with a MultiOptimizer, which has rates of its own: "
            "give one plain optimizer"
        )
    layered = LayerRates(
        _fresh(template, learning_rate), [(v.path, chosen[id(v)]) for v in variables]
    )
    layered.by_id.update(chosen)
    return layered


def get_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Read the rate of the next step (of the layers with factor 1, where rates differ).

    A `MultiOptimizer` has no one rate: the highest of its parts is given.
    """
    return max(to_float(part.learning_rate) for part in _parts(optimizer))


def set_learning_rate(optimizer: keras.optimizers.Optimizer, value: float) -> None:
    """Set the rate; rates by layer keep their proportions.

    Raises:
        ScheduleError: the optimizer follows a schedule, which would overrule the number.
    """
    current = get_learning_rate(optimizer)
    for part in _parts(optimizer):
        share = to_float(part.learning_rate) / current if current else 1.0
        try:
            part.learning_rate = value * share
        except TypeError:
            raise ScheduleError(
                f"optimizer {part.name!r} follows a learning rate schedule, so its rate "
                "cannot be set: give it a number as its learning rate"
            ) from None


def _template(optimizer: str | keras.optimizers.Optimizer | None) -> keras.optimizers.Optimizer:
    if optimizer is None:
        return keras.optimizers.Adam()
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer
    try:
        if isinstance(optimizer, str):
            return keras.optimizers.get(optimizer)
    except ValueError:
        pass
    raise ScheduleError(
        f"optimizer {optimizer!r}: give a name that Keras knows, such as 'adam', 'adamw' or "
        "'sgd', or an optimizer object"
    )


def _fresh(
    template: keras.optimizers.Optimizer, learning_rate: Rate | None
) -> keras.optimizers.Optimizer:
    """Copy an optimizer's settings into a new one, with another rate if one is given."""
    if isinstance(template, LayerRates):
        layered = LayerRates(
            _fresh(template.as_plain(), learning_rate), template.factors, template.name
        )
        layered.by_id.update(template.by_id)
        return layered
    config = template.get_config()
    if learning_rate is not None:
        if isinstance(template, keras.optimizers.MultiOptimizer):
            raise ScheduleError(
                "a MultiOptimizer has rates of its own: set learning_rate=None, or give one "
                "plain optimizer"
            )
        config["learning_rate"] = _checked(learning_rate)
    try:
        return Template.of(template, config).make()
    except (TypeError, ValueError) as error:
        raise ScheduleError(
            f"optimizer {type(template).__name__} cannot be copied from its get_config: {error}"
        ) from error


def _checked(rate: Rate) -> Rate:
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate
    try:
        number = float(rate)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ScheduleError(
            f"learning_rate {rate!r}: give a number of at least 0 or a LearningRateSchedule"
        )
    return number


def _parts(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return list(getattr(optimizer, "optimizers", None) or [optimizer])
