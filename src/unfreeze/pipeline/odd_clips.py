"""Clips that a person should look at and listen to before training.

All clips are described by what the frozen network knows of them at every depth (the
projection of `unfreeze.core.read_out`, the mean over a clip's patches). From that follow:

- probable label errors, by confident learning (Northcutt, Jiang and Chuang, "Confident Learning:
  Estimating Uncertainty in Dataset Labels", JAIR 70, 2021): a logistic regression that was
  trained on other groups gives another class as high a score as clips of that class have on
  average, and the clip's own class less than that;
- copies (`unfreeze.pipeline.copied_clips`): the same recording in two groups;
- outliers: the clips that are least like the others of their class, and those that are
  farthest from all. Nothing need be wrong with them.

Clipped clips are told by their samples. At most `MOST_PATCHES` patches are looked at, spread
evenly over classes and clips. How much of it is found: `python -m benchmarks.odd_clips`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from threadpoolctl import threadpool_limits

from unfreeze.audio.feature_store import PatchStore
from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.audio.patches import clip_means
from unfreeze.audio.split import clip_units, deal_folds
from unfreeze.backbones.registry import Backbone
from unfreeze.core.read_out import adapt, projection_of
from unfreeze.pipeline.copied_clips import cosines, find_copies
from unfreeze.pipeline.depth_profile import draw_rows
from unfreeze.pipeline.inference import batch_sizes, fused, patch_scores
from unfreeze.pipeline.patch_training import new_model
from unfreeze.pipeline.training_data import NamedProgress

MOST_PATCHES = 8192
#: Share of the samples at full scale from which a clip counts as clipped.
CLIPPED = 0.001
#: Clips of one kind that are reported; of outliers, which any data have, at most a tenth of all.
MOST_FOUND, MOST_OUTLIERS = 24, 12
FOLDS = 5
# Inverse strength of the L2 penalty, as scikit-learn's `C`.
_STRENGTH = 0.1
_ITERATIONS = 300
# Of the same class and other groups, so many nearest clips say how like the others one is.
_NEAREST = 5


@dataclass(frozen=True)
class Doubt:
    """A label that is probably wrong.

    Attributes:
        clip: its number in the manifest.
        label: the class that the clip has and that is in doubt; None where clips may have
            several and one is missing.
        suggested: the class that it should have; None where it only has one too many.
        score: of `label`, by the clips of other groups, 0 to 1; of its absence without one.
        suggested_score: of `suggested`, or of the absence of `label`.
    """

    clip: int
    label: str | None
    suggested: str | None
    score: float
    suggested_score: float


@dataclass(frozen=True)
class OddClips:
    """What stands out in a data set; clips are numbers in its manifest.

    Attributes:
        doubts: probable label errors, the surest first.
        copies: clips that are copies of one recording, in different groups; several together.
        outliers: the clips that are least like the others of their class, and those that are
            farthest from all, in turn.
        clipped: clips with many samples at full scale, the worst first.
        looked_at: the number of clips that were compared.
        notes: what could not be found, one sentence each.
    """

    doubts: tuple[Doubt, ...]
    copies: tuple[tuple[int, ...], ...]
    outliers: tuple[int, ...]
    clipped: tuple[int, ...]
    looked_at: int
    notes: tuple[str, ...]

    def numbers(self) -> list[int]:
        """All clips that stand out, each once."""
        copies = [number for one in self.copies for number in one]
        doubts = [doubt.clip for doubt in self.doubts]
        return list(dict.fromkeys([*doubts, *copies, *self.clipped, *self.outliers]))

    def as_plain(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values for JSON.

        Args:
            names: of all clips of the manifest.
        """
        return {
            "doubts": [{**asdict(doubt), "clip": names[doubt.clip]} for doubt in self.doubts],
            "copies": [[names[number] for number in one] for one in self.copies],
            "outliers": [names[number] for number in self.outliers],
            "clipped": [names[number] for number in self.clipped],
            "looked_at": self.looked_at,
            "notes": list(self.notes),
        }


def find_odd_clips(
    manifest: Manifest,
    store: PatchStore,
    backbone: Backbone,
    weights: Path,
    *,
    seed: int = 0,
    most: int = MOST_FOUND,
    progress: NamedProgress = lambda *_: None,
) -> OddClips:
    """Find the clips that a person should look at first.

    Args:
        manifest: the clips.
        store: their features.
        backbone: the network.
        weights: the file with its weights.
        seed: of the draw of patches, of the projection and of the folds.
        most: clips of one kind that are reported.
        progress: called as progress(what, done, total); `what` is "odd" (patches) or "copies"
            (pairs of clips).

    Raises:
        DataError: the network's outputs are not finite, or are all the same.
    """
    heard = heard_table(manifest)
    clips, features = _describe(manifest, store, backbone, weights, seed, progress)
    groups = np.unique([clip.group for clip in manifest.clips], return_inverse=True)[1][clips]
    # A clip of several classes is compared with those of its first.
    first = heard[clips].argmax(axis=1)
    like = likeness(features, groups, first)
    chosen = [manifest.clips[number] for number in clips]
    copies = find_copies(chosen, features, groups, backbone.front_end, partial(progress, "copies"))
    doubts, notes = tuple[Doubt, ...](), list[str]()
    if len(clip_units(manifest.clips)) < FOLDS:
        notes.append(f"Label errors are looked for where there are {FOLDS} groups or more.")
    else:
        fold = deal_folds(manifest, FOLDS, seed)[clips]
        scores = out_of_fold(features, heard[clips], fold, manifest.several)
        found = find_several if manifest.several else find_doubts
        doubts = tuple(found(scores, heard[clips], clips, manifest.labels))[:most]
    if len(clips) < len(manifest.clips):
        notes.append(
            f"{len(clips):,} of {len(manifest.clips):,} clips were compared, as evenly over the "
            "classes as possible."
        )
    clipped = np.array([clip.clipped for clip in manifest.clips])
    order = np.argsort(-clipped, kind="stable")
    return OddClips(
        doubts=doubts,
        copies=tuple(tuple(clips[list(one)].tolist()) for one in copies[:most]),
        outliers=tuple(clips[outliers(like, features)].tolist()),
        clipped=tuple(order[clipped[order] >= CLIPPED][:most].tolist()),
        looked_at=len(clips),
        notes=tuple(notes),
    )


def _describe(
    manifest: Manifest,
    store: PatchStore,
    backbone: Backbone,
    weights: Path,
    seed: int,
    progress: NamedProgress,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of clips, and what the network knows of each, (clips, numbers)."""
    view = store.patches(np.arange(len(manifest.clips)))
    kinds = np.unique([clip.label for clip in manifest.clips], return_inverse=True)[1]
    rows = draw_rows(view.clip, MOST_PATCHES, seed, kinds)
    chosen = view.take(rows, view.clip[rows])
    model = new_model(backbone, weights, len(manifest.labels), seed, augment="none")
    adapt(model, chosen, seed=seed)
    projection = projection_of(model)
    assert projection is not None
    reader = fused(keras.Model(model.input, projection.output))
    parts, size = [], batch_sizes(chosen.shape[1:])[-1]
    for at in range(0, len(chosen), size):
        parts.append(patch_scores(reader, chosen[at : at + size]))
        progress("odd", min(at + size, len(chosen)), len(chosen))
    clips = np.unique(chosen.clip)
    means = clip_means(np.concatenate(parts), chosen.clip, len(manifest.clips))[clips]
    return clips, means.astype(np.float32)


def out_of_fold(
    features: np.ndarray, heard: np.ndarray, fold: np.ndarray, several: bool
) -> np.ndarray:
    """Scores of each clip by a logistic regression that was trained on the other folds.

    Args:
        features: (clips, numbers).
        heard: (clips, classes): 1 where a class is heard, 0 where not, below 0 if unknown.
        fold: (clips,) of each clip; no group is in two.
        several: whether each class is judged by itself.

    Returns:
        (clips, classes), from 0 to 1; NaN for a class of which the other folds have no clip
        (or, with `several`, none without it).
    """
    from sklearn.linear_model import LogisticRegression

    def fit(x: np.ndarray, y: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=_ITERATIONS).fit(
            x, y
        )

    scores = np.full(heard.shape, np.nan)
    # On a busy machine several threads took ten times as long as one.
    with threadpool_limits(1):
        for number in np.unique(fold):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            if several:
                for c in range(heard.shape[1]):
                    known = train[heard[train, c] >= 0]
                    if len(np.unique(heard[known, c])) == 2:
                        model = fit(features[known], heard[known, c] > 0)
                        scores[test, c] = model.predict_proba(features[test])[:, 1]
                continue
            truth = heard[train].argmax(axis=1)
            if len(np.unique(truth)) > 1:
                model = fit(features[train], truth)
                scores[np.ix_(test, model.classes_)] = model.predict_proba(features[test])
    return scores


def find_doubts(
    scores: np.ndarray, heard: np.ndarray, clips: np.ndarray, labels: Sequence[str]
) -> list[Doubt]:
    """Probable label errors of clips with one label, the surest first.

    Args:
        scores: (clips, classes) from `out_of_fold`.
        heard: (clips, classes) 1 for a clip's class.
        clips: (clips,) the number of each.
        labels: names of the classes.
    """
    truth = heard.argmax(axis=1)
    rows = np.arange(len(truth))
    own = scores[rows, truth]
    usual = np.array([_mean(own[truth == c]) for c in range(len(labels))])
    # NaN is never as high as anything.
    reached = np.where(scores >= usual, scores, -1.0)
    best = reached.argmax(axis=1)
    found = np.flatnonzero((reached[rows, best] >= 0) & (best != truth) & ~np.isnan(own))
    order = found[np.argsort(own[found] - scores[found, best[found]], kind="stable")]
    return [
        Doubt(
            int(clips[i]),
            labels[truth[i]],
            labels[best[i]],
            float(own[i]),
            float(scores[i, best[i]]),
        )
        for i in order
    ]


def find_several(
    scores: np.ndarray, heard: np.ndarray, clips: np.ndarray, labels: Sequence[str]
) -> list[Doubt]:
    """Probable label errors where clips may have several labels, as `find_doubts`.

    A class that is labelled is in doubt where its absence is as sure as in clips without it
    on average; one that is not labelled, where it is as sure as in clips with it.
    """
    found = list[tuple[float, Doubt]]()
    for c, label in enumerate(labels):
        column, truth = scores[:, c], heard[:, c]
        there, gone = _mean(column[truth == 1]), _mean(column[truth == 0])
        for i in np.flatnonzero((truth == 1) & (column <= gone)):
            score = float(column[i])
            found.append((score - gone, Doubt(int(clips[i]), label, None, score, 1 - score)))
        for i in np.flatnonzero((truth == 0) & (column >= there)):
            score = float(column[i])
            found.append((there - score, Doubt(int(clips[i]), None, label, 1 - score, score)))
    return [doubt for _, doubt in sorted(found, key=lambda pair: pair[0])]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def likeness(features: np.ndarray, groups: np.ndarray, label: np.ndarray) -> np.ndarray:
    """How like the others of its class each clip is.

    Args:
        features: (clips, numbers).
        groups: (clips,) the number of each clip's group.
        label: (clips,) the number of each clip's class.

    Returns:
        (clips,) the mean cosine to the nearest of its class in other groups; NaN for a clip
        that is alone.
    """
    found = np.full(len(features), np.nan)
    for row, near in cosines(features, groups):
        nearest = np.sort(near[(label == label[row]) & np.isfinite(near)])[-_NEAREST:]
        if len(nearest):
            found[row] = nearest.mean()
    return found


def outliers(like: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Positions of the oddest clips: those least like their class and those far from all, in turn.

    Args:
        like: (clips,) from `likeness`.
        features: (clips, numbers), centred, so that the distance from 0 is that from all.
    """
    alone = np.argsort(like, kind="stable")[: np.isfinite(like).sum()]
    far = np.argsort(-np.linalg.norm(features, axis=1), kind="stable")
    both = [place for pair in zip(alone, far, strict=False) for place in pair]
    count = min(MOST_OUTLIERS, max(len(features) // 10, 1))
    return np.array(list(dict.fromkeys(both))[:count], np.int64)
