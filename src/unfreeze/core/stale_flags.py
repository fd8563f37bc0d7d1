"""Finds the common mistake: `trainable` flags changed, and no new `compile`.

An optimizer is built once, for the variables that train at that moment, and a
train function is traced once. Flags that change later are ignored on
TensorFlow (what was unfrozen stays as it is, what was frozen trains on) and end
in an obscure exception on PyTorch and JAX. Here it is one clear error on all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from unfreeze.core.keras_internals import flatten_layers, own_weights, variables_of
from unfreeze.errors import StageError

_CURE = "compile the model again after changing `trainable`"


def check_compiled(model: keras.Model) -> None:
    """Refuse a model whose flags changed after its optimizer was built.

    Compares the variables that the optimizer was built for with those that are
    trainable now. An optimizer that is not built yet is fine: the next `fit`
    builds it.

    Raises:
        StageError: not compiled, or the two differ; names the layers.

    Examples:
        >>> base.trainable = False
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> history = model.fit(x, y, verbose=0)
        >>> base.trainable = True
        >>> unfreeze.check_compiled(model)
        Traceback (most recent call last):
        ...
        unfreeze.errors.StageError: these layers were unfrozen without a new compile, ...
    """
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise StageError(
            f"model {model.name!r} is not compiled: call compile(optimizer=..., loss=...) first"
        )
    built_for = variables_of(model.optimizer)
    if built_for is None:
        return
    now = model.trainable_variables
    added = _layers(_without(now, built_for))
    removed = _layers(_without(built_for, now))
    if added:
        raise StageError(
            f"these layers were unfrozen without a new compile, so they would not train: "
            f"{_some(added)}; {_CURE}"
        )
    if removed:
        raise StageError(
            f"these layers were frozen without a new compile, so they could train on: "
            f"{_some(removed)}; {_CURE}"
        )


class DetectStaleFlags(keras.callbacks.Callback):
    """Ends `fit` with an error where flags changed and the model was not compiled again.

    Looks at the start and at the first step of each epoch, so it sees what other
    callbacks do too. It also sees BatchNorm layers (and others that update
    themselves) switched between training and inference, as long as the same
    callback object watched from the compile on.

    Raises:
        StageError: from within `fit`; names the layers.

    Examples:
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> history = model.fit(x, y, verbose=0, callbacks=[unfreeze.DetectStaleFlags()])
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: _Traced | None = None
        self._due = True

    def on_train_begin(self, logs: Any = None) -> None:
        """Compare before anything trains."""
        check_compiled(self.model)
        self._compare()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Look again at the next step, when all callbacks have had their turn."""
        self._due = True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Compare once per epoch: flags are read from thousands of objects."""
        if not self._due:
            return
        self._due = False
        if self.model.train_function is None:
            raise StageError("a callback compiled the model during `fit`, so `fit` cannot continue")
        check_compiled(self.model)
        self._compare()

    def _compare(self) -> None:
        now = _Traced.of(self.model)
        if self._seen is None or self._seen.function is not now.function:
            self._seen = now
            return
        changed = sorted(path for path in now.modes if now.modes[path] != self._seen.modes[path])
        if changed or now.trainable != self._seen.trainable:
            raise StageError(
                "layers were switched between training and inference without a new compile: "
                f"{_some(changed) or 'see their `trainable` flags'}; {_CURE}"
            )


@dataclass(frozen=True, eq=False)
class _Traced:
    """A train function and the flags that it was made under.

    Attributes:
        function: the train function itself.
        trainable: ids of the trainable variables.
        modes: flag of each layer that updates weights by itself in training mode.
    """

    function: Any
    trainable: frozenset[int]
    modes: dict[str, bool]

    @classmethod
    def of(cls, model: keras.Model) -> "_Traced":
        return cls(
            function=model.train_function,
            trainable=frozenset(id(v) for v in model.trainable_variables),
            modes={x.path: x.trainable for x in flatten_layers(model) if own_weights(x)[1]},
        )


def _without(variables: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    known = {id(v) for v in others}
    return [v for v in variables if id(v) not in known]


def _layers(variables: Iterable[Any]) -> list[str]:
    """The layers that hold the variables, by path, in order."""
    return list(dict.fromkeys(v.path.rpartition("/")[0] or v.path for v in variables))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
