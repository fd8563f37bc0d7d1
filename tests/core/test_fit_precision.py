"""Mixed precision and compilation, in every stage."""

import keras
import numpy as np
import pytest

from small_runs import HEAD, TWO, X, Y, assert_same_weights, make, run
from unfreeze.core.schedule import Stage

# Compiling for JAX takes minutes.
pytestmark = [pytest.mark.slow_on("jax"), pytest.mark.on_each_backend]


@pytest.mark.parametrize(
    "policy",
    [pytest.param("mixed_bfloat16", marks=pytest.mark.slow_on("tensorflow")), "mixed_float16"],
)
def test_mixed_precision_cached_is_uncached(policy):
    keras.config.set_dtype_policy(policy)
    runs = [make(dtype="float32"), make(dtype="float32")]
    for model, cache, word in zip(runs, ("always", "never"), ("cached", "not cached"), strict=True):
        result = run(model, TWO.with_changes(cache=cache, optimizer="sgd"))
        assert result.stages[0].cache.startswith(word)
        assert all(np.isfinite(row["loss"]) for row in result.history)
        assert {v.dtype for v in model.weights} == {"float32"}
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
    # Uncached, the last stage is the same.
    for schedule, cache in ((TWO, "always"), (HEAD, "never")):
        schedule = schedule.with_changes(optimizer="sgd", cache=cache)
        plain, model = make(drop=0.0), make(drop=0.0)
        run(plain, schedule, jit_compile=False)
        run(model, schedule, jit_compile=True)
        assert_same_weights(model, plain, atol=1e-5)
