"""What a run trains and tests on: the recordings of its options, read and divided."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from unfreeze.audio.manifest import Manifest, build_manifest, check_classes, examine_source
from unfreeze.audio.sources import Source, find_background, find_source, join_sources
from unfreeze.audio.split import Split, split_clips, split_notes
from unfreeze.options import TrainOptions
from unfreeze.review.corrections import Corrections

Progress = Callable[[int, int], None]


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Clips and their parts.

    Attributes:
        manifest: all clips.
        split: what is trained on, what chooses, what is tested on.
        added: numbers of the clips that were added to those of an earlier run.
        corrected: those of them that are held out, a second test set.
        corrections: what a person has changed; None without an earlier run.
        notes: what a user should know, a sentence each.
    """

    manifest: Manifest
    split: Split
    added: np.ndarray = field(default_factory=_none)
    corrected: np.ndarray = field(default_factory=_none)
    corrections: Corrections | None = None
    notes: tuple[str, ...] = ()

    def parts(self) -> dict[str, np.ndarray]:
        """The clips of each part by name, with `corrected` where there are such."""
        more = {"corrected": self.corrected} if self.corrections is not None else {}
        return {**self.split.parts(), **more}


def read_training_data(options: TrainOptions, progress: Progress | None = None) -> TrainingData:
    """Read all recordings that the options name, and divide them.

    Args:
        options: of the run, which adds to no other.
        progress: called as progress(done, total) with counts of files.

    Raises:
        DataError: they cannot be used.
    """
    source = find_source(options.data, options.group_regex)
    joined = join_sources([source, *background_sources(options)])
    check_classes(joined)
    good, problems = examine_source(joined, progress=progress)
    manifest = build_manifest(
        joined.root, joined.labels, good, problems, strict=options.strict, max_bad=options.max_bad
    )
    split = split_clips(
        manifest, validation=options.validation, test=options.test, seed=options.seed
    )
    return TrainingData(manifest, split, notes=split_notes(manifest, split))


def background_sources(options: TrainOptions) -> list[Source]:
    """The recordings of none of the classes that the options name.

    Both kinds are of one class: the softmax shares out one probability, and two
    classes for "none of these" would split it between them.
    """
    given = (("--background", options.background), ("--negative", options.negative))
    return [find_background(folder, name) for name, folder in given if folder is not None]
