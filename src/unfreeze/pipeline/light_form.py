"""The light form of a run: its network as one ONNX file, for machines without Keras.

`light.onnx` takes patches, as they are computed outside Keras on every road (`patches`,
(patches, *patch_shape) float32), and gives class probabilities (`probabilities`) and, where the
run kept them, the scores of the backbone's own classes (`published`). A gate before the classes
is part of the network. What else a classifier consists of is in the file's `metadata_props`,
as one JSON text; thresholds stay in `metrics.json`.

Invariants: the file names the sha256 of the `model.keras` that it was made of, and of the run's
`config.yaml`, and is refused beside any other: thresholds of another run would be plausible. It
is opened from its bytes, so that it cannot name further files.
"""

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.clip_parts import ClipParts, OwnPart
from unfreeze.audio.rules import content_hash
from unfreeze.backbones.frontend import NetworkOutputs, front_end_from
from unfreeze.backbones.network_file import find_network, onnx_session
from unfreeze.backend import ONNX, RUNTIME, choose_runtime, has_module, import_keras
from unfreeze.errors import RunError, WeightsError, show
from unfreeze.pipeline import run_folder

#: Name of the file in a run folder, and of the text in its metadata.
FILE, SETTINGS = "light.onnx", "unfreeze_light"
#: Names of its input and outputs.
PATCHES, PROBABILITIES, PUBLISHED = "patches", "probabilities", "published"
FORMAT = 1
# Values of patches that go through the network at once. More are no faster on a CPU; with YAMNet
# 16 patches take 190 MB in all, 32 take 230.
_VALUES = 16 * 6_144


class LightModel:
    """Patches to scores, computed by ONNX Runtime; threads may call it at once.

    Args:
        session: of a light form.
        outputs: those that are wanted, put side by side.
    """

    def __init__(self, session: Any, outputs: tuple[str, ...]) -> None:
        import onnxruntime

        self._session, self._outputs = session, list(outputs)
        self._options = onnxruntime.RunOptions()
        # What no wanted output needs is not computed.
        self._options.only_execute_path_to_fetches = True

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Scores (n, classes) float32 of patches (n, *patch_shape)."""
        patches = np.ascontiguousarray(x, np.float32)
        most = max(_VALUES // max(patches[0].size, 1), 1) if len(patches) else 1
        rows = [self._run(patches[at : at + most]) for at in range(0, max(len(patches), 1), most)]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _run(self, patches: np.ndarray) -> np.ndarray:
        found = self._session.run(self._outputs, {PATCHES: patches}, self._options)
        scores: np.ndarray = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
        return scores


@dataclass(frozen=True, eq=False)
class LightForm:
    """A light form, opened.

    Attributes:
        parts: the classifier.
        model_sha256: of the `model.keras` that it was made of.
        config_sha256: of the `config.yaml` of its run.
    """

    parts: ClipParts
    model_sha256: str
    config_sha256: str


def settings_of(parts: ClipParts, model: Path) -> dict[str, Any]:
    """What is kept in the file beside the network, as plain values.

    Args:
        parts: the classifier.
        model: the `model.keras` that holds it, in its run's folder.
    """
    own = parts.own
    published = None
    if own is not None:
        published = {"labels": list(own.labels), "key": own.key, "title": own.title}
    return {
        "unfreeze_light": FORMAT,
        "model_sha256": content_hash(model),
        "config_sha256": content_hash(model.with_name(run_folder.CONFIG)),
        "labels": list(parts.labels),
        "multilabel": parts.multilabel,
        "front_end": parts.front_end.as_plain(),
        "notice": parts.notice,
        "published": published,
    }


def load_any(run: Path) -> tuple[Any, dict[str, Any] | None]:
    """Load a classifier by the runtime that there is (`unfreeze.backend.choose_runtime`).

    Args:
        run: a run folder, or a `.keras` file.

    Returns:
        Its Keras model, or its parts from the light form; and the run's scores, if any.

    Raises:
        RunError: it is missing, not finished, or not a sound classifier; or as `load_light`.
    """
    if choose_runtime() == ONNX:
        return load_light(run)
    import_keras()
    from unfreeze.pipeline.saved_model import load_classifier

    loaded = load_classifier(run)
    return loaded.model, loaded.metrics


def as_parts(model: Any) -> ClipParts:
    """What a classifier consists of: a Keras clip model, or what is taken apart already.

    Raises:
        ValueError: it is not the model of a sound classifier.
    """
    if isinstance(model, ClipParts):
        return model
    # Keras, which the light form does without.
    from unfreeze.audio.clip_model import clip_parts_of

    return clip_parts_of(model)


def load_light(run: Path) -> tuple[ClipParts, dict[str, Any]]:
    """Load a finished run from its light form.

    Returns:
        The classifier and the run's scores.

    Raises:
        RunError: it is a `.keras` file, or not a finished run; or as `read_light_form`.
    """
    if run.is_file():
        raise RunError(
            f"{show(run)} runs on Keras alone, and this runs on ONNX Runtime "
            f"({_why_light()}): give the run's folder with its {FILE}, or {_keras_cure()}"
        )
    run_folder.read_config(run)
    scores = run_folder.read_scores(run)
    return read_light_form(run).parts, scores


def read_light_form(run: Path) -> LightForm:
    """Open the light form of a run.

    Args:
        run: a finished run's folder; may lack `model.keras`.

    Raises:
        RunError: there is none, it is damaged, or it was made of another model or run; names
            the command that makes it.
        WeightsError: the frozen network that it reads is gone or has changed.
    """
    file, model, config = run / FILE, run / run_folder.MODEL, run / run_folder.CONFIG
    if not has_module("onnxruntime"):
        raise RunError(
            f"ONNX Runtime is not installed ({_why_light()}): pip install 'unfreeze[light]' for "
            f"runs that hold {FILE}, or {_keras_cure()}"
        )
    cure = f"make it where TensorFlow is installed: {light_command(run)}"
    if not file.is_file():
        raise RunError(
            f"{show(run)} has no {FILE}, which is what ONNX Runtime runs ({_why_light()}): {cure}; "
            f"or {_keras_cure()}"
        )
    try:
        form = open_light(file)
    except OSError as error:
        raise RunError(f"{show(file)} cannot be read: {error.strerror or error}") from None
    except (WeightsError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, KeyError):
            reason = f"it lacks {show(reason)}"
        raise RunError(f"{show(file)} is no light form of a run ({reason}): {cure}") from None
    if model.is_file() and content_hash(model) != form.model_sha256:
        raise RunError(
            f"{show(file)} was made of another model than {show(model)}, which has changed "
            f"since: {cure}"
        )
    if config.is_file() and content_hash(config) != form.config_sha256:
        raise RunError(
            f"{show(file)} is of another run than {show(config)}, whose thresholds would not fit "
            f"it: copy {FILE}, {run_folder.CONFIG} and {run_folder.METRICS} of one run, or {cure}"
        )
    if isinstance(form.parts.front_end, NetworkOutputs):
        find_network(form.parts.front_end.network)
    return form


def _why_light() -> str:
    return f"{RUNTIME} is {ONNX}" if os.environ.get(RUNTIME) else "no backend of Keras is installed"


def _keras_cure() -> str:
    if os.environ.get(RUNTIME):
        return f"unset {RUNTIME}"
    return "install a backend: pip install 'unfreeze[tensorflow]'"


def no_keras_model() -> RunError:
    """The error where a light form is asked for its Keras model."""
    return RunError(
        f"This classifier runs from {FILE}, without Keras, so it has no Keras model, which this "
        f"needs: {_keras_cure()}"
    )


def light_command(run: Path) -> str:
    """The command that makes the light form of a run."""
    return f"unfreeze export {shlex.quote(str(run))} --format onnx --overwrite"


def model_digest(run: Path) -> str:
    """The sha256 of a classifier's `.keras` file, even where only its light form is at hand.

    Args:
        run: a run folder, or a `.keras` file.
    """
    model = run / run_folder.MODEL if run.is_dir() else run
    return content_hash(model) if model.is_file() else read_light_form(run).model_sha256


def open_light(file: Path) -> LightForm:
    """Open a light form.

    Raises:
        WeightsError: ONNX Runtime cannot open it.
        ValueError: it is something else. (Other errors of values that are not ours, too.)
    """
    session = onnx_session(file, file.read_bytes())
    kept = session.get_modelmeta().custom_metadata_map
    if SETTINGS not in kept:
        raise ValueError("it has no settings")
    settings = json.loads(kept[SETTINGS])
    if settings["unfreeze_light"] != FORMAT:
        raise ValueError(f"format {settings['unfreeze_light']!r}; this version reads {FORMAT}")
    labels, front_end = tuple(settings["labels"]), front_end_from(settings["front_end"])
    own, published = None, settings["published"]
    widths = {item.name: item.shape[-1] for item in session.get_outputs()}
    wanted = {PROBABILITIES: len(labels)}
    if published is not None:
        names = tuple(published["labels"])
        wanted[PUBLISHED] = len(names)
        both = LightModel(session, (PROBABILITIES, PUBLISHED))
        own = OwnPart(both, names, str(published["key"]), str(published["title"]))
    if widths != wanted:
        raise ValueError(f"its outputs are {widths}, not {wanted}")
    classes = LightModel(session, (PROBABILITIES,))
    parts = ClipParts(
        classes, front_end, labels, bool(settings["multilabel"]), str(settings["notice"]), own
    )
    return LightForm(parts, str(settings["model_sha256"]), str(settings["config_sha256"]))
