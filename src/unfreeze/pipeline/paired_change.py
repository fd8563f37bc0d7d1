"""What a new model changed: scores of both models on the same clips, and whether it is worse."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.pipeline.label_scoring import label_change
from unfreeze.pipeline.scoring import score_change


def paired_change(
    manifest: Manifest,
    clips: np.ndarray,
    before: tuple[np.ndarray, Sequence[str]],
    after: tuple[np.ndarray, Sequence[str]],
    seed: int,
) -> dict[str, Any]:
    """Score two models on the same clips.

    Args:
        manifest: holds the true classes and the groups.
        clips: (n,) numbers of clips in the manifest.
        before: (n, classes) probabilities of one model, and its classes.
        after: of the other, likewise. A class that a model does not know has 0 there.
        seed: of the bootstrap.

    Returns:
        As from `unfreeze.pipeline.scoring.score_change` or, where clips may have several
        labels, `unfreeze.pipeline.label_scoring.label_change`.
    """
    # A model may know background where the other does not.
    labels = tuple(dict.fromkeys((*manifest.labels, *after[1], *before[1])))
    old, new = (_in_columns(scores, known, labels) for scores, known in (before, after))
    chosen = [manifest.clips[int(i)] for i in clips]
    groups = [clip.group for clip in chosen]
    if manifest.several:
        heard = heard_table(replace(manifest, labels=labels))[clips]
        return label_change(heard, old, new, labels, groups, seed=seed)
    truth = np.array([labels.index(clip.label) for clip in chosen])
    return score_change(truth, old, new, labels, groups, seed=seed)


def _in_columns(scores: np.ndarray, known: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """The scores of the classes in `known` as columns of `labels`; 0 for others."""
    table = np.zeros((len(scores), len(labels)))
    table[:, [labels.index(label) for label in known]] = scores
    return table


def fallen(change: Mapping[str, Any] | None) -> str | None:
    """Which score fell by more than chance explains, with its numbers; None if none did.

    Args:
        change: from `paired_change`; None without clips.
    """
    if change is None:
        return None
    for name, bounds in change["intervals"].items():
        if bounds is None or bounds[1] >= 0:
            continue
        before, after = change["before"][name], change["after"][name]
        return (
            f"{name.replace('_', ' ')} {before:.3f} before, {after:.3f} now (the change is "
            f"{bounds[0]:+.3f} to {bounds[1]:+.3f}, 95 %)"
        )
    return None
