"""The plan of a training run: its settings resolved and checked, once.

A plan is made before Keras is imported. What a run needs from outer rooms (an
earlier run, pictures) is passed in as functions, which import what
they need when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze.audio.augmentation import plain_augmentation
from unfreeze.pipeline.class_weights import plain_weights
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.pipeline.training_data import Inputs, Progress

if TYPE_CHECKING:
    import keras

    from unfreeze.audio.manifest import Manifest
    from unfreeze.audio.patches import PatchView
    from unfreeze.core.fit import FitResult
    from unfreeze.core.schedule import Schedule

    # From the new patch model to scores before and after, as `change` in `metrics.json`.
    MeasureChange = Callable[[keras.Model, Manifest, Mapping[str, PatchView], int], dict[str, Any]]


def described(options: TrainOptions) -> dict[str, Any]:
    """The settings that define a run, for its config, with the contents of files they name.

    Raises:
        ScheduleError: a file cannot be read or used.
    """
    contents = {
        "augment": plain_augmentation(options.augment),
        "class_weight": plain_weights(options.class_weight),
    }
    files = {name: value for name, value in contents.items() if not isinstance(value, str)}
    return {"options": options.as_plain(), **({"files": files} if files else {})}


@dataclass(frozen=True, eq=False)
class RunPlan:
    """A training run, ready to start.

    Attributes:
        options: as the user gave them.
        inputs: the data, divided; the network; its weights.
        schedule: what is trained when.
        load_earlier: loads the run that this one adds to, and returns a function that
            measures the change; None if it adds to none.
        draw: writes the pictures of a finished run into its folder; called with the
            folder, the result, the metrics and the labels.
        report: writes the report of a finished run into its folder; called with the folder
            and progress(done, total).
        light: writes the light form of a finished run into its folder, where that is possible
            (`unfreeze.pipeline.light_form`); called with the folder and the model, and
            returns what is to be said of it, or nothing.
    """

    options: TrainOptions
    inputs: Inputs
    schedule: Schedule
    load_earlier: Callable[[], MeasureChange] | None
    draw: Callable[[Path, FitResult, Mapping[str, Any], Sequence[str]], None]
    report: Callable[[Path, Progress], None]
    light: Callable[[Path, keras.Model], str]
