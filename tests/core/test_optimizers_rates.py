"""Factors of the learning rate: by depth, by pattern, and both."""

import keras
import pytest
from keras import layers

from unfreeze.core.graph import flatten
from unfreeze.core.layers import select
from unfreeze.core.optimizers import base_rate, layer_factors
from unfreeze.core.schedule import Stage
from unfreeze.errors import ScheduleError


def make() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = x
    for block in (1, 2, 3):
        for part in ("a", "b"):
            y = layers.Conv2D(2, 3, padding="same", name=f"block{block}_{part}")(y)
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, layers.Dense(2, name="head")(y))


def factors(model: keras.Model, **stage) -> dict[str, float]:
    """Factor of each layer that trains; all its variables must agree."""
    graph = flatten(model)
    selection = select(graph, Stage("s", **stage))
    by_id = layer_factors(selection)
    found: dict[str, float] = {}
    for variable in selection.trained:
        name = variable.path.split("/")[0]
        assert found.setdefault(name, by_id.get(id(variable), 1.0)) == by_id.get(id(variable), 1.0)
    assert set(by_id) <= {id(v) for v in selection.trained}
    return found


def test_plain_rates_have_no_factors():
    model = make()
    graph = flatten(model)
    assert layer_factors(select(graph, Stage("s"))) == {}
    assert layer_factors(select(graph, Stage("s", layer_decay=1.0))) == {}


def test_layer_decay_falls_from_group_to_group():
    found = factors(make(), layer_decay=0.5)
    assert found == {
        "head": 1.0,
        "block3_a": 0.5,
        "block3_b": 0.5,
        "block2_a": 0.25,
        "block2_b": 0.25,
        "block1_a": 0.125,
        "block1_b": 0.125,
    }


def test_only_what_trains_has_a_factor():
    assert factors(make(), train=["head", "block2_*"], layer_decay=0.5) == {
        "head": 1.0,
        "block2_a": 0.25,
        "block2_b": 0.25,
    }


def test_a_map_scales_by_pattern_and_both_multiply():
    rates = {"default": 1e-3, "block1_*": 0.1, "re:_a$": 2.0}
    found = factors(make(), learning_rate=rates)
    assert found["block1_a"] == pytest.approx(0.2)
    assert found["block1_b"] == pytest.approx(0.1)
    assert found["block2_a"] == 2.0
    assert found["head"] == 1.0
    both = factors(make(), learning_rate=rates, layer_decay=0.5)
    assert both["block1_a"] == pytest.approx(0.2 * 0.125)


def test_the_base_rate_is_the_default_of_a_map():
    decay = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    assert base_rate(Stage("s", learning_rate=0.5)) == 0.5
    assert base_rate(Stage("s", learning_rate={"default": decay, "a": 1.0})) is decay


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ({"default": 1.0, "block9_*": 0.1}, "matches no layer"),
        ({"default": 1.0, "block1_*": 0.1}, "matches no layer"),  # not trained by the stage
        ({"default": 1.0, "head": 0}, "would not train.*!head"),
    ],
)
def test_maps_that_do_not_fit_the_stage_are_refused(rates, reason):
    with pytest.raises(ScheduleError, match=reason):
        factors(make(), train=["head", "block2_*"], learning_rate=rates)
