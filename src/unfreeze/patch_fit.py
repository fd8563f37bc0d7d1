"""`fit` on the patches of clips: what a run of `train` and one of `compare` share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from unfreeze.audio.manifest import Manifest
from unfreeze.audio.patches import PatchView, repeat_by_clip
from unfreeze.core.run import FitResult, fit
from unfreeze.core.schedule import Schedule
from unfreeze.core.watch import StageCallback
from unfreeze.features import CACHE_LIMIT, label_numbers, prefix_folder
from unfreeze.options import DEFAULT_BATCH


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
) -> FitResult:
    """Train a patch model in stages, on the caches that all runs share.

    Args:
        model: patches to probabilities, from `patch_model`.
        schedule: what to train when.
        manifest: tells the class of each clip.
        parts: patches by part; `train`, and `validation`, which may be empty.
        seed: of the order and of dropout.
        run_dir: as for `unfreeze.fit`.
        callbacks: hear of progress.
        fuse: as for `unfreeze.fit`.

    Raises:
        StageError: a stage did not do what it claims, or its loss diverged.
    """
    labels = label_numbers(manifest)
    train, held = parts["train"], parts["validation"]
    return fit(
        model,
        schedule,
        (train, repeat_by_clip(labels, train.clip)),
        validation_data=(held, repeat_by_clip(labels, held.clip)) if len(held) else None,
        batch_size=DEFAULT_BATCH,
        callbacks=callbacks,
        run_dir=run_dir,
        seed=seed,
        verbose=0,
        cache_dir=prefix_folder(),
        cache_limit=CACHE_LIMIT,
        fuse=fuse,
    )
