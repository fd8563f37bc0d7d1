"""The optimizer of a stage: always a new one, with a learning rate for each layer if asked.

A user's optimizer is a template: its settings are copied, its slots never are.
`layer_factors` gives each variable its factor of the rate: `layer_decay` from the top
group down (discriminative fine-tuning, Howard and Ruder 2018), times a map of patterns
in `learning_rate`. The factors scale the rate and not the gradient, which Adam and
similar optimizers would cancel. Invariant: there is one rate (or schedule), and each
variable moves at that rate times its factor, so ReduceLROnPlateau,
LearningRateScheduler and schedules work as on any optimizer.
"""

import math
from collections import UserDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
from keras import ops

from unfreeze.core.keras_internals import compiled_optimizer, save_as_one
from unfreeze.errors import ScheduleError

if TYPE_CHECKING:
    # Importing Keras imports this module (see `unfreeze`), whatever module of ours is
    # half-way through its own import.
    from unfreeze.core.layers import Selection
    from unfreeze.core.schedule import Schedule, Stage

# On the optimizer that the model has after a run: what the user had compiled it with before.
_BEFORE = "_unfreeze_before"
# What rises first: for which share of a stage's steps, and from which share of the rate.
_RISES = {"warmup_cosine": (0.1, 0.0), "one_cycle": (0.3, 1 / 25)}

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


@dataclass(frozen=True)
class Template:
    """Settings of an optimizer, from which new ones without slots are made.

    Attributes:
        kind: class of the optimizer.
        config: what its `get_config` gave.
        exclusions: attributes that Keras leaves out of it.
    """

    kind: type[Any]
    config: dict[str, Any]
    exclusions: dict[str, Any]

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer, config: dict[str, Any]) -> "Template":
        """Take the settings of an optimizer; `config` is its own, changed where wanted."""
        # Set by exclude_from_weight_decay.
        names = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
        kept = {name: getattr(optimizer, name) for name in names if hasattr(optimizer, name)}
        return cls(type(optimizer), config, kept)

    def make(self) -> keras.optimizers.Optimizer:
        """Give a new optimizer with these settings."""
        # Keras's from_config may change the dict that it is given.
        made = self.kind.from_config(dict(self.config))
        for name, value in self.exclusions.items():
            setattr(made, name, value)
        return made


@keras.saving.register_keras_serializable(package="unfreeze")
class LayerRates(keras.optimizers.MultiOptimizer):
    """Runs one optimizer with a factor of its learning rate for each variable.

    Variables of equal factor share one copy of the template; each copy reads this
    object's own rate in every step, so there is one number (or schedule) to set.

    Args:
        optimizer: the template; its learning rate is the rate of factor 1.
        factors: (variable path, factor) for each variable, in the order of the
            model's trainable variables. After loading, Keras may have shortened paths
            (`base/conv/kernel` becomes `conv/kernel`); they are matched by their ends.
            Variables that match none have factor 1.
        name: of the optimizer; None takes the template's.

    Raises:
        ScheduleError: `global_clipnorm` together with gradient accumulation (the norm
            of all accumulated gradients is not available).
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        factors: Sequence[tuple[str, float]],
        name: str | None = None,
    ) -> None:
        super().__init__(
            self._part, loss_scale_factor=optimizer.loss_scale_factor, name=name or optimizer.name
        )
        config = optimizer.get_config()
        rate = config["learning_rate"]
        if isinstance(rate, dict):
            rate = keras.saving.deserialize_keras_object(rate)
        self.learning_rate = rate
        # The norm of all gradients is known here only, so clipping by it is done here.
        self.clip = config.get("global_clipnorm")
        if self.clip and config.get("gradient_accumulation_steps"):
            raise ScheduleError(
                "global_clipnorm, gradient accumulation and rates by layer cannot be "
                "combined: use clipnorm, or one rate for all layers"
            )
        config.update(learning_rate=1.0, global_clipnorm=None)
        self.template = Template.of(optimizer, config)
        self.factors = [(str(path), float(factor)) for path, factor in factors]
        self.by_id: dict[int, float] = {}
        self.part_of: UserDict[float, keras.optimizers.Optimizer] = UserDict()
        # This one's `variables` are all that there are: saved by part, the parts would have to be
        # the same where the file is loaded, and another set of weights may train there.
        save_as_one(self)

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """Make the parts and their slots for the variables to train."""
        if self.built:
            return
        # Known by identity where this was made for these very variables; by path after loading.
        known = dict(self.by_id)
        by_path = match_factors([v.path for v in var_list], [] if known else self.factors)
        for variable, factor in zip(var_list, by_path, strict=True):
            self.by_id[id(variable)] = known.get(id(variable), factor)
        self.factors = [(v.path, self.by_id[id(v)]) for v in var_list]
        super().build(list(var_list))

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Take one step with the gradients."""
        if self.clip:
            grads = _clip_by_global_norm(grads, self.clip * (self.loss_scale_factor or 1.0))
        super().apply(grads, trainable_variables)

    # MultiOptimizer has no rate of its own; this one does, and Keras's callbacks must use it.
    # Where they see `optimizers` they set each part by itself, a LearningRateScheduler all to
    # the same rate.
    @property
    def learning_rate(self) -> Any:
        """The rate of factor 1, now."""
        return keras.optimizers.Optimizer.learning_rate.fget(self)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    @property
    def optimizers(self) -> Any:
        """Hidden."""
        raise AttributeError("LayerRates has one learning rate: use `.learning_rate`")

    def get_config(self) -> dict[str, Any]:
        """Give the template, with the rate reached, and the factors."""
        return {
            "optimizer": keras.saving.serialize_keras_object(self.as_plain()),
            "factors": [list(pair) for pair in self.factors],
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "LayerRates":
        """Make one from what `get_config` gave."""
        template = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(template, config["factors"], config["name"])

    def as_plain(self) -> keras.optimizers.Optimizer:
        """Make the optimizer that this would be if all factors were 1, without slots."""
        optimizer = self.template.make()
        rate = self._learning_rate
        follows = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
        optimizer.learning_rate = rate if follows else to_float(self.learning_rate)
        optimizer.global_clipnorm = self.clip
        return optimizer

    def _part(self, variable: keras.Variable) -> keras.optimizers.Optimizer:
        factor = self.by_id[id(variable)]
        if factor not in self.part_of:
            part = self.template.make()
            part.learning_rate = lambda: ops.multiply(self.learning_rate, factor)
            self.part_of[factor] = part
        return self.part_of[factor]


def match_factors(paths: Sequence[str], factors: Sequence[tuple[str, float]]) -> list[float]:
    """Find the factor of each path among (path, factor) pairs that were saved.

    Two paths agree when one is the end of the other, at a slash. If all agree in order,
    that decides, as inner names may repeat; else the same path, else one that agrees; else 1.
    """
    if len(paths) == len(factors) and all(
        _agree(path, saved) for path, (saved, _) in zip(paths, factors, strict=True)
    ):
        return [factor for _, factor in factors]
    found = []
    for path in paths:
        near = [(saved != path, factor) for saved, factor in factors if _agree(path, saved)]
        found.append(min(near, key=lambda pair: pair[0])[1] if near else 1.0)
    return found


def _agree(path: str, other: str) -> bool:
    return f"/{path}".endswith(f"/{other}") or f"/{other}".endswith(f"/{path}")


def to_float(value: Any) -> float:
    """Read a number out of a variable or tensor of any backend."""
    return float(ops.convert_to_numpy(value))


def _clip_by_global_norm(grads: Sequence[Any], limit: float) -> list[Any]:
    """Shrink all gradients by one factor so that their common norm is at most `limit`."""
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in grads if g is not None]
    if not squares:
        return list(grads)
    norm = ops.sqrt(sum(squares[1:], start=squares[0]))
    factor = limit / ops.maximum(norm, limit)
    return [None if g is None else g * ops.cast(factor, g.dtype) for g in grads]


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
            "rates by layer do not work with a MultiOptimizer, which has rates of its own: "
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


def base_rate(stage: "Stage") -> Any:
    """The rate that factors apply to: a number or a learning-rate schedule."""
    if isinstance(stage.learning_rate, Mapping):
        return stage.learning_rate["default"]
    return stage.learning_rate


def rate_by_step(stage: "Stage", steps: int) -> Any:
    """The learning rate of a stage whose `decay` follows the steps, as a Keras schedule.

    Step k of the r that the rate rises for, counted from 0, has the share (k + 1) / (r + 1)
    under "warmup_cosine", as no step may have the rate 0.

    Args:
        stage: with such a `decay`.
        steps: of the optimizer in the whole stage, at least 1.
    """
    rate = float(base_rate(stage))
    share, start = _RISES[str(stage.decay)]
    rising = max(1, round(share * steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=rate * (start or 1 / (rising + 1)),
        decay_steps=max(1, steps - rising),
        warmup_target=rate,
        warmup_steps=rising,
    )


def compiled_before(model: keras.Model) -> Any:
    """The optimizer that a user compiled a model with, also after a run; None without one."""
    given = compiled_optimizer(model) if getattr(model, "compiled", False) else None
    return getattr(given, _BEFORE, given)


def remember(optimizer: keras.optimizers.Optimizer, before: Any) -> keras.optimizers.Optimizer:
    """Note on an optimizer made for a stage what `compiled_before` must give for its model."""
    setattr(optimizer, _BEFORE, before)
    return optimizer


def with_compiled(schedule: "Schedule", compiled: Any) -> "Schedule":
    """Give stages without an `optimizer` the kind and settings of the model's own.

    Args:
        schedule: the stages.
        compiled: what the model was compiled with, or None.

    Returns:
        The schedule itself where nothing was compiled, or Adam as it is by default.

    Raises:
        ScheduleError: it has rates of its own, or cannot be copied.
    """
    asking = [stage.name for stage in schedule if stage.optimizer is None and not stage.solve]
    if compiled is None or not asking:
        return schedule
    own = _template(compiled)
    if isinstance(own, LayerRates):
        own = own.as_plain()
    if isinstance(own, keras.optimizers.MultiOptimizer):
        raise ScheduleError(
            f"stage {asking[0]!r} has no optimizer, and the model was compiled with a "
            "MultiOptimizer, which has rates of its own: give the stage one, or compile the model "
            "with a plain one"
        )
    # The rate is the stage's, wherever an earlier training may have left this one's.
    own, default = stage_optimizer(own, 1e-3), keras.optimizers.Adam()
    settings = [{k: v for k, v in o.get_config().items() if k != "name"} for o in (own, default)]
    if type(own) is type(default) and settings[0] == settings[1]:
        return schedule
    stages = [replace(s, optimizer=own) if s.name in asking else s for s in schedule]
    return replace(schedule, stages=tuple(stages))


def layer_factors(selection: "Selection") -> dict[int, float]:
    """Factor of the learning rate by `id(variable)`; those left out have 1.

    With `layer_decay` d, the head has factor 1, the group below it d, the next
    d squared, and so on to the input.

    Raises:
        ScheduleError: a pattern of the map matches no layer that trains, or a factor
            of 0 keeps layers from moving that the stage claims to train.
    """
    stage = selection.stage
    factors: dict[int, float] = {}
    if stage.layer_decay is not None and stage.layer_decay < 1:
        known = {id(entry.layer): entry for entry in selection.entries}
        for depth, group in enumerate(reversed(selection.groups)):
            for layer in group.layers:
                _scale(factors, known[id(layer)].weights, stage.layer_decay**depth)
    if isinstance(stage.learning_rate, Mapping):
        from unfreeze.core.layers import matching

        for pattern, factor in stage.learning_rate.items():
            if pattern == "default":
                continue
            chosen = matching(selection.chosen, pattern)
            if not chosen:
                raise ScheduleError(
                    f"stage {stage.name!r}: learning_rate names {pattern!r}, which matches no "
                    "layer that the stage trains"
                )
            if not factor:
                raise ScheduleError(
                    f"stage {stage.name!r}: learning_rate gives {pattern!r} the factor 0, so it "
                    f"would not train: remove it from the stage by train=[..., '!{pattern}']"
                )
            for entry in chosen:
                _scale(factors, entry.weights, float(factor))
    trained = {id(variable) for variable in selection.trained}
    return {key: value for key, value in factors.items() if key in trained and value != 1.0}


def _scale(factors: dict[int, float], weights: Sequence[Any], factor: float) -> None:
    for weight in {id(w): w for w in weights}:
        factors[weight] = factors.get(weight, 1.0) * factor
