"""The backbones by name: one record holds all that the rest of the package knows of each.

A backbone is data. What it hears and how long at once, how it is built and read, whose
weights it has and under which licence: everything else follows the record. To add one, add
an entry to `BACKBONES`: its front end, its weights and a function that builds it
(docs/backbones.md). No other module knows a backbone by its name. A network of the user's own
has a card instead of an entry (`unfreeze.backbones.backbone_card`), and becomes the same record.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze.backbones import birdnet_spec, efficientat_spec, yamnet_spec
from unfreeze.backbones.backbone_card import Card, card_place, names_a_card, read_card
from unfreeze.backbones.frontend import FrontEnd, NetworkOutputs
from unfreeze.backbones.licence import Licence
from unfreeze.backbones.weight_files import WeightsSpec
from unfreeze.errors import UnfreezeError, did_you_mean

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """A pretrained network that turns patches into embeddings.

    Its layer groups follow from the names of its layers (`unfreeze.core.groups`).

    Attributes:
        name: what the user calls it.
        title: what people call it.
        description: one line for people.
        hears: what it was trained on, and so knows, in a few words.
        front_end: how a waveform becomes its input: sample rate, length of a patch, distance
            of patches, range of frequencies.
        embedding_size: numbers in one embedding; 0 where that is known only once it is built.
        weights: what its weights must be, where they come from, and their licence.
        build: `build(weights="auto" | path | None)` returns a functional
            model from patches (`front_end.patch_shape`) to (embedding_size,).
        taps: where a read-out reads it when the user does not say: "auto" for the ends of its
            layer groups, or names of layers with commas between them.
        build_published: as `build`, but from patches to the scores of the classes
            it was published with; None if it has none.
        published_classes: returns their names, in the order of the scores.
        published_title: what people call these classes.
        published_key: their name in outputs and JSON.
        card: of a network of the user's own; None for ours.
    """

    name: str
    title: str
    description: str
    hears: str
    front_end: FrontEnd
    embedding_size: int
    weights: WeightsSpec
    build: Callable[..., "keras.Model"]
    taps: str = "auto"
    build_published: Callable[..., "keras.Model"] | None = None
    published_classes: Callable[[], tuple[str, ...]] | None = None
    published_title: str = ""
    published_key: str = ""
    card: Card | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether the network is a file of its own, which is run and never trained."""
        return isinstance(self.front_end, NetworkOutputs)

    @property
    def licence(self) -> Licence | None:
        """The licence of its weights; None if it asks nothing of the user."""
        return self.weights.licence

    @property
    def notice(self) -> str:
        """What must go with a model that was trained from it; empty if nothing must."""
        bound = self.licence is not None and self.licence.must_accept
        return self.licence.notice() if bound and self.licence is not None else ""


def get_backbone(name: str, slow_down: float = 1.0, channel: int | None = None) -> Backbone:
    """Return a backbone by its name.

    Args:
        name: one of `BACKBONES`; or the path of a card, or of a model that has one beside it.
        slow_down: how many times slower it is to hear the sound.
        channel: of recordings, as for `FrontEnd`; None mixes them.

    Raises:
        UnfreezeError: no backbone has this name; the message lists the known names
            and suggests the closest. Or a card cannot be read or used.
    """
    if name in BACKBONES:
        found = BACKBONES[name]
    elif names_a_card(name):
        found = backbone_of(read_card(card_place(name)))
    else:
        hint = did_you_mean(name, BACKBONES)
        raise UnfreezeError(
            f"Unknown backbone {name!r}; known: {', '.join(BACKBONES)}.{hint} For a network of "
            "your own, give the YAML file that describes it."
        )
    slowed = found.front_end.slowed(slow_down) if slow_down != 1 else found.front_end
    return replace(found, front_end=replace(slowed, channel=channel or 0))


def full_name(name: str) -> str:
    """The name of a backbone wherever the user is: the path of a card is made absolute."""
    return name if name in BACKBONES or not names_a_card(name) else str(Path(name).absolute())


def backbone_of(card: Card) -> Backbone:
    """The record of a network that has a card.

    Raises:
        UnfreezeError: its name is that of another backbone.
    """
    if card.name in BACKBONES:
        raise UnfreezeError(
            f"{card.file}: {card.name} is the name of a network that comes with unfreeze: add a "
            "`name` of its own"
        )
    file = card.source or card.file
    weights = WeightsSpec(
        *(card.name, {}, card.sha256, ()),
        size=0 if card.source is None else file.stat().st_size,
        licence=card.licence,
        file=file,
    )
    front, size = card.front_end, 0
    build: Callable[..., Any] = partial(_build_keras, card)
    if isinstance(front, NetworkOutputs):
        build, size = partial(_build_outputs, front), front.frame_values
    return Backbone(
        *(card.name, card.title, card.description, card.hears, front, size, weights, build),
        taps=card.taps,
        card=card,
    )


# Keras takes seconds to import; the command line must answer without it.


def _build_yamnet(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.yamnet import build_yamnet

    return build_yamnet(*args, **kwargs)


def _build_yamnet_with_top(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.yamnet import yamnet_with_top

    return yamnet_with_top(*args, **kwargs)


def _build_birdnet(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.birdnet import build_birdnet

    return build_birdnet(*args, **kwargs)


def _build_birdnet_with_top(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.birdnet import birdnet_with_top

    return birdnet_with_top(*args, **kwargs)


def _build_efficientat(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.efficientat import build_efficientat

    return build_efficientat(*args, **kwargs)


def _build_efficientat_with_top(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.efficientat import efficientat_with_top

    return efficientat_with_top(*args, **kwargs)


def _efficientat(size: efficientat_spec.Size) -> Backbone:
    """The record of one of the sizes of EfficientAT."""
    short = size.name.removeprefix("efficientat-")
    return Backbone(
        name=size.name,
        title=f"EfficientAT {short}",
        description=f"EfficientAT {short}: MobileNetV3-Large, {size.width:g} times as wide, on "
        "log-mel patches, trained on AudioSet at JKU Linz.",
        hears="sounds of every kind: 527 classes of AudioSet",
        front_end=efficientat_spec.FRONT_END,
        embedding_size=size.embedding_size,
        weights=efficientat_spec.weights_spec(size),
        build=partial(_build_efficientat, size),
        build_published=partial(_build_efficientat_with_top, size),
        published_classes=efficientat_spec.class_names,
        published_title="AudioSet",
        published_key="audioset",
    )


def _build_keras(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.keras_backbone import build_keras

    return build_keras(*args, **kwargs)


def _build_outputs(*args: Any, **kwargs: Any) -> "keras.Model":
    from unfreeze.backbones.keras_backbone import build_outputs

    return build_outputs(*args, **kwargs)


BACKBONES: dict[str, Backbone] = {
    "yamnet": Backbone(
        name="yamnet",
        title="YAMNet",
        description="YAMNet: MobileNet v1 on log-mel patches, trained on AudioSet by Google.",
        hears="sounds of every kind: 521 classes of AudioSet",
        front_end=FrontEnd(),
        embedding_size=yamnet_spec.EMBEDDING_SIZE,
        weights=yamnet_spec.YAMNET_WEIGHTS,
        build=_build_yamnet,
        build_published=_build_yamnet_with_top,
        published_classes=yamnet_spec.class_names,
        published_title="AudioSet",
        published_key="audioset",
    ),
    "birdnet": Backbone(
        name="birdnet",
        title="BirdNET 2.4",
        description="BirdNET 2.4: an EfficientNet-like network on two mel spectrograms, trained "
        "on birds and other animals by Cornell and Chemnitz.",
        hears="birds above all, and other animals: 6,522 classes",
        front_end=birdnet_spec.FRONT_END,
        embedding_size=birdnet_spec.EMBEDDING_SIZE,
        weights=birdnet_spec.BIRDNET_WEIGHTS,
        build=_build_birdnet,
        build_published=_build_birdnet_with_top,
        published_classes=birdnet_spec.class_names,
        published_title="BirdNET",
        published_key="birdnet",
    ),
    **{size.name: _efficientat(size) for size in efficientat_spec.SIZES},
}
