"""Train a classifier of patches, for `unfreeze train`, trials and comparisons alike.

The features and the outputs of frozen layers are kept in the cache folder and shared by
all runs, so that a second run on the same recordings starts at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from unfreeze.audio.augmentation import read_augmentation
from unfreeze.audio.clip_model import mixup_of, patch_model
from unfreeze.audio.feature_store import PatchStore
from unfreeze.audio.manifest import Manifest
from unfreeze.audio.patches import PatchView, clip_means, repeat_by_clip
from unfreeze.backbones.registry import Backbone
from unfreeze.core.boundary import check_stages, cut_for, share_of_work, why_uncached
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.fit import FitResult, fit
from unfreeze.core.graph import Graph, flatten
from unfreeze.core.objective import KnownBinaryCrossentropy
from unfreeze.core.read_out import projection_of
from unfreeze.core.schedule import Schedule
from unfreeze.pipeline.backbone_limits import usable_augment
from unfreeze.pipeline.calibration import loss
from unfreeze.pipeline.class_weights import clip_weights, heard_weights, sample_weights
from unfreeze.pipeline.kept_fits import adapt_once
from unfreeze.pipeline.label_scoring import label_scorer
from unfreeze.pipeline.train_options import (
    BALANCED,
    DEFAULT_AUGMENT,
    DEFAULT_BATCH,
    DEFAULT_TAPS,
    NO_TAPS,
    UNWEIGHTED,
    TrainOptions,
)
from unfreeze.pipeline.training_data import (
    CACHE_LIMIT,
    Inputs,
    NamedProgress,
    build_features,
    clip_truth,
    prefix_folder,
)


@dataclass(frozen=True, eq=False)
class Material:
    """The inputs that all runs on the same data share.

    Attributes:
        manifest: all clips.
        store: their features.
        backbone: the pretrained network.
        weights: the file with its weights.
        taps: as the option of that name.
        augment: as the option of that name.
        class_weight: as the option of that name.
    """

    manifest: Manifest
    store: PatchStore
    backbone: Backbone
    weights: Path
    taps: str = DEFAULT_TAPS
    augment: str = DEFAULT_AUGMENT
    class_weight: str = BALANCED


def make_material(inputs: Inputs, options: TrainOptions, progress: NamedProgress) -> Material:
    """Compute the features of all clips, or find them in the cache.

    Args:
        inputs: the data and the network.
        options: how runs read the network and change its input.
        progress: called as progress("features", done, total) with counts of clips.

    Raises:
        DataError: a file has changed since it was read.
    """
    manifest, backbone = inputs.data.manifest, inputs.backbone
    store = build_features(
        manifest,
        backbone.front_end,
        lambda done, total: progress("features", done, total),
        options.cluster,
    )
    return Material(
        manifest,
        store,
        backbone,
        inputs.weights,
        options.taps,
        options.augment,
        options.class_weight,
    )


def new_model(
    backbone: Backbone,
    weights: Path,
    classes: int,
    seed: int,
    taps: str = DEFAULT_TAPS,
    augment: str = DEFAULT_AUGMENT,
    several: bool = False,
) -> keras.Model:
    """A pretrained backbone with a new head: patches in, class probabilities out.

    Args:
        backbone: the network.
        weights: the file with its weights.
        classes: units of the head.
        seed: of the head's first weights, of dropout and of augmentation.
        taps: as the option of that name.
        augment: as the option of that name.
        several: whether a clip may have several labels: each class then has a probability
            of its own.

    Raises:
        ScheduleError: a tap matches no layer.
    """
    base = backbone.build(weights=weights)
    activation = "sigmoid" if several else "softmax"
    changes = read_augmentation(usable_augment(backbone, augment))
    if taps == DEFAULT_TAPS:
        taps = backbone.taps
    read, front = tap_names(taps), backbone.front_end
    return patch_model(base, classes, seed, read, changes, activation, front)


def tap_names(taps: str) -> str | list[str] | None:
    """The option `taps`, as `patch_model` takes it."""
    if taps == NO_TAPS:
        return None
    return [part.strip() for part in taps.split(",")] if "," in taps else taps


def fit_patches(
    model: keras.Model,
    schedule: Schedule,
    manifest: Manifest,
    parts: Mapping[str, PatchView],
    seed: int,
    *,
    run_dir: Path | None = None,
    callbacks: Sequence[StageCallback] = (),
    fuse: bool = True,
    class_weight: str = BALANCED,
    factors: Mapping[str, float] | None = None,
    devices: int = 1,
) -> FitResult:
    """Train a patch model in stages, on the caches that all runs share.

    Args:
        model: patches to probabilities, from `patch_model`.
        schedule: what to train when.
        manifest: holds the class of each clip.
        parts: patches by part; `train`, and `validation`, which may be empty.
        seed: of the order and of dropout.
        run_dir: as for `unfreeze.fit`.
        callbacks: notified of progress.
        fuse: as for `unfreeze.fit`.
        class_weight: as the option of that name.
        factors: by which the weights of some classes are multiplied.
        devices: as for `unfreeze.fit`.

    Raises:
        StageError: a stage did not do what it should, or its loss diverged.
    """
    several = manifest.several
    labels = clip_truth(manifest)
    train, held = parts["train"], parts["validation"]
    truth = repeat_by_clip(labels, train.clip)
    validation = score = loss_of = None
    if several:
        loss_of = KnownBinaryCrossentropy(heard_weights(class_weight, manifest.labels))
    if len(held):
        held_truth = repeat_by_clip(labels, held.clip)
        if several:
            weights = clip_weights(UNWEIGHTED, held.clip, held.clip, manifest.labels)
            score = label_scorer(labels, held.clip)
            if schedule.monitor == "val_loss":
                schedule = replace(schedule, monitor="val_clip_loss")
        else:
            weights = clip_weights(class_weight, held.clip, held_truth, manifest.labels)
            score = clip_scorer(labels, held.clip, weights)
        validation = held, held_truth, weights
    weights_of = None if several else sample_weights(class_weight, truth, manifest.labels)
    if weights_of is not None and factors:
        for number, label in enumerate(manifest.labels):
            weights_of[number] *= factors.get(label, 1.0)
    projection = projection_of(model)
    if projection is not None and not projection.is_fitted:
        adapt_once(model, train, seed)
    return fit(
        model,
        with_caches(flatten(model), schedule),
        (train, truth),
        validation_data=validation,
        batch_size=DEFAULT_BATCH,
        callbacks=callbacks,
        run_dir=run_dir,
        seed=seed,
        verbose=0,
        loss=loss_of,
        class_weight=None if several else weights_of,
        mixup=mixup_of(model),
        validation_scores=score,
        cache_dir=prefix_folder(),
        cache_limit=CACHE_LIMIT,
        fuse=fuse,
        devices=devices,
    )


def with_caches(graph: Graph, schedule: Schedule) -> Schedule:
    """Leave augmentation off in stages that would otherwise be cached.

    A stage below which much is frozen runs tens of times as fast on a cache; live
    augmentation would have the whole network run in each of its steps.

    Args:
        graph: the flattened patch model.
        schedule: stages with `views` above 1 keep their augmentation.

    Raises:
        ScheduleError: the schedule does not fit the model.
    """
    stages = []
    for selection in check_stages(graph, schedule):
        stage = selection.stage
        still = replace(stage, augment=False) if stage.views == 1 else stage
        cut = cut_for(graph, replace(selection, stage=still), stage.views)
        cached = cut.saves_work and not why_uncached(still, share_of_work(graph, cut.prefix))
        stages.append(still if cached else stage)
    return replace(schedule, stages=tuple(stages))


def clip_scorer(
    labels: np.ndarray, clip: np.ndarray, weights: np.ndarray | None = None
) -> Callable[[np.ndarray], dict[str, float]]:
    """Scores by clip from the scores of its patches: what a user of the classifier sees.

    Args:
        labels: the class of each clip of the manifest.
        clip: (patches,) the clip of each validation patch.
        weights: (patches,) of the validation loss; None for equal ones.

    Returns:
        A function from (patches, classes) to `clip_accuracy`, `balanced_accuracy` (the mean
        over the classes that occur), `clip_loss` (mean cross-entropy, nats) and
        `loss_error`, the standard error of the loss, as clips are drawn at random.
    """
    clips, place = np.unique(clip, return_inverse=True)
    truth = labels[clips]
    weighs = np.ones(len(clip)) if weights is None else weights
    of_clip = np.bincount(place, weighs)

    def error_of_loss(patches: np.ndarray) -> float:
        likely = np.maximum(patches[np.arange(len(patches)), labels[clip]], 1e-7)
        losses = np.bincount(place, -np.log(likely) * weighs) / of_clip
        mean = np.average(losses, weights=of_clip)
        return float(np.sqrt(np.sum((of_clip * (losses - mean)) ** 2)) / of_clip.sum())

    def score(patches: np.ndarray) -> dict[str, float]:
        means = clip_means(np.asarray(patches), clip, len(labels))[clips]
        hits = means.argmax(axis=1) == truth
        recalls = [hits[truth == label].mean() for label in np.unique(truth)]
        return {
            "clip_accuracy": float(hits.mean()),
            "balanced_accuracy": float(np.mean(recalls)),
            "clip_loss": loss(truth, means),
            "loss_error": error_of_loss(np.asarray(patches)),
        }

    return score
