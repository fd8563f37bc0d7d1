"""What a sound classifier consists of, whichever runtime computes its scores; no Keras needed."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from unfreeze.backbones.frontend import FrontEnd


class PatchScorer(Protocol):
    """Computes scores of patches: a Keras model, or `unfreeze.pipeline.light_form.LightModel`."""

    def predict_on_batch(self, x: np.ndarray) -> Any:
        """Scores (n, classes) of patches (n, *patch_shape)."""


@dataclass(frozen=True, eq=False)
class OwnPart:
    """A classifier's part for the classes that its backbone was published with.

    Attributes:
        model: from patches to the scores of the new classes and then of the backbone's own,
            side by side, so that both take one pass.
        labels: names of the backbone's own classes.
        key: their name in the clip model's outputs.
        title: what people call them.
    """

    model: PatchScorer
    labels: tuple[str, ...]
    key: str
    title: str


@dataclass(frozen=True, eq=False)
class ClipParts:
    """A sound classifier, taken apart.

    Attributes:
        patch_model: patches to class probabilities.
        front_end: how waveforms become patches.
        labels: name of each class, in the order of the probabilities.
        multilabel: whether each class is judged by itself: a clip may have several labels.
        notice: the licence that goes with the classifier; empty for none.
        own: the backbone's own classes; None if they were not kept.
    """

    patch_model: PatchScorer
    front_end: FrontEnd
    labels: tuple[str, ...]
    multilabel: bool
    notice: str
    own: OwnPart | None
