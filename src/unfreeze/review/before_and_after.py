"""What corrections changed: scores of the model before and after, on the same clips."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.clip_model import parts_of
from unfreeze.audio.manifest import Manifest
from unfreeze.audio.patches import PatchView
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.inference import view_scores
from unfreeze.pipeline.paired_change import paired_change
from unfreeze.pipeline.saved_model import load_clip_model


def load_old(run: Path) -> tuple[keras.Model, tuple[str, ...]]:
    """The patch model of a run and its classes.

    Raises:
        RunError: the model cannot be loaded.
    """
    model, _, labels = parts_of(load_clip_model(run / run_folder.MODEL))
    return model, labels


def measure_change(
    old: tuple[keras.Model, Sequence[str]],
    new: keras.Model,
    manifest: Manifest,
    parts: Mapping[str, PatchView],
    seed: int,
) -> dict[str, Any]:
    """Score both models on the run's test clips and on the held-out corrected ones.

    Args:
        old: the patch model before, and its classes.
        new: the patch model after; its classes are those of the manifest.
        manifest: holds the true classes and the groups.
        parts: the patches of `test` and `corrected`.
        seed: of the bootstrap.

    Returns:
        `test` and `corrected`: each as from `unfreeze.pipeline.paired_change.paired_change`;
        None without clips.
    """
    found: dict[str, Any] = {}
    for name in ("test", "corrected"):
        view = parts[name]
        if not len(view):
            found[name] = None
            continue
        clips = np.unique(view.clip)
        before, after = (
            view_scores(model, view, len(manifest.clips))[0][clips] for model in (old[0], new)
        )
        found[name] = paired_change(
            manifest, clips, (before, old[1]), (after, manifest.labels), seed
        )
    return found
