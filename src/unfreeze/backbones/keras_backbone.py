"""Backbones from cards, in Keras: a model of your own, or the outputs of a frozen network.

A Keras model becomes part of the classifier and trains with it. What the front end gives is
brought into its shape: an axis of channels is added, and an image network's three are filled
alike. A frozen network is not in Keras: its outputs are what the front end gives, and the
backbone only hands them on, each under its name, so that a read-out can read them.
"""

import inspect
from typing import Any

import keras

from unfreeze.backbones.backbone_card import Card, output_layers
from unfreeze.backbones.frontend import NetworkOutputs
from unfreeze.core.graph import copied_behind, opened
from unfreeze.core.keras_file import (
    VARIABLE,
    check_config,
    check_keras_file,
    imported,
    trusted_objects,
)
from unfreeze.core.read_out_layers import Part
from unfreeze.errors import WeightsError, did_you_mean, show

# Names of the layers that bring patches into a network's shape.
_PLACE, _CHANNELS = "patch_shape", "patch_channels"


def build_outputs(
    front_end: NetworkOutputs, weights: Any = None, progress: Any = None
) -> keras.Model:
    """The backbone on top of a frozen network: hands its outputs on.

    Args:
        front_end: names and sizes of the outputs.
        weights: not used: the network has its own.
        progress: not used.

    Returns:
        From (numbers,) to (numbers,), without weights.
    """
    patches = keras.Input(front_end.patch_shape, name="patches")
    parts, first = [], 0
    network = front_end.network
    for name, size in zip(output_layers(network.outputs), network.sizes, strict=True):
        parts.append(Part(first, first + size, name=name)(patches))
        first += size
    joined = keras.layers.Concatenate(name="all_outputs")(parts) if parts[1:] else parts[0]
    return keras.Model(patches, joined, name=network.name)


def build_keras(card: Card, weights: Any = None, progress: Any = None) -> keras.Model:
    """The Keras model of a card, from patches to a vector for each.

    Args:
        card: names a `.keras` file, or a function that returns a model and is called.
        weights: not used: the model has its own.
        progress: not used.

    Raises:
        WeightsError: the model cannot be loaded or made, or does not fit the card.
        RunError: it holds code, or classes of the user's own that are not named.
    """
    model = _loaded(card) if card.source is not None else _made(card)
    if len(model.inputs) != 1:
        raise _unfit(card, f"has {len(model.inputs)} inputs, and must have one")
    model = opened(model)
    model = _with_vector(card, _up_to_embedding(card, model))
    _check_layers(card, model)
    wanted = tuple(model.inputs[0].shape[1:])
    patches = keras.Input(card.front_end.patch_shape, name="patches")
    if wanted == tuple(patches.shape[1:]):
        return keras.Model(model.inputs[0], model.outputs[0], name=card.name)
    return copied_behind(model, _shaped(card, patches, wanted), patches, card.name)


def _loaded(card: Card) -> keras.Model:
    assert card.source is not None
    path, custom = card.source, trusted_objects()
    check_keras_file(path, custom, f"{VARIABLE}=")
    try:
        return keras.saving.load_model(path, custom, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for damaged or foreign files.
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{show(path)} cannot be loaded by Keras: {reason}") from error


def _made(card: Card) -> keras.Model:
    module, _, name = card.model.partition(":")
    where = f"{show(card.file)}: model {card.model}"
    build = imported(module, name, where, card.file.parent.absolute())
    try:
        inspect.signature(build).bind()
    except (TypeError, ValueError):
        raise WeightsError(f"{where}: the function must be callable without arguments") from None
    model = build()
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise WeightsError(
            f"{where}: the function must return a functional or Sequential Keras model, not a "
            f"{type(model).__name__}"
        )
    return model


def _check_layers(card: Card, model: keras.Model) -> None:
    """Refuse layers that the run's own model could not be loaded with again."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise _unfit(card, f"cannot be saved: {str(error).strip()}") from None
    custom = trusted_objects()
    check_config(show(card.file), config, custom, f"{VARIABLE}=")
    try:
        keras.saving.deserialize_keras_object(config, custom, safe_mode=True)
    except Exception as error:  # Whatever a layer's own code raises.
        # The innermost of Keras' messages says what the layer does not take.
        reason = str(error).rpartition("Exception encountered: ")[2].strip().partition("\n")[0]
        raise _unfit(
            card,
            f"cannot be made again from its own configuration ({reason}), so a run of it could not "
            "be loaded: correct the `get_config` of its layers, or choose another",
        ) from error


def _unfit(card: Card, why: str) -> WeightsError:
    return WeightsError(f"{show(card.file)}: the model {show(card.model)} {why}")


def _up_to_embedding(card: Card, model: keras.Model) -> keras.Model:
    if not card.embedding:
        if len(model.outputs) != 1:
            raise _unfit(
                card, f"has {len(model.outputs)} outputs: name the layer to read in `embedding`"
            )
        return keras.Model(model.inputs[0], model.outputs[0])
    (name,) = card.embedding
    names = [layer.name for layer in model.layers]
    if name not in names:
        hint = did_you_mean(name, names) or f" Its last layers are {', '.join(names[-4:])}"
        raise _unfit(card, f"has no layer {name!r}, which `embedding` names.{hint}")
    return keras.Model(model.inputs[0], model.get_layer(name).output)


def _with_vector(card: Card, model: keras.Model) -> keras.Model:
    """The mean over places where the embedding has some, as (batch, numbers) is needed."""
    output = model.outputs[0]
    if len(output.shape) == 2 and output.shape[1] is not None:
        return model
    pools = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}
    if len(output.shape) not in pools:
        raise _unfit(
            card,
            f"gives the shape {tuple(output.shape)} and must give a vector, (batch, numbers), or "
            "one at each place: name such a layer in `embedding`",
        )
    pooled = pools[len(output.shape)](name="embedding_pool")(output)
    return keras.Model(model.inputs[0], pooled)


def _shaped(card: Card, patches: Any, wanted: tuple[int | None, ...]) -> Any:
    """Patches in the shape of the model's input."""
    given = tuple(patches.shape[1:])
    channels = wanted[-1] if len(wanted) == len(given) + 1 else None
    plain = wanted[:-1] if channels in (1, 3) else wanted
    fits = len(plain) == len(given) and all(
        want in (None, has) for want, has in zip(plain, given, strict=True)
    )
    if not fits:
        raise _unfit(
            card,
            f"takes input of the shape {wanted}, and the front end gives {given} "
            f"({card.front_end.holds}): correct window, front_end or the model",
        )
    x = patches
    if channels in (1, 3):
        x = keras.layers.Reshape((*given, 1), name=_PLACE)(x)
    if channels == 3:
        x = keras.layers.Concatenate(name=_CHANNELS)([x, x, x])
    return x
