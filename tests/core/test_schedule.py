"""Stages and schedules: everything that can be refused without a model is refused."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.core.schedule import Plateau, Reached, ReduceRate, Schedule, Stage, direction
from unfreeze.errors import ScheduleError


@pytest.mark.parametrize(
    ("metric", "way"),
    [
        ("loss", "min"),
        ("val_loss", "min"),
        ("val_mae", "min"),
        ("mean_squared_error", "min"),
        ("accuracy", "max"),
        ("val_sparse_categorical_accuracy", "max"),
        ("val_auc", "max"),
        ("macro_f1", "max"),
    ],
)
def test_direction_of_known_metrics(metric: str, way: str) -> None:
    assert direction(metric) == way
    assert direction(metric, "max") == "max"
    assert direction(metric, "min") == "min"


def test_direction_of_unknown_metrics_must_be_said() -> None:
    with pytest.raises(ScheduleError, match="'val_mystery': is higher or lower better"):
        direction("val_mystery")
    with pytest.raises(ScheduleError, match="mode 'up'"):
        direction("val_loss", "up")
    # A word inside another word decides nothing.
    with pytest.raises(ScheduleError, match="glossy"):
        direction("glossy")


_COSINE = keras.optimizers.schedules.CosineDecay(1e-3, 10)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": "  "}, "needs a name"),
        ({"name": 3}, "needs a name"),
        ({"train": []}, "trains nothing"),
        ({"train": ""}, "trains nothing"),
        ({"epochs": -1}, "epochs -1"),
        ({"epochs": 2.0}, "epochs 2.0 must be a whole number"),
        ({"epochs": True}, "epochs True"),
        ({"learning_rate": 0}, "learning_rate 0 must be above 0"),
        ({"learning_rate": -1e-3}, "must be above 0"),
        ({"learning_rate": float("nan")}, "must be above 0"),
        ({"learning_rate": float("inf")}, "must be above 0 and finite"),
        ({"learning_rate": True}, "must be a number"),
        ({"learning_rate": "1e-3"}, "must be a number"),
        ({"learning_rate": None}, "must be a number"),
        ({"learning_rate": {"conv": 0.1}}, "needs the key 'default'"),
        ({"learning_rate": {"default": 0.0}}, "must be above 0"),
        ({"learning_rate": {"default": 1.0, "conv": -1}}, "factor -1 of 'conv'"),
        ({"learning_rate": {"default": 1.0, "conv": "low"}}, "factor 'low' of 'conv'"),
        ({"batch_norm": "off"}, "must be one of frozen, affine, train"),
        ({"cache": "yes"}, "must be one of auto, always, never, float16"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"views": 0}, "views 0"),
        ({"layer_decay": 0}, "must lie in"),
        ({"layer_decay": 1.5}, "must lie in"),
        ({"until": "plateau"}, "until must be"),
        ({"until": ReduceRate()}, "until must be"),
        ({"reduce": Plateau()}, "reduce must be"),
        ({"reduce": ReduceRate(), "learning_rate": _COSINE}, "reduce cannot lower the rate"),
        (
            {"reduce": ReduceRate(), "learning_rate": {"default": _COSINE}},
            "reduce cannot lower the rate",
        ),
    ],
)
def test_impossible_stages(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ScheduleError, match=reason):
        Stage(**{"name": "a", **change})


def test_learning_rates_that_are_taken() -> None:
    for rate in (1, 1e-3, np.float32(1e-3), _COSINE, {"default": _COSINE, "conv": 0}):
        assert Stage("a", learning_rate=rate).learning_rate is rate


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Plateau(patience=0), "patience 0"),
        (lambda: Plateau("best", mode="max"), "'best' takes neither"),
        (lambda: Plateau("val_odd"), "is higher or lower better"),
        (lambda: Reached("val_odd", 1.0), "is higher or lower better"),
        (lambda: Reached("val_loss", 1.0, "down"), "mode 'down'"),
        (lambda: ReduceRate(factor=1.0), "factor 1.0"),
        (lambda: ReduceRate(factor=0.0), "factor 0.0"),
        (lambda: ReduceRate(patience=0), "patience 0"),
    ],
)
def test_impossible_rules(make: Any, reason: str) -> None:
    with pytest.raises(ScheduleError, match=reason):
        make()


def test_a_monitor_must_tell_which_way_is_better() -> None:
    stages = (Stage("a"),)
    assert Schedule(stages).monitor == "val_loss"
    for known in ("auto", "val_loss", "val_accuracy", "val_my_score"):
        assert Schedule(stages, monitor=known).monitor == known
    with pytest.raises(ScheduleError, match=r"monitor 'val_odd': is higher or lower better\?"):
        Schedule(stages, monitor="val_odd")


def test_schedules_that_are_refused() -> None:
    with pytest.raises(ScheduleError, match="at least one stage"):
        Schedule(())
    with pytest.raises(ScheduleError, match="holds stages, not 'head'"):
        Schedule(("head",))  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="two stages are named 'a'"):
        Schedule((Stage("a"), Stage("b"), Stage("a")))
    with pytest.raises(ScheduleError, match="every stage has 0 epochs"):
        Schedule((Stage("a", epochs=0), Stage("b", epochs=0)))


def test_a_stage_with_zero_epochs_is_allowed_among_others() -> None:
    schedule = Schedule((Stage("a", epochs=0), Stage("b", epochs=1)))
    assert [stage.epochs for stage in schedule] == [0, 1]
    assert len(schedule) == 2


def test_lists_become_tuples() -> None:
    schedule = Schedule([Stage("a", callbacks=[print])])  # type: ignore[arg-type]
    assert isinstance(schedule.stages, tuple)
    assert schedule.stages[0].callbacks == (print,)


@given(st.lists(st.text("ab", min_size=1), min_size=1, max_size=4), st.integers(1, 9))
def test_with_changes_changes_every_stage_and_nothing_else(names: list[str], size: int) -> None:
    unique = list(dict.fromkeys(names))
    before = Schedule(tuple(Stage(name, epochs=3) for name in unique), name="mine")
    after = before.with_changes(batch_size=size)
    assert [stage.batch_size for stage in after] == [size] * len(unique)
    assert after.with_changes(batch_size=None) == before
    with pytest.raises(ScheduleError, match="batch_size 0"):
        before.with_changes(batch_size=0)
