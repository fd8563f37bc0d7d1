"""Read a saved classifier without running any code from the file.

In safe mode, Keras refuses functions stored as code (Lambda). But it makes objects of
any registered class, unpacks everything else in the archive, and accepts other formats
with the same suffix. Here a file must be an archive of the three members that Keras
writes (and assets, in their folder), of plausible sizes, whose configuration names only
classes of Keras and of this package, or those that the user has named.
"""

import json
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import keras
import numpy as np

from unfreeze.audio.clip_model import has_independent_classes, parts_of
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import RunError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.calibration import thresholds_of

CONFIG_NAME, WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = frozenset({"metadata.json", CONFIG_NAME, WEIGHTS})
# The configuration of YAMNet's classifier has 60 KB, the largest of
# `keras.applications` (EfficientNetV2L) 0.7 MB.
_LARGEST_TEXT = 1 << 25
# Keras stores without compression; it would shrink weights by a few per cent.
_MOST_EXPANSION = 100
_SMALL = 1 << 20

# Classes of Keras that run code from the file, or load other files.
_REFUSED = frozenset(
    {"__lambda__", "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
)


def check_keras_file(path: Path, allowed: Mapping[str, Any] | None = None) -> None:
    """Refuse a file that is not a plain Keras model.

    Args:
        path: a `.keras` file, as written by `model.save`.
        allowed: classes and functions besides those of Keras and of this package, by the name
            that they are registered by; None where the user cannot name any.

    Raises:
        RunError: it is missing or damaged, or holds more than a plain model.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist: give a run folder or a .keras file")
    if path.suffix != ".keras":
        raise RunError(f"{path} is not a .keras file: give one that Keras has saved")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            _check_config(path, json.loads(archive.read(CONFIG_NAME)), allowed)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise RunError(
            f"{path} is not a complete .keras file ({error}): copy it again, or train again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: {CONFIG_NAME} in it cannot be read ({error})") from None


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    for name in sorted(_MEMBERS - set(names)):
        raise RunError(f"{path} has no {name} in it: give a file that Keras 3 has saved")
    for member in members:
        name = member.filename
        inside = PurePosixPath(name)
        leaves = inside.is_absolute() or ".." in inside.parts or "\\" in name or ":" in name
        if leaves or stat.S_ISLNK(member.external_attr >> 16):
            raise RunError(f"{path} is refused: {name!r} in it leads out of the archive")
        if (name not in _MEMBERS and inside.parts[0] != "assets") or names.count(name) > 1:
            raise RunError(f"{path} is refused: {name!r} does not belong in a Keras model")
        large = member.file_size > _SMALL + _MOST_EXPANSION * member.compress_size
        if large or (name != WEIGHTS and member.file_size > _LARGEST_TEXT):
            raise RunError(
                f"{path} is refused: {name!r} in it would take {member.file_size / 1e6:,.0f} MB "
                f"of memory (stored: {member.compress_size / 1e6:,.1f} MB)"
            )


def _check_config(path: Path, config: Any, allowed: Mapping[str, Any] | None) -> None:
    for described in _objects(config):
        kind, module = described["class_name"], described.get("module")
        registered = described.get("registered_name")
        if kind in _REFUSED:
            raise RunError(
                f"{path} is refused: it has a {kind.strip('_')}, which can run code from the "
                "file. Ask its author for a model without it"
            )
        homes = [str(module or "keras"), str(registered or "")]
        if homes[1] in (allowed or ()):
            continue  # Keras takes what it is given under this name, and imports nothing.
        foreign = homes[0].split(".")[0] not in ("keras", "builtins", "unfreeze")
        if foreign or (">" in homes[1] and homes[1].split(">")[0] != "unfreeze"):
            cure = "" if allowed is None else f". If it is yours: --custom-objects {module}:{kind}"
            raise RunError(
                f"{path} is refused: it has a {registered or f'{module}.{kind}'}, which belongs "
                f"neither to Keras nor to unfreeze{cure}"
            )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every description of an object or function in a configuration."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if isinstance(part.get("class_name"), str):
                yield part
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)


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
            code or foreign objects.
    """
    check_keras_file(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        parts_of(model)
    except _UNREADABLE as error:
        raise RunError(f"{path} cannot be loaded as a sound classifier: {error}") from None
    return model


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
        front_end: how waveforms become patches.
        labels: name of each class.
        source: the run folder or `.keras` file.
        metrics: scores of the run; None for a `.keras` file without a run.
        multilabel: whether each class is judged by itself.
    """

    model: keras.Model
    front_end: FrontEnd
    labels: tuple[str, ...]
    source: Path
    metrics: dict[str, Any] | None
    multilabel: bool

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
    patches, front_end, labels = parts_of(model)
    several = has_independent_classes(patches)
    return LoadedClassifier(model, front_end, labels, run, metrics, several)
