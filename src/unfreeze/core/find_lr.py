"""The learning-rate range test: a short training in which the rate grows at every step.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3,
with the running mean and the two readings of the curve that fastai made popular.

Invariant: the model comes back as it was, to the bit: weights, BatchNorm statistics,
its layers' random states, flags, compiled loss and optimizer. The test trains a rebuilt
model over the same layers, with an optimizer of its own.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import keras
import numpy as np

from unfreeze.core.boundary import find_cut
from unfreeze.core.data import (
    ENDLESS,
    Rows,
    ShuffledRows,
    Stream,
    as_data,
    check_batch_size,
    number_of_batches,
)
from unfreeze.core.graph import Graph, check_is_model, flatten
from unfreeze.core.keras_internals import flatten_layers, has_custom_training, own_weights
from unfreeze.core.labels import check_labels
from unfreeze.core.objective import objective
from unfreeze.core.optimizers import set_learning_rate, stage_optimizer
from unfreeze.core.stage_caching import log
from unfreeze.core.step_model import StepModel, joined_model
from unfreeze.errors import DataError, ScheduleError, StageError

# The test ends when the smoothed loss is above this multiple of its lowest value; readings leave
# out this share of the first steps and this number of the last ones (fastai's `lr_find`).
_DIVERGED = 4.0
_SKIP_FIRST = 0.1
_SKIP_LAST = 5
# Weight of the past in the running mean, and the share of all steps over which a slope is
# measured. With fastai's 0.98 and slopes from step to step, the steepest descent was mostly
# noise: on 12 small problems and 60, 100 and 200 steps its mean regret was 0.45, 0.37 and 0.14
# of what training can gain (worst 1.3). With these, and the lower of both readings, it was
# 0.05, 0.04 and 0.02 (worst 0.12); they were chosen on the same problems.
_SMOOTHING = 0.95
_SLOPE_SPAN = 1 / 7


@dataclass(frozen=True)
class LearningRateRange:
    """What a range test saw.

    Attributes:
        rates: learning rate of each step, growing by a constant factor.
        losses: training loss of each step's batch, before the step.
        smoothed: running mean of `losses`, corrected for its start at 0.
        steepest: rate around which `smoothed` falls fastest per factor of the rate.
        tenth_of_minimum: a tenth of the rate at which `smoothed` is lowest.
        diverged: whether the test ended early, the loss being 4 times the lowest or not finite.
        clear: whether `smoothed` falls by more than it would by chance. If not, its readings
            say nothing.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float
    tenth_of_minimum: float
    diverged: bool
    clear: bool = True

    @property
    def suggestion(self) -> float | None:
        """The lower of the two readings; None where the curve is too noisy to say."""
        return min(self.steepest, self.tenth_of_minimum) if self.clear else None

    def __str__(self) -> str:
        end = "diverged" if self.diverged else "ended"
        if self.suggestion is None:
            return (
                f"no learning rate to suggest: over {len(self.rates)} steps the loss falls by no "
                "more than it varies from batch to batch. Give a larger batch_size or more steps, "
                "or train layers that still have something to learn"
            )
        return (
            f"suggested learning rate {self.suggestion:.1e} (steepest descent at "
            f"{self.steepest:.1e}, a tenth of the minimum is {self.tenth_of_minimum:.1e}; "
            f"{len(self.rates)} steps, {end} at {self.rates[-1]:.1e})"
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw loss against rate.

        Args:
            path: the picture to write; its suffix says the format (png, svg, pdf).

        Returns:
            A matplotlib figure, which a notebook shows.
        """
        from unfreeze.picture import BLUE, GREY, PALE, VERMILLION, page

        with page(path, 7.0, 4.0) as figure:
            axes = figure.add_subplot()
            axes.semilogx(self.rates, self.losses, color=PALE, label="loss of the batch")
            axes.semilogx(self.rates, self.smoothed, color=BLUE, label="smoothed")
            color = VERMILLION if self.clear else GREY
            for rate, style, name in (
                (self.steepest, "--", "steepest"),
                (self.tenth_of_minimum, ":", "minimum / 10"),
            ):
                axes.axvline(rate, color=color, linestyle=style, label=f"{name} {rate:.1e}")
            low, high = min(self.smoothed), max(self.smoothed[0], self.smoothed[-1])
            axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
            axes.set_xlabel("learning rate")
            axes.set_ylabel("training loss")
            axes.legend()
        return figure


def find_lr(
    model: keras.Model,
    train: Any,
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    batch_size: int = 32,
    loss: Any = None,
    optimizer: str | keras.optimizers.Optimizer | None = None,
    seed: int = 0,
    plot: str | os.PathLike[str] | None = None,
) -> LearningRateRange:
    """Try growing learning rates on the layers that are trainable now.

    Args:
        model: a built functional or Sequential model. Its flags say what trains, as for
            Keras's `fit`; frozen layers run in inference mode, as in a stage.
        train: `(x, y)`, `(x, y, sample_weight)` or a dataset object, as for `unfreeze.fit`;
            read again when it has fewer batches than `steps`.
        lowest: first learning rate, above 0.
        highest: last learning rate, if the loss does not diverge before.
        steps: number of batches, at least 10.
        batch_size: samples per batch, for arrays.
        loss: as for `compile`. None: the one the model was compiled with, or the one that
            fits its last activation and the labels.
        optimizer: name or template. None: that of the compiled model, or Adam.
        seed: of the order of the samples.
        plot: file for a picture of the curve.

    Returns:
        The curve and its readings; no suggestion, and a warning in the log, where the curve
        is too noisy. The model is as it was before.

    Raises:
        ScheduleError: settings that make no sense, or a model that trains nothing.
        DataError: data that do not fit, or no loss that could be guessed.
        StageError: the loss is not finite from the start.

    Examples:
        >>> found = unfreeze.find_lr(model, (x, y), lowest=1e-5, steps=60)
        >>> 1e-4 < found.suggestion < 1  # None where the curve is too noisy
        True
    """
    check_is_model(model, "find_lr")
    check_batch_size(batch_size)
    if not 0 < lowest < highest < math.inf:
        raise ScheduleError(f"find_lr: needs 0 < lowest < highest, not {lowest} and {highest}")
    if steps < 10:
        raise ScheduleError(f"find_lr: {steps} steps are too few for a curve, give at least 10")
    custom = has_custom_training(model)
    if custom is not None:
        raise ScheduleError(
            f"{type(model).__name__} overrides `{custom}`, which the range test would not use"
        )
    graph = flatten(model)
    endless = isinstance(train, Iterator) or number_of_batches(train) == ENDLESS
    data = as_data(train, model, steps=steps if endless else None)
    compile_with = objective(model, graph, data, loss, None)
    check_labels(model, graph, compile_with["loss"], data, "train")
    if optimizer is None:
        optimizer = getattr(model, "optimizer", None)
    rated = stage_optimizer(optimizer, lowest)
    probe = _probe(model, graph)
    before = [(variable, variable.numpy()) for variable in model.variables]
    try:
        probe.compile(rated, compile_with["loss"], loss_weights=compile_with.get("loss_weights"))
        rates = np.geomspace(lowest, highest, steps)
        losses = _train(probe, _batches(data, batch_size, seed), rates)
    finally:
        for variable, value in before:
            variable.assign(value)
    found = _read(rates, losses)
    if not found.clear:
        log.warning(f"find_lr: {found}")
    if plot is not None:
        found.plot(plot)
    return found


def _probe(model: keras.Model, graph: Graph) -> StepModel:
    """A model of the same layers that trains what the flags say."""
    trained = {id(variable) for variable in model.trainable_variables}
    if not trained:
        raise ScheduleError("find_lr: no layer of the model is trainable; set the flags first")
    updating = frozenset(
        id(variable)
        for layer in flatten_layers(model)
        if layer.trainable
        for variable in own_weights(layer)[1]
    )
    return joined_model(find_cut(graph, trained | updating), model, updating)


def _batches(data: Rows | Stream, batch_size: int, seed: int) -> Iterator[Any]:
    """Batches without end, for `train_on_batch`."""
    if isinstance(data, Rows):
        shuffled = ShuffledRows(data, batch_size, seed)
        # A smaller last batch would be noisier, and compiled again.
        whole = max(1, data.n // batch_size)
        while True:
            for index in range(whole):
                yield (*shuffled[index], None)[:3]
            shuffled.on_epoch_end()
    while True:
        empty = True
        for x, y, weight in data.batches():
            empty = False
            yield x[0] if len(x) == 1 else tuple(x), y, weight
        if empty:
            raise DataError("find_lr: the dataset gives no batches")


def _train(probe: StepModel, batches: Iterator[Any], rates: np.ndarray) -> list[float]:
    """The loss at each rate, until it diverges."""
    losses: list[float] = []
    lowest = math.inf
    for rate, (x, y, weight) in zip(rates, islice(batches, len(rates)), strict=True):
        set_learning_rate(probe.optimizer, float(rate))
        logs = probe.train_on_batch(x, y, sample_weight=weight, return_dict=True)
        losses.append(float(logs["loss"]))
        smoothed = _smooth(losses)[-1]
        if not math.isfinite(losses[-1]) or smoothed > _DIVERGED * lowest:
            break
        lowest = min(lowest, smoothed)
    return losses


def _smooth(losses: list[float]) -> list[float]:
    smoothed, mean = [], 0.0
    for count, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smoothed.append(mean / (1 - _SMOOTHING**count))
    return smoothed


def _read(rates: np.ndarray, losses: list[float]) -> LearningRateRange:
    finite = losses if math.isfinite(losses[-1]) else losses[:-1]
    if len(finite) < 3:
        raise StageError(
            f"find_lr: the loss is not finite after {len(finite)} steps, at a rate of only "
            f"{rates[len(finite)]:.1e}: look for NaN in the data, or give a lower `lowest`"
        )
    smoothed = np.array(_smooth(finite))
    first, last = int(_SKIP_FIRST * len(rates)), len(finite) - _SKIP_LAST
    part = slice(first, last) if last - first >= 3 else slice(None)
    rate, curve = rates[: len(finite)][part], smoothed[part]
    slopes = _slopes(curve, max(3, round(_SLOPE_SPAN * len(rates))))
    return LearningRateRange(
        rates=tuple(map(float, rates[: len(finite)])),
        losses=tuple(finite),
        smoothed=tuple(map(float, smoothed)),
        steepest=float(rate[np.argmin(slopes)]),
        tenth_of_minimum=float(rate[np.argmin(curve)] / 10),
        diverged=len(finite) < len(rates),
        clear=_falls(np.array(finite)[part], curve),
    )


def _falls(losses: np.ndarray, curve: np.ndarray) -> bool:
    """Whether the smoothed curve falls by more than noise alone makes it fall.

    The noise of a batch is told from the differences of neighbours, which a slow fall hardly
    changes. Of 1,500 curves of pure noise, 5 % at 60 steps and 1 % at 200 fall by more.
    """
    lowest = int(np.argmin(curve))
    noise = float(np.std(np.diff(losses))) / math.sqrt(2)
    return bool(curve[: lowest + 1].max() - curve[lowest] > noise)


def _slopes(curve: np.ndarray, span: int) -> np.ndarray:
    """Least-squares slope of the curve around each point, over about `span` points."""
    slopes = np.zeros(len(curve))
    for index in range(len(curve)):
        around = curve[max(0, index - span // 2) : index + span // 2 + 1]
        slopes[index] = np.polyfit(np.arange(len(around)), around, 1)[0]
    return slopes
