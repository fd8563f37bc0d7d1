"""LoRA for one stage: two narrow matrices train in the place of each kernel.

A stage with `lora=8` leaves the kernels (or embeddings) of its layers fixed and trains a product
of two matrices of rank 8 that is added to them (Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models", ICLR 2022), through Keras' own `layer.enable_lora`. Everything else that the
stage names trains as usual: biases, norms, layers without LoRA, and the head, which is new.

Invariant: the matrices exist only while their stage trains. At its end, however it ends, they
are added to the kernels and removed, so the model has its own structure between stages, when it
is saved, and in what a run keeps to resume. The first matrix is drawn from the run's seed, so a
resumed stage has the same one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from unfreeze.core.graph import count_numbers
from unfreeze.core.keras_internals import flatten_layers, forget_functions, remove_lora
from unfreeze.core.layers import Selection, apply
from unfreeze.errors import ScheduleError

# Beside the seeds of random layers, which are made of three numbers.
_DRAWS = 1


def adapted_layers(selection: Selection) -> list[Any]:
    """The layers to which a stage with `lora` adds matrices, in the order of the graph.

    Args:
        selection: what the stage would train without LoRA.

    Raises:
        ScheduleError: there are none, or one cannot be adapted; says which and why.
    """
    stage = selection.stage
    found = _candidates(selection)
    for layer in found:
        reason, cure = "", f"take it out by train=[..., '!{layer.name}']"
        if layer.lora_enabled:
            reason = "has LoRA already"
            cure = "leave `lora` out, and the stage trains what the layer has"
        elif getattr(layer, "quantization_mode", None) is not None:
            reason = "is quantized, so that LoRA cannot be merged into it without rounding again"
            cure = "call layer.enable_lora(rank) yourself and leave `lora` out"
        elif any(getattr(layer, f"{x}_constraint", None) for x in ("kernel", "embeddings")):
            reason = "has a constraint on its kernel, for which Keras has no LoRA"
        if reason:
            raise ScheduleError(
                f"stage {stage.name!r}: lora: layer {layer.name!r} {reason}: {cure}"
            )
    if found:
        return found
    head = _head(selection)
    if all(id(entry.layer) in head for entry in selection.chosen if entry.learnable):
        raise ScheduleError(
            f"stage {stage.name!r}: lora: the stage trains only the model's head, which is new and "
            "trains in full: leave `lora` out of this stage"
        )
    raise ScheduleError(
        f"stage {stage.name!r}: lora: none of its layers below the head offers LoRA (Dense, "
        "EinsumDense, Embedding, Conv1D to Conv3D and the attention layers do): leave `lora` out, "
        "or name such layers in `train`"
    )


def numbers_trained(selection: Selection) -> int:
    """How many numbers a stage trains, LoRA's in the place of kernels where it has LoRA."""
    total, rank = count_numbers(selection.trained), selection.stage.lora
    for layer in _candidates(selection) if rank is not None else ():
        if not layer.lora_enabled:
            shape = _target(layer).shape
            total += rank * (int(np.prod(shape[:-1])) + shape[-1]) - int(np.prod(shape))
    return total


@contextmanager
def lora_while(
    model: keras.Model, selection: Selection, seed: Sequence[int]
) -> Iterator[Selection]:
    """Give a stage's layers their matrices, and merge them at the end.

    Args:
        model: the whole model, its flags set for the stage.
        selection: what the stage would train without LoRA.
        seed: of the stage, from which the matrices are drawn.

    Yields:
        What the stage trains now; the same where it has no LoRA.
    """
    rank = selection.stage.lora
    if rank is None:
        yield selection
        return
    layers = adapted_layers(selection)
    targets = [_target(layer) for layer in layers]
    for place, layer in enumerate(layers):
        draw = np.random.SeedSequence((*seed, _DRAWS, place)).generate_state(1)[0] >> 1
        layer.enable_lora(rank, a_initializer=keras.initializers.HeUniform(int(draw)))
    try:
        forget_functions(model)
        adapted = _adapted(selection, layers, targets)
        apply(model, adapted)
        yield adapted
    finally:
        for layer, target in zip(layers, targets, strict=True):
            _merge(layer, target)
        forget_functions(model)
        apply(model, selection)


def _adapted(selection: Selection, layers: Sequence[Any], targets: Sequence[Any]) -> Selection:
    added = {id(v): _matrices(x, v) for x, v in zip(layers, targets, strict=True)}
    trained = [w for v in selection.trained for w in added.get(id(v), (v,))]
    return replace(selection, trained=tuple(trained), held=(*selection.held, *targets))


def _candidates(selection: Selection) -> list[Any]:
    """Layers below the head that offer LoRA and whose kernel the stage trains."""
    head = _head(selection)
    trained = {id(v) for v in selection.trained}
    found = {}
    for entry in selection.chosen:
        for layer in entry.layers:
            offers = hasattr(layer, "enable_lora") and hasattr(layer, "lora_enabled")
            if not offers or id(layer) in head:
                continue
            special = layer.lora_enabled or getattr(layer, "quantization_mode", None) is not None
            if special or id(_target(layer)) in trained:
                found[id(layer)] = layer
    return list(found.values())


def _head(selection: Selection) -> set[int]:
    groups = selection.groups[-1:]
    return {id(x) for group in groups for layer in group.layers for x in flatten_layers(layer)}


def _target(layer: Any) -> Any:
    """The variable that LoRA is added to."""
    found = getattr(layer, "_kernel", None)
    return getattr(layer, "_embeddings", None) if found is None else found


def _matrices(layer: Any, target: Any) -> tuple[Any, Any]:
    names = (f"lora_{target.name}_{letter}" for letter in "ab")
    first, second = (getattr(layer, name) for name in names)
    return first, second


def _merge(layer: Any, target: Any) -> None:
    """Add the product of a layer's matrices to its kernel, and remove them."""
    parts = (*_matrices(layer, target), target)
    a, b, kernel = (keras.ops.convert_to_numpy(v).astype("float32") for v in parts)
    target.assign(kernel + (layer.lora_alpha / layer.lora_rank) * np.matmul(a, b))
    remove_lora(layer, target.name)
