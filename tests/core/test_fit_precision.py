"""Mixed precision and compilation, in every stage."""

import keras
import numpy as np
import pytest

from small_runs import TWO, X, Y, assert_same_weights, make, run
from unfreeze.core.schedule import Stage


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("cache", ["always", "never"])
def test_mixed_precision(policy, cache):
    keras.config.set_dtype_policy(policy)
    model = make(dtype="float32")
    result = run(model, TWO.with_changes(cache=cache))
    assert result.stages[0].cache.startswith("cached" if cache == "always" else "not cached")
    assert all(np.isfinite(row["loss"]) for row in result.history)
    assert {v.dtype for v in model.weights} == {"float32"}


def test_mixed_precision_cached_is_uncached():
    keras.config.set_dtype_policy("mixed_bfloat16")
    runs = [make(dtype="float32"), make(dtype="float32")]
    for model, cache in zip(runs, ("always", "never"), strict=True):
        run(model, TWO.with_changes(cache=cache, optimizer="sgd"))
    assert_same_weights(*runs, atol=2e-3)


def test_float16_steps_that_overflow_are_waited_for():
    keras.config.set_dtype_policy("mixed_float16")
    model = make(dtype="float32")
    scale = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**24)
    stage = Stage("s", "all", epochs=30, optimizer=scale, learning_rate=1e-3)
    result = run(model, [stage], data=(100 * X, Y), batch_size=24)
    assert result.stages[0].epochs == 30


@pytest.mark.slow_on("torch")
def test_with_and_without_compilation():
    # Without dropout, whose random numbers a compiler may draw in another way.
    schedule, plain = TWO.with_changes(optimizer="sgd"), make(drop=0.0)
    run(plain, schedule, jit_compile=False)
    for cache in ("always", "never"):
        model = make(drop=0.0)
        run(model, schedule.with_changes(cache=cache), jit_compile=True)
        assert_same_weights(model, plain, atol=1e-5)
