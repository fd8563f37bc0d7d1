"""Keras optimizers and rate schedules as plain options, and back.

Only classes that Keras itself exports are known, by name: no module path, no
custom class and no callable is ever loaded from a file.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from unfreeze.errors import ScheduleError

# The rate is the stage's own matter, and Keras numbers names by itself.
_LEFT_OUT = ("name", "learning_rate")
# Wrappers around other optimizers: a stage makes them itself where they are needed.
_WRAPPERS = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")


def optimizer_classes() -> dict[str, type]:
    """Keras' optimizers by their names in lower case."""
    base = keras.optimizers.Optimizer
    found = _classes(keras.optimizers, base)
    return {name.lower(): cls for name, cls in found.items() if name not in _WRAPPERS}


def schedule_classes() -> dict[str, type]:
    """Keras' learning rate schedules by their names."""
    base = keras.optimizers.schedules.LearningRateSchedule
    found = _classes(keras.optimizers.schedules, base)
    return {name: cls for name, cls in found.items() if cls is not base}


def option_names(cls: type) -> tuple[str, ...]:
    """Options that such an object may be given."""
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(p.name for p in parameters if p.kind in kinds and p.name not in _LEFT_OUT)


def options_of(value: Any) -> dict[str, Any]:
    """The options of an optimizer or schedule that differ from their defaults.

    Raises:
        ScheduleError: it is not one of Keras' own classes, or an option is not
            plain (a function, an array).
    """
    cls = _public_class(value)
    config = value.get_config()
    parameters = inspect.signature(cls).parameters
    options = {}
    for name in option_names(cls):
        if name not in config or _same(config[name], parameters[name].default):
            continue
        if not _is_plain(config[name]):
            raise ScheduleError(
                f"{cls.__name__}: {name}={config[name]!r} cannot be written to a file"
            )
        options[name] = config[name]
    return options


def make(cls: type, options: Mapping[str, Any]) -> Any:
    """An object of one of the classes above.

    Raises:
        ScheduleError: an option is missing, of another type than its default,
            or refused by Keras.
    """
    for name, value in options.items():
        default = inspect.signature(cls).parameters[name].default
        if not _fits(value, default):
            raise ScheduleError(f"{cls.__name__}: {name} {value!r} should be like {default!r}")
    try:
        inspect.signature(cls).bind(**options)
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ScheduleError(f"{cls.__name__}: {error}") from None


def _public_class(value: Any) -> type:
    kind = type(value)
    own = kind.__module__.split(".")[0] == "keras"
    for cls in (*optimizer_classes().values(), *schedule_classes().values()):
        # On PyTorch, Keras gives objects of a private subclass of the same name.
        if own and isinstance(value, cls) and cls.__name__ == kind.__name__:
            return cls
    raise ScheduleError(
        f"{kind.__name__} is not one of Keras' own classes, so it cannot be written to a file"
    )


def _classes(module: Any, base: type) -> dict[str, type]:
    members = vars(module).items()
    return {n: cls for n, cls in members if isinstance(cls, type) and issubclass(cls, base)}


def _fits(value: Any, default: Any) -> bool:
    # Keras takes anything here and fails in the middle of the training.
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return True


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) and not isinstance(part, list | tuple) for part in value)
    return value is None or isinstance(value, bool | int | float | str)
