"""The light form of a run (`unfreeze.pipeline.light_form`): written, and compared with Keras.

Its graph begins at the patches, which are computed by the same code with and without Keras,
so its scores differ by rounding alone.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from unfreeze.audio.clip_parts import ClipParts
from unfreeze.audio.front_ends import patches_of
from unfreeze.backend import standard_error_held
from unfreeze.errors import ExportError
from unfreeze.export.check import hard_sounds, run_clips
from unfreeze.export.program import freeze
from unfreeze.export.to_onnx import convert, write_settings
from unfreeze.files import atomic_path
from unfreeze.pipeline import light_form, run_folder
from unfreeze.pipeline.inference import all_scores

#: The largest difference of a probability from that of Keras.
TOLERANCE = 1e-5
# Clips of the run that it is compared on, at most; with synthetic and hard sounds.
_CLIPS = 10


def write_light(run: Path, parts: ClipParts) -> Path:
    """Write the light form of a run, in place of an earlier one.

    Keras must run on TensorFlow.

    Args:
        run: the run's folder, with its `model.keras`.
        parts: the classifier in it.

    Returns:
        The file.

    Raises:
        ExportError: the network cannot be converted, or differs; nothing is written then.
    """
    scores: Any = parts.patch_model
    outputs = {light_form.PROBABILITIES: scores.outputs[0]}
    if parts.own is not None:
        both: Any = parts.own.model
        # The layer before them puts both side by side.
        outputs[light_form.PUBLISHED] = both.layers[-1].input[1]
        scores = both
    with standard_error_held():
        model = keras.Model(scores.inputs[0], list(outputs.values()))
        shape = (None, *parts.front_end.patch_shape)
        graph = freeze(model, None, shape, tuple(outputs))
        converted = convert(graph, given=light_form.PATCHES, axes=("patches",))
    file = run / light_form.FILE
    with atomic_path(file) as partial:
        onnx.save(converted, str(partial))
        write_settings(
            partial, light_form.settings_of(parts, run / run_folder.MODEL), light_form.SETTINGS
        )
        difference = _difference(run, partial, parts)
        # Written so that NaN exceeds it, too.
        if not difference <= TOLERANCE:
            raise ExportError(
                f"The light form differs from the model by {difference:.1e} (at most "
                f"{TOLERANCE:g}), so it was not written"
            )
    return file


def _difference(run: Path, file: Path, parts: ClipParts) -> float:
    """The largest difference of a probability, over the run's test clips and hard sounds."""
    front_end = parts.front_end
    tested = run_clips(run, "test", _CLIPS, front_end)
    light, worst = light_form.open_light(file).parts, 0.0
    for sound in (*tested.waveforms, *hard_sounds(front_end)):
        patches = patches_of(sound, front_end)
        pairs = [(parts.patch_model, light.patch_model)]
        if parts.own is not None and light.own is not None:
            pairs = [(parts.own.model, light.own.model)]
        for ours, theirs in pairs:
            apart = np.abs(all_scores(ours, patches) - all_scores(theirs, patches))
            worst = max(worst, float(apart.max()))
    return worst
