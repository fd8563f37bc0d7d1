"""The run folder of `fit`: finished stages, and the state of a stage between two epochs.

Layout: `<run_dir>/fit.json` (format version, what the run is, a record of each finished
stage); `stage_<n>.safetensors`, the weights after stage n, 0 being those that the run
began with; `epoch.safetensors`, the state of the stage that trains: the weights that it
changes, optimizer, random states, best weights and, as metadata, history and counts of
the rules. Caches are in `<run_dir>/cache`.

Invariants: weights are in place before the record that names them. A run resumes only
with the same schedule, seed and data. `epoch.safetensors` counts only for its own stage,
by number. On a CPU, with data in an order that the seed decides, a resumed run ends with
the same weights as an uninterrupted one, to the bit. A checkpoint that cannot be written
(full disk) is reported and skipped.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.core.array_files import read_arrays, write_arrays
from unfreeze.core.audit import LayerMovement, StageAudit
from unfreeze.core.callbacks import WORST, Rank, Recorder, Row, StopOnPlateau, rank
from unfreeze.core.keras_internals import own_random_state
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.core.stage_caching import log
from unfreeze.errors import RunError
from unfreeze.files import write_json

RUN_FORMAT = 2
RUN_FILE = "fit.json"
# Fields of `Stage` that older folders do not have.
_ADDED = ("average", "lora")

EPOCH_FORMAT = 2
EPOCH_FILE = "epoch.safetensors"
# A checkpoint is written when it has cost less than this share of the time since
# the one before: 3 % are promised, and the first is a guess.
_SHARE = 0.02
_LEAST_SECONDS = 1.0
_BYTES_A_SECOND = 1e8
# Within the rest, state that is not written is copied, for a run that is asked to stop.
_COPY_SHARE = 0.005
_BYTES_COPIED_A_SECOND = 1e9

_COUNTS: dict[type, tuple[str, ...]] = {
    StopOnPlateau: ("best", "waited"),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
}


@dataclass(frozen=True)
class StageResult:
    """The result of a stage.

    Attributes:
        stage: its name.
        epochs: epochs run.
        best_epoch: the one whose weights were kept, from 1.
        monitor: the value it was chosen by, such as `val_loss`.
        best_value: that value.
        seconds: wall time, caching included.
        cache: what happened with the cache, in words.
        trained_weights: how many numbers were trained.
        audit: what moved.
        rows: a row of the history for each epoch.
    """

    stage: str
    epochs: int
    best_epoch: int
    monitor: str
    best_value: float
    seconds: float
    cache: str
    trained_weights: int
    audit: StageAudit
    rows: tuple[Row, ...]

    @property
    def rank(self) -> Rank:
        """The rank of its best epoch among those of other stages: smaller is better."""
        if not self.best_epoch:
            return WORST
        return rank(self.rows[self.best_epoch - 1], self.monitor) or WORST

    @property
    def error(self) -> float:
        """Standard error of `best_value`; 0 where the log has none."""
        row = self.rows[self.best_epoch - 1] if self.best_epoch else {}
        return float(row.get(f"{self.monitor}_error", 0.0))


def identity(
    schedule: Schedule,
    seed: int,
    data: dict[str, str],
    settings: dict[str, Any],
    trained: dict[str, list[int]],
) -> dict[str, Any]:
    """What makes a run the same run: written to the folder and compared on the next start.

    Args:
        schedule: all stages.
        seed: of the run.
        data: digests of the training and the validation data.
        settings: those of `fit` that change what is trained.
        trained: positions in `model.weights` of what each stage changes. The schedule
            alone does not decide it: a BatchNorm layer is new only until it has trained.
    """
    stages = {stage.name: _stage_as_plain(stage) for stage in schedule}
    run = {"schedule": stages, "seed": seed, "data": data, "settings": _plain(settings)}
    run["choice of weights to train"] = trained
    run["choice of layer groups"] = _plain(schedule.groups)
    run["choice of the best epoch"] = schedule.monitor
    return {**run, "keras": keras.__version__}


def recorded_seed(run_dir: Path | None) -> int | None:
    """The seed of the run that a folder holds, None where there is none to resume."""
    if run_dir is None or not (run_dir / RUN_FILE).is_file():
        return None
    try:
        return int(_read(run_dir / RUN_FILE)["run"]["seed"])
    except (KeyError, TypeError, ValueError) as error:
        file = run_dir / RUN_FILE
        raise RunError(f"{file} cannot be read ({error}): delete it to start afresh") from None


def finished_stages(run_dir: Path, wanted: dict[str, Any]) -> list[tuple[StageResult, Path]]:
    """Results and weights of the stages that an earlier run in this folder finished.

    Raises:
        RunError: the folder holds a run with other settings or data, or its
            record cannot be read.
    """
    file = run_dir / RUN_FILE
    if not file.is_file():
        return []
    record = _read(file)
    try:
        found = dict(record["run"])
        stages = [(_result(item), run_dir / item["weights"]) for item in record["stages"]]
        for number, (_, weights) in enumerate(stages, start=1):
            if weights != run_dir / _weights_name(number):
                raise ValueError(f"the weights of stage {number} have an unexpected name")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({error}): delete it to start afresh") from None
    changed = [key for key in wanted if found.get(key) != wanted[key]]
    if changed:
        raise RunError(
            f"{run_dir} holds a run with another {' and '.join(changed)}: "
            "build the model and the data as for that run, give another run_dir, or delete "
            "this one to start afresh"
        )
    for _, weights in stages:
        if not weights.is_file():
            raise RunError(f"{weights} is missing: delete {file} to start afresh")
    return stages


def sweep(run_dir: Path) -> None:
    """Remove half-written files that a killed process left, ours and those of safetensors."""
    for left in (*run_dir.glob(".partial-*"), *run_dir.glob(".tmp??????")):
        if left.is_file():
            left.unlink(missing_ok=True)


def begin_or_go_back(run_dir: Path, run: dict[str, Any], model: keras.Model) -> None:
    """Record that a run has begun and from which weights, or restore those weights.

    Call it after `finished_stages`, when no stage has ended yet.
    """
    start = run_dir / _weights_name(0)
    if (run_dir / RUN_FILE).is_file() and start.is_file():
        load_weights(model, start)
        return
    _write(run_dir, run, [], model)


def load_weights(model: keras.Model, file: Path) -> None:
    """Restore the weights that a run has saved.

    Raises:
        RunError: they are damaged, or of another model.
    """
    try:
        arrays, _ = read_arrays(file)
        model.set_weights([arrays[f"weight_{i}"] for i in range(len(arrays))])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{file} cannot be read ({error}): delete {file.parent / RUN_FILE} to start afresh"
        ) from None


def write_stage(
    run_dir: Path, run: dict[str, Any], results: list[StageResult], model: keras.Model
) -> None:
    """Save the weights after the newest stage, then record it."""
    _write(run_dir, run, results, model)


def _write(
    run_dir: Path, run: dict[str, Any], results: list[StageResult], model: keras.Model
) -> None:
    number = len(results)
    numbers = {f"weight_{i}": value for i, value in enumerate(model.get_weights())}
    write_arrays(run_dir / _weights_name(number), numbers)
    stages = [{**asdict(r), "weights": _weights_name(i)} for i, r in enumerate(results, start=1)]
    write_json(
        run_dir / RUN_FILE, {"format": RUN_FORMAT, "run": run, "stages": _without_nan(stages)}
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{file} cannot be read ({error}): delete it to start afresh") from None
    if version != RUN_FORMAT:
        raise RunError(
            f"{file} has format {version}, this version reads {RUN_FORMAT}: "
            "delete it to start afresh"
        )
    return dict(record)


def _without_nan(value: Any) -> Any:
    """A metric may be NaN in some epoch, for which JSON has no number: null."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _weights_name(number: int) -> str:
    return f"stage_{number}.safetensors"


def _movement(item: dict[str, Any]) -> LayerMovement:
    values: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in item.items()}
    return LayerMovement(**values)


def _result(item: dict[str, Any]) -> StageResult:
    fields = {key: value for key, value in item.items() if key != "weights"}
    layers = tuple(_movement(layer) for layer in fields["audit"]["layers"])
    fields["audit"] = StageAudit(fields["audit"]["stage"], layers)
    fields["rows"] = tuple(
        {k: math.nan if v is None else v for k, v in row.items()} for row in fields["rows"]
    )
    return StageResult(**fields)


def _stage_as_plain(stage: Stage) -> dict[str, Any]:
    """A stage as JSON, so that folders from before a field was added still hold the same run."""
    added = {f.name: f.default for f in fields(Stage) if f.name in _ADDED}
    return {key: v for key, v in _plain(stage).items() if key not in added or v != added[key]}


def _plain(value: Any) -> Any:
    """A stage as JSON; objects that are not plain data become their configuration or type."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(part) for key, part in vars(value).items()}
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, keras.layers.Layer):
        return f"layer {value.name}"
    if hasattr(value, "get_config"):
        return {
            "class": type(value).__name__,
            "config": json.dumps(value.get_config(), default=str),
        }
    return getattr(value, "__qualname__", type(value).__qualname__)


@dataclass(frozen=True, eq=False)
class Parts:
    """All that changes while a stage trains.

    Attributes:
        variables: the weights that the stage can change.
        model: the compiled model of the stage.
        whole: the whole model, for its random layers.
        recorder: history and best weights.
        rules: callbacks that end the stage or lower its rate.
        averages: weights averaged over epochs so far.
    """

    variables: Sequence[Any]
    model: keras.Model
    whole: keras.Model
    recorder: Recorder
    rules: Sequence[keras.callbacks.Callback]
    averages: Sequence[Any] = ()

    def by_kind(self) -> dict[str, list[Any]]:
        """The variables by what they are for, each list in a fixed order; builds the optimizer."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return {
            "weight": list(self.variables),
            "optimizer": list(optimizer.variables),
            "random": own_random_state(self.whole),
            "average": list(self.averages),
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
    """Writes a checkpoint after an epoch, as often as 3 % of the time allows.

    It must be the last of the callbacks: what others do at the end of an epoch
    belongs to it.

    Args:
        file: where to write it.
        number: of the stage, from 0.
        parts: what to keep.
        note: called once if checkpoints cannot be written.
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
        """Restore the rules' counts here, because Keras' own rules reset theirs."""
        for rule, counts in zip(self.parts.rules, self._counts, strict=True):
            vars(rule).update(counts)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write, or else copy, if it is time. After the last epoch there is nothing to resume.

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
        """Write the state at the end of the last epoch, if that is not done yet."""
        if self._copied is not None:
            self._write(self._copied)
            self._copied = None

    def restore(self) -> int:
        """Restore everything to the moment when the checkpoint was written.

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
                f"the state within the stage could not be saved ({error.strerror or error}): "
                "training continues, but if it is interrupted, it will resume from an earlier "
                "epoch"
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
        "format": EPOCH_FORMAT,
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
        number: of the stage; a checkpoint of another one is ignored.
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
        if meta["format"] != EPOCH_FORMAT:
            raise RunError(f"{file} has format {meta['format']}, not {EPOCH_FORMAT}: {cure}")
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
