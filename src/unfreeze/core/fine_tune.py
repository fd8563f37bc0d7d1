"""`unfreeze.fine_tune`: the whole recipe in one call, with defaults made of the presets.

As `fine_tune` of fastai: the new head first, then everything. `schedule_for` says which preset
fits a model, so that the choice can be looked at, and edited.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from unfreeze.core.boundary import check_stages, plan_stage
from unfreeze.core.fit import FitResult, fit
from unfreeze.core.given_data import may_hold_labels
from unfreeze.core.graph import Graph, check_is_model, flatten
from unfreeze.core.presets import probe_tune, two_stage
from unfreeze.core.schedule import BEST, Plateau, Schedule
from unfreeze.errors import ScheduleError

# Epochs of a head on cached outputs for each epoch of the whole network: together they cost
# about as much as one of those, and a head that has not settled spoils the base (Kumar et al.,
# "Fine-Tuning can Distort Pretrained Features", ICLR 2022).
_HEAD_EPOCHS = 4


def fine_tune(
    model: keras.Model,
    train: Any,
    y: Any = None,
    validation_data: Any = None,
    epochs: int = 5,
    batch_size: int = 32,
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = (),
    run_dir: str | Path | None = None,
    seed: int | None = None,
    verbose: Any = "auto",
    *,
    validation_split: float = 0.0,
) -> FitResult:
    """Train the head of a pretrained model, then all of it.

    The head comes first, because a random head would send large gradients into the base. Of
    arrays, a head of one dense layer is solved by logistic regression, and the whole network
    is then trained at a rate of 2e-4 that falls to almost 0 (the preset `probe_tune`). Any other
    head is trained at 1e-3 for four times `epochs` on cached outputs, or until it has gained
    nothing for `epochs`; the whole network follows at 1e-4 (the preset `two_stage`). BatchNorm
    statistics stay as they were pretrained. The best weights are kept.

    Args:
        model: a built functional or Sequential model: a pretrained base and a new head.
        train: x, with `y`; or `(x, y)` or a dataset, as for `unfreeze.fit`.
        y: labels, where `train` is x alone. Where `train` has its labels, a second `(x, y)` or
            dataset in this place is the validation data: `fine_tune(model, train, val)`.
        validation_data: likewise; they choose the best epoch.
        epochs: of the whole network, at least 1.
        batch_size: samples per step.
        callbacks: Keras callbacks, which see one run.
        run_dir: folder that an interrupted run resumes from.
        seed: of the order of samples and of dropout. None draws one.
        verbose: as for `unfreeze.fit`.
        validation_split: share of arrays to validate with instead of `validation_data`.

    Returns:
        As `unfreeze.fit`.

    Raises:
        ScheduleError: `epochs` is no whole number above 0, or the model has no head to train.
        DataError: the data do not fit the model; before any training.
        StageError: a stage did not do what it claims, or its loss diverged.

    Examples:
        >>> result = unfreeze.fine_tune(
        ...     model, x, y, validation_split=0.2, epochs=2, seed=1, verbose=0
        ... )
        >>> [stage.stage for stage in result.stages]
        ['head', 'start', 'all']
    """
    check_is_model(model, "fine_tune")
    if validation_data is None and may_hold_labels(train) and may_hold_labels(y):
        y, validation_data = None, y
    of_arrays = y is not None or isinstance(train, tuple)
    return fit(
        model,
        schedule_for(flatten(model), epochs, solve=of_arrays),
        train,
        y,
        validation_data=validation_data,
        validation_split=validation_split,
        batch_size=batch_size,
        callbacks=callbacks,
        run_dir=run_dir,
        seed=seed,
        verbose=verbose,
    )


def schedule_for(graph: Graph, epochs: int = 5, solve: bool = True) -> Schedule:
    """The schedule that `fine_tune` runs.

    Args:
        graph: the flattened model.
        epochs: of the last stage.
        solve: whether a head may be solved. That needs a cache, and a dataset that augments
            at random cannot be cached.

    Raises:
        ScheduleError: see `fine_tune`.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ScheduleError(f"fine_tune: epochs {epochs!r} must be a whole number, at least 1")
    if not solve:
        return _trained_head(graph, epochs)
    try:
        schedule = probe_tune()
        check_stages(graph, schedule)
    except ScheduleError:
        return _trained_head(graph, epochs)
    *head, last = schedule.stages
    return replace(schedule, stages=(*head, replace(last, epochs=epochs)), name="fine_tune")


def _trained_head(graph: Graph, epochs: int) -> Schedule:
    schedule = two_stage()
    head, last = schedule.stages
    # Random layers at the input would keep the head from being cached.
    head = replace(head, epochs=_HEAD_EPOCHS * epochs, augment=False)
    head = replace(head, until=Plateau(BEST, patience=epochs))
    schedule = replace(schedule, stages=(head, replace(last, epochs=epochs)), name="fine_tune")
    first = check_stages(graph, schedule)[0]
    if not plan_stage(graph, first).cached:
        return replace(schedule, stages=(replace(head, epochs=epochs), schedule.stages[1]))
    return schedule
