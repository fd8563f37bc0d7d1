"""Read a saved classifier without running any code from the file.

What a file may hold is in `unfreeze.core.keras_file`.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from unfreeze.audio.clip_model import clip_parts_of, parts_of
from unfreeze.audio.clip_parts import ClipParts
from unfreeze.backbones.frontend import FrontEnd, NetworkOutputs
from unfreeze.backbones.network_file import open_network
from unfreeze.core.keras_file import VARIABLE, check_keras_file, trusted_objects
from unfreeze.errors import RunError
from unfreeze.files import atomic_path
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.calibration import thresholds_of

# What Keras and HDF5 raise on files that are damaged or not theirs.
_UNREADABLE = (
    ValueError,
    TypeError,
    OSError,
    KeyError,
    AttributeError,
    IndexError,
    RuntimeError,
    zipfile.BadZipFile,
)


def load_clip_model(path: Path) -> keras.Model:
    """Load a clip model: waveform in, class probabilities out.

    Args:
        path: a `.keras` file that `unfreeze train` or `SoundClassifier.save` wrote.

    Raises:
        RunError: it is missing, damaged, not the model of a sound classifier, or holds
            code or foreign objects (but for those that UNFREEZE_CUSTOM_OBJECTS names).
        WeightsError: the frozen network that it reads is gone or has changed.
    """
    custom = trusted_objects()
    check_keras_file(path, custom, f"{VARIABLE}=")
    try:
        model = keras.saving.load_model(path, custom, compile=False, safe_mode=True)
        front_end = parts_of(model)[1]
    except _UNREADABLE as error:
        raise RunError(f"{path} cannot be loaded as a sound classifier: {error}") from None
    if isinstance(front_end, NetworkOutputs):
        open_network(front_end)
    return model


def write_clip_model(model: keras.Model, path: Path) -> None:
    """Write a clip model, whole or not at all.

    Args:
        model: waveform in, class probabilities out.
        path: of the `.keras` file.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_path(path) as partial:
        model.save(partial)


class Classifier(Protocol):
    """What exports need of a classifier; `unfreeze.SoundClassifier` is one."""

    @property
    def model(self) -> keras.Model:
        """Waveforms to probabilities."""

    @property
    def front_end(self) -> FrontEnd:
        """How waveforms become patches."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each class."""

    @property
    def multilabel(self) -> bool:
        """Whether each class is judged by itself, so that probabilities need not sum to 1."""

    @property
    def thresholds(self) -> np.ndarray:
        """(classes,) the score from which each is heard in a window of a long recording."""

    @property
    def clip_thresholds(self) -> np.ndarray:
        """(classes,) the probability from which each is heard, where `multilabel`."""

    @property
    def source(self) -> Path | None:
        """The run folder or `.keras` file it was loaded from."""


@dataclass(frozen=True, eq=False)
class LoadedClassifier:
    """A saved classifier, as read from disk.

    Attributes:
        model: the clip model: waveforms to probabilities.
        parts: what it consists of.
        source: the run folder or `.keras` file.
        metrics: scores of the run; None for a `.keras` file without a run.
    """

    model: keras.Model
    parts: ClipParts
    source: Path
    metrics: dict[str, Any] | None

    @property
    def front_end(self) -> FrontEnd:
        """How waveforms become patches."""
        return self.parts.front_end

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.parts.labels

    @property
    def multilabel(self) -> bool:
        """Whether each class is judged by itself."""
        return self.parts.multilabel

    @property
    def thresholds(self) -> np.ndarray:
        """(classes,) the score from which each is heard in a window of a long recording."""
        return thresholds_of(self.metrics, self.labels)

    @property
    def clip_thresholds(self) -> np.ndarray:
        """(classes,) the probability from which each is heard, where `multilabel`."""
        return thresholds_of(self.metrics, self.labels, "clip_thresholds")


def load_classifier(run: Path) -> LoadedClassifier:
    """Load the classifier of a finished run.

    Args:
        run: a run folder, or a `.keras` file.

    Raises:
        RunError: as `load_clip_model`, or the run is missing or not finished.
    """
    if run.is_file():
        metrics, model = None, load_clip_model(run)
    else:
        run_folder.read_config(run)
        metrics = run_folder.read_scores(run)
        model = load_clip_model(run / run_folder.MODEL)
    return LoadedClassifier(model, clip_parts_of(model), run, metrics)
