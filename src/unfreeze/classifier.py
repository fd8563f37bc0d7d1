"""`SoundClassifier`: train, load, predict, evaluate and save, for Python users."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from unfreeze import run_folder
from unfreeze.audio.clip_model import parts_of
from unfreeze.audio.manifest import read_manifest
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.core.schedule import Schedule
from unfreeze.errors import DataError, RunError
from unfreeze.files import atomic_path
from unfreeze.inference import file_scores, waveform_scores
from unfreeze.options import TrainOptions
from unfreeze.training import TrainListener, score_clips, train_classifier

if TYPE_CHECKING:
    from unfreeze.export.exporter import Export


class SoundClassifier:
    """A trained sound classifier.

    Make one with `train` or `load`.

    Attributes:
        model: Keras model, mono waveforms (batch, samples) in [-1, 1] at
            `sample_rate` to probabilities (batch, classes).
        labels: name of each class, in the order of the probabilities.
        sample_rate: of the waveforms that `model` and `predict` take, in Hz.
        metrics: scores of the run that it was trained in, or None.
        source: the run folder or `.keras` file that it is from, or None.
    """

    def __init__(
        self,
        model: keras.Model,
        metrics: dict[str, Any] | None = None,
        source: Path | None = None,
    ) -> None:
        self.model = model
        self.source = source
        self._patch_model, self._front_end, self.labels = parts_of(model)
        self.sample_rate = self._front_end.sample_rate
        self.metrics = metrics

    @classmethod
    def train(
        cls,
        data: str | Path,
        schedule: str | Schedule = TrainOptions.schedule,
        out: str | Path | None = None,
        *,
        listener: TrainListener | None = None,
        **options: Any,
    ) -> "SoundClassifier":
        """Train on a folder with a folder for each class, or a CSV manifest.

        Args:
            data: the recordings.
            schedule: name of a preset, a YAML file, or a `Schedule`.
            out: the run folder; None keeps nothing on disk.
            listener: hears of progress.
            **options: the other fields of `unfreeze.options.TrainOptions`.

        Raises:
            UnfreezeError: anything in the data or settings that cannot work.
        """
        for name in ("weights",):
            if options.get(name) is not None:
                options[name] = Path(options[name])
        folder = None if out is None else Path(out)
        trained = train_classifier(
            TrainOptions(Path(data), folder, schedule=schedule, **options), listener
        )
        return cls(trained.model, trained.metrics, folder)

    @classmethod
    def load(cls, run: str | Path) -> "SoundClassifier":
        """Load from a run folder or a `.keras` file. Runs no code from the file.

        Raises:
            RunError: it is not there, not finished, or not a sound classifier.
        """
        place = source = Path(run)
        metrics = None
        if place.is_dir() or not place.exists():
            run_folder.read_config(place)
            metrics = run_folder.read_scores(place)
            place = place / run_folder.MODEL
        try:
            model = keras.saving.load_model(place, compile=False, safe_mode=True)
            return cls(model, metrics, source)
        except (ValueError, TypeError, OSError) as error:
            raise RunError(f"{place} cannot be loaded as a sound classifier: {error}") from None

    def predict(
        self, sounds: str | Path | np.ndarray | Sequence[str | Path | np.ndarray]
    ) -> np.ndarray:
        """Class probabilities of recordings or waveforms: the mean over their patches.

        Args:
            sounds: a file, a mono waveform in [-1, 1] at `sample_rate`, or a
                list of these.

        Returns:
            (classes,) for one sound, (sounds, classes) for a list.

        Raises:
            DataError: a file cannot be read, or a waveform has another shape.
        """
        if isinstance(sounds, str | Path) or (
            isinstance(sounds, np.ndarray) and sounds.ndim == 1 and sounds.dtype.kind == "f"
        ):
            return self._one(sounds)
        rows = [self._one(sound) for sound in sounds]
        return np.stack(rows) if rows else np.zeros((0, len(self.labels)), np.float32)

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
        manifest = read_manifest(
            data, group_regex=group_regex, strict=strict, max_bad=max_bad, least_classes=1
        )
        unknown = sorted(set(manifest.labels) - set(self.labels))
        if unknown:
            raise DataError(
                f"{data} has classes that the model does not know: {', '.join(unknown)}. "
                f"It knows {', '.join(self.labels)}"
            )
        rows = []
        for done, clip in enumerate(manifest.clips, start=1):
            rows.append(self._one(clip.path))
            if progress is not None:
                progress(done, len(manifest.clips))
        numbers = np.arange(len(manifest.clips))
        scores = score_clips(manifest, numbers, np.stack(rows), self.labels)
        problems = [{"path": str(p.path), "cause": p.cause} for p in manifest.problems]
        return {**scores, "problems": problems}

    def save(self, path: str | Path) -> None:
        """Write the model as one `.keras` file (atomically)."""
        with atomic_path(Path(path)) as partial:
            self.model.save(partial)

    @property
    def front_end(self) -> FrontEnd:
        """How `model` makes patches of a waveform."""
        return self._front_end

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

    def _one(self, sound: str | Path | np.ndarray) -> np.ndarray:
        if isinstance(sound, str | Path):
            return file_scores(self._patch_model, self._front_end, Path(sound))
        return waveform_scores(self._patch_model, self._front_end, sound)
