"""Finds convolutions whose BatchNorm has fixed statistics, and runs each pair as one.

Works on the steps of a stage, after the cut; `unfreeze.core.fuse` does the maths.
A pair is left alone where another step (or the model's output) reads the
convolution's output, or where the BatchNorm updates its statistics.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import keras

from unfreeze.core.fuse import fuse_pair
from unfreeze.core.graph import Step
from unfreeze.core.split import Cut


def fuse_steps(steps: tuple[Step, ...], cut: Cut, updating: Collection[int]) -> tuple[Step, ...]:
    """Put one step in the place of each pair that fits.

    Args:
        steps: the prefix or the suffix of a cut, in running order.
        cut: where they come from.
        updating: ids of variables that layers update by themselves in this
            stage; a BatchNorm that holds one of them is in training mode.
    """
    read_by = _readers(cut)
    made_by = {index: step for step in steps for index in step.outputs}
    fused: dict[tuple[int, int], keras.layers.Layer | None] = {}
    dropped: set[int] = set()
    changed: dict[int, Step] = {}
    for step in steps:
        before = _before(step, made_by, read_by, updating)
        if before is None:
            continue
        pair = (id(before.operation), id(step.operation))
        if pair not in fused:
            fused[pair] = fuse_pair(before.operation, step.operation)
        layer = fused[pair]
        if layer is not None:
            dropped.add(id(before))
            changed[id(step)] = replace(
                step, operation=layer, args=before.args, kwargs=before.kwargs, path=before.path
            )
    return tuple(changed.get(id(step), step) for step in steps if id(step) not in dropped)


def _before(
    step: Step, made_by: dict[int, Step], read_by: dict[int, int], updating: Collection[int]
) -> Step | None:
    """The step before a BatchNorm with fixed statistics, if nothing else reads from it."""
    norm: Any = step.operation
    if type(norm) is not keras.layers.BatchNormalization:
        return None
    # Keras notes `mask=None` in each call; a mask that is there is left to Keras.
    if any(value is not None for value in step.kwargs.values()):
        return None
    if any(id(weight) in updating for weight in norm.weights):
        return None
    if len(step.args) != 1 or len(step.inputs) != 1:
        return None
    index = step.inputs[0]
    before = made_by.get(index)
    if before is None or not before.is_layer or read_by.get(index, 0) != 1:
        return None
    return before


def _readers(cut: Cut) -> dict[int, int]:
    """How often each tensor is read, by steps or as an output, in the whole model."""
    counts: dict[int, int] = {}
    for step in cut.graph.steps:
        for index in step.inputs:
            counts[index] = counts.get(index, 0) + 1
    for index in (*cut.graph.outputs, *cut.frontier):
        counts[index] = counts.get(index, 0) + 1
    return counts
