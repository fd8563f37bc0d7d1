"""Averaged weights (`use_ema`) are what a stage validates, keeps and hands back, as in Keras."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from unfreeze import Schedule, ScheduleError, Stage, UnfreezeSchedule, fit
from unfreeze.core.callbacks import StageCallback
from unfreeze.errors import Stopped

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = np.arange(40) % 3
HELD = (X[:20] + 0.1, Y[:20])


def make() -> keras.Model:
    keras.utils.set_random_seed(2)
    x = keras.Input((6,))
    y = layers.Dense(8, "tanh", name="mid")(x)
    return keras.Model(x, layers.Dense(3, "softmax", name="top")(y))


def adam(**more) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.8, **more)


def stage(optimizer, **more) -> Stage:
    settings = {"epochs": 6, "keep": "last", "learning_rate": 0.02, "batch_size": 40}
    return Stage("all", train="all", optimizer=optimizer, **{**settings, **more})


def keras_alone(optimizer, epochs: int = 6) -> keras.Model:
    """The same steps in Keras' own `fit`: each epoch is one batch of all samples."""
    model = make()
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(X, Y, batch_size=40, epochs=epochs, shuffle=False, verbose=0)
    return model


@functools.cache
def without_averages() -> np.ndarray:
    """The first weights after the same stage of an optimizer that keeps no averages."""
    plain = make()
    fit(plain, [stage(keras.optimizers.Adam())], (X, Y), seed=0, verbose=0)
    return plain.get_weights()[0]


def assert_close(model, other, **more) -> None:
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, **{"atol": 2e-5, **more})


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("overwrite", [None, 2])
def test_a_stage_ends_with_the_averages_of_keras(overwrite, validated):
    model, held = make(), HELD if validated else None
    chosen = adam(ema_overwrite_frequency=overwrite)
    result = fit(model, [stage(chosen)], (X, Y), validation_data=held, seed=0, verbose=0)
    assert_close(model, keras_alone(adam(ema_overwrite_frequency=overwrite)))
    assert np.abs(model.get_weights()[0] - without_averages()).max() > 1e-3
    if validated:
        loss = model.evaluate(*HELD, verbose=0, return_dict=True)["loss"]
        assert result.history[-1]["val_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_averages_of_each_epoch_are_validated():
    result = fit(make(), [stage(adam())], (X, Y), validation_data=HELD, seed=0, verbose=0)
    for epochs in (1, 3):
        known = keras_alone(adam(), epochs)
        loss = known.evaluate(*HELD, verbose=0, return_dict=True)["loss"]
        assert result.history[epochs - 1]["val_loss"] == pytest.approx(loss, rel=1e-4)


def test_callbacks_and_scores_see_the_averages_and_training_does_not():
    seen, scored = [], []
    model = make()

    class See(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(model.predict(HELD[0], verbose=0))

    def score(outputs):
        scored.append(outputs)
        return {"size": float(len(outputs))}

    fit(
        model,
        [stage(adam())],
        (X, Y),
        validation_data=HELD,
        seed=0,
        verbose=0,
        callbacks=[See()],
        validation_scores=score,
    )
    np.testing.assert_allclose(seen, scored, atol=1e-6)
    np.testing.assert_allclose(
        seen[2], keras_alone(adam(), 3).predict(HELD[0], verbose=0), atol=2e-5
    )


def test_the_best_epoch_comes_back_as_it_was_validated():
    chosen = stage(adam(), keep="best", epochs=12, learning_rate=0.3)
    model, held = make(), (HELD[0], (HELD[1] + 1) % 3)
    result = fit(model, [chosen], (X, Y), validation_data=held, seed=0, verbose=0)
    best = result.stages[0]
    assert best.best_epoch < 12
    loss = model.evaluate(*held, verbose=0, return_dict=True)["loss"]
    assert best.best_value == pytest.approx(loss, rel=1e-5)


def test_together_with_rates_by_layer():
    model = make()
    fit(model, [stage(adam(), layer_decay=0.5)], (X, Y), validation_data=HELD, seed=0, verbose=0)
    assert_close(model, keras_alone(_layered(adam())))


def _layered(template):
    from unfreeze.core.optimizers import LayerRates

    paths = [("mid/kernel", 0.5), ("mid/bias", 0.5), ("top/kernel", 1.0), ("top/bias", 1.0)]
    return LayerRates(template, paths)


@pytest.mark.slow_on("jax")
@pytest.mark.on_each_backend
def test_a_cached_stage_and_several_steps():
    model = make()
    chosen = Stage("head", train="head", epochs=4, optimizer=adam(), batch_size=8, cache="always")
    result = fit(model, [chosen], (X, Y), validation_data=HELD, seed=0, verbose=0)
    assert result.stages[0].cache.startswith("cached")
    loss = model.evaluate(*HELD, verbose=0, return_dict=True)["loss"]
    assert result.stages[0].best_value == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("overwrite", [None, 2])
def test_inside_a_fit_of_ones_own(overwrite):
    model = make()
    model.compile(adam(ema_overwrite_frequency=overwrite), "sparse_categorical_crossentropy")
    stages = [
        Stage("first", train="all", epochs=4, learning_rate=0.02),
        Stage("second", train="head", epochs=2, learning_rate=1e-5),
    ]
    callback = UnfreezeSchedule(Schedule(tuple(stages), monitor="loss"))
    history = model.fit(
        X, Y, batch_size=40, epochs=6, validation_data=HELD, verbose=0, callbacks=[callback]
    ).history
    known = keras_alone(adam(ema_overwrite_frequency=overwrite), 4)
    loss = known.evaluate(*HELD, verbose=0, return_dict=True)["loss"]
    assert history["val_loss"][3] == pytest.approx(loss, rel=1e-4)
    mid = [m.get_layer("mid").get_weights()[0] for m in (model, known)]
    np.testing.assert_allclose(*mid, atol=2e-5)
    loss = model.evaluate(*HELD, verbose=0, return_dict=True)["loss"]
    best = callback.results[-1].best_epoch
    assert history["val_loss"][3 + best] == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow_on("jax")
def test_an_interrupted_stage_resumes_to_the_same_averages(tmp_path):
    class Stop(StageCallback):
        ended = 0

        def on_epoch_end(self, epoch, logs=None):
            self.ended = epoch + 1

        def wants_to_stop(self):
            return self.ended == 3

    whole, parts = make(), make()
    common = {"validation_data": HELD, "seed": 0, "verbose": 0}
    stages = [stage(adam())]
    fit(whole, stages, (X, Y), **common)
    with pytest.raises(Stopped):
        fit(parts, stages, (X, Y), run_dir=tmp_path, callbacks=[Stop()], **common)
    assert (tmp_path / "epoch.safetensors").is_file()
    result = fit(parts, stages, (X, Y), run_dir=tmp_path, **common)
    assert len(result.history) == 6
    assert_close(whole, parts, atol=0)


def test_mixed_precision_with_skipped_steps_keeps_no_zeros():
    keras.config.set_dtype_policy("mixed_float16")
    model = make()
    wrapped = keras.optimizers.LossScaleOptimizer(adam(), initial_scale=2.0**40)
    before = model.get_weights()
    fit(model, [stage(wrapped, epochs=40)], (X, Y), validation_data=HELD, seed=0, verbose=0)
    assert np.abs(model.get_weights()[0]).max() > 0.1
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_a_second_swap_is_refused():
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    with pytest.raises(ScheduleError, match="SwapEMAWeights: a stage validates and keeps the aver"):
        fit(make(), [stage(adam())], (X, Y), callbacks=[swap], verbose=0)
    with pytest.raises(ScheduleError, match="SwapEMAWeights"):
        UnfreezeSchedule([Stage("all", train="all", epochs=1, callbacks=(swap,))])
