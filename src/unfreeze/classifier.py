"""`SoundClassifier`: train, load, predict, detect, evaluate and save, for Python users."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from unfreeze.audio.clip_model import own_part_of, parts_of
from unfreeze.audio.decoders import Decoders
from unfreeze.calibration import thresholds_of
from unfreeze.core.schedule import Schedule
from unfreeze.detection.detector import Detector, all_events, hop_frames, make_detector
from unfreeze.detection.events import Event
from unfreeze.detection.live import LiveDetector, live_hop
from unfreeze.detection.many import Found, detect_files
from unfreeze.detection.options import DetectOptions
from unfreeze.detection.scan import scan_file
from unfreeze.detection.scores import ScoreBlock
from unfreeze.errors import RunError
from unfreeze.files import atomic_path
from unfreeze.inference import Sound, each_sound, fused, sound_scores
from unfreeze.known_recordings import read_known, score_recordings
from unfreeze.options import TrainOptions
from unfreeze.review.old_run import options_of
from unfreeze.saved_model import load_run
from unfreeze.training import TrainListener, train_classifier

if TYPE_CHECKING:
    from unfreeze.export.exporter import Export


class SoundClassifier:
    """A trained sound classifier.

    Make one with `train` or `load`.

    Attributes:
        model: Keras model, mono waveforms (batch, samples) in [-1, 1] at
            `sample_rate` to probabilities (batch, classes); of a run with
            `keep_audioset` to a dict of `classes`, these, and `audioset`.
        labels: name of each class, in the order of the probabilities.
        audioset_labels: name of each of the backbone's own classes; empty if the
            run did not keep them.
        front_end: how waveforms become patches.
        sample_rate: of the waveforms that `model` and `predict` take, in Hz.
        metrics: scores of the run that it was trained in, or None.
        source: the run folder or `.keras` file that it is from, or None.
        decoders: the processes that decode for it; none until a file needs one.
    """

    def __init__(
        self,
        model: keras.Model,
        metrics: dict[str, Any] | None = None,
        source: Path | None = None,
    ) -> None:
        self.model = model
        self.source = source
        self._patch_model, self.front_end, self.labels = parts_of(model)
        self.sample_rate = self.front_end.sample_rate
        self.metrics = metrics
        self.decoders = Decoders()
        both = own_part_of(model)
        self._both: keras.Model | None = None if both is None else both[0]
        self.audioset_labels: tuple[str, ...] = () if both is None else both[1]

    @classmethod
    def train(
        cls,
        data: str | Path,
        schedule: str | Schedule | None = None,
        out: str | Path | None = None,
        *,
        listener: TrainListener | None = None,
        **options: Any,
    ) -> "SoundClassifier":
        """Train on a folder with a folder for each class, or a CSV manifest.

        Args:
            data: the recordings.
            schedule: name of a preset, a YAML file, or a `Schedule`; None takes
                that of the run with `add_to`, else two_stage.
            out: the run folder; None keeps nothing on disk.
            listener: hears of progress.
            **options: the other fields of `unfreeze.options.TrainOptions`; with
                `add_to` those that are not given are as in that run.

        Raises:
            UnfreezeError: anything in the data or settings that cannot work.
        """
        given = {**options, "out": out, **({} if schedule is None else {"schedule": schedule})}
        settings = options_of(Path(data), given)
        trained = train_classifier(settings, listener)
        return cls(trained.model, trained.metrics, settings.out)

    @classmethod
    def load(cls, run: str | Path) -> "SoundClassifier":
        """Load from a run folder or a `.keras` file. Runs no code from the file.

        Raises:
            RunError: it is not there, not finished, or not a sound classifier.
        """
        return cls(*load_run(Path(run)), Path(run))

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
        return each_sound(sounds, self._one, len(self.labels))

    def predict_audioset(self, sounds: Sound | Sequence[Sound]) -> np.ndarray:
        """Scores of the backbone's own classes: the mean over the patches.

        As it was published, whatever was trained; each in [0, 1], independent of the others.

        Args:
            sounds: as for `predict`.

        Returns:
            (classes,) for one sound, (sounds, classes) for a list, in the order
            of `audioset_labels`.

        Raises:
            RunError: the run did not keep them.
            DataError: as `predict`.
        """
        return self.predict_both(sounds)[1]

    def predict_both(self, sounds: Sound | Sequence[Sound]) -> tuple[np.ndarray, np.ndarray]:
        """`predict` and `predict_audioset` for the cost of one.

        Raises:
            RunError: the run did not keep the backbone's own classes.
            DataError: as `predict`.
        """
        both = self._both
        if both is None:
            raise RunError("This model gives its own classes only: train with --keep-audioset")
        width = len(self.labels) + len(self.audioset_labels)
        score = functools.partial(sound_scores, both, self.front_end, decoders=self.decoders)
        rows = each_sound(sounds, score, width)
        return rows[..., : len(self.labels)], rows[..., len(self.labels) :]

    def evaluate(
        self,
        data: str | Path,
        *,
        group_regex: str | None = None,
        strict: bool = False,
        max_bad: float = TrainOptions.max_bad,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Score the classifier on recordings with known classes.

        Args:
            data: as for `train`; may hold some of the classes only.
            group_regex: as for `train`; intervals are over groups.
            strict: any unusable file is an error.
            max_bad: fraction of unusable files above which it is refused.
            progress: called with clips done and in all.

        Returns:
            As `unfreeze.evaluate.score`, and `problems`, the files left out.

        Raises:
            DataError: the data have a class that the model does not know.
        """
        manifest = read_known(
            data, self.labels, group_regex=group_regex, strict=strict, max_bad=max_bad
        )
        return score_recordings(manifest, self.labels, self._one, progress)

    @property
    def thresholds(self) -> np.ndarray:
        """The score from which each class counts as heard, (classes,) float64.

        From the run's scores where they hold `thresholds`, else 0.5.
        """
        return thresholds_of(self.metrics, self.labels)

    def scan(self, path: str | Path, *, hop: float | None = None) -> Iterator[ScoreBlock]:
        """Score a recording of any length along time, in constant memory.

        Args:
            path: the recording.
            hop: seconds from one patch to the next, a multiple of 0.01; None
                takes the model's own (0.48).

        Returns:
            An iterator of blocks of patch scores, in order. A patch lasts 0.96 s;
            the last is padded with silence to that.

        Raises:
            UnfreezeError: a hop that cannot be used.
            DataError: the file cannot be read; raised when the damage is reached.
        """
        frames = hop_frames(self.front_end, hop)
        return scan_file(self._fused, self.front_end, Path(path), frames, self.decoders)

    def detect(self, path: str | Path, **options: Any) -> list[Event]:
        """Find when which class is heard in a recording of any length.

        Args:
            path: the recording.
            **options: fields of `unfreeze.detection.options.DetectOptions`:
                `window`, `hop`, `min_score`, `smooth`, `merge`.

        Returns:
            Events by start, then by label. See `unfreeze.detection.events`.

        Raises:
            UnfreezeError: a window, hop or score that cannot be used.
            DataError: the file cannot be read.
        """
        wanted = DetectOptions(**options)
        return all_events(self.detector(wanted), self.scan(path, hop=wanted.hop))

    def detect_files(
        self,
        paths: Sequence[str | Path],
        options: DetectOptions | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[Found]:
        """Find the events of many recordings, on all cores.

        Args:
            paths: the recordings.
            options: as the arguments of `detect`.
            progress: called with the bytes of files that are done.

        Returns:
            An iterator over the recordings as they are finished, nearly in order.
            What cannot be read has an `error` and stops nothing.

        Raises:
            UnfreezeError: a window, hop or score that cannot be used.
        """
        files, detector = [Path(path) for path in paths], self.detector(options or DetectOptions())
        return detect_files(self._fused, self.front_end, files, detector, progress, self.decoders)

    def live(self, min_score: float | None = None) -> LiveDetector:
        """Make what finds events in live sound, piece by piece.

        Args:
            min_score: as for `detect`.

        Raises:
            UnfreezeError: a score that cannot be used.
        """
        options = DetectOptions(hop=live_hop(self.front_end), min_score=min_score)
        return LiveDetector(self._fused, self.front_end, self.detector(options))

    @functools.cached_property
    def _fused(self) -> Any:
        return fused(self._patch_model)

    def detector(self, options: DetectOptions) -> Detector:
        """Check how events are to be found by this model.

        Raises:
            UnfreezeError: a window, hop or score that cannot be used.
        """
        return make_detector(self.front_end, self.labels, self.thresholds, options)

    def save(self, path: str | Path) -> None:
        """Write the model as one `.keras` file (atomically)."""
        with atomic_path(Path(path)) as partial:
            self.model.save(partial)

    def export(self, format: str, out: str | Path | None = None, **options: Any) -> "Export":
        """Write the model for another runtime, and compare the two.

        Args:
            format: "litert", "onnx", "openvino", "saved_model" or "tfjs".
            out: the file or folder; None puts it beside the model.
            **options: as for `unfreeze.export_model`: `quantize`, `embeddings`,
                `length`, `overwrite`.

        Raises:
            ExportError: it cannot be made as asked, or differs from the model.
        """
        from unfreeze.export.exporter import export_model

        return export_model(self, format, out, **options)

    def _one(self, sound: Sound) -> np.ndarray:
        return sound_scores(self._patch_model, self.front_end, sound, self.decoders)
