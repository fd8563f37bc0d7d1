"""Which factor of a stage's learning rate each variable gets.

Two ways, which multiply: `layer_decay`, from the top group down (discriminative
fine-tuning, Howard and Ruder 2018), and a map of patterns in `learning_rate`.
"""

from collections.abc import Mapping
from typing import Any

from unfreeze.core.schedule import Stage
from unfreeze.core.select import Selection, matching
from unfreeze.errors import ScheduleError


def base_rate(stage: Stage) -> Any:
    """The rate that factors apply to: a number or a learning-rate schedule."""
    if isinstance(stage.learning_rate, Mapping):
        return stage.learning_rate["default"]
    return stage.learning_rate


def layer_factors(selection: Selection) -> dict[int, float]:
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
        for depth, group in enumerate(reversed(selection.groups)):
            for layer in group.layers:
                _scale(factors, layer, stage.layer_decay**depth)
    if isinstance(stage.learning_rate, Mapping):
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
                    f"stage {stage.name!r}: learning_rate gives {pattern!r} the factor 0, so that "
                    f"it would not train: take it out of the stage by train=[..., '!{pattern}']"
                )
            for entry in chosen:
                _scale(factors, entry.layer, float(factor))
    trained = {id(variable) for variable in selection.trained}
    return {key: value for key, value in factors.items() if key in trained and value != 1.0}


def _scale(factors: dict[int, float], layer: Any, factor: float) -> None:
    for weight in {id(w): w for w in layer.weights}:
        factors[weight] = factors.get(weight, 1.0) * factor
