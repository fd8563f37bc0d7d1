"""Reading a saved classifier, for all who need one: without running code from the file."""

import zipfile
from pathlib import Path
from typing import Any

import keras

from unfreeze import run_folder
from unfreeze.audio.clip_model import parts_of
from unfreeze.errors import RunError
from unfreeze.keras_file import check_keras_file

# What Keras and HDF5 raise on files that are damaged or foreign.
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
        RunError: it is not there, damaged, not the model of a sound classifier, or
            holds code or objects of others (see `keras_file`).
    """
    check_keras_file(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        parts_of(model)
    except _UNREADABLE as error:
        raise RunError(f"{path} cannot be loaded as a sound classifier: {error}") from None
    return model


def load_run(run: Path) -> tuple[keras.Model, dict[str, Any] | None]:
    """Load the clip model of a finished run, with its scores.

    Args:
        run: a run folder, or a `.keras` file, which has no scores.

    Raises:
        RunError: as `load_clip_model`; no such run, or one that is not finished.
    """
    if run.is_file():
        return load_clip_model(run), None
    run_folder.read_config(run)
    scores = run_folder.read_scores(run)
    return load_clip_model(run / run_folder.MODEL), scores
