"""One optimizer with a factor of its learning rate for each layer, on Keras's MultiOptimizer.

Invariant: there is one rate (or schedule), this object's own, and each variable moves
at that rate times its factor. So ReduceLROnPlateau, LearningRateScheduler and schedules
work as on any optimizer and keep the proportions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from unfreeze.errors import ScheduleError


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
            of all accumulated gradients is nowhere to be had).
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
                "global_clipnorm, gradient accumulation and rates by layer do not go "
                "together: use clipnorm, or one rate for all layers"
            )
        config.update(learning_rate=1.0, global_clipnorm=None)
        self.template = Template.of(optimizer, config)
        self.factors = [(str(path), float(factor)) for path, factor in factors]
        self.by_id: dict[int, float] = {}
        self.part_of: dict[float, keras.optimizers.Optimizer] = {}

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
