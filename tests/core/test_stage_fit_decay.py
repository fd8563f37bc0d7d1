"""A learning rate that falls from epoch to epoch."""

import functools

import keras
import numpy as np
import pytest

from small_runs import HEAD, Rates, assert_same_weights, make, run, told
from unfreeze.core import run_state
from unfreeze.core.schedule import Plateau, ReduceRate, Stage
from unfreeze.errors import ScheduleError, Stopped

RATE, EPOCHS = 0.02, 5
FALLING = [RATE * (1 + np.cos(np.pi * epoch / EPOCHS)) / 2 for epoch in range(EPOCHS)]
STAGE = Stage("all", "all", epochs=EPOCHS, learning_rate=RATE, decay="cosine", optimizer="sgd")


@functools.cache
def unbroken():
    """A run of two stages, the second of which has three steps an epoch: only to look at."""
    rates, model = Rates(), make()
    return run(model, [*HEAD, STAGE], callbacks=[rates]), rates.seen[2 * 3 :]


def test_the_rate_falls_along_a_cosine():
    result, seen = unbroken()
    rows = [row["learning_rate"] for row in result.stages[1].rows]
    assert rows == pytest.approx(FALLING, rel=1e-5)
    # In all steps of the epoch, not only in its row.
    assert seen == pytest.approx(np.repeat(FALLING, 3), rel=1e-5)
    assert rows[0] == pytest.approx(RATE)
    assert 0 < rows[-1] < RATE / 10


def test_the_factor_goes_from_one_to_almost_zero():
    assert [Stage("a", epochs=4).rate_factor(e) for e in range(4)] == [1.0] * 4
    stage = Stage("a", epochs=4, decay="cosine")
    assert [stage.rate_factor(e) for e in range(4)] == pytest.approx(
        [1, 0.85355339, 0.5, 0.14644661]
    )
    assert Stage("a", epochs=1, decay="cosine").rate_factor(0) == 1.0


@pytest.mark.slow_on("jax")
def test_an_interrupted_run_goes_on_with_the_rate_of_its_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(run_state.Checkpointer, "_is_time_to_copy", lambda self: True)
    with pytest.raises(Stopped):
        run(make(), [*HEAD, STAGE], run_dir=tmp_path, callbacks=[Rates(last=2 + 3)])
    rates, model = Rates(), make()
    resumed = run(model, [*HEAD, STAGE], run_dir=tmp_path, callbacks=[rates])
    assert rates.seen == pytest.approx(np.repeat(FALLING[3:], 3), rel=1e-5)
    whole, _ = unbroken()
    assert told(resumed) == told(whole)
    assert_same_weights(model, whole.model)


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize(
    "more", [{"layer_decay": 0.5}, {"learning_rate": {"conv": 0.1, "default": RATE}}]
)
def test_rates_by_layer_fall_with_it(more):
    settings = {"learning_rate": RATE, "decay": "cosine", **more}
    stage = Stage("all", "all", epochs=2, **settings)
    rows = run(make(), [stage]).history
    assert [row["learning_rate"] for row in rows] == pytest.approx([RATE, RATE / 2], rel=1e-5)


@pytest.mark.slow_on("jax")
def test_under_mixed_precision_too():
    keras.config.set_dtype_policy("mixed_float16")
    stage = Stage("all", "all", epochs=2, learning_rate=RATE, decay="cosine")
    rows = run(make(), [stage]).history
    assert [row["learning_rate"] for row in rows] == pytest.approx([RATE, RATE / 2], rel=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"reduce": ReduceRate()}, "stage 'a': decay and reduce both lower the rate: give one"),
        (
            {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)},
            "stage 'a': decay needs a number as learning_rate, not a schedule",
        ),
        (
            {"learning_rate": {"default": lambda: 0.1, "conv": 0.5}},
            "stage 'a': decay needs a number as learning_rate, not a schedule",
        ),
        ({"decay": "linear"}, "stage 'a': decay 'linear' must be one of cosine"),
    ],
)
def test_what_does_not_go_with_it_is_refused(more, message):
    with pytest.raises(ScheduleError, match=message):
        Stage("a", **{"decay": "cosine", **more})


def test_it_goes_with_a_plateau_that_ends_the_stage():
    stage = Stage("a", decay="cosine", until=Plateau("best", 3), learning_rate={"default": 0.1})
    assert (stage.decay, stage.until.patience) == ("cosine", 3)
