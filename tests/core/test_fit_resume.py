"""Repeated runs: caches found again, broken runs gone on with."""

from dataclasses import replace

import keras
import pytest

from small_runs import HEAD, HELD, TWO, X, Y, assert_same_weights, make, run, weights_of
from unfreeze.core import stage_caching as stage_module
from unfreeze.core.schedule import Stage
from unfreeze.errors import RunError, ScheduleError

# What is kept on disk does not depend on the backend, and JAX compiles for long.
pytestmark = pytest.mark.slow_on("jax")


def count_prefixes(monkeypatch) -> list:
    made = []
    original = stage_module.prefix_model

    def counting(*args, **kwargs):
        made.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(stage_module, "prefix_model", counting)
    return made


def test_a_repeated_run_does_not_compute_the_prefix_again(tmp_path, monkeypatch):
    made = count_prefixes(monkeypatch)
    first, second = make(), make()
    assert run(first, HEAD, cache_dir=tmp_path).stages[0].cache.startswith("cached")
    assert made
    made.clear()
    assert run(second, HEAD, cache_dir=tmp_path).stages[0].cache.startswith("reused")
    assert made == []
    assert_same_weights(first, second)


def test_a_second_stage_on_the_same_boundary_reuses_the_cache():
    stages = [Stage("a", "head", epochs=2), Stage("b", "head", epochs=2, learning_rate=1e-4)]
    result = run(schedule=stages)
    assert [stage.cache.split(":")[0] for stage in result.stages] == ["cached", "reused"]


def test_a_float16_cache_comes_close():
    exact, half = make(), make()
    a = run(exact, [Stage("s", "head", epochs=3)])
    b = run(half, [Stage("s", "head", epochs=3, cache="float16")])
    losses = [[row["loss"] for row in r.history] for r in (a, b)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_caches_are_kept_with_the_run_or_where_asked_within_the_limit(tmp_path):
    run(schedule=HEAD, run_dir=tmp_path / "run")
    assert len(list((tmp_path / "run" / "cache").iterdir())) == 2
    run(schedule=HEAD, cache_dir=tmp_path / "shared", cache_limit=10_000)
    assert len(list((tmp_path / "shared").iterdir())) == 2
    # A limit that holds one of them: the older ones go at the end of the stage.
    run(schedule=HEAD, cache_dir=tmp_path / "shared", cache_limit=500, data=(X + 1, Y))
    assert len(list((tmp_path / "shared").iterdir())) == 1


def test_a_cache_that_does_not_fit_is_refused_up_front_where_it_was_asked_for():
    model = make()
    before = weights_of(model)
    with pytest.raises(ScheduleError, match="'head' asks for a cache, but"):
        run(model, TWO.with_changes(cache="always"), cache_limit=10)
    assert all((a == b).all() for a, b in zip(before, weights_of(model), strict=True))
    assert (
        run(schedule=HEAD, cache_limit=10).stages[0].cache.startswith("not cached: it would take")
    )


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, second = make(), make()
    run(first, run_dir=tmp_path)

    class Refuse(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise AssertionError("nothing is left to train")

    result = run(second, run_dir=tmp_path, callbacks=[Refuse()])
    assert_same_weights(first, second)
    assert [row["stage"] for row in result.history] == ["head", "head", "all", "all"]
    assert second.evaluate(*HELD, verbose=0)


def test_a_run_without_a_seed_goes_on_with_the_seed_that_it_drew(tmp_path):
    first = run(schedule=HEAD, run_dir=tmp_path, seed=None)
    assert run(schedule=HEAD, run_dir=tmp_path, seed=None).seed == first.seed


def test_a_folder_of_another_run_is_refused(tmp_path):
    run(schedule=HEAD, run_dir=tmp_path)
    for named, options in (
        ("seed", {"seed": 5}),
        ("schedule", {"schedule": HEAD.with_changes(epochs=1)}),
        ("choice of the best epoch", {"schedule": replace(HEAD, monitor="auto")}),
        ("data", {"data": (X[::-1], Y)}),
        ("data", {"validation_data": None}),
        ("settings", {"batch_size": 4}),
        ("settings", {"loss": "mse"}),
    ):
        with pytest.raises(RunError, match=f"another {named}:"):
            run(**{"schedule": HEAD, "run_dir": tmp_path, **options})


def test_a_model_that_has_trained_meanwhile_is_refused(tmp_path):
    def fresh():
        x = keras.Input((6, 6, 2))
        y = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, name="conv")(x))
        y = keras.layers.BatchNormalization(name="new")(keras.layers.Dense(3)(y))
        return keras.Model(x, keras.layers.Dense(2, activation="softmax")(y))

    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:  # the first of the second stage
                raise KeyboardInterrupt

    stages = [Stage("a", "head", epochs=2), Stage("b", "all", epochs=3)]
    model = fresh()
    with pytest.raises(KeyboardInterrupt):
        run(model, stages, run_dir=tmp_path, callbacks=[Break()])
    # The BatchNorm layer of the head was new then, and is not any more.
    with pytest.raises(RunError, match="another choice of weights to train: build the model"):
        run(model, stages, run_dir=tmp_path)
    assert [s.epochs for s in run(fresh(), stages, run_dir=tmp_path).stages] == [2, 3]
