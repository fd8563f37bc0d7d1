"""The state of a stage between two epochs, so that a killed run goes on from there.

File: `<run_dir>/epoch.safetensors`: the weights that the stage changes, the
optimizer's variables, the random layers' states and the best weights so far; in
its metadata the history and what the rules have counted. It belongs to one stage
by its number; the record of finished stages (`state.py`) comes first, and a file
of a finished stage is left alone until the next one replaces it. Invariant: on a
CPU, with data in an order that the seed decides, the resumed run has the same
weights as one that was never killed, to the bit.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unfreeze.core.internals import own_random_state
from unfreeze.core.watch import Recorder, StopOnPlateau
from unfreeze.errors import RunError
from unfreeze.files import atomic_path

FORMAT = 1
FILE = "epoch.safetensors"
# A checkpoint is written when it has cost less than this share of the time since
# the one before: 3 % are promised, and the first is a guess.
_SHARE = 0.02
_LEAST_SECONDS = 1.0
_BYTES_A_SECOND = 1e8

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


class Checkpointer(keras.callbacks.Callback):
    """Writes a checkpoint after an epoch, as often as 3 % of the time allow.

    It must be the last of the callbacks: what others do at the end of an epoch
    belongs to it.

    Args:
        file: where to.
        number: of the stage, from 0.
        parts: what to keep.
    """

    def __init__(self, file: Path, number: int, parts: Parts) -> None:
        super().__init__()
        self.file, self.number, self.parts = file, number, parts
        self._counts = _counts(parts.rules)
        self._cost: float | None = None
        self._since = time.perf_counter()

    def on_train_begin(self, logs: Any = None) -> None:
        """Give the rules what they had counted: Keras' own start anew here."""
        for rule, counts in zip(self.parts.rules, self._counts, strict=True):
            vars(rule).update(counts)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write, if it is time. After the last epoch there is nothing to go on with."""
        if self.model.stop_training or not self._is_time():
            return
        began = time.perf_counter()
        write(self.file, self.number, epoch + 1, self.parts)
        self._since = time.perf_counter()
        self._cost = self._since - began

    def restore(self) -> int:
        """Bring everything back to where the checkpoint was written.

        Returns:
            Epochs that were done; 0 without a checkpoint of this stage.

        Raises:
            RunError: it is damaged, or does not fit the stage.
        """
        done, self._counts = read(self.file, self.number, self.parts)
        return done

    def _is_time(self) -> bool:
        waited = time.perf_counter() - self._since
        if self._cost is None:
            numbers = [v for part in self.parts.by_kind().values() for v in part]
            size = 4 * sum(math.prod(v.shape) for v in numbers)
            return waited * _SHARE >= size / _BYTES_A_SECOND and waited >= _LEAST_SECONDS
        return waited * _SHARE >= self._cost and waited >= _LEAST_SECONDS


def write(file: Path, number: int, done: int, parts: Parts) -> None:
    """Write a checkpoint, atomically.

    Args:
        file: where to.
        number: of the stage, from 0.
        done: epochs done.
        parts: what to keep.
    """
    arrays = {
        f"{name}_{i}": keras.ops.convert_to_numpy(variable)
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
        "best_value": recorder.best_value,
        "best_epoch": recorder.best_epoch,
        "rules": _counts(parts.rules),
        "types": {name: str(value.dtype) for name, value in arrays.items()},
    }
    with atomic_path(file) as partial:
        save_file(
            {name: _storable(value) for name, value in arrays.items()},
            partial,
            {"unfreeze": json.dumps(meta)},
        )


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
        with safe_open(file, framework="numpy") as stored:
            meta = json.loads((stored.metadata() or {})["unfreeze"])
            if meta["format"] != FORMAT:
                raise RunError(f"{file} has format {meta['format']}, not {FORMAT}: {cure}")
            if meta["number"] != number:
                return 0, _counts(parts.rules)
            arrays = {
                name: stored.get_tensor(name).view(np.dtype(kind))
                for name, kind in meta["types"].items()
            }
        lists = parts.by_kind()
        best = [
            arrays.pop(f"best_{i}") for i in range(len(parts.variables) * bool(meta["best_epoch"]))
        ]
        wanted = {f"{n}_{i}": v for n, part in lists.items() for i, v in enumerate(part)}
        if wanted.keys() != arrays.keys() or any(
            tuple(v.shape) != arrays[name].shape for name, v in wanted.items()
        ):
            raise RunError(f"{file} does not fit the stage {meta['stage']!r}: {cure}")
        recorder = parts.recorder
        recorder.rows, recorder.best = list(meta["rows"]), best
        recorder.step += len(recorder.rows)
        recorder.best_value, recorder.best_epoch = float(meta["best_value"]), meta["best_epoch"]
        done, counts = int(meta["done"]), list(meta["rules"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
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


def _storable(value: np.ndarray) -> np.ndarray:
    # The file format's numpy side knows no bfloat16: its bytes are kept.
    value = np.asarray(value, order="C")
    return value if value.dtype.kind in "fiub" and value.dtype.isbuiltin else value.view(np.uint16)
