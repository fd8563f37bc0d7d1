"""A learning rate that rises and falls step by step."""

import keras
import numpy as np
import pytest

from small_runs import HEAD, Rates, X, Y, assert_same_weights, make, run
from unfreeze.core import run_state
from unfreeze.core.graph import flatten
from unfreeze.core.layers import select
from unfreeze.core.optimizers import rate_by_step
from unfreeze.core.schedule import Stage
from unfreeze.core.stage_fit import new_optimizer
from unfreeze.core.unfreeze_schedule import UnfreezeSchedule
from unfreeze.errors import ScheduleError, Stopped

RATE, LOSS = 0.02, "sparse_categorical_crossentropy"
CYCLE = Stage("all", "all", epochs=4, learning_rate=RATE, decay="one_cycle", optimizer="sgd")
LAYERED = Stage(
    "all",
    "all",
    epochs=4,
    learning_rate={"default": RATE, "conv": 0.5},
    decay="warmup_cosine",
    optimizer=keras.optimizers.SGD(momentum=0.9),
)


def falling(steps: int) -> np.ndarray:
    return RATE * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2


def rates(decay: str, steps: int) -> np.ndarray:
    schedule = rate_by_step(Stage("s", learning_rate=RATE, decay=decay), steps)
    return np.array([float(keras.ops.convert_to_numpy(schedule(i))) for i in range(steps)])


def test_the_shapes():
    found = rates("warmup_cosine", 100)
    assert found[:10] == pytest.approx(RATE * np.arange(1, 11) / 11, rel=1e-5)
    assert found[10:] == pytest.approx(falling(90), rel=1e-4, abs=1e-8)
    found = rates("one_cycle", 100)
    assert found[:30] == pytest.approx(np.linspace(RATE / 25, RATE, 31)[:-1], rel=1e-5)
    assert found[30:] == pytest.approx(falling(70), rel=1e-4, abs=1e-8)
    # However few steps there are, each moves.
    for decay in ("warmup_cosine", "one_cycle"):
        for steps in (1, 2, 3):
            assert (rates(decay, steps) > 0).all()
            assert (rates(decay, steps) <= RATE * 1.0001).all()


def test_the_stage_follows_it_and_a_resumed_one_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(run_state.Checkpointer, "_is_time", lambda self: True)
    seen, expected = Rates(), make()
    result = run(expected, [LAYERED], callbacks=[seen])
    assert seen.seen == pytest.approx(rates("warmup_cosine", 12), rel=1e-5)
    rows = [row["learning_rate"] for row in result.history]
    # Of the next step.
    assert rows[:3] == pytest.approx(rates("warmup_cosine", 12)[[3, 6, 9]], rel=1e-5)
    with pytest.raises(Stopped):
        run(make(), [LAYERED], run_dir=tmp_path, callbacks=[Rates(last=2)])
    again, resumed = Rates(), make()
    run(resumed, [LAYERED], run_dir=tmp_path, callbacks=[again])
    assert again.seen == seen.seen[6:]
    assert_same_weights(expected, resumed)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_the_same_inside_a_fit_of_the_user():
    seen = Rates()
    model = make()
    model.compile("adam", LOSS)
    cosine = Stage("slow", "head", epochs=2, learning_rate=RATE, decay="cosine")
    callbacks = [UnfreezeSchedule([cosine, CYCLE]), seen]
    model.fit(X, Y, batch_size=8, epochs=6, verbose=0, callbacks=callbacks)
    assert seen.seen[:6] == pytest.approx([RATE] * 3 + [RATE / 2] * 3, rel=1e-5)
    assert seen.seen[6:] == pytest.approx(rates("one_cycle", 12), rel=1e-5)


def test_accumulated_gradients_count_as_one_step():
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=3)
    stage = Stage("s", epochs=4, decay="one_cycle", optimizer=optimizer)
    made = new_optimizer(select(flatten(make()), stage), batches=8)
    config = made.get_config()["learning_rate"]["config"]
    # 32 batches are 10 steps.
    assert (config["warmup_steps"], config["decay_steps"]) == (3, 7)


def test_data_that_do_not_know_their_length_are_refused():
    model = make()
    model.compile("adam", LOSS)
    callback = UnfreezeSchedule([*HEAD, CYCLE])
    wanted = "stage 'all': decay='one_cycle' needs the number of batches.*steps_per_epoch"
    with pytest.raises(ScheduleError, match=wanted):
        callback.set_params({"epochs": 9, "steps": None})
        callback.set_model(model)
        callback.on_train_begin()


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_a_dataset_that_does_not_know_its_length_is_refused():
    tensorflow = pytest.importorskip("tensorflow")
    data = tensorflow.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(8)
    with pytest.raises(ScheduleError, match=r"stage 'all'.*assert_cardinality.*decay='cosine'"):
        run(make(), [CYCLE], data=data)
