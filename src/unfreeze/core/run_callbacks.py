"""The user's callbacks, which see a run of several stages as one `fit`.

Each stage is a `fit` of Keras of its own, which would start every callback again: epochs at
0, a log file that is written over, checkpoints of the same names. So callbacks that are given
to the run are passed on by a relay: they begin once and end once, and epochs count over all
stages. Callbacks of Keras that steer the training start again in each stage, as its optimizer
and its weights are others; so do a stage's own callbacks, and `StageCallback`s, which hear of
stages.
"""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import keras

from unfreeze.core.callbacks import StageCallback
from unfreeze.errors import ScheduleError

_STEERING = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.LearningRateScheduler,
)
# Passed on only where the callback overrides one of the names: Keras waits for the numbers of
# each step as soon as one callback listens to them.
_BATCH_HOOKS = {
    "on_train_batch_begin": ("on_train_batch_begin", "on_batch_begin"),
    "on_train_batch_end": ("on_train_batch_end", "on_batch_end"),
    "on_test_begin": ("on_test_begin",),
    "on_test_end": ("on_test_end",),
    "on_test_batch_begin": ("on_test_batch_begin",),
    "on_test_batch_end": ("on_test_batch_end",),
}


def as_callbacks(callbacks: Any) -> tuple[keras.callbacks.Callback, ...]:
    """Callbacks as Keras' `fit` takes them: a list, one alone, a `CallbackList`, or None.

    Raises:
        ScheduleError: something that is no callback.
    """
    if callbacks is None:
        return ()
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    elif isinstance(callbacks, keras.callbacks.Callback) or not isinstance(callbacks, Iterable):
        callbacks = (callbacks,)
    found = tuple(callbacks)
    for callback in found:
        if not isinstance(callback, keras.callbacks.Callback):
            name = getattr(callback, "__name__", repr(callback))
            cure = f"give {name}()" if isinstance(callback, type) else "give Keras callbacks"
            raise ScheduleError(f"callbacks: {name} is no callback object: {cure}")
    return found


class RunCallbacks:
    """The callbacks that were given to a run.

    Args:
        callbacks: as they were given.
        epochs: of all stages together, at most.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], epochs: int) -> None:
        self.callbacks = tuple(callbacks)
        self.epochs = epochs
        self.begun = False
        self.logs: Any = None
        # Of the optimizer, by the epochs before its stage.
        self.steps: dict[int, int] = {}

    def in_stage(self, before: int) -> list[keras.callbacks.Callback]:
        """The callbacks for the `fit` of a stage.

        Args:
            before: epochs of the stages before it.
        """
        return [
            callback if is_of_stages(callback) else _Relay(callback, self, before)
            for callback in self.callbacks
        ]

    def end(self, model: keras.Model) -> None:
        """Tell the callbacks that the run is over, with the model as it leaves the run."""
        for callback in self.callbacks if self.begun else ():
            if not is_of_stages(callback):
                keras.callbacks.Callback.set_model(callback, model)
                callback.on_train_end(self.logs)


def is_of_stages(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback starts again in each stage, and counts that stage's epochs."""
    return isinstance(callback, (StageCallback, *_STEERING))


class _Relay(keras.callbacks.Callback):
    """Passes on what happens in one stage as what happens in the run."""

    def __init__(self, inner: keras.callbacks.Callback, run: RunCallbacks, before: int) -> None:
        super().__init__()
        self.inner, self.run, self.before = inner, run, before
        self.async_safe = getattr(inner, "async_safe", False)
        for hook, names in _BATCH_HOOKS.items():
            if any(_overrides(inner, name) for name in names):
                setattr(self, hook, getattr(inner, hook))
        if isinstance(inner, keras.callbacks.TensorBoard):
            self.on_test_end = self._end_test_of_tensorboard

    def set_params(self, params: Any) -> None:
        """The number of epochs is that of the run."""
        super().set_params(params)
        self.inner.set_params({**(params or {}), "epochs": self.run.epochs})

    def set_model(self, model: keras.Model) -> None:
        """The model of the stage; TensorBoard would open new files for it."""
        super().set_model(model)
        if self.run.begun and isinstance(self.inner, keras.callbacks.TensorBoard):
            keras.callbacks.Callback.set_model(self.inner, model)
        else:
            self.inner.set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """The run begins with its first stage."""
        if not self.run.begun:
            self.inner.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count over all stages."""
        self.run.begun = True
        self.inner.on_epoch_begin(self.before + epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Count over all stages."""
        self.run.logs = logs
        self.inner.on_epoch_end(self.before + epoch, logs)

    def _end_test_of_tensorboard(self, logs: Any = None) -> None:
        """It writes what is validated at the optimizer's step, which starts at 0 in each stage."""
        model = self.model
        self.run.steps[self.before] = int(model.optimizer.iterations)
        steps = sum(count for before, count in self.run.steps.items() if before <= self.before)
        counted = SimpleNamespace(optimizer=SimpleNamespace(iterations=steps))
        keras.callbacks.Callback.set_model(self.inner, counted)
        self.inner.on_test_end(logs)
        keras.callbacks.Callback.set_model(self.inner, model)


def _overrides(callback: keras.callbacks.Callback, name: str) -> bool:
    # A LambdaCallback has its functions in itself.
    own = getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name)
    return own or name in vars(callback)
