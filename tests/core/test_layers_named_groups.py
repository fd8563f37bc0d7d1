"""Layer groups that a schedule names itself, instead of those found from the graph."""

import keras
import numpy as np
import pytest

import unfreeze
from unfreeze.core.graph import flatten
from unfreeze.core.layers import check, named_groups
from unfreeze.core.optimizers import layer_factors
from unfreeze.core.presets import gradual
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.errors import RunError, ScheduleError

layers = keras.layers


def make() -> keras.Model:
    """Five layers whose names form no blocks, on vectors: only the last would be the head."""
    x = inputs = keras.Input((4,))
    for name in ("stem", "left", "right", "bridge", "out"):
        x = layers.Dense(3, activation="tanh", name=name)(x)
    return keras.Model(inputs, layers.Softmax()(x))


GROUPS = ["stem", ["left", "ri*"]]


def trained(stage: Stage, groups=GROUPS) -> list[str]:
    selection = check(flatten(make()), Schedule((stage,), groups=groups))[0]
    return [entry.path for entry in selection.chosen if entry.layer.weights]


@pytest.mark.parametrize(
    ("train", "names"),
    [
        ("head", ["bridge", "out"]),
        ("top:1", ["left", "right", "bridge", "out"]),
        ("top:2", ["stem", "left", "right", "bridge", "out"]),
        ("top:50%", ["left", "right", "bridge", "out"]),
    ],
)
def test_stages_count_the_named_groups(train, names):
    assert trained(Stage("s", train)) == names


def test_without_them_the_graph_decides():
    assert trained(Stage("s", "head"), groups=None) == ["out"]


def test_presets_take_them():
    schedule = Schedule(gradual(groups=2).stages, groups=GROUPS)
    selections = check(flatten(make()), schedule)
    counts = [sum(bool(e.layer.weights) for e in s.chosen) for s in selections]
    assert counts == [2, 4, 5]


def test_layer_decay_goes_by_them():
    graph = flatten(make())
    stage = Stage("s", "all", layer_decay=0.5)
    factors = layer_factors(check(graph, Schedule((stage,), groups=GROUPS))[0])
    model_layers = {step.path: step.operation for step in graph.steps if step.is_layer}
    found = {name: factors.get(id(model_layers[name].kernel), 1.0) for name in ("stem", "left")}
    found |= {name: factors.get(id(model_layers[name].kernel), 1.0) for name in ("right", "out")}
    assert found == {"stem": 0.25, "left": 0.5, "right": 0.5, "out": 1.0}


def test_layers_can_be_given_and_the_order_is_the_users():
    model = make()
    given = [model.get_layer("right"), "stem"]
    found = named_groups(flatten(model), Schedule((Stage("s", "all"),), groups=given))
    names = [[layer.name for layer in group.layers] for group in found]
    assert names == [["right"], ["stem"], ["left", "bridge", "out"]]


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (["stem", "block*"], "'block\\*' matches no layer with weights"),
        (["stem", "*t*"], "stem is in two groups, 'stem' and '\\*t\\*'"),
        ([["stem", "left"], ["right", "stem"]], "stem is in two groups"),
        (["*"], "leave none for the head"),
    ],
)
def test_impossible_groups_are_refused_before_training(groups, reason):
    model = make()
    schedule = Schedule((Stage("s", "head"),), groups=groups)
    with pytest.raises(ScheduleError, match=reason):
        unfreeze.fit(model, schedule, (np.ones((4, 4)), np.zeros(4)), verbose=0)


@pytest.mark.parametrize("groups", [[], ["stem", []]])
def test_a_group_needs_a_pattern(groups):
    with pytest.raises(ScheduleError, match="each needs a pattern"):
        Schedule((Stage("s", "head"),), groups=groups)


def test_a_run_moves_what_they_say_and_belongs_to_them(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(16, 4)).astype("float32"), rng.integers(0, 3, 16)
    model = make()
    stage = Stage("s", "top:1", epochs=1)
    run = {"train": data, "run_dir": tmp_path, "verbose": 0, "seed": 0}
    result = unfreeze.fit(model, Schedule((stage,), groups=GROUPS), **run)
    moved = {layer.layer for layer in result.audit.stages[0].layers if layer.moved}
    assert moved == {"left", "right", "bridge", "out"}
    # The same layers train, but their rates may not be the same any more.
    with pytest.raises(RunError, match="another choice of layer groups: build"):
        unfreeze.fit(make(), Schedule((stage,), groups=["stem", "left"]), **run)
