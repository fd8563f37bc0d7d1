"""How long a run will take, from a measured warm-up of its own model and data.

The whole model runs forward on a few batches, compiled and fused as the stages
will run it, which takes a second or two. Its time is divided between a stage's
frozen and live part by their multiply-adds. Its other costs (backward passes,
updates, compiling, the start of an epoch) are added from constants.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from unfreeze.cache_room import CacheRoom
from unfreeze.core.boundary import Cut, cut_for, inference_cut, share_of_work
from unfreeze.core.data import Rows
from unfreeze.core.graph import count_numbers
from unfreeze.core.keras_internals import compiles_first, graph_loops_pay
from unfreeze.core.layers import Selection
from unfreeze.core.stage_caching import Source, Whole, why_not
from unfreeze.core.step_model import joined_model

# Large enough for the speed of large batches; the model's own size sets the time.
_BATCH = 64
_ROUNDS = 3
# Measured with YAMNet and MobileNetV3Small on TensorFlow and PyTorch, 2 CPU cores
# (`python -m benchmarks --only estimate`).
# Forward and backward of what trains, in forward passes of the same layers; and
# what BatchNorm in training mode multiplies that by.
_TRAINING = {"tensorflow": (3.3, 2.0), "torch": (2.1, 1.4)}
_UPDATE_A_WEIGHT = 4e-9
_STEP = 0.0015
_EPOCH = 0.05
_COMPILE = (0.5, 0.05)  # of a stage's training: for any, and for each live step
_COMPILE_FROZEN = (0.5, 0.014)


@dataclass(frozen=True)
class StageTime:
    """How long one stage will take if it does not end early.

    Attributes:
        stage: the stage's name.
        prepare: seconds before its first epoch: cache and compiling.
        epoch: seconds per epoch, validation included.
        epochs: how many it may run.
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
    """Measure how long each stage will take; of the model only the flags change.

    Args:
        whole: the model.
        selections: the stages.
        source: the run's data.
        room: where caches would be stored.
        batch_size: for stages that do not set their own.

    Returns:
        The stages' times; empty for a dataset that is no array, or on a backend where
        running step by step is slow.
    """
    if not isinstance(source.train, Rows) or compiles_first():
        return ()
    left = [selection for selection in selections if selection.stage.epochs]
    cuts = [cut_for(whole.graph, s, s.stage.views) for s in left]
    shares = [share_of_work(whole.graph, cut.prefix) for cut in cuts]
    if not left or any(share is None for share in shares):
        return ()
    forward = _forward_seconds(whole, source.train)
    return tuple(
        _stage_time(selection, cut, forward, share or 0.0, source, room, batch_size)
        for selection, cut, share in zip(left, cuts, shares, strict=True)
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
    selection: Selection,
    cut: Cut,
    forward: float,
    share: float,
    source: Source,
    room: CacheRoom,
    batch_size: int,
) -> StageTime:
    """A stage's time from a forward pass's seconds and its frozen share, both per sample."""
    stage = selection.stage
    assert isinstance(source.train, Rows)
    held = source.validation
    train, validation = source.train.n, held.n if isinstance(held, Rows) else 0
    frozen, live = forward * share, forward * (1 - share)
    factor, norm_factor = _TRAINING.get(keras.backend.backend(), (3.0, 1.5))
    updating = {id(v) for v in selection.updating}
    normed = any(id(n.moving_mean) in updating for e in selection.chosen for n in e.norms)
    factor *= norm_factor if normed else 1.0
    prepare, training = 0.0, live * factor
    if graph_loops_pay():
        prepare += _COMPILE[0] + _COMPILE[1] * len(cut.suffix) * (norm_factor if normed else 1.0)
    if why_not(cut, stage, source, room) is None:
        prepare += frozen * (train * stage.views + validation)
        prepare += _COMPILE_FROZEN[0] + _COMPILE_FROZEN[1] * len(cut.prefix)
    else:
        training, live = training + frozen, live + frozen
    steps = (train + validation) / (stage.batch_size or batch_size)
    updates = train / (stage.batch_size or batch_size)
    epoch = train * training + validation * live + _EPOCH + _STEP * steps
    epoch += _UPDATE_A_WEIGHT * count_numbers(selection.trained) * updates
    return StageTime(stage.name, prepare, epoch, stage.epochs)


def _forward_seconds(whole: Whole, data: Rows) -> float:
    """Seconds per sample of a forward pass through the whole model, in inference mode."""
    model = joined_model(inference_cut(whole.graph), whole.model, frozenset(), whole.fuse)
    batch = data.take(np.arange(_BATCH) % data.n)[0]
    fed = batch[0] if len(batch) == 1 else batch
    model.predict_on_batch(fed)
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        model.predict_on_batch(fed)
        seconds.append(time.perf_counter() - began)
    return min(seconds) / _BATCH
