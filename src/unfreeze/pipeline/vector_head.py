"""A head on vectors that are known: logistic regression, its strength chosen on validation clips.

No Keras here: where the vectors of all clips are at hand, a head takes a second, also in a
process that has never loaded a network.
"""

from dataclasses import dataclass

import numpy as np

from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.audio.patches import clip_means
from unfreeze.core.regression import STRENGTHS, regression
from unfreeze.pipeline.calibration import loss
from unfreeze.pipeline.class_weights import clip_weights, heard_weights
from unfreeze.pipeline.label_scoring import label_scorer
from unfreeze.pipeline.train_options import BALANCED, UNWEIGHTED
from unfreeze.pipeline.training_data import label_numbers


@dataclass(frozen=True, eq=False)
class ClipVectors:
    """The vectors of some clips.

    Attributes:
        vectors: (rows, numbers), what a head reads.
        clip: (rows,) the clip of each, as a number in the manifest.
    """

    vectors: np.ndarray
    clip: np.ndarray


@dataclass(frozen=True, eq=False)
class VectorHead:
    """A dense layer on vectors.

    Attributes:
        kernel: (numbers, classes) float32.
        bias: (classes,) float32.
        several: whether each class is judged by itself.
    """

    kernel: np.ndarray
    bias: np.ndarray
    several: bool

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """(rows, classes) float32, the probabilities of each class."""
        logits = vectors.astype(np.float32) @ self.kernel + self.bias
        if self.several:
            chances: np.ndarray = 0.5 * (1 + np.tanh(0.5 * logits))
            return chances
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def solve_head(
    manifest: Manifest, train: ClipVectors, held: ClipVectors, class_weight: str = BALANCED
) -> tuple[VectorHead, float]:
    """Solve a head, and choose the inverse strength of its penalty.

    Args:
        manifest: holds what is heard in each clip.
        train: what it is solved on; each clip counts the same however long it is.
        held: clips that the strength is chosen on, by the loss of their means; may be empty.
        class_weight: as the option of that name. Where each class is judged by itself, none
            outweighs another.

    Returns:
        The head, its columns in the order of the manifest's labels; and the strength, `C`.
    """
    inputs, classes, several = train.vectors, len(manifest.labels), manifest.several
    if several:
        truth, activation = heard_table(manifest)[train.clip], "sigmoid"
        weights = clip_weights(UNWEIGHTED, train.clip, train.clip, manifest.labels)
    else:
        truth, activation = label_numbers(manifest)[train.clip], "softmax"
        weights = clip_weights(class_weight, train.clip, truth, manifest.labels)
    sides = heard_weights(class_weight, manifest.labels) if several else None
    # As a read-out's projection: mean 0, and variance 1 on average. Folded into the head again.
    middle = np.average(inputs.astype(np.float64), axis=0, weights=weights)
    scale = 1 / max(float(np.sqrt(((inputs - middle) ** 2).mean())), 1e-6)
    standard = (inputs - middle) * scale
    best: tuple[float, float, VectorHead] | None = None
    for strength in STRENGTHS if len(held.clip) else STRENGTHS[:1]:
        kernel, bias = regression(
            standard, truth, weights, strength, classes, activation, sides=sides
        )
        shift = (middle * scale @ kernel).astype(np.float32)
        head = VectorHead(kernel * np.float32(scale), bias - shift, several)
        found = _held_loss(head, manifest, held) if len(held.clip) else 0.0
        if best is None or found < best[0]:
            best = found, strength, head
    assert best is not None
    return best[2], best[1]


def _held_loss(head: VectorHead, manifest: Manifest, held: ClipVectors) -> float:
    """The loss of the validation clips, by the means over their vectors."""
    scores = head.scores(held.vectors)
    if manifest.several:
        return label_scorer(heard_table(manifest), held.clip)(scores)["clip_loss"]
    clips = np.unique(held.clip)
    means = clip_means(scores, held.clip, len(manifest.clips))[clips]
    return loss(label_numbers(manifest)[clips], means)
