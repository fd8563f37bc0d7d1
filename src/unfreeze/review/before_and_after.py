"""What corrections changed: scores of the model before and after, on the same clips."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.clip_model import parts_of
from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.audio.patches import PatchView
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.inference import view_scores
from unfreeze.pipeline.label_scoring import label_change
from unfreeze.pipeline.saved_model import load_clip_model
from unfreeze.pipeline.scoring import score_change


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
        `test` and `corrected`: each as from `unfreeze.pipeline.scoring.score_change` or, where
        clips may have several labels, `unfreeze.pipeline.label_scoring.label_change`; None
        without clips.
    """
    # A model may know background where the other does not.
    labels = (*manifest.labels, *(label for label in old[1] if label not in manifest.labels))
    columns = [labels.index(label) for label in old[1]]
    found: dict[str, Any] = {}
    for name in ("test", "corrected"):
        view = parts[name]
        if not len(view):
            found[name] = None
            continue
        clips = np.unique(view.clip)
        chosen = [manifest.clips[int(i)] for i in clips]
        before = np.zeros((len(clips), len(labels)))
        before[:, columns] = view_scores(old[0], view, len(manifest.clips))[0][clips]
        after = np.zeros_like(before)
        after[:, : len(manifest.labels)] = view_scores(new, view, len(manifest.clips))[0][clips]
        groups = [clip.group for clip in chosen]
        if manifest.several:
            table = heard_table(replace(manifest, labels=labels))[clips]
            found[name] = label_change(table, before, after, labels, groups, seed=seed)
        else:
            truth = np.array([labels.index(clip.label) for clip in chosen])
            found[name] = score_change(truth, before, after, labels, groups, seed=seed)
    return found
