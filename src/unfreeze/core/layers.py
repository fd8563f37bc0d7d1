"""From what a stage says (`train="transfer_*"`, `train="top:2"`) to layers, variables and flags.

`find_groups` divides a model into its usual blocks: layers that share a
name stem with a number (`block_3_expand`, `layer5.conv`) or, where names say nothing,
those between two reductions of the resolution. The last group, the head, is what comes
after the last pooling or flattening to a vector. Patterns such as `head`, `top:2`,
`top:50%` and `group:1` name groups; other patterns name layers.

What a layer keeps frozen itself (the kernel under LoRA: its own flag is False, the layer's
is True) stays frozen in every stage. `select` works out a `Selection` and does not touch
the model; `apply` sets the flags.
Invariant: after `apply` the model's trainable variables are exactly
`Selection.trained`, whatever its flags were. The statistics of a BatchNorm layer that was
just added (`new_norms`) are not held fixed: as created, they would never normalize.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from unfreeze.core.graph import Graph
from unfreeze.core.groups import LayerGroup as LayerGroup
from unfreeze.core.groups import base_groups as base_groups
from unfreeze.core.groups import find_groups as find_groups
from unfreeze.core.groups import group_layers as group_layers
from unfreeze.core.groups import is_group_pattern as is_group_pattern
from unfreeze.core.keras_internals import (
    flatten_layers,
    freeze_own,
    own_weights,
    set_trainable,
)
from unfreeze.core.layer_entries import Entry as Entry
from unfreeze.core.layer_entries import entries as entries
from unfreeze.core.layer_entries import norms as norms
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.errors import ScheduleError, did_you_mean


def new_norms(head: Sequence[Any], layers: Sequence[Any]) -> frozenset[int]:
    """Ids of BatchNorm layers that were added to a model and never trained.

    Their statistics are as created, and they are in the head, or other BatchNorm
    layers of the model have statistics from training. A base made with
    `weights=None` does not count as new: its stages follow their policy.

    Args:
        head: the layers of the model's head.
        layers: all its layers, each once.
    """
    fresh = {id(norm): is_fresh(norm) for layer in layers for norm in norms(layer)}
    if not any(fresh.values()):
        return frozenset()
    if not all(fresh.values()):
        return frozenset(norm for norm, is_new in fresh.items() if is_new)
    return frozenset(id(norm) for layer in head for norm in norms(layer))


def is_fresh(norm: Any) -> bool:
    """Whether a BatchNorm layer's statistics are those it was created with."""
    mean = keras.ops.convert_to_numpy(norm.moving_mean)
    variance = keras.ops.convert_to_numpy(norm.moving_variance)
    return bool(np.all(mean == 0.0) and np.all(variance == 1.0))


def unlearned_norms(selections: Sequence["Selection"]) -> str | None:
    """What to say of BatchNorm layers that were never trained and that stages keep as they are.

    As created they normalize nothing, so in a deep network (one built with `weights=None`)
    signals and gradients fade away.

    Args:
        selections: of all stages, in their order, those without epochs left out.
    """
    fresh = {
        id(n): n
        for s in selections[:1]
        for entry in s.entries
        for n in entry.norms
        if is_fresh(n) and _is_identity(n)
    }
    keeping: list[str] = []
    left: dict[int, Any] = {}
    for selection in selections:
        updating = {id(v) for v in selection.updating}
        fresh = {key: n for key, n in fresh.items() if id(n.moving_mean) not in updating}
        if fresh:
            keeping.append(selection.stage.name)
            left |= fresh
    if not keeping:
        return None
    names = [norm.name for norm in left.values()]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    who = f"stage {keeping[0]!r} keeps"
    if len(keeping) > 1:
        who = f"stages {', '.join(map(repr, keeping))} keep"
    return (
        f"BatchNorm layers {', '.join(names[:3])}{more} have no statistics yet (mean 0, variance "
        f"1), and {who} them like that, so that they normalize nothing. Load pretrained weights, "
        "or begin with a stage that trains them: train='all', batch_norm='train'"
    )


def _is_identity(norm: Any) -> bool:
    """Whether gamma and beta are as created; a folded BatchNorm layer keeps its scale there."""
    gamma = 1.0 if norm.gamma is None else keras.ops.convert_to_numpy(norm.gamma)
    beta = 0.0 if norm.beta is None else keras.ops.convert_to_numpy(norm.beta)
    return bool(np.all(gamma == 1.0) and np.all(beta == 0.0))


@dataclass(frozen=True, eq=False)
class Selection:
    """What a stage trains.

    Attributes:
        stage: the stage it was worked out for.
        entries: all layers of the model, in the order of its graph.
        chosen: those that the stage's `train` names.
        trained: variables that get gradients.
        updating: variables that the layers update by themselves (BatchNorm
            statistics under the policy "train", or of a new layer).
        groups: the layer groups of the model, the head last.
        held: variables of any layer that it keeps frozen itself, in every stage.
    """

    stage: Stage
    entries: tuple[Entry, ...]
    chosen: tuple[Entry, ...]
    trained: tuple[Any, ...]
    updating: tuple[Any, ...]
    groups: tuple[LayerGroup, ...]
    held: tuple[Any, ...] = ()

    @property
    def live(self) -> frozenset[int]:
        """Ids of all variables that may change in the stage."""
        return frozenset(id(v) for v in (*self.trained, *self.updating))


def select(graph: Graph, stage: Stage, groups: tuple[LayerGroup, ...] | None = None) -> Selection:
    """Work out what a stage trains, without changing the model.

    Args:
        graph: the flattened model.
        stage: what to train.
        groups: of the model; None finds them.

    Raises:
        ScheduleError: a pattern matches no layer, a `!pattern` takes nothing
            away, or nothing that can be trained is left.
    """
    known = entries(graph)
    groups = find_groups(graph) if groups is None else groups
    chosen = _choose(groups, known, stage)
    new = new_norms(groups[-1].layers if groups else (), [entry.layer for entry in known])
    trained: list[Any] = []
    updating: list[Any] = []
    for entry in chosen:
        for layer in entry.layers:
            policy = "train" if id(layer) in new else stage.batch_norm
            _sort_weights(layer, policy, trained, updating)
    held = {id(v): v for entry in known for v in entry.held}
    trained = list({id(v): v for v in trained if id(v) not in held}.values())
    updating = [v for v in updating if id(v) not in held]
    if not trained:
        frozen = stage.batch_norm == "frozen" and any(e.norms for e in chosen)
        hint = (
            "; BatchNorm layers are frozen in it: use batch_norm='affine' to train them"
            if frozen
            else ""
        )
        if any(id(w) in held for entry in chosen for w in entry.weights):
            hint += (
                "; those with weights keep them frozen themselves (`variable.trainable` is False)"
            )
        raise ScheduleError(
            f"stage {stage.name!r} trains nothing: train={_shown(stage.train)} "
            f"names {len(chosen)} layers, none with weights to train{hint}"
        )
    return Selection(
        stage, known, tuple(chosen), tuple(trained), tuple(updating), groups, tuple(held.values())
    )


def check(graph: Graph, schedule: Schedule) -> list[Selection]:
    """Work out every stage of a schedule, so that it is refused before the first epoch."""
    groups = find_groups(graph) if schedule.groups is None else named_groups(graph, schedule)
    selections = [select(graph, stage, groups) for stage in schedule]
    for selection in selections:
        _check_average(selection)
    return selections


def _check_average(selection: Selection) -> None:
    updating = {id(v) for v in selection.updating}
    norms = [n for entry in selection.chosen for n in entry.norms]
    following = [n.name for n in norms if id(n.moving_mean) in updating]
    if selection.stage.average is not None and following:
        raise ScheduleError(
            f"stage {selection.stage.name!r}: average: the new BatchNorm layer {following[0]!r} "
            "trains its statistics, which would not fit averaged weights: leave average out, or "
            f"leave the layer out by train=[..., '!{following[0]}'] once an earlier run has "
            "trained it"
        )


def named_groups(graph: Graph, schedule: Schedule) -> tuple[LayerGroup, ...]:
    """The layer groups that a schedule names, from the input up, the head last.

    Raises:
        ScheduleError: a pattern matches no layer, a layer is in two groups, or
            none is left for the head.
    """
    learnable = [entry for entry in entries(graph) if entry.learnable]
    home: dict[int, str] = {}
    groups = []
    for parts in schedule.groups or ():
        name = ", ".join(_shown(part) for part in parts)
        members = [(part, matching(learnable, part)) for part in parts]
        for part, matched in members:
            if not matched:
                raise ScheduleError(f"groups: {_shown(part)} matches no layer with weights")
        found = {id(e.layer): e for _, matched in members for e in matched}
        for key, entry in found.items():
            if key in home:
                raise ScheduleError(
                    f"groups: {entry.path} is in two groups, {home[key]} and {name}: "
                    "a layer can be in only one"
                )
            home[key] = name
        groups.append(LayerGroup(name, tuple(entry.layer for entry in found.values())))
    head = tuple(entry.layer for entry in learnable if id(entry.layer) not in home)
    if not head:
        raise ScheduleError("groups: they name every layer and leave none for the head")
    return (*groups, LayerGroup("head", head))


def matching(known: Sequence[Entry], part: Any) -> list[Entry]:
    """Those of the entries that one pattern, layer or function names (no groups)."""
    return [entry for entry in known if _matches(entry, part)]


def apply(model: keras.Model, selection: Selection) -> None:
    """Set the model's flags for a stage.

    What a layer keeps frozen itself stays frozen. BatchNorm under "affine" is a frozen
    layer (Keras then uses its statistics) whose gamma and beta are trainable all the
    same. A new one trains.
    """
    held = selection.held
    set_trainable(model, True, held)
    chosen = {id(entry.layer) for entry in selection.chosen}
    for entry in selection.entries:
        if id(entry.layer) not in chosen and entry.alone:
            freeze_own(entry.layer, held)
        elif id(entry.layer) not in chosen:
            set_trainable(entry.layer, False, held)
    updating = {id(v) for v in selection.updating}
    for entry in selection.chosen:
        for norm in entry.norms:
            set_trainable(norm, id(norm.moving_mean) in updating, held)
    if selection.stage.batch_norm == "affine":
        for variable in selection.trained:
            variable.trainable = True


def flags(model: keras.Model) -> Callable[[], None]:
    """Remember all trainable flags of a model; the result, called, restores them."""
    # Outer layers first: setting a layer's flag sets all those inside it.
    ordered = sorted(flatten_layers(model), key=lambda layer: -len(flatten_layers(layer)))
    layers = [(layer, layer.trainable) for layer in ordered]
    variables = [(v, v.trainable) for v in model.weights]

    def restore() -> None:
        for layer, value in layers:
            layer.trainable = value
        for variable, value in variables:
            if variable.trainable != value:
                variable.trainable = value

    return restore


def _choose(groups: Sequence[LayerGroup], known: tuple[Entry, ...], stage: Stage) -> list[Entry]:
    parts = stage.train if isinstance(stage.train, list | tuple | set) else [stage.train]
    if isinstance(stage.train, set):
        parts = sorted(stage.train, key=str)
    chosen: dict[int, Entry] = {}
    if parts and all(isinstance(p, str) and p.startswith("!") for p in parts):
        chosen = {id(entry.layer): entry for entry in known}
    for part in parts:
        negative = isinstance(part, str) and part.startswith("!")
        wanted = part[1:] if negative else part
        if _means_groups(wanted, known):
            members = {id(layer) for layer in group_layers(groups, wanted, stage.name)}
            matched = [entry for entry in known if id(entry.layer) in members]
        else:
            matched = matching(known, wanted)
        if not matched:
            raise ScheduleError(_no_match(stage, part, known))
        if not negative:
            chosen.update({id(e.layer): e for e in matched})
            continue
        taken = [e for e in matched if chosen.pop(id(e.layer), None) is not None]
        if not taken:
            raise ScheduleError(
                f"stage {stage.name!r}: {part!r} takes nothing away, as none of those layers is "
                "trained anyway; put it after the pattern that it narrows, or leave it out"
            )
    return [entry for entry in known if id(entry.layer) in chosen]


def _means_groups(part: Any, known: Sequence[Entry]) -> bool:
    """Whether a pattern means layer groups, and no layer or submodel has exactly that name."""
    return is_group_pattern(part) and not any(part in entry.names for entry in known)


def _matches(entry: Entry, part: Any) -> bool:
    if isinstance(part, str):
        if part in ("all", "*"):
            return True
        if part.startswith("re:"):
            try:
                return any(re.search(part[3:], name) for name in entry.names)
            except re.error as error:
                raise ScheduleError(
                    f"pattern {part!r} is not a regular expression: {error}"
                ) from None
        return any(fnmatch.fnmatchcase(name, part) for name in entry.names)
    if isinstance(part, keras.layers.Layer):
        return any(layer is entry.layer for layer in flatten_layers(part))
    if callable(part):
        return any(part(layer) for layer in (entry.layer, *entry.holders))
    raise ScheduleError(f"cannot select layers by {part!r}: give a pattern, a layer or a function")


def _sort_weights(layer: Any, policy: str, trained: list[Any], updating: list[Any]) -> None:
    """Put a layer's own weights (not those of layers inside it) where the policy says."""
    own, kept = own_weights(layer)
    if isinstance(layer, keras.layers.BatchNormalization):
        if policy != "frozen":
            trained.extend(own)
        if policy == "train":
            updating.extend(kept)
        return
    trained.extend(own)
    # Fitted once, before any stage: `unfreeze.core.read_out.Projection`.
    if not getattr(layer, "is_fixed", False):
        updating.extend(kept)


def _no_match(stage: Stage, part: Any, known: Sequence[Entry]) -> str:
    names = [e.layer.name for e in known if e.learnable]
    text = f"stage {stage.name!r}: {_shown(part)} matches no layer of the model"
    hint = did_you_mean(str(part).lstrip("!").strip("*"), names)
    return f"{text}." + (hint or f" Its last layers with weights are {', '.join(names[-4:])}")


def _shown(train: Any) -> str:
    return (
        repr(train) if isinstance(train, str | list | tuple) else getattr(train, "name", str(train))
    )
