"""From a trained classifier to a checked file: what `unfreeze export` does.

Invariant: a file gets its final name only after it was loaded in its own runtime and
agreed with the model. Everything is written to a temporary folder beside the target,
which is always removed.
"""

import hashlib
import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze.backbones.frontend import FrontEnd, NetworkOutputs
from unfreeze.backbones.network_file import ONNX
from unfreeze.backend import import_keras, standard_error_held
from unfreeze.errors import ExportError, RunError, show
from unfreeze.export.formats import Format, check_request, get_format
from unfreeze.files import make_folder, partial_folder, remove_dead_folders, write_json
from unfreeze.version import __version__

if TYPE_CHECKING:
    from unfreeze.pipeline.saved_model import Classifier

SETTINGS_FORMAT = 1
# Seconds of sound for measuring the speed of models that take any length.
_SPEED_SECONDS = 3


@dataclass(frozen=True, eq=False)
class Export:
    """A finished export.

    Attributes:
        path: the file or folder.
        report: the JSON file beside it.
        details: the contents of that file.
        light: the run's light form (`unfreeze.pipeline.light_form`), which is written with an
            ONNX file that stays in the run folder; else None.
    """

    path: Path
    report: Path
    details: dict[str, Any]
    light: Path | None = None


def export_model(
    classifier: "Classifier | str | Path",
    format: str,
    out: str | Path | None = None,
    *,
    quantize: str | None = None,
    embeddings: bool = False,
    length: int | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a classifier for another runtime, and compare it with the model.

    A waveform (float32, mono, in [-1, 1]) goes in, class probabilities come out,
    both with a batch axis. Keras must run on TensorFlow.

    Args:
        classifier: a `SoundClassifier`, or the run folder or `.keras` file of one.
        format: "litert", "onnx", "openvino", "saved_model" or "tfjs".
        out: the file, or the folder for the formats that are folders; None puts
            it beside the model in its run folder.
        quantize: "float16" or "int8", where the format has it.
        embeddings: add the mean embedding of the patches as a second output.
        length: number of samples of a fixed input for one sound at a time, for
            runtimes that need fixed shapes; None takes any number of sounds of
            any one length.
        overwrite: replace an existing export in `out`.

    Returns:
        Where the export is, and what was measured.

    Raises:
        ExportError: it cannot be made as asked, or differs from the model by more
            than the tolerance; `out` is then not written.
        RunError: there is no classifier, or `out` exists.

    Examples:
        >>> unfreeze.export_model("run", "saved_model").path.name
        'model-saved_model'
    """
    form = get_format(format)
    check_request(form, quantize, length)
    _need_tensorflow()
    if isinstance(classifier, str | Path):
        from unfreeze.pipeline.saved_model import load_classifier

        classifier = load_classifier(Path(classifier))
    check_network(form, quantize, classifier.front_end)
    target = export_path(form, classifier.source, out, quantize)
    claim(target, form, overwrite)
    make_folder(target.parent)
    remove_dead_folders(target.parent)
    with partial_folder(target.parent) as folder:
        staged = folder / target.name
        details = _write(classifier, form, staged, quantize, embeddings, length)
        report = target.with_name(f"{target.name}.json")
        details = {"file": target.name, **_size(form, staged), **details}
        _move(form, staged, target)
    write_json(report, details)
    light = None
    if form.name == "onnx" and out is None and target.parent == classifier.source:
        from unfreeze.audio.clip_model import clip_parts_of
        from unfreeze.export.to_light import write_light

        light = write_light(target.parent, clip_parts_of(classifier.model))
    return Export(target, report, details, light)


def check_network(form: Format, quantize: str | None, front_end: FrontEnd) -> None:
    """Refuse an export that cannot hold the frozen network that a classifier reads.

    Raises:
        ExportError: says why, and what can be done.
    """
    if not isinstance(front_end, NetworkOutputs):
        return
    file = front_end.network.file
    if form.name != "onnx":
        raise ExportError(
            f"{form.title} cannot hold {front_end.network.name}, which is a file of its own "
            f"({show(file)}): export to ONNX"
        )
    if not file.lower().endswith(ONNX):
        raise ExportError(
            f"{front_end.network.name} is a TFLite file ({show(file)}), which cannot be part of an "
            "ONNX file: if tf2onnx can convert it (python -m tf2onnx.convert --tflite FILE "
            "--output FILE.onnx), train on that, and export again"
        )
    if quantize is not None:
        raise ExportError(
            f"{front_end.network.name} is exported as it is: leave out --quantize, or train on a "
            f"network that was quantized to {quantize} before"
        )


def export_path(
    form: Format, source: Path | None, out: str | Path | None, quantize: str | None
) -> Path:
    """The path of an export.

    Args:
        form: the format.
        source: the run folder or `.keras` file of the classifier, if it has one.
        out: the user's choice, if any.
        quantize: part of the default name.

    Raises:
        ExportError: `out` is needed, or does not have the format's suffix.
    """
    if out is not None:
        path = Path(out)
        if path.suffix != form.ending and not form.is_folder:
            raise ExportError(f"{path} must end in {form.ending}, the suffix of {form.title}")
        return path
    if source is None:
        raise ExportError("The classifier has not been saved yet: give `out`")
    home, stem = (source, "model") if source.is_dir() else (source.parent, source.stem)
    kind = f"-{quantize}" if quantize else ""
    return home / (f"{stem}{kind}{form.ending}" if form.ending else f"{stem}{kind}-{form.name}")


def claim(target: Path, form: Format, overwrite: bool) -> None:
    """Check, before any work, that an export may be written to `target`.

    Raises:
        RunError: `target` exists and `overwrite` is off, or it is not an export of
            ours, which is never removed.
    """
    if not target.exists():
        return
    report = target.with_name(f"{target.name}.json")
    if target.is_dir() != form.is_folder or (form.is_folder and not report.is_file()):
        raise RunError(f"{target} exists and is not an unfreeze export: give another name")
    if not overwrite:
        raise RunError(f"{target} exists: give another name, or replace it with --overwrite")


def _need_tensorflow() -> None:
    import_keras()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            f"Exports need TensorFlow, but Keras runs on {keras.backend.backend()}: "
            "set KERAS_BACKEND=tensorflow before Keras is imported. "
            "A saved classifier loads on every backend, whichever it was trained on"
        )


def _write(
    classifier: "Classifier",
    form: Format,
    path: Path,
    quantize: str | None,
    embeddings: bool,
    length: int | None,
) -> dict[str, Any]:
    """Write the export to `path`, compare it, and return its report."""
    from unfreeze.export import check, program

    writer = importlib.import_module(f"unfreeze.export.to_{form.name}")
    front_end = classifier.front_end
    frozen = isinstance(front_end, NetworkOutputs)
    run = classifier.source if classifier.source and classifier.source.is_dir() else None
    model = program.with_outputs(classifier.model, embeddings)
    if isinstance(front_end, NetworkOutputs):
        from unfreeze.export.merged_onnx import head_graph, write_merged

        graph = head_graph(classifier.model, length, embeddings)
        with standard_error_held():
            write_merged(graph, front_end, path)
    else:
        graph = program.freeze(model, length)
    calibration = None
    if quantize == "int8":
        calibration = check.run_clips(run, "train", check.MOST_CALIBRATED, front_end)
    rows = [check.fitted(x, length) for x in calibration.waveforms] if calibration else []
    with standard_error_held():
        if not frozen:
            writer.write(graph, path, quantize, rows)
        runner = writer.load(path)
    settings = _settings(classifier, form, graph, model, quantize)

    tested = check.run_clips(run, "test", check.MOST_TESTED, front_end)
    hard = check.hard_sounds(front_end)
    compared = check.compare(model, runner, tested.waveforms, length)
    extreme = check.compare(model, runner, hard, length)
    compared["front_end_difference"] = check.front_end_difference(
        front_end, (*tested.waveforms, *hard), length
    )
    found = check.complaints(compared, quantize, front_end)
    if quantize != "int8":
        # Eight bits cover the range of ordinary sounds; on hard ones, int8 is only reported.
        found += [
            f"{text} on {check.HARD}" for text in check.complaints(extreme, quantize, front_end)
        ]
    if found:
        raise ExportError(
            f"The {form.title} export differs from the model: {'; '.join(found)}. It was not kept"
        )
    samples = length or _SPEED_SECONDS * front_end.sample_rate
    settings["check"] = {
        "compared_on": tested.source,
        "runtime": form.runtime,
        **compared,
        "hard_sounds": {"compared_on": check.HARD, **extreme},
        "tolerance": asdict(check.tolerance_of(quantize, front_end)),
        "speed": {
            "samples": samples,
            "export": check.speed(runner, samples, front_end.sample_rate),
            "keras": check.speed(model.predict_on_batch, samples, front_end.sample_rate),
        },
    }
    if calibration is not None:
        settings["check"]["calibrated_on"] = calibration.source
    writer.write_settings(path, settings)
    if writer.read_settings(path) != settings:
        raise ExportError(f"The settings in the {form.title} export cannot be read back")
    # The settings were added to the same file: it must still be the same model.
    with standard_error_held():
        again = check.compare(model, writer.load(path), tested.waveforms[:2], length)
    if again["largest_difference"] > compared["largest_difference"] + 1e-5:
        raise ExportError(f"The {form.title} export changed when its settings were added")
    return settings


def _settings(
    classifier: "Classifier", form: Format, graph: Any, model: Any, quantize: str | None
) -> dict[str, Any]:
    """The settings that a user of the file must know, as plain values."""
    from unfreeze.audio.clip_model import notice_of

    notice = notice_of(classifier.model)
    front_end = classifier.front_end
    shape = ["sounds", "samples"] if graph.samples is None else [1, graph.samples]
    outputs = {
        name: ["sounds" if graph.samples is None else 1, int(output.shape[-1])]
        for name, output in zip(graph.outputs, model.outputs, strict=True)
    }
    return {
        "unfreeze_export": SETTINGS_FORMAT,
        "unfreeze": __version__,
        "format": form.name,
        "quantize": quantize,
        "labels": list(classifier.labels),
        "multilabel": classifier.multilabel,
        **_thresholds(classifier),
        "sample_rate": front_end.sample_rate,
        "input": {"waveform": shape, "dtype": "float32", "range": [-1, 1], "channels": 1},
        "outputs": outputs,
        "patch_samples": front_end.min_samples,
        "patch_hop_samples": front_end.steps * front_end.step,
        "front_end": front_end.identity,
        **({"licence": notice} if notice else {}),
    }


def _thresholds(classifier: "Classifier") -> dict[str, Any]:
    """From which score a window of a long recording has a class; and a clip, where that differs."""
    named = {"event_thresholds": classifier.thresholds}
    if classifier.multilabel:
        named["thresholds"] = classifier.clip_thresholds
    return {
        name: dict(zip(classifier.labels, levels.round(6).tolist(), strict=True))
        for name, levels in named.items()
    }


def _files(form: Format, path: Path) -> list[Path]:
    """All files of an export; the one that readers open comes last."""
    if form.is_folder:
        return sorted(item for item in path.rglob("*") if item.is_file())
    beside = [path.with_suffix(".bin")] if form.name == "openvino" else []
    return [*beside, path]


def _size(form: Format, path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for file in _files(form, path):
        data = file.read_bytes()
        size += len(data)
        digest.update(data)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _move(form: Format, staged: Path, target: Path) -> None:
    if form.is_folder:
        if target.exists():
            # Move the old one away first: a folder cannot replace one that is not empty.
            target.rename(staged.with_name("replaced"))
        staged.rename(target)
        return
    for file in _files(form, staged):
        file.replace(target.with_name(file.name))
