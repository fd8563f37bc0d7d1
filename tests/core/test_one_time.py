"""Generators as training data: a run that needs more batches than there are says so."""

import keras
import numpy as np
import pytest

from small_runs import HEAD, TWO, X, Y, make, run
from unfreeze.core.one_time import OneTime
from unfreeze.errors import DataError


def batches(count):
    for number in range(count):
        rows = np.arange(8 * number, 8 * number + 8) % len(X)
        yield X[rows], Y[rows]


def test_what_was_looked_at_comes_again():
    source = OneTime(iter("abc"))
    assert source.peek() == source.peek() == "a"
    assert list(source) == ["a", "b", "c"]
    assert (source.given, source.over) == (3, True)
    with pytest.raises(DataError, match="the generator ended after 3 batches"):
        source.peek()


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    "count",
    [3, *(pytest.param(count, marks=pytest.mark.slow_on("tensorflow")) for count in (4, 8)), 9],
)
def test_a_generator_that_ends_too_soon_is_an_error(count):
    """In the first stage's second epoch, before it, or in the second stage; 2 x 2 x 3 steps."""
    with pytest.raises(DataError, match=f"the generator ended after {count} batches, in the"):
        run(schedule=TWO, data=batches(count), steps_per_epoch=3)


def test_one_that_ends_in_time_trains():
    assert len(run(schedule=HEAD, data=batches(6), steps_per_epoch=3).history) == 2
    adam = keras.optimizers.Adam(gradient_accumulation_steps=2)
    schedule = HEAD.with_changes(optimizer=adam)
    assert len(run(make(), schedule, batches(6), steps_per_epoch=3).history) == 2


@pytest.mark.on_each_backend
def test_steps_that_the_optimizer_skips_are_counted():
    """float16: the first steps overflow, and the optimizer's own count leaves them out."""
    keras.config.set_dtype_policy("mixed_float16")
    adam = keras.optimizers.Adam(0.01)
    scaled = keras.optimizers.LossScaleOptimizer(adam, initial_scale=2.0**20)
    taken = []

    class Taken(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.optimizer = self.model.optimizer

        def on_train_end(self, logs=None):
            taken.append(int(self.optimizer.iterations))

    schedule = HEAD.with_changes(optimizer=scaled)
    result = run(make(), schedule, batches(6), steps_per_epoch=3, callbacks=[Taken()])
    assert len(result.history) == 2
    assert 0 < taken[0] < 6
    with pytest.raises(DataError, match="the generator ended after 5 batches"):
        run(make(), schedule, batches(5), steps_per_epoch=3)
