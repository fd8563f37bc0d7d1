"""How long a run will take, from a measured warm-up of its own model and data.

Each stage's model runs forward on two small batches, frozen and live part apart,
step by step without compiling, which takes tenths of a second. The difference of
the two is what a sample costs; what they share is the cost of running step by
step, which training does not have. Backward passes are not run (that would train);
they are taken as a fixed multiple of the forward pass.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from unfreeze.core.cache import CacheRoom
from unfreeze.core.data import Rows
from unfreeze.core.internals import runs_step_by_step, tree
from unfreeze.core.runner import StepModel, joined_model
from unfreeze.core.select import Selection, apply
from unfreeze.core.split import find_cut
from unfreeze.core.stage import Source, Whole, why_not

_SIZES = (8, 40)
_ROUNDS = 3
# Measured on TensorFlow and PyTorch, 2 CPU cores, YAMNet and MobileNetV3
# (`python -m benchmarks --only estimate`).
_BACKWARD = 2.2
_SECONDS_A_STEP = 0.0006
_SECONDS_A_ROW = 8e-6
_SECONDS_TO_TRACE = 0.04


@dataclass(frozen=True)
class StageTime:
    """What one stage will take, where it does not end early.

    Attributes:
        stage: the stage's name.
        prepare: seconds before its first epoch: cache and compiling.
        epoch: seconds an epoch, validation included.
        epochs: how many it may have.
    """

    stage: str
    prepare: float
    epoch: float
    epochs: int

    @property
    def seconds(self) -> float:
        """The whole stage."""
        return self.prepare + self.epoch * self.epochs


def estimate_stages(
    whole: Whole, selections: Sequence[Selection], source: Source, room: CacheRoom, batch_size: int
) -> tuple[StageTime, ...]:
    """Measure what each stage will take; the model is left as it was, except for flags.

    Args:
        whole: the model.
        selections: the stages.
        source: the run's data.
        room: where caches would stand.
        batch_size: of stages that have none of their own.

    Returns:
        Nothing for a dataset of unknown length, or on a backend where running
        step by step is slow.
    """
    if not isinstance(source.train, Rows) or not runs_step_by_step():
        return ()
    return tuple(
        _stage_time(whole, selection, source, room, batch_size)
        for selection in selections
        if selection.stage.epochs
    )


def in_words(seconds: float) -> str:
    """A duration as people say it: `3 min 20 s`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    if minutes < 100:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def _stage_time(
    whole: Whole, selection: Selection, source: Source, room: CacheRoom, batch_size: int
) -> StageTime:
    stage = selection.stage
    assert isinstance(source.train, Rows)
    held = source.validation
    train, validation = source.train.n, held.n if isinstance(held, Rows) else 0
    cut = find_cut(whole.graph, selection.live, views=stage.views)
    cached = why_not(cut, stage, source, room) is None
    apply(whole.model, selection)
    updating = frozenset(id(v) for v in selection.updating)
    model = joined_model(cut, whole.model, updating, whole.fuse)
    kept = [(v, v.numpy()) for v in selection.updating]
    frozen, live = _seconds_a_sample(model, source.train)
    for variable, value in kept:
        variable.assign(value)
    prepare = _SECONDS_TO_TRACE * (len(model.program.steps) + 2)
    forward = live
    if cached:
        prepare += frozen * (train * stage.views + validation)
        forward += _SECONDS_A_ROW
    else:
        forward += frozen
    steps = (train + validation) / (stage.batch_size or batch_size)
    epoch = (train + validation) * forward + train * live * _BACKWARD + steps * _SECONDS_A_STEP
    return StageTime(stage.name, prepare, epoch, stage.epochs)


def _seconds_a_sample(model: StepModel, data: Rows) -> tuple[float, float]:
    """Forward seconds that one more sample costs, in the frozen and in the live part."""
    found = []
    for size in _SIZES:
        batch = data.take(np.arange(size) % data.n)[0]
        _run(model, batch)
        found.append(np.min([_run(model, batch) for _ in range(_ROUNDS)], axis=0))
    frozen, live = (found[1] - found[0]) / (_SIZES[1] - _SIZES[0])
    return max(float(frozen), 0.0), max(float(live), 0.0)


def _run(model: StepModel, batch: list[Any]) -> tuple[float, float]:
    began = time.perf_counter()
    values = model.feed(batch)
    model.run_frozen(values)
    _wait(list(values.values()))
    between = time.perf_counter()
    _wait(tree.flatten(model.run_live(values, training=True)))
    return between - began, time.perf_counter() - between


def _wait(tensors: list[Any]) -> None:
    """Until an accelerator has really computed them."""
    for tensor in tensors[-1:]:
        keras.ops.convert_to_numpy(tensor)
