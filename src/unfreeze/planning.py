"""From settings to the plan of a training run, and the run itself.

A run is put together here: the pipeline, and what it needs from outer rooms (trials, an
earlier run, pictures). Everything that can be refused is refused here, once, before
Keras is imported.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from unfreeze.audio.manifest import Manifest
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.pretrained_weights import resolve_weights, settle_licence
from unfreeze.backbones.registry import get_backbone
from unfreeze.errors import DataError, UnfreezeError, show
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.backbone_limits import check_limits
from unfreeze.pipeline.chosen_schedule import checked_schedule
from unfreeze.pipeline.run_plan import RunPlan, described
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.pipeline.training_data import (
    NamedProgress,
    Progress,
    read_inputs,
    read_training_data,
    reading_of,
)

if TYPE_CHECKING:
    import keras

    from unfreeze.compare.detector_scores import Judge, MakeJudge
    from unfreeze.core.fit import FitResult
    from unfreeze.pipeline.run_plan import MeasureChange
    from unfreeze.pipeline.training import Trained, TrainListener

P = ParamSpec("P")


def _with_signature_of(
    made: Callable[P, TrainOptions],
) -> Callable[[Callable[..., TrainOptions]], Callable[P, TrainOptions]]:
    def decorate(function: Callable[..., TrainOptions]) -> Callable[P, TrainOptions]:
        function.__signature__ = signature(made)  # type: ignore[attr-defined]
        return function

    return decorate


@_with_signature_of(TrainOptions)
def complete_options(*args: Any, **given: Any) -> TrainOptions:
    """The settings of a run; with `add_to`, settings that are not given are the earlier run's.

    Takes the fields of `TrainOptions`.

    Raises:
        UnfreezeError: a value is out of range.
        RunError: `add_to` is not a finished run, or is a run of another network.
    """
    given = signature(TrainOptions).bind(*args, **given).arguments
    if given.get("add_to") is None:
        return TrainOptions(**given)
    from unfreeze.review.old_run import inherited_options

    data, run = Path(given.pop("data")), Path(given.pop("add_to"))
    return inherited_options(run, data, given)


@contextmanager
def planned(
    options: TrainOptions,
    progress: NamedProgress = lambda what, done, total: None,
    make_data: Callable[[], None] | None = None,
) -> Iterator[RunPlan]:
    """Resolve and check everything that a run needs, and hold its output folder.

    Args:
        options: of the run.
        progress: called as progress(what, done, total); `what` is "reading" or "weights".
        make_data: makes the recordings, after the folder is held.

    Yields:
        The plan; the folder is held until the block ends.

    Raises:
        UnfreezeError: anything that the user can correct, as early as possible.
    """
    schedule = checked_schedule(options)
    backbone = get_backbone(options.backbone, options.slow_down, options.channel)
    # Files that the options name are read once for their faults, before any work.
    described(options)
    if options.keep_published and backbone.build_published is None:
        raise UnfreezeError(
            f"{backbone.name} has no classes of its own: leave out --keep-published"
        )
    if options.keep_published and options.slow_down != 1:
        raise UnfreezeError(
            f"{backbone.published_title}'s classes are of sounds at their own speed: leave out "
            "--keep-published or --slow-down"
        )
    check_limits(backbone, schedule, options.augment, options.in_noise)
    if options.devices != 1:
        # Only Keras knows, so that it is imported here before its time.
        from unfreeze.core.data_parallel import check_available

        check_available(options.devices)
    settle_licence(backbone.weights, options.accept_licence)
    if backbone.card is not None:
        resolve_weights(backbone.weights, path=options.weights)  # Refuses other weights.
    with nullcontext() if options.out is None else _held(options, options.out):
        if make_data is not None:
            make_data()
        read = read_training_data
        if options.add_to is not None:
            from unfreeze.review.add_to import read_both as read
        yield RunPlan(
            options=options,
            inputs=read_inputs(options, backbone, progress, read),
            schedule=schedule,
            load_earlier=None if options.add_to is None else partial(_load_earlier, options.add_to),
            draw=_draw,
            report=_report,
            light=_light,
        )


def train_classifier(options: TrainOptions, listener: "TrainListener | None" = None) -> "Trained":
    """Train, test and write a sound classifier.

    Args:
        options: of the run.
        listener: notified of progress.

    Raises:
        UnfreezeError: anything that the user can correct, as early as possible.
    """
    from unfreeze.backend import check_backend

    check_backend()
    from unfreeze.pipeline.training import TrainListener, train

    listener = listener or TrainListener()
    with planned(options, listener.on_progress) as plan:
        return train(plan, listener)


def event_judge(train: TrainOptions, recordings: Path, tables: Path) -> "MakeJudge":
    """Annotated recordings, by which a comparison ranks models as detectors.

    Args:
        train: how its data are read; so are the tables, which are taken as complete.
        recordings: a recording, or a folder of them.
        tables: a table of sounds, or a folder of tables.

    Raises:
        DataError: one does not exist. What is made raises it if the tables cannot be used, or
            if models would be trained on the recordings.
    """
    for path in (recordings, tables):
        if not path.exists():
            raise DataError(f"{show(path)} does not exist")
    return partial(_judge, train, recordings, tables)


def _judge(
    train: TrainOptions, recordings: Path, tables: Path, manifest: Manifest, front_end: FrontEnd
) -> "Judge":
    from unfreeze.audio.decode_processes import Decoders
    from unfreeze.audio.segments_file import SEGMENTS_NAME, read_segments
    from unfreeze.compare.detector_scores import Found, Judge
    from unfreeze.detection.event_evaluation import count_recordings
    from unfreeze.detection.true_events import (
        check_known,
        check_not_trained_on,
        contents_of,
        fingerprint,
        read_annotations,
        truths_of,
    )
    from unfreeze.pipeline.inference import fused

    how = replace(reading_of(train), group_regex=None, full=True)
    known = read_annotations(recordings, tables, how, several=manifest.several)
    unknown = check_known(known, manifest.labels)
    if known.counts().total() == sum(unknown.values()):
        raise DataError(
            f"{show(tables)} names no sound of the classes: nothing can be found or missed there"
        )
    contents = contents_of(known)
    trained = {clip.content.partition("@")[0] for clip in manifest.clips}
    if train.data.is_dir() and (train.data / SEGMENTS_NAME).is_file():
        trained |= {segment.source_sha256 for segment in read_segments(train.data).segments}
    check_not_trained_on(contents, trained)
    decoders = Decoders()
    below = recordings if recordings.is_dir() else recordings.parent

    def find(
        model: Any, front_end: FrontEnd, labels: tuple[str, ...], thresholds: np.ndarray
    ) -> Found:
        judged, found = count_recordings(
            fused(model), front_end, known, labels, thresholds, decoders
        )
        names = [path.relative_to(below).as_posix() for path, _, _ in found]
        lengths = [seconds for _, seconds, _ in found]
        counts = np.stack([counts for _, _, counts in found])
        return Found(tuple(judged), tuple(names), tuple(lengths), counts)

    described = (
        f"{len(contents)} recordings, {known.counts().total()} sounds, "
        f"{fingerprint(known, contents)[:16]}"
    )

    def notes(lengths: Mapping[str, float]) -> list[str]:
        told = [*known.notes, *(f"{show(p.path)} is left out: {p.cause}." for p in known.problems)]
        if unknown:
            named = ", ".join(f"{show(label)} ({number})" for label, number in unknown.items())
            told.append(f"These annotated classes are none of the data's and not counted: {named}.")
        for path in known.sounds:
            seconds = lengths.get(path.relative_to(below).as_posix())
            if seconds is not None:
                _, behind = truths_of(known, path, seconds, manifest.labels)
                told += [f"{show(path)}: {problem.cause}." for problem in behind]
        return told

    return Judge(described, find, notes)


def _held(options: TrainOptions, out: Path) -> AbstractContextManager[None]:
    return run_folder.held(out, options.overwrite, options.resume, described(options))


def _load_earlier(run: Path) -> "MeasureChange":
    from unfreeze.review.before_and_after import load_old, measure_change

    return partial(measure_change, load_old(run))


def _draw(
    out: Path, result: "FitResult", metrics: Mapping[str, Any], labels: Sequence[str]
) -> None:
    from unfreeze.report.run_plots import draw_run

    draw_run(out, result, metrics, labels)


def _report(out: Path, progress: Progress) -> None:
    from unfreeze.report.run_report import write_run_report

    write_run_report(out, progress)


def _light(out: Path, model: "keras.Model") -> str:
    import keras

    from unfreeze.audio.clip_model import clip_parts_of
    from unfreeze.export.formats import FORMATS, missing_modules
    from unfreeze.pipeline.light_form import FILE

    if keras.backend.backend() != "tensorflow" or missing_modules(FORMATS["onnx"]):
        return ""
    from unfreeze.export.to_light import write_light

    write_light(out, clip_parts_of(model))
    return (
        f"{FILE} is written: predict, listen, serve and evaluate run from it where "
        "unfreeze[light] is installed, without TensorFlow."
    )
