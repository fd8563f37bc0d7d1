"""What a run trains and tests on: recordings, read and divided, and their features.

Nothing here needs Keras: faults in the data are refused before the seconds that Keras
takes to import.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from unfreeze.audio.cluster import Cluster
from unfreeze.audio.feature_store import PatchStore, build_store, prune_stores
from unfreeze.audio.label_table import Columns
from unfreeze.audio.manifest import (
    SLOW,
    Manifest,
    all_labels,
    build_manifest,
    check_classes,
    examine_source,
    heard_table,
)
from unfreeze.audio.segments_file import Corrections
from unfreeze.audio.sources import Reading, Source, find_background, find_source, join_sources
from unfreeze.audio.split import Split, split_clips, split_notes
from unfreeze.backbones.frontend import FrontEnd, NetworkOutputs
from unfreeze.backbones.pretrained_weights import (
    cache_folder,
    known,
    resolve_weights,
    settle_licence,
)
from unfreeze.backbones.registry import Backbone, get_backbone
from unfreeze.errors import sentence
from unfreeze.pipeline.backbone_limits import limit_notes
from unfreeze.pipeline.class_weights import read_class_weights
from unfreeze.pipeline.train_options import FULLY, TrainOptions

# Called as progress(done, total), in clips, files or bytes.
Progress = Callable[[int, int], None]
# The same, with the name of the work first.
NamedProgress = Callable[[str, int, int], None]
# Both caches are shared by runs, so that a second run on the same recordings
# starts at once; the oldest entries go when they grow beyond this.
CACHE_LIMIT = 20 * 10**9


def build_features(
    manifest: Manifest,
    front_end: FrontEnd,
    progress: Callable[[int, int], None] | None = None,
    cluster: Cluster | None = None,
) -> PatchStore:
    """Make the feature store of a data set, or find it in the cache.

    Args:
        manifest: the clips.
        front_end: how waveforms become frames.
        progress: called as progress(done, total) with counts of clips.
        cluster: where to compute it; None computes it on this machine.

    Raises:
        DataError: a file has changed since it was read.
    """
    home = cache_folder() / "features"
    # Heard in another way, the same recordings have other features.
    ways = {"slowed": (front_end.slow_down, 1.0), "channel": (front_end.channel, 0)}
    other = "".join(f"-{name}-{way:g}" for name, (way, usual) in ways.items() if way != usual)
    if isinstance(front_end, NetworkOutputs):
        # They may take minutes: runs with another network leave them alone.
        other += f"-{front_end.network.sha256[:16]}"
    place = home / f"{manifest.fingerprint[:32]}{other}"
    prune_stores(home, CACHE_LIMIT, keep=place)
    return build_store(manifest, front_end, place, progress=progress, cluster=cluster)


def prefix_folder() -> Path:
    """Where the outputs of frozen layers are kept, for all runs."""
    return cache_folder() / "prefixes"


def label_numbers(manifest: Manifest) -> np.ndarray:
    """The class of each clip, (clips,) int32, as its position in the manifest's labels."""
    place = {label: number for number, label in enumerate(manifest.labels)}
    return np.array([place[clip.label] for clip in manifest.clips], dtype=np.int32)


def clip_truth(manifest: Manifest) -> np.ndarray:
    """What each clip holds: `label_numbers`, or `heard_table` where it may have several labels."""
    return heard_table(manifest) if manifest.several else label_numbers(manifest)


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Clips and their parts.

    Attributes:
        manifest: all clips.
        split: the clips to train on, to choose epochs by, and to test on.
        added: numbers of the clips that were added to an earlier run's.
        corrected: those of them that are held out as a second test set.
        corrections: what a person has changed; None without an earlier run.
        notes: what the user should know, one sentence each.
    """

    manifest: Manifest
    split: Split
    added: np.ndarray = field(default_factory=_none)
    corrected: np.ndarray = field(default_factory=_none)
    corrections: Corrections | None = None
    notes: tuple[str, ...] = ()

    def parts(self) -> dict[str, np.ndarray]:
        """The clips of each part by name; with `corrected` if there are corrections."""
        more = {"corrected": self.corrected} if self.corrections is not None else {}
        return {**self.split.parts(), **more}


def read_training_data(options: TrainOptions, progress: Progress | None = None) -> TrainingData:
    """Read all recordings that the options name, and divide them.

    Args:
        options: of a run that does not add to another.
        progress: called as progress(done, total) with counts of files.

    Raises:
        DataError: the recordings cannot be used.
    """
    how = reading_of(options)
    source = find_source(options.data, how=how)
    joined = join_sources([source, *background_sources(options)])
    check_classes(joined, 1 if how.full else 2)
    good, problems = examine_source(joined, how, progress=progress, cluster=options.cluster)
    manifest = build_manifest(
        joined.root,
        all_labels(joined, good),
        good,
        problems,
        strict=options.strict,
        max_bad=options.max_bad,
        several=joined.several,
        window=how.window,
    )
    split = split_clips(
        manifest, validation=options.validation, test=options.test, seed=options.seed
    )
    return TrainingData(manifest, split, notes=split_notes(manifest, split))


def reading_of(options: TrainOptions) -> Reading:
    """How the options say that the data are read."""
    columns = Columns(
        options.path_column, options.label_column, options.audio_folder, options.multilabel
    )
    full = options.annotated == FULLY
    front_end = get_backbone(options.backbone, options.slow_down, options.channel).front_end
    return Reading(options.group_regex, columns, options.label_map, full).by(front_end)


def background_sources(options: TrainOptions) -> list[Source]:
    """The recordings that the options name as being of none of the classes.

    Both kinds form one class: two classes for "none of these" would split its
    probability between them.
    """
    given = (("--background", options.background), ("--negative", options.negative))
    return [find_background(folder, name) for name, folder in given if folder is not None]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a run, or every run of a comparison, starts from.

    Attributes:
        data: the clips and their parts.
        backbone: the pretrained network.
        weights: the file with its weights.
    """

    data: TrainingData
    backbone: Backbone
    weights: Path


def read_inputs(
    options: TrainOptions,
    backbone: Backbone,
    progress: NamedProgress,
    read: Callable[[TrainOptions, Progress], TrainingData] = read_training_data,
) -> Inputs:
    """Read the data, and find or download the weights.

    Args:
        options: of the run.
        backbone: the network that the options name.
        progress: called as progress(what, done, total); `what` is "reading" or "weights".
        read: reads and divides the data.

    Raises:
        UnfreezeError: the data or the weights cannot be used.
    """
    settle_licence(backbone.weights, options.accept_licence)
    data = read(options, lambda done, total: progress("reading", done, total))
    slow = (problem.cause for problem in data.manifest.problems if problem.rule == SLOW)
    notes = (*limit_notes(backbone, options.augment), *(sentence(cause) for cause in slow))
    data = replace(data, notes=(*data.notes, *notes))
    read_class_weights(options.class_weight, data.manifest.labels)
    weights = resolve_weights(
        backbone.weights,
        path=options.weights,
        progress=lambda done, total: progress("weights", done, total),
    )
    backbone = replace(backbone, weights=known(backbone.weights, weights))
    return Inputs(data, backbone, weights)
