"""The run folder of `fit`: which stages are done, so that a broken run goes on.

Layout: `<run_dir>/fit.json` (format version, what the run is, and a record of
each stage that has ended) and the weights files that it names; those that the
run began with are `stage_0.safetensors`. Weights are in place before the record
that names them. `epoch.safetensors` is the state within a stage (`checkpoint.py`),
caches stand in `<run_dir>/cache`. Invariant: a run is continued only with the
same schedule, seed and data; anything else is refused.
"""

import json
import math
from dataclasses import asdict, dataclass, is_dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import keras

from unfreeze.core.arrays_file import read_arrays, write_arrays
from unfreeze.core.audit import LayerMovement, StageAudit
from unfreeze.core.recorder import WORST, Rank, Row, rank
from unfreeze.core.schedule import Schedule
from unfreeze.errors import RunError
from unfreeze.files import write_json

FORMAT = 2
FILE = "fit.json"


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    Attributes:
        stage: its name.
        epochs: epochs run.
        best_epoch: the one whose weights were kept, from 1.
        monitor: the value it was chosen by, such as `val_loss`.
        best_value: that value.
        seconds: wall time, caching included.
        cache: what became of the cache, in words.
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
        """How good its best epoch is, against those of other stages: smaller is better."""
        if not self.best_epoch:
            return WORST
        return rank(self.rows[self.best_epoch - 1], self.monitor) or WORST


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
        settings: of `fit`, as far as they change what is trained.
        trained: places in `model.weights` of what each stage changes. The schedule
            does not say it all: a BatchNorm layer is new only until it has trained.
    """
    stages = {stage.name: _plain(stage) for stage in schedule}
    run = {"schedule": stages, "seed": seed, "data": data, "settings": _plain(settings)}
    run["choice of weights to train"] = trained
    run["choice of layer groups"] = _plain(schedule.groups)
    run["choice of the best epoch"] = schedule.monitor
    return {**run, "keras": keras.__version__}


def recorded_seed(run_dir: Path | None) -> int | None:
    """The seed of the run that a folder holds, None where there is none to go on with."""
    if run_dir is None or not (run_dir / FILE).is_file():
        return None
    try:
        return int(_read(run_dir / FILE)["run"]["seed"])
    except (KeyError, TypeError, ValueError) as error:
        file = run_dir / FILE
        raise RunError(f"{file} cannot be read ({error}): delete it to start afresh") from None


def finished_stages(run_dir: Path, wanted: dict[str, Any]) -> list[tuple[StageResult, Path]]:
    """Results and weights of the stages that an earlier run in this folder ended.

    Raises:
        RunError: the folder holds a run with other settings or data, or its
            record cannot be read.
    """
    file = run_dir / FILE
    if not file.is_file():
        return []
    record = _read(file)
    try:
        found = dict(record["run"])
        stages = [(_result(item), run_dir / item["weights"]) for item in record["stages"]]
        for number, (_, weights) in enumerate(stages, start=1):
            if weights != run_dir / _weights_name(number):
                raise ValueError(f"the weights of stage {number} have another name")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({error}): delete it to start afresh") from None
    changed = [key for key in wanted if found.get(key) != wanted[key]]
    if changed:
        raise RunError(
            f"{run_dir} holds a run with another {' and '.join(changed)}: "
            "build the model and the data as for the first start, take another run_dir, or delete "
            "this one to start afresh"
        )
    for _, weights in stages:
        if not weights.is_file():
            raise RunError(f"{weights} is missing: delete {file} to start afresh")
    return stages


def sweep(run_dir: Path) -> None:
    """Remove what a killed process left half-written: of ours, and of safetensors."""
    for left in (*run_dir.glob(".partial-*"), *run_dir.glob(".tmp??????")):
        if left.is_file():
            left.unlink(missing_ok=True)


def begin_or_go_back(run_dir: Path, run: dict[str, Any], model: keras.Model) -> None:
    """Record that a run has begun, and from which weights; or go back to those.

    To be called when no stage has ended yet, after `finished_stages`.
    """
    start = run_dir / _weights_name(0)
    if (run_dir / FILE).is_file() and start.is_file():
        load_weights(model, start)
        return
    _write(run_dir, run, [], model)


def load_weights(model: keras.Model, file: Path) -> None:
    """Put back the weights that a run has kept.

    Raises:
        RunError: they are damaged, or of another model.
    """
    try:
        arrays, _ = read_arrays(file)
        model.set_weights([arrays[f"weight_{i}"] for i in range(len(arrays))])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{file} cannot be read ({error}): delete {file.parent / FILE} to start afresh"
        ) from None


def write_stage(
    run_dir: Path, run: dict[str, Any], results: list[StageResult], model: keras.Model
) -> None:
    """Keep the weights after the newest stage, then record it."""
    _write(run_dir, run, results, model)


def _write(
    run_dir: Path, run: dict[str, Any], results: list[StageResult], model: keras.Model
) -> None:
    number = len(results)
    numbers = {f"weight_{i}": value for i, value in enumerate(model.get_weights())}
    write_arrays(run_dir / _weights_name(number), numbers)
    stages = [{**asdict(r), "weights": _weights_name(i)} for i, r in enumerate(results, start=1)]
    write_json(run_dir / FILE, {"format": FORMAT, "run": run, "stages": _without_nan(stages)})


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{file} cannot be read ({error}): delete it to start afresh") from None
    if version != FORMAT:
        raise RunError(
            f"{file} has format {version}, this version reads {FORMAT}: delete it to start afresh"
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


def _plain(value: Any) -> Any:
    """A stage as JSON: objects that are no plain data stand by their configuration or type."""
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
