"""What moved in each stage, and what must not move: the check of a staged run.

The movement of a layer is the L2 norm of its change, divided by its L2 norm before
(by 1 where that was 0, so that zero-initialised biases count by their size).

A weight that should train and stands still is a fault where the optimizer does not have it:
its flag was wrong. Where the optimizer steps it, its gradient was 0 or too small to change
it (dead units). That is worth a warning, and a fault only where more than half of a stage's
layers stand still, because then unfreezing did nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from unfreeze.core.finite import guess, is_finite
from unfreeze.core.html_tables import html_table
from unfreeze.core.keras_internals import variables_of
from unfreeze.core.layers import Selection
from unfreeze.errors import StageError

Snapshot = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class LayerMovement:
    """How far one layer moved in a stage.

    Attributes:
        layer: its path in the model. Weights that a layer keeps frozen itself have a row
            of their own, such as `dense/kernel` under LoRA.
        weights: how many numbers it holds.
        trainable: whether the stage claims to train any of them.
        moved: relative movement, 0.0 when no bit changed.
        max_abs: the largest change of a single number.
        frozen_moved: weights that changed although the stage keeps them frozen.
        trained_still: weights that the stage claims to train but that did not change,
            including biases without a gradient.
        not_finite: weights that are NaN or infinite now, and that the stage trained or
            changed. They are a fault, and never count as trained; `moved` is then NaN.
        no_gradient: those of `trained_still` that the optimizer steps all the same, so that
            their gradient was 0, or too small to change them.
        lora: rank of the LoRA weights among those that the stage trains; 0 without.
    """

    layer: str
    weights: int
    trainable: bool
    moved: float
    max_abs: float
    frozen_moved: tuple[str, ...] = ()
    trained_still: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    no_gradient: tuple[str, ...] = ()
    lora: int = 0

    @property
    def excused(self) -> bool:
        """Whether weights that did not move are no sign of a fault.

        A bias may have no gradient although its kernel has one: the bias of attention's
        keys, which softmax cancels, or a bias before BatchNorm in training mode. Then
        rounding alone moves it, or nothing does.
        """
        still = self.trained_still
        return not still or (self.moved > 0 and all(name.endswith("bias") for name in still))


@dataclass(frozen=True)
class StageAudit:
    """Movement of all layers in one stage, in the order of the graph."""

    stage: str
    layers: tuple[LayerMovement, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"stage": self.stage, "layers": [_row(layer) for layer in self.layers]}

    def __str__(self) -> str:
        lines = [f"stage {self.stage}", f"  {'layer':<40} {'weights':>9}  {'moved':>9}  "]
        for layer in self.layers:
            start = f"  {layer.layer:<40} {layer.weights:>9,}  {layer.moved:>9.2e}"
            lines.append(f"{start}  {_flag(layer)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Audit:
    """The audits of all stages of a run: how far each layer moved.

    Examples:
        >>> result = unfreeze.fit(model, "probe", x, y, validation_split=0.2, seed=1, verbose=0)
        >>> first, *_, last = result.audit.stages[0].layers  # print(result.audit) shows all
        >>> first.moved, last.moved > 0
        (0.0, True)
    """

    stages: tuple[StageAudit, ...]

    def as_list(self) -> list[dict[str, Any]]:
        """Plain data, for JSON."""
        return [stage.as_dict() for stage in self.stages]

    def __str__(self) -> str:
        return "\n\n".join(str(stage) for stage in self.stages)

    def _repr_html_(self) -> str:
        headers = ("layer", "weights", "moved", "largest change", "")
        tables = []
        for stage in self.stages:
            rows = [(x.layer, x.weights, x.moved, x.max_abs, _flag(x)) for x in stage.layers]
            tables.append(html_table(headers, rows, f"stage {stage.stage}"))
        return "".join(tables)


def _flag(layer: LayerMovement) -> str:
    if layer.not_finite:
        return f"NOT FINITE: {', '.join(layer.not_finite)}"
    flag = "trained" if layer.trainable else "frozen"
    flag += f" by LoRA of rank {layer.lora}" if layer.lora else ""
    if layer.no_gradient and not layer.excused:
        flag += f", no gradient: {', '.join(layer.no_gradient)}"
    return flag


def snapshot(model: keras.Model) -> Snapshot:
    """A copy of all weights, by the id of each variable."""
    return {id(v): np.array(keras.ops.convert_to_numpy(v), copy=True) for v in model.weights}


def audit_stage(
    model: keras.Model, selection: Selection, before: Snapshot, optimizer: Any = None
) -> StageAudit:
    """Compare all weights with those before the stage.

    Args:
        model: the whole model, after the stage.
        selection: what the stage claims to train.
        before: from `snapshot`, before the stage.
        optimizer: that took the steps; what it has was not kept still by a wrong flag.
    """
    stepped = () if optimizer is None else variables_of(optimizer) or ()
    claims = _Claims(
        frozenset(id(v) for v in selection.trained), selection.live, frozenset(map(id, stepped))
    )
    rows = []
    held = {id(v) for v in selection.held}
    for entry in selection.entries:
        weights = [v for v in entry.weights if id(v) in before]
        others = [v for v in weights if id(v) not in held]
        if others:
            row = _movement(entry.path, others, before, claims)
            ranks = [getattr(x, "lora_rank", None) or 0 for x in entry.layers]
            rows.append(replace(row, lora=max(ranks)) if row.trainable and any(ranks) else row)
        names = [v.name for v in weights if id(v) in held]
        for weight in weights:
            if id(weight) in held:
                # In attention every part has a kernel.
                among = names.count(weight.name)
                path = f"{entry.path}/{'/'.join(weight.path.split('/')[-2 if among > 1 else -1 :])}"
                rows.append(_movement(path, [weight], before, claims))
    return StageAudit(selection.stage.name, tuple(rows))


def enforce(audit: StageAudit, still: bool = False, known: str | None = None) -> str | None:
    """Raise an error for a stage that did not do what it claims.

    Args:
        audit: from `audit_stage`.
        still: whether weights to be trained may stay as they are.
        known: a fault of the model that explains weights without a gradient.

    Returns:
        A warning that names layers without a gradient; None where there are none.

    Raises:
        StageError: weights are not finite, frozen weights moved, or weights to be
            trained did not: because the optimizer does not have them, or in more than half
            of the stage's layers; names the layers and the likely cause.
    """
    broken = [layer for layer in audit.layers if layer.not_finite]
    if broken:
        raise StageError(
            f"stage {audit.stage!r} ended with weights that are not finite: "
            f"{_names(broken)}. {guess()}"
        )
    moved = [layer for layer in audit.layers if layer.frozen_moved]
    if moved:
        raise StageError(
            f"stage {audit.stage!r} moved layers that it keeps frozen: {_names(moved)}. "
            "Likely cause: a callback or a layer assigns weights itself, or `trainable` was set "
            "during the stage without a new compile"
        )
    unmoved = [layer for layer in audit.layers if not layer.excused]
    if not unmoved or still:
        return None
    flagged = [x for x in unmoved if len(x.no_gradient) < len(x.trained_still)]
    claimed = [layer for layer in audit.layers if layer.trainable]
    if flagged or 2 * len(unmoved) > len(claimed):
        counted = f" ({len(unmoved)} of {len(claimed)} layers)" if len(claimed) > 1 else ""
        raise StageError(
            f"stage {audit.stage!r} did not move weights that it claims to train{counted}: "
            f"{_names(flagged or unmoved)}. {_cause(claimed, known)}"
        )
    return (
        f"stage {audit.stage!r}: {_names(unmoved)} had no gradient in the first epoch, or one too "
        f"small to change a weight, so nothing was learned there. {_no_gradient(known)}"
    )


@dataclass(frozen=True)
class _Claims:
    """Ids of variables: those that a stage trains, that may move, that its optimizer steps."""

    trained: frozenset[int]
    may_move: frozenset[int]
    stepped: frozenset[int]


def _movement(path: str, weights: list[Any], before: Snapshot, claims: _Claims) -> LayerMovement:
    claimed = claims.trained
    change = size = largest = 0.0
    frozen_moved, still, broken, woken = [], [], [], False
    no_gradient = []
    for weight in weights:
        old = before[id(weight)]
        new = keras.ops.convert_to_numpy(weight)
        same = np.array_equal(old, new, equal_nan=old.dtype.kind == "f")
        if not same:
            delta = new.astype(np.float64) - old.astype(np.float64)
            change += float(np.sum(delta**2))
            largest = max(largest, float(np.nanmax(np.abs(delta), initial=0.0)))
        changed = not same or id(weight) in claimed
        if changed and not is_finite(new) and (id(weight) in claimed or is_finite(old)):
            broken.append(weight.name)
        size += float(np.sum(old.astype(np.float64) ** 2))
        if not same and id(weight) not in claims.may_move:
            frozen_moved.append(weight.name)
        if not same and id(weight) in claimed and old.ndim > 1 and not old.any():
            woken = True
        if same and id(weight) in claimed:
            still.append(weight.name)
            if id(weight) in claims.stepped:
                no_gradient.append(weight.name)
    if woken:
        # A matrix of zeros lets no gradient through to the one that it multiplies (LoRA's
        # first step), until it has moved itself.
        still, no_gradient = [], []
    norm = float(np.sqrt(size)) or 1.0
    return LayerMovement(
        layer=path,
        weights=int(sum(int(np.prod(w.shape)) for w in weights)),
        trainable=any(id(w) in claimed for w in weights),
        moved=math.nan if broken else float(np.sqrt(change)) / norm,
        max_abs=math.nan if broken else largest,
        frozen_moved=tuple(frozen_moved),
        trained_still=tuple(still),
        not_finite=tuple(broken),
        no_gradient=tuple(no_gradient),
    )


def _names(layers: list[LayerMovement]) -> str:
    shown = [
        f"{x.layer} ({', '.join(x.not_finite or x.frozen_moved or x.trained_still)})"
        for x in layers[:5]
    ]
    more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
    return ", ".join(shown) + more


def _cause(claimed: list[LayerMovement], known: str | None) -> str:
    if known is None and not any(layer.moved for layer in claimed):
        return (
            "Nothing moved at all. Likely cause: `trainable` was set after `compile` (compile "
            "again), a learning rate so small that float32 rounds it away, outputs so certain that "
            "the loss has no gradient, or (mixed_float16) gradients that overflow in every step"
        )
    return _no_gradient(known)


def _no_gradient(known: str | None) -> str:
    if known is not None:
        return f"Likely cause: {known}"
    return (
        "Likely cause: no path from these weights to the loss, or units that output zero for "
        "every sample (after a rate that was too high, say)"
    )


def _row(layer: LayerMovement) -> dict[str, Any]:
    row: dict[str, Any] = {
        "layer": layer.layer,
        "weights": layer.weights,
        "trainable": layer.trainable,
        "moved": layer.moved,
        "max_abs": layer.max_abs,
    }
    if layer.frozen_moved:
        row["frozen_moved"] = list(layer.frozen_moved)
    if layer.trained_still:
        row["trained_still"] = list(layer.trained_still)
    if layer.lora:
        row["lora"] = layer.lora
    if layer.no_gradient:
        row["no_gradient"] = list(layer.no_gradient)
    if layer.not_finite:
        row |= {"moved": None, "max_abs": None, "not_finite": list(layer.not_finite)}
    return row
