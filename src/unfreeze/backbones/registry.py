"""The backbones by name, with what the rest of the package needs to know about each.

To add a backbone, add an entry to `BACKBONES`: its front end, where its weights
come from, and a function that builds it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.weight_files import WeightsSpec
from unfreeze.backbones.yamnet_spec import EMBEDDING_SIZE, YAMNET_WEIGHTS, class_names
from unfreeze.errors import UnfreezeError, did_you_mean

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """A pretrained network that turns patches into embeddings.

    Attributes:
        name: what the user calls it.
        description: one line for people.
        license: licence of the architecture and its weights.
        front_end: how a waveform becomes its input.
        embedding_size: numbers in one embedding.
        weights: what its weights must be and where they come from.
        build: `build(weights="auto" | path | None)` returns a functional
            model from patches (patch_frames, bands) to (embedding_size,).
        build_published: as `build`, but from patches to the scores of the classes
            it was published with; None if it has none.
        published_classes: returns their names, in the order of the scores.
    """

    name: str
    description: str
    license: str
    front_end: FrontEnd
    embedding_size: int
    weights: WeightsSpec
    build: Callable[..., "keras.Model"]
    build_published: Callable[..., "keras.Model"] | None = None
    published_classes: Callable[[], tuple[str, ...]] | None = None


def get_backbone(name: str, slow_down: float = 1.0, channel: int | None = None) -> Backbone:
    """Return a backbone by its name.

    Args:
        name: one of `BACKBONES`.
        slow_down: how many times slower it is to hear the sound.
        channel: of recordings, as for `FrontEnd`; None mixes them.

    Raises:
        UnfreezeError: no backbone has this name; the message lists the known names
            and suggests the closest.
    """
    if name in BACKBONES:
        found = BACKBONES[name]
        slowed = found.front_end.slowed(slow_down) if slow_down != 1 else found.front_end
        return replace(found, front_end=replace(slowed, channel=channel or 0))
    hint = did_you_mean(name, BACKBONES)
    raise UnfreezeError(f"Unknown backbone {name!r}; known: {', '.join(BACKBONES)}.{hint}")


def _build_yamnet(*args: Any, **kwargs: Any) -> "keras.Model":
    # Keras takes seconds to import; the command line must answer without it.
    from unfreeze.backbones.yamnet import build_yamnet

    return build_yamnet(*args, **kwargs)


def _build_yamnet_with_top(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.yamnet import yamnet_with_top

    return yamnet_with_top(*args, **kwargs)


BACKBONES: dict[str, Backbone] = {
    "yamnet": Backbone(
        name="yamnet",
        description="YAMNet: MobileNet v1 on log-mel patches, trained on AudioSet by Google.",
        license="Apache-2.0",
        front_end=FrontEnd(),
        embedding_size=EMBEDDING_SIZE,
        weights=YAMNET_WEIGHTS,
        build=_build_yamnet,
        build_published=_build_yamnet_with_top,
        published_classes=class_names,
    ),
}
