"""The whole recipe in one call."""

import keras
import pytest

from graphs import three_blocks
from small_runs import HELD, Batches, X, Y, make
from unfreeze.core.fine_tune import fine_tune, schedule_for
from unfreeze.core.graph import flatten
from unfreeze.core.presets import probe_tune, two_stage
from unfreeze.errors import DataError, ScheduleError


def test_a_head_of_one_dense_layer_is_solved():
    schedule = schedule_for(flatten(make()), epochs=3)
    assert schedule.stages[:2] == probe_tune().stages[:2]
    last = schedule.stages[2]
    assert (last.epochs, last.decay, last.keep, last.train) == (3, "cosine", "last", "all")


@pytest.mark.parametrize("solve", [True, False])
def test_any_other_head_is_trained_for_longer_than_the_whole(solve):
    model = make() if not solve else three_blocks()
    head, last = schedule_for(flatten(model), epochs=3, solve=solve).stages
    assert (head.epochs, head.until.patience, head.augment, head.solve) == (12, 3, False, False)
    assert (last.epochs, last.learning_rate) == (3, two_stage().stages[1].learning_rate)


def test_a_head_without_a_base_is_not_trained_for_longer():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert [stage.epochs for stage in schedule_for(flatten(model), epochs=3)] == [3, 3]


@pytest.mark.slow_on("jax")
def test_one_line_trains_head_and_base():
    result = fine_tune(
        make(), X, Y, validation_data=HELD, epochs=1, batch_size=8, seed=0, verbose=0
    )
    assert [stage.stage for stage in result.stages] == ["head", "start", "all"]
    moved = {x.layer: x.moved > 0 for x in result.audit.stages[2].layers}
    assert moved == {"conv": True, "bn": False, "head": True}
    first = result.history[0]
    assert min(row["val_loss"] for row in result.history) <= first["val_loss"]


def test_what_makes_no_sense_is_refused():
    for epochs in (0, True, 1.5):
        with pytest.raises(ScheduleError, match=f"fine_tune: epochs {epochs} must be a whole"):
            fine_tune(make(), X, Y, epochs=epochs)
    with pytest.raises(ScheduleError, match=r"fine_tune: `model` is the text 'm\.keras'"):
        fine_tune("m.keras", X, Y)
    with pytest.raises(DataError, match="x and y are given twice"):
        fine_tune(make(), (X, Y), Y)


@pytest.mark.slow_on("jax")
def test_training_and_validation_data_in_their_order():
    named = fine_tune(make(), X, Y, HELD, epochs=1, batch_size=8, seed=0, verbose=0)
    in_order = fine_tune(make(), (X, Y), HELD, epochs=1, batch_size=8, seed=0, verbose=0)
    assert in_order.history[-1]["val_loss"] == named.history[-1]["val_loss"]
    of_batches = fine_tune(make(), Batches(), Batches(), epochs=1, seed=0, verbose=0)
    assert "val_loss" in of_batches.history[-1]
