"""What moved in each stage, and what must not have: the proof of a staged run.

Movement of a layer is the L2 norm of its change over the L2 norm that it had
(1 where it had none, so that zero-initialised biases count by their size).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from unfreeze.core.select import Selection
from unfreeze.errors import StageError

Snapshot = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class LayerMovement:
    """How far one layer moved in a stage.

    Attributes:
        layer: its path in the model.
        weights: how many numbers it holds.
        trainable: whether the stage claims to train any of them.
        moved: relative movement, 0.0 when not a bit changed.
        max_abs: the largest change of a single number.
        frozen_moved: weights that changed though the stage holds them frozen.
        trained_still: weights that the stage claims to train, and did not change;
            biases without a gradient among them.
    """

    layer: str
    weights: int
    trainable: bool
    moved: float
    max_abs: float
    frozen_moved: tuple[str, ...] = ()
    trained_still: tuple[str, ...] = ()


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
            flag = "trained" if layer.trainable else "frozen"
            lines.append(f"  {layer.layer:<40} {layer.weights:>9,}  {layer.moved:>9.2e}  {flag}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Audit:
    """The audits of all stages of a run."""

    stages: tuple[StageAudit, ...]

    def as_list(self) -> list[dict[str, Any]]:
        """Plain data, for JSON."""
        return [stage.as_dict() for stage in self.stages]

    def __str__(self) -> str:
        return "\n\n".join(str(stage) for stage in self.stages)


def snapshot(model: keras.Model) -> Snapshot:
    """A copy of all weights, by the id of each variable."""
    return {id(v): np.array(keras.ops.convert_to_numpy(v), copy=True) for v in model.weights}


def audit_stage(model: keras.Model, selection: Selection, before: Snapshot) -> StageAudit:
    """Compare all weights with those before the stage.

    Args:
        model: the whole model, after the stage.
        selection: what the stage claims to train.
        before: from `snapshot`, before the stage.
    """
    claimed = {id(v) for v in selection.trained}
    may_move = claimed | {id(v) for v in selection.updating}
    rows = []
    for entry in selection.entries:
        weights = list({id(v): v for v in entry.layer.weights if id(v) in before}.values())
        if weights:
            rows.append(_movement(entry, weights, before, claimed, may_move))
    return StageAudit(selection.stage.name, tuple(rows))


def enforce(audit: StageAudit) -> None:
    """Refuse a stage that did something else than it claims.

    Args:
        audit: from `audit_stage`.

    Raises:
        StageError: frozen weights moved, or weights to be trained did not;
            names the layers and the likely cause.
    """
    moved = [layer for layer in audit.layers if layer.frozen_moved]
    if moved:
        raise StageError(
            f"stage {audit.stage!r} moved layers that it holds frozen: {_names(moved)}. "
            "Likely cause: a callback or a layer assigns weights by itself, or flags were set "
            "during the stage without a new compile"
        )
    still = [layer for layer in audit.layers if not _excused(layer)]
    if still:
        raise StageError(
            f"stage {audit.stage!r} did not move weights that it claims to train: "
            f"{_names(still)}. {_cause(still, audit)}"
        )


def _movement(
    entry: Any, weights: list[Any], before: Snapshot, claimed: set[int], may_move: set[int]
) -> LayerMovement:
    change = size = largest = 0.0
    frozen_moved, still = [], []
    for weight in weights:
        old = before[id(weight)]
        new = keras.ops.convert_to_numpy(weight)
        same = np.array_equal(old, new, equal_nan=old.dtype.kind == "f")
        if not same:
            delta = new.astype(np.float64) - old.astype(np.float64)
            change += float(np.sum(delta**2))
            largest = max(largest, float(np.max(np.abs(delta))))
        size += float(np.sum(old.astype(np.float64) ** 2))
        if not same and id(weight) not in may_move:
            frozen_moved.append(weight.name)
        if same and id(weight) in claimed:
            still.append(weight.name)
    norm = float(np.sqrt(size)) or 1.0
    return LayerMovement(
        layer=entry.path,
        weights=int(sum(int(np.prod(w.shape)) for w in weights)),
        trainable=any(id(w) in claimed for w in weights),
        moved=float(np.sqrt(change)) / norm,
        max_abs=largest,
        frozen_moved=tuple(frozen_moved),
        trained_still=tuple(still),
    )


def _names(layers: list[LayerMovement]) -> str:
    shown = [f"{x.layer} ({', '.join(x.frozen_moved or x.trained_still)})" for x in layers[:5]]
    more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
    return ", ".join(shown) + more


def _excused(layer: LayerMovement) -> bool:
    """Whether what stood still in a layer is no sign of a fault.

    A bias may have no gradient though its kernel has one: that of attention's
    keys, which softmax does not see, or one before BatchNorm in training mode.
    Rounding alone moves it then, or nothing does.
    """
    still = layer.trained_still
    return not still or (layer.moved > 0 and all(name.endswith("bias") for name in still))


def _cause(still: list[LayerMovement], audit: StageAudit) -> str:
    claimed = [layer for layer in audit.layers if layer.trainable]
    if len(still) == len(claimed):
        return (
            "Nothing moved at all. Likely cause: `trainable` was set after `compile` (compile "
            "again), a learning rate so small that float32 rounds it away, outputs so sure that "
            "the loss has no gradient, or (mixed_float16) gradients that overflow in every step"
        )
    return (
        "Likely cause: no path from these weights to the loss, units that give zero for every "
        "sample, or a learning rate factor of 0"
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
    return row
