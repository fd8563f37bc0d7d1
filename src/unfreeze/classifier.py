"""`SoundClassifier`, the Python interface: train, load, predict, detect, evaluate, save."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze.audio.clip_parts import ClipParts
from unfreeze.audio.cluster import Cluster
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.entries import heard_classes, is_quiet
from unfreeze.backend import need_for_pictures
from unfreeze.detection.cluster_scan import open_classifier, open_detector, scan_on
from unfreeze.detection.detector import (
    Detector,
    Found,
    all_events,
    detect_files,
    hop_steps,
    make_detector,
)
from unfreeze.detection.events import DetectOptions, Event
from unfreeze.detection.live import LiveDetector, live_hop
from unfreeze.detection.scan import scan_file
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.errors import RunError, UnfreezeError
from unfreeze.output_folder import holds, locked
from unfreeze.pipeline import inference
from unfreeze.pipeline.calibration import thresholds_of
from unfreeze.pipeline.inference import Examined, Sound
from unfreeze.pipeline.light_form import as_parts, load_any, no_keras_model
from unfreeze.pipeline.thresholds import Choice, at_thresholds, choose, counts_of
from unfreeze.pipeline.train_options import TrainOptions, default_of, with_fields_of
from unfreeze.pipeline.wish import Wish
from unfreeze.planning import complete_options, train_classifier

if TYPE_CHECKING:
    import keras

    from unfreeze.audio.sources import Reading
    from unfreeze.detection.event_scoring import Rules
    from unfreeze.export.exporter import Export
    from unfreeze.pipeline.training import TrainListener


class SoundClassifier:
    """A trained sound classifier, from `train` or `load`.

    Examples:
        >>> classifier = unfreeze.SoundClassifier.train("recordings", out="run", schedule="probe")
        >>> classifier.labels[np.argmax(classifier.predict("new.wav"))]
        'low'

    Attributes:
        model: Keras model, from mono waveforms (batch, samples) in [-1, 1] at
            `sample_rate` to probabilities (batch, classes); after a run with
            `keep_published`, to a dict of `classes` (these) and, by its key (`audioset`,
            `birdnet`), the backbone's own.
        labels: name of each class, in the order of the probabilities.
        published_labels: name of each of the backbone's own classes; empty if the
            run did not keep them.
        published_key: their name in outputs, such as `audioset`.
        published_title: what people call them, such as AudioSet.
        notice: the licence that goes with the model and all that is made from it; empty if
            the backbone's asks for none.
        front_end: how waveforms become patches.
        sample_rate: of the waveforms that `model` and `predict` take, in Hz.
        multilabel: whether each class is judged by itself: a clip may have several
            labels, or none, and its probabilities need not sum to 1.
        metrics: scores of the run that trained it, or None.
        source: the run folder or `.keras` file it was loaded from, or None.
        decoders: processes that decode files for it; started when first needed.
    """

    def __init__(
        self,
        model: "keras.Model | ClipParts",
        metrics: dict[str, Any] | None = None,
        source: Path | None = None,
    ) -> None:
        self.metrics, self.source = metrics, source
        self._model, self._parts = model, as_parts(model)
        self.front_end, self.labels = self._parts.front_end, self._parts.labels
        self.sample_rate = self.front_end.sample_rate
        self.multilabel, self.notice = self._parts.multilabel, self._parts.notice
        self.decoders = Decoders()
        own = self._parts.own
        self.published_labels: tuple[str, ...] = () if own is None else own.labels
        self.published_key, self.published_title = ("", "") if own is None else (own.key, own.title)

    @property
    def model(self) -> "keras.Model":
        """The Keras model, from waveforms to probabilities; a light form has none."""
        if isinstance(self._model, ClipParts):
            raise no_keras_model()
        return self._model

    @classmethod
    @with_fields_of(complete_options)
    def train(cls, options: TrainOptions) -> "SoundClassifier":
        """Train on a folder with one subfolder per class, or a CSV manifest.

        Takes the fields of `unfreeze.TrainOptions`: `train("recordings", out="run",
        epochs=20)`. With `add_to`, fields that are not given are as in that run.

        Raises:
            UnfreezeError: the data or settings cannot be used.
        """
        return cls.from_options(options)

    @classmethod
    def from_options(
        cls, options: TrainOptions, listener: "TrainListener | None" = None
    ) -> "SoundClassifier":
        """Train with a settings object, and follow the progress.

        Args:
            options: of the run.
            listener: notified of progress.

        Raises:
            UnfreezeError: as `train`.
        """
        trained = train_classifier(options, listener)
        return cls(trained.model, trained.metrics, options.out)

    @classmethod
    def load(cls, run: str | Path) -> "SoundClassifier":
        """Load from a run folder or a `.keras` file. Runs no code from the file.

        Where Keras has no backend, or the environment variable `UNFREEZE_RUNTIME` is `onnx`,
        the light form of a run is loaded: the same scores by ONNX Runtime, without Keras.

        Raises:
            RunError: it is missing, not finished, or not a sound classifier; or it has no
                light form where one is needed.
        """
        return cls(*load_any(Path(run)), Path(run))

    @property
    def knows_background(self) -> bool:
        """Whether it may hear none of its classes; if not, it calls noise one of them."""
        return self.multilabel or any(is_quiet(label) for label in self.labels)

    def predict(self, sounds: Sound | Sequence[Sound]) -> np.ndarray:
        """Class probabilities of recordings or waveforms: the mean over their patches.

        Args:
            sounds: a file, a mono waveform in [-1, 1] at `sample_rate`, or a
                list of these.

        Returns:
            (classes,) for one sound, (sounds, classes) for a list.

        Raises:
            DataError: a file cannot be read, or a waveform has another shape.
        """
        return inference.each_sound(sounds, self._one, len(self.labels))

    def is_silent(self, path: str | Path) -> bool:
        """Whether a recording holds digital silence alone: not one sample other than 0.

        Raises:
            DataError: the file cannot be read.
        """
        return self.examine(path).silent

    def examine(self, path: str | Path) -> Examined:
        """Read a recording to its end, and say what is to be known of it.

        Raises:
            DataError: the file cannot be read.
        """
        return inference.examine_recording(Path(path), self.front_end, self.decoders)

    def heard(self, chances: np.ndarray, *, silent: bool = False) -> tuple[str, ...]:
        """The classes that are heard in a clip.

        Args:
            chances: (classes,) from `predict`.
            silent: whether the clip holds digital silence alone: then no class is heard but
                one of silence, whatever its probability.

        Returns:
            The likeliest class, none if that is background; with `multilabel`, the classes
            that reach their `clip_thresholds`, the likeliest first.
        """
        levels = self.clip_thresholds if self.multilabel else None
        return heard_classes(self.labels, chances, levels, silent=silent)

    @property
    def audioset_labels(self) -> tuple[str, ...]:
        """The old name of `published_labels`."""
        return self.published_labels

    def predict_audioset(self, sounds: Sound | Sequence[Sound]) -> np.ndarray:
        """The old name of `predict_published`."""
        return self.predict_published(sounds)

    def predict_published(self, sounds: Sound | Sequence[Sound]) -> np.ndarray:
        """Scores of the backbone's own classes: the mean over the patches.

        As published, unaffected by training; each in [0, 1], independent of the others.

        Args:
            sounds: as for `predict`.

        Returns:
            (classes,) for one sound, (sounds, classes) for a list, in the order
            of `published_labels`.

        Raises:
            RunError: the run did not keep them.
            DataError: as `predict`.
        """
        return self.predict_both(sounds)[1]

    def predict_both(self, sounds: Sound | Sequence[Sound]) -> tuple[np.ndarray, np.ndarray]:
        """`predict` and `predict_published` for the cost of one.

        Raises:
            RunError: the run did not keep the backbone's own classes.
            DataError: as `predict`.
        """
        own = self._parts.own
        if own is None:
            raise RunError(
                "This model has not kept the classes that its network was published with: train "
                "with --keep-published"
            )
        score, mine = functools.partial(self._one, model=own.model), len(self.labels)
        rows = inference.each_sound(sounds, score, mine + len(own.labels))
        return rows[..., :mine], rows[..., mine:]

    def evaluate(
        self,
        data: str | Path,
        *,
        group_regex: str | None = None,
        how: "Reading | None" = None,
        strict: bool = False,
        max_bad: float = default_of("max_bad"),
        out: str | Path | None = None,
        cluster: Cluster | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Score the classifier on recordings with known classes.

        Args:
            data: as for `train`; need not contain every class.
            group_regex: as for `train`; intervals are over groups.
            how: further settings of how the data are read, instead of `group_regex`.
            strict: treat any unusable file as an error.
            max_bad: largest fraction of unusable files to leave out.
            out: new folder for the scores, `predictions.csv` and `report.html`; None writes
                nothing.
            cluster: where the recordings are read; None reads them on this machine.
            progress: called as progress(done, total) with counts of clips.

        Returns:
            As `unfreeze.pipeline.scoring.score` or, for several labels per clip,
            `unfreeze.pipeline.label_scoring.score_labels`, plus `problems`, the files left
            out.

        Raises:
            DataError: the data cannot be used, or have a class that the model does not
                know.
            RunError: `out` is not empty, or cannot be written.
        """
        from unfreeze.audio.sources import Reading
        from unfreeze.pipeline import evaluation

        if out is not None:
            need_for_pictures()
            holds(Path(out), None, "scores")
        manifest = evaluation.read_known(
            data,
            self.labels,
            several=self.multilabel,
            front_end=self.front_end,
            how=how or Reading(group_regex),
            strict=strict,
            max_bad=max_bad,
            cluster=cluster,
        )
        scan = scan_on(cluster, self.save, open_classifier)
        score = scan.clip_scores if scan else lambda files: enumerate(map(self._one, files))
        rows = evaluation.clip_scores(
            manifest,
            self.front_end,
            self._parts.patch_model,
            score,
            cluster=cluster,
            progress=progress,
        )
        scores = evaluation.score_recordings(manifest, rows, self.labels, self.clip_thresholds)
        if out is not None:
            from unfreeze.report.evaluation_report import write_evaluation_report

            out, name = Path(out), str(self.source or "a model that is not saved")
            with locked(out):
                evaluation.write_evaluation(out, name, manifest, rows, scores, self.front_end)
                write_evaluation_report(out)
        return scores

    def evaluate_events(
        self,
        recordings: str | Path,
        annotations: str | Path,
        options: DetectOptions | None = None,
        *,
        rules: "Rules | None" = None,
        how: "Reading | None" = None,
        strict: bool = False,
        max_bad: float = default_of("max_bad"),
        cluster: Cluster | None = None,
        progress: Callable[[float, float], None] | None = None,
    ) -> dict[str, Any]:
        """Score the classifier as a detector, on recordings whose sounds are annotated.

        Args:
            recordings: a recording, or a folder of them.
            annotations: a table of sounds, or a folder of tables, as training takes them.
            options: how to find events, as for `detect`; they are always merged.
            rules: what makes an event right, as in `unfreeze.detection.event_scoring`.
            how: further settings of how the tables are read; None takes the annotation as
                complete (`Reading(full=True)`).
            strict: treat any unusable recording as an error.
            max_bad: largest share of recordings to leave out because they cannot be read.
            cluster: where the recordings are searched; None searches them on this machine.
            progress: called as progress(done, total) with bytes of files.

        Returns:
            As `unfreeze.detection.event_evaluation.summary`, with `unknown_classes`, `notes`
            and `problems`, the recordings left out.

        Raises:
            UnfreezeError: a window, hop, score or rule that cannot be used.
            DataError: the tables or recordings cannot be used, or the model knows none of
                the annotated classes.
        """
        from unfreeze.audio.sources import Reading
        from unfreeze.detection.event_evaluation import evaluate_recordings
        from unfreeze.detection.event_scoring import Rules
        from unfreeze.detection.true_events import read_annotations

        detector = self.detector(replace(options or DetectOptions(), merge=True))
        known = read_annotations(
            Path(recordings), Path(annotations), how or Reading(full=True), several=self.multilabel
        )
        return evaluate_recordings(
            self._fused,
            self.front_end,
            known,
            detector,
            rules or Rules(),
            strict=strict,
            max_bad=max_bad,
            progress=progress,
            decoders=self.decoders,
            scan=scan_on(cluster, self.save, open_detector),
        )

    @property
    def thresholds(self) -> np.ndarray:
        """The score from which each class counts as heard, (classes,) float64.

        From the run's scores where they hold `thresholds`, else 0.5.
        """
        return thresholds_of(self.metrics, self.labels)

    def thresholds_for(
        self, *, precision: float | None = None, max_false_alarms: float | None = None
    ) -> dict[str, Choice]:
        """Choose the score from which each class counts as heard, and say what it costs.

        What thresholds do was counted when the model was trained, on validation clips and
        background that were not trained on.

        Args:
            precision: share of found sounds that should be right, such as 0.95.
            max_false_alarms: in an hour of background, of all classes together.

        Returns:
            For each class its threshold, with recall, precision and false alarms an hour, each
            with an interval. Without a wish, those of the run's own thresholds.

        Raises:
            UnfreezeError: the model has no such counts, or knows no background.
        """
        wish = Wish(precision, max_false_alarms)
        counts = counts_of(self.metrics, self.labels)
        if counts is None:
            raise UnfreezeError(
                "What each threshold does is not known of this model: it was saved without its "
                "run, trained without validation clips, or before version 0.2. Give a run folder, "
                "train again, or choose a score with --min-score"
            )
        if wish.is_given:
            chosen = choose(counts, wish)
        else:
            chosen = at_thresholds(counts, self.thresholds.tolist())
        return dict(zip(self.labels, chosen, strict=True))

    @property
    def clip_thresholds(self) -> np.ndarray:
        """The probability from `predict` from which each class is heard in a clip, (classes,).

        It is for models with several labels per clip; from the run's scores where they hold
        `clip_thresholds`, else 0.5.
        """
        return thresholds_of(self.metrics, self.labels, "clip_thresholds")

    def scan(self, path: str | Path, *, hop: float | None = None) -> Iterator[ScoreBlock]:
        """Score a recording of any length along time, in constant memory.

        Args:
            path: the recording.
            hop: seconds from one patch to the next, a multiple of 0.01; None
                takes the network's own (0.48 with YAMNet).

        Returns:
            An iterator of blocks of patch scores, in order. A patch lasts as long as the
            network hears at once (0.96 s with YAMNet); the last is padded with silence.

        Raises:
            UnfreezeError: a hop that cannot be used.
            DataError: the file cannot be read; raised when the scan reaches the damage.
        """
        steps = hop_steps(self.front_end, hop)
        return scan_file(self._fused, self.front_end, Path(path), steps, self.decoders)

    def detect(
        self,
        path: str | Path,
        *,
        window: float | None = DetectOptions.window,
        hop: float | None = DetectOptions.hop,
        min_score: float | Mapping[str, float] | None = DetectOptions.min_score,
        smooth: bool = DetectOptions.smooth,
        merge: bool = DetectOptions.merge,
        min_duration: float = DetectOptions.min_duration,
        max_gap: float = DetectOptions.max_gap,
        precision: float | None = DetectOptions.precision,
        max_false_alarms: float | None = DetectOptions.max_false_alarms,
    ) -> list[Event]:
        """Find when each class is heard in a recording of any length.

        Args:
            path: the recording.
            window: as in `unfreeze.detection.events.DetectOptions`; so are the others.
            hop: seconds from one patch to the next.
            min_score: the score at which an event begins, for all classes or by class.
            smooth: take the median over every three patches first.
            merge: make one event of a class's patches that overlap or adjoin.
            min_duration: seconds; shorter events are left out.
            max_gap: seconds; events of a class at most so far apart are one.
            precision: instead of `min_score`, as for `thresholds_for`.
            max_false_alarms: likewise.

        Returns:
            Events, sorted by start, then by label. See `unfreeze.detection.events`.

        Raises:
            UnfreezeError: a window, hop, score or time that cannot be used.
            DataError: the file cannot be read.
        """
        wanted = DetectOptions(
            *(window, hop, min_score, smooth, merge, min_duration, max_gap),
            *(precision, max_false_alarms),
        )
        return all_events(self.detector(wanted), self.scan(path, hop=wanted.hop))

    def detect_files(
        self,
        paths: Sequence[str | Path],
        options: DetectOptions | None = None,
        *,
        cluster: Cluster | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[Found]:
        """Find the events of many recordings, on all cores.

        Args:
            paths: the recordings.
            options: as the arguments of `detect`.
            cluster: a Ray cluster to search them on; None searches them on this machine.
            progress: called with the bytes of files that are done.

        Returns:
            An iterator over the recordings as they are finished, nearly in order.
            A recording that cannot be read has an `error`; the others continue.

        Raises:
            UnfreezeError: a window, hop or score that cannot be used.
        """
        files, detector = [Path(path) for path in paths], self.detector(options or DetectOptions())
        of = self._fused, self.front_end, files, detector, progress, self.decoders
        return detect_files(*of, scan_on(cluster, self.save, open_detector))

    def live(
        self,
        min_score: float | Mapping[str, float] | None = DetectOptions.min_score,
        *,
        min_duration: float = DetectOptions.min_duration,
        max_gap: float = DetectOptions.max_gap,
        precision: float | None = DetectOptions.precision,
        max_false_alarms: float | None = DetectOptions.max_false_alarms,
    ) -> LiveDetector:
        """Make a detector for live sound, which takes it piece by piece.

        Args:
            min_score: as for `detect`; so are the others.
            min_duration: an event's start is told once it has lasted so long.
            max_gap: an event's end is told once so much has passed without it.
            precision: instead of `min_score`, as for `thresholds_for`.
            max_false_alarms: likewise.

        Raises:
            UnfreezeError: a score or time that cannot be used.
        """
        options = DetectOptions(
            hop=live_hop(self.front_end),
            min_score=min_score,
            min_duration=min_duration,
            max_gap=max_gap,
            precision=precision,
            max_false_alarms=max_false_alarms,
        )
        return LiveDetector(self._fused, self.front_end, self.detector(options))

    @functools.cached_property
    def _fused(self) -> Any:
        return inference.fused(self._parts.patch_model)

    def detector(self, options: DetectOptions) -> Detector:
        """Make a detector of events with this model, after checking the options.

        Raises:
            UnfreezeError: a window, hop or score that cannot be used, or a wish that the run
                has no counts for.
        """
        thresholds = self.thresholds
        if options.wish.is_given:
            chosen = self.thresholds_for(
                precision=options.precision, max_false_alarms=options.max_false_alarms
            )
            thresholds = np.array([choice.threshold for choice in chosen.values()])
        return make_detector(self.front_end, self.labels, thresholds, options)

    def save(self, path: str | Path) -> None:
        """Write the model as one `.keras` file (atomically)."""
        model = self.model
        # After it, as only models of Keras can be saved.
        from unfreeze.pipeline.saved_model import write_clip_model

        write_clip_model(model, Path(path))

    def export(
        self,
        format: str,
        out: str | Path | None = None,
        *,
        quantize: str | None = None,
        embeddings: bool = False,
        length: int | None = None,
        overwrite: bool = False,
    ) -> "Export":
        """Write the model for another runtime, and compare the two.

        Args:
            format: "litert", "onnx", "openvino", "saved_model" or "tfjs".
            out: the file or folder; None puts it beside the model.
            quantize: as for `unfreeze.export_model`; so are the others.
            embeddings: add the mean embedding of the patches as a second output.
            length: number of samples of a fixed input.
            overwrite: replace an existing export in `out`.

        Raises:
            ExportError: the export cannot be made as asked, or differs from the model.
        """
        from unfreeze.export.exporter import export_model

        return export_model(
            self,
            format,
            out,
            quantize=quantize,
            embeddings=embeddings,
            length=length,
            overwrite=overwrite,
        )

    def _one(self, sound: Sound, model: Any = None) -> np.ndarray:
        scorer = self._parts.patch_model if model is None else model
        return inference.sound_scores(scorer, self.front_end, sound, self.decoders)
