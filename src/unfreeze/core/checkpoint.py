"""The state of a stage between two epochs, so that a killed run goes on from there.

File: `<run_dir>/epoch.safetensors`: the weights that the stage changes, the
optimizer's variables, the random layers' states and the best weights so far; in
its metadata the history and what the rules have counted. It belongs to one stage
by its number; the record of finished stages (`state.py`) comes first, and a file
of a finished stage is left alone until the next one replaces it. Invariant: on a
CPU, with data in an order that the seed decides, the resumed run has the same
weights as one that was never killed, to the bit.

A checkpoint is a help and not the run: one that cannot be written (a full disk) is
told and passed over.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.arrays_file import read_arrays, write_arrays
from unfreeze.core.internals import own_random_state
from unfreeze.core.job import log
from unfreeze.core.recorder import Recorder
from unfreeze.core.rules import StopOnPlateau
from unfreeze.errors import RunError

FORMAT = 2
FILE = "epoch.safetensors"
# A checkpoint is written when it has cost less than this share of the time since
# the one before: 3 % are promised, and the first is a guess.
_SHARE = 0.02
_LEAST_SECONDS = 1.0
_BYTES_A_SECOND = 1e8
# What is not written is copied, for a run that is asked to stop, within the rest.
_COPY_SHARE = 0.005
_BYTES_COPIED_A_SECOND = 1e9

_COUNTS: dict[type, tuple[str, ...]] = {
    StopOnPlateau: ("best", "waited"),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
}


@dataclass(frozen=True, eq=False)
class Parts:
    """All that changes while a stage trains.

    Attributes:
        variables: the weights that the stage can change.
        model: the compiled model of the stage.
        whole: the whole model, for its random layers.
        recorder: history and best weights.
        rules: callbacks that end the stage or lower its rate.
    """

    variables: Sequence[Any]
    model: keras.Model
    whole: keras.Model
    recorder: Recorder
    rules: Sequence[keras.callbacks.Callback]

    def by_kind(self) -> dict[str, list[Any]]:
        """The variables by what they are for, each list in a fixed order; builds the optimizer."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return {
            "weight": list(self.variables),
            "optimizer": list(optimizer.variables),
            "random": own_random_state(self.whole),
        }


@dataclass(frozen=True, eq=False)
class State:
    """What a checkpoint holds.

    Attributes:
        arrays: all numbers by name.
        meta: the rest, as JSON.
    """

    arrays: dict[str, np.ndarray]
    meta: str


class Checkpointer(keras.callbacks.Callback):
    """Writes a checkpoint after an epoch, as often as 3 % of the time allow.

    It must be the last of the callbacks: what others do at the end of an epoch
    belongs to it.

    Args:
        file: where to.
        number: of the stage, from 0.
        parts: what to keep.
        note: is told, once, that checkpoints cannot be written.
    """

    def __init__(
        self, file: Path, number: int, parts: Parts, note: Callable[[str], None] = log.warning
    ) -> None:
        super().__init__()
        self.file, self.number, self.parts, self.note = file, number, parts, note
        self._counts = _counts(parts.rules)
        self._cost: float | None = None
        self._copy_cost: float | None = None
        self._copied: State | None = None
        self._since = self._copied_at = time.perf_counter()

    def on_train_begin(self, logs: Any = None) -> None:
        """Give the rules what they had counted: Keras' own start anew here."""
        for rule, counts in zip(self.parts.rules, self._counts, strict=True):
            vars(rule).update(counts)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write, or else copy, if it is time. After the last epoch there is nothing to go on with.

        Without a copy, a run that is asked to stop in the next epoch would lose this one.
        """
        if self.model.stop_training:
            self._copied = None
            return
        began = time.perf_counter()
        if self._is_time():
            self._copied = None
            self._write(collect(self.number, epoch + 1, self.parts))
            self._since = self._copied_at = time.perf_counter()
            self._cost = self._since - began
        elif self._is_time_to_copy():
            self._copied = collect(self.number, epoch + 1, self.parts, copy=True)
            self._copied_at = time.perf_counter()
            self._copy_cost = self._copied_at - began

    def keep(self) -> None:
        """Write the end of the last epoch, if that is not done yet."""
        if self._copied is not None:
            self._write(self._copied)
            self._copied = None

    def restore(self) -> int:
        """Bring everything back to where the checkpoint was written.

        Returns:
            Epochs that were done; 0 without a checkpoint of this stage.

        Raises:
            RunError: it is damaged, or does not fit the stage.
        """
        done, self._counts = read(self.file, self.number, self.parts)
        return done

    def _write(self, state: State) -> None:
        try:
            write_arrays(self.file, state.arrays, state.meta)
        except OSError as error:
            self.note(
                f"the state within the stage cannot be kept ({error.strerror or error}): training "
                "goes on, but if it were broken off, it would go on from an earlier epoch"
            )
            self.note = log.info

    def _is_time(self) -> bool:
        waited = time.perf_counter() - self._since
        cost = self._size() / _BYTES_A_SECOND if self._cost is None else self._cost
        return waited * _SHARE >= cost and waited >= _LEAST_SECONDS

    def _is_time_to_copy(self) -> bool:
        waited = time.perf_counter() - self._copied_at
        guess = self._copy_cost is None
        cost = self._size() / _BYTES_COPIED_A_SECOND if guess else self._copy_cost
        return waited * _COPY_SHARE >= (cost or 0.0)

    def _size(self) -> int:
        numbers = [v for part in self.parts.by_kind().values() for v in part]
        return 4 * sum(int(math.prod(v.shape)) for v in numbers)


def collect(number: int, done: int, parts: Parts, copy: bool = False) -> State:
    """All that a checkpoint holds.

    Args:
        number: of the stage, from 0.
        done: epochs done.
        parts: what to keep.
        copy: make the numbers independent of the variables.
    """
    arrays = {
        f"{name}_{i}": _numbers(variable, copy)
        for name, variables in parts.by_kind().items()
        for i, variable in enumerate(variables)
    }
    recorder = parts.recorder
    arrays |= {f"best_{i}": value for i, value in enumerate(recorder.best)}
    meta = {
        "format": FORMAT,
        "stage": recorder.stage,
        "number": number,
        "done": done,
        "rows": recorder.rows,
        "best_epoch": recorder.best_epoch,
        "rules": _counts(parts.rules),
    }
    return State(arrays, json.dumps(meta))


def read(file: Path, number: int, parts: Parts) -> tuple[int, list[dict[str, float]]]:
    """Put a checkpoint's values into a stage's parts.

    Args:
        file: the checkpoint; it may be missing.
        number: of the stage; a checkpoint of another one is passed over.
        parts: a fresh stage, compiled.

    Returns:
        Epochs done, 0 without a checkpoint; and the counts of the rules.

    Raises:
        RunError: it is damaged, or does not fit the stage.
    """
    if not file.is_file():
        return 0, _counts(parts.rules)
    cure = "delete it to begin the stage again"
    try:
        arrays, text = read_arrays(file)
        meta = json.loads(text)
        if meta["format"] != FORMAT:
            raise RunError(f"{file} has format {meta['format']}, not {FORMAT}: {cure}")
        if meta["number"] != number:
            return 0, _counts(parts.rules)
        lists = parts.by_kind()
        best = [
            arrays.pop(f"best_{i}") for i in range(len(parts.variables) * bool(meta["best_epoch"]))
        ]
        wanted = {f"{n}_{i}": v for n, part in lists.items() for i, v in enumerate(part)}
        if wanted.keys() != arrays.keys() or any(
            tuple(v.shape) != arrays[name].shape for name, v in wanted.items()
        ):
            raise RunError(f"{file} does not fit the stage {meta['stage']!r}: {cure}")
        parts.recorder.go_on(meta["rows"], meta["best_epoch"], best)
        done, counts = int(meta["done"]), list(meta["rules"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read ({error}): {cure}") from None
    for name, variable in wanted.items():
        variable.assign(arrays[name])
    return done, counts


def _counts(rules: Sequence[keras.callbacks.Callback]) -> list[dict[str, float]]:
    """What each rule has counted so far; empty where it counts nothing, or nothing yet."""
    found = []
    for rule in rules:
        values = {name: vars(rule).get(name) for name in _COUNTS.get(type(rule), ())}
        found.append({name: float(v) for name, v in values.items() if v is not None})
    return found


def _numbers(variable: Any, copy: bool) -> np.ndarray:
    # On some backends an array is the variable's own memory.
    array: np.ndarray = keras.ops.convert_to_numpy(variable)
    return np.array(array) if copy else array
