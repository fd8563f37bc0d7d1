"""Reading a saved classifier, for all who need one: without running code from the file."""

from pathlib import Path
from typing import Any

import keras

from unfreeze import run_folder
from unfreeze.audio.clip_model import parts_of
from unfreeze.errors import RunError


def load_clip_model(path: Path) -> keras.Model:
    """Load a clip model: waveform in, class probabilities out.

    Args:
        path: a `.keras` file that `unfreeze train` or `SoundClassifier.save` wrote.

    Raises:
        RunError: it is not there, or not the model of a sound classifier.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        parts_of(model)
    except (ValueError, TypeError, OSError) as error:
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
