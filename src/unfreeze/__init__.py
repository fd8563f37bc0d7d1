"""Staged transfer learning on Keras 3: freeze, train the head, unfreeze, train on.

`import unfreeze` is quick: Keras is imported when something that needs it is
first used. Once Keras is there, our layers are registered with it, so that
`keras.models.load_model` opens the models that this package writes.
"""

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

from unfreeze.version import __version__

if TYPE_CHECKING:
    from unfreeze.classifier import SoundClassifier
    from unfreeze.core.audit import Audit
    from unfreeze.core.callbacks import UnfreezeSchedule
    from unfreeze.core.compiled import DetectStaleFlags, check_compiled
    from unfreeze.core.find_lr import find_lr
    from unfreeze.core.presets import classic, full, gradual, head_only, two_stage
    from unfreeze.core.run import FitResult, fit
    from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage
    from unfreeze.core.schedule_yaml import read_schedule, write_schedule
    from unfreeze.core.watch import StageCallback
    from unfreeze.errors import (
        DataError,
        ExportError,
        RunError,
        ScheduleError,
        StageError,
        Stopped,
        UnfreezeError,
        WeightsError,
    )
    from unfreeze.export.exporter import export_model
    from unfreeze.report.plots import plot_moved

_HOME = {
    "Audit": "core.audit",
    "DataError": "errors",
    "DetectStaleFlags": "core.compiled",
    "ExportError": "errors",
    "FitResult": "core.run",
    "Plateau": "core.schedule",
    "Reached": "core.schedule",
    "ReduceRate": "core.schedule",
    "RunError": "errors",
    "Schedule": "core.schedule",
    "ScheduleError": "errors",
    "SoundClassifier": "classifier",
    "Stage": "core.schedule",
    "StageCallback": "core.watch",
    "StageError": "errors",
    "Stopped": "errors",
    "UnfreezeError": "errors",
    "UnfreezeSchedule": "core.callbacks",
    "WeightsError": "errors",
    "check_compiled": "core.compiled",
    "classic": "core.presets",
    "export_model": "export.exporter",
    "find_lr": "core.find_lr",
    "fit": "core.run",
    "full": "core.presets",
    "gradual": "core.presets",
    "head_only": "core.presets",
    "plot_moved": "report.plots",
    "read_schedule": "core.schedule_yaml",
    "two_stage": "core.presets",
    "write_schedule": "core.schedule_yaml",
}

__all__ = [
    "Audit",
    "DataError",
    "DetectStaleFlags",
    "ExportError",
    "FitResult",
    "Plateau",
    "Reached",
    "ReduceRate",
    "RunError",
    "Schedule",
    "ScheduleError",
    "SoundClassifier",
    "Stage",
    "StageCallback",
    "StageError",
    "Stopped",
    "UnfreezeError",
    "UnfreezeSchedule",
    "WeightsError",
    "__version__",
    "check_compiled",
    "classic",
    "export_model",
    "find_lr",
    "fit",
    "full",
    "gradual",
    "head_only",
    "plot_moved",
    "read_schedule",
    "two_stage",
    "write_schedule",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unfreeze' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unfreeze.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


@wrapt.when_imported("keras")
def _register_layers(_keras: Any) -> None:
    # Keras finds a saved model's own classes by registration only.
    for module in ("audio.logmel", "audio.clip_model", "core.layer_rates"):
        importlib.import_module(f"unfreeze.{module}")
