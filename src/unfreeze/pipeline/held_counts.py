"""Counts on the held-out clips of a trained model, and the thresholds chosen by them.

`unfreeze train` and the runs of a comparison do the same with a trained model: score its
held-out clips, count what each threshold does with them and with background, choose.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from unfreeze.audio.background_clips import Pieces
from unfreeze.audio.entries import is_quiet
from unfreeze.audio.manifest import heard_table
from unfreeze.audio.patches import clip_peaks
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.pipeline.in_noise import NoisyParts, more_background
from unfreeze.pipeline.inference import all_scores, view_scores
from unfreeze.pipeline.thresholds import COUNTS, Counts, choose, count
from unfreeze.pipeline.wish import Wish

#: Means and peaks by part, as from `view_scores`; a part without clips is left out.
HeldScores = dict[str, tuple[np.ndarray, np.ndarray]]


def score_held(model: keras.Model, cut: Pieces, names: Sequence[str]) -> HeldScores:
    """Score the clips of some parts.

    Args:
        model: patches to probabilities.
        cut: the data set.
        names: of the parts; those without clips are left out.
    """
    return {
        name: view_scores(model, cut.parts[name], len(cut.manifest.clips))
        for name in names
        if len(cut.parts.get(name, ()))
    }


def count_held(
    model: keras.Model,
    cut: Pieces,
    scores: HeldScores,
    noisy: NoisyParts | None,
    front_end: FrontEnd,
    seed: int,
) -> Counts | None:
    """Count what each threshold does with sounds that were not trained on.

    Args:
        model: patches to probabilities of the labels of `cut`.
        cut: the data set; its classes are those of the model.
        scores: of its parts, as from `score_held`.
        noisy: what the model's background was made of; its held part counts, too, and further
            background like it. None without.
        front_end: of the network.
        seed: of the further background.

    Returns:
        The counts; None without validation clips.
    """
    if "validation" not in scores:
        return None
    labels, clip = cut.manifest.labels, cut.parts["validation"].clip
    clips, patches = np.unique(clip, return_counts=True)
    table, peaks = [heard_table(cut.manifest)[clips]], [scores["validation"][1][clips]]
    lengths = [patches]
    quiet = [number for number, label in enumerate(labels) if is_quiet(label)]
    own = int((np.delete(table[0], quiet, axis=1) != 0).any(axis=1).sum())
    if noisy is not None and noisy.held is not None:
        # The copies in noise and the background, which follow the clips themselves.
        first, number = len(clip), len(cut.manifest.clips)
        further = noisy.held.clip[first:] - number
        lengths.append(np.bincount(further))
        found = all_scores(model, noisy.held, first)
        peaks.append(clip_peaks(found, further, len(lengths[-1])))
        table.append(noisy.held_heard[number:])
        for bank in more_background(front_end, noisy.kinds, seed):
            lengths.append(np.bincount(bank.clip))
            found = all_scores(model, bank.patches)
            peaks.append(clip_peaks(found, bank.clip, len(lengths[-1])))
            table.append(np.zeros((len(lengths[-1]), len(labels))))
    hop = front_end.steps * front_end.step
    samples = front_end.patch_samples + (np.concatenate(lengths) - 1) * hop
    seconds = samples / front_end.sample_rate
    return count(labels, np.concatenate(table), np.concatenate(peaks), seconds, own)


def threshold_entries(counts: Counts | None, wish: Wish) -> dict[str, Any]:
    """The entries of `metrics.json` about the scores from which classes are heard.

    Args:
        counts: from `count_held`; None where nothing could be counted.
        wish: what the thresholds are chosen for.
    """
    if counts is None:
        return {"thresholds": None}
    chosen = dict(zip(counts.labels, choose(counts, wish), strict=True))
    return {
        "thresholds": {label: choice.threshold for label, choice in chosen.items()},
        "threshold_choices": {label: choice.as_plain() for label, choice in chosen.items()},
        "threshold_wish": str(wish),
        COUNTS: counts.as_plain(),
    }
