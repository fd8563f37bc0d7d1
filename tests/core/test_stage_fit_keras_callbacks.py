"""Keras' own callbacks in stages, and what a run leaves behind."""

import gc
import weakref

import keras
import numpy as np
import pytest

from small_runs import HEAD, X, Y, assert_same_weights, make, run
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.schedule import Stage
from unfreeze.core.step_model import StepModel

# These sit above the backend, and JAX compiles for long.
pytestmark = [
    pytest.mark.slow_on("jax"),
    pytest.mark.several_steps,
    pytest.mark.on_each_backend,
]


def test_keras_callbacks_work_in_stages(tmp_path):
    def half(epoch, rate):
        return rate / 2

    model = make()
    stages = [Stage("a", "head", epochs=3), Stage("b", "all", epochs=2, learning_rate=1e-3)]
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "w.weights.h5", save_weights_only=True),
        keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True),
        keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True),
        keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=10.0),
        keras.callbacks.LearningRateScheduler(half),
        keras.callbacks.TerminateOnNaN(),
    ]
    result = run(model, stages, callbacks=callbacks)
    saved = keras.models.load_model(tmp_path / "best.keras")
    assert [layer.name for layer in saved.layers] == [layer.name for layer in model.layers]
    assert saved(X[:2]).shape == (2, 2)
    make().load_weights(tmp_path / "w.weights.h5")
    assert len((tmp_path / "log.csv").read_text().splitlines()) >= 5
    rates = [row["learning_rate"] for row in result.history]
    assert rates[1] < rates[0] < 1e-3
    assert len(result.history) == 5


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    run(schedule=HEAD, callbacks=[board])
    assert list(tmp_path.rglob("events.out.tfevents.*"))


@pytest.mark.slow_on("tensorflow")
def test_stage_callbacks_hear_of_everything():
    heard = []

    class Listener(StageCallback):
        def on_stage_begin(self, plan):
            heard.append(("begin", plan.stage))

        def on_cache(self, what, done, total):
            heard.append((what, done, total))

        def on_stage_end(self, result):
            heard.append(("end", result.stage))

    run(callbacks=[Listener()])
    assert heard == [
        ("begin", "head"),
        ("train", 24, 24),
        ("validation", 8, 8),
        ("end", "head"),
        ("begin", "all"),
        ("end", "all"),
    ]


@pytest.mark.slow_on("tensorflow")
def test_a_stages_own_callbacks_are_used_in_it_alone():
    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            type(self).epochs += 1

    stages = [Stage("a", "head", epochs=2, callbacks=[Count]), Stage("b", "head", epochs=3)]
    run(schedule=stages)
    assert Count.epochs == 2


def test_repeated_runs_leave_nothing_on_the_model(tmp_path):
    model = make()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    made = weakref.WeakSet()
    original = StepModel.__init__

    def remember(self, *args, **kwargs):
        original(self, *args, **kwargs)
        made.add(self)

    StepModel.__init__ = remember
    try:
        for _ in range(2):
            run(model)
    finally:
        StepModel.__init__ = original
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    # The last stage's model may live on in the optimizer's or the backend's caches.
    keras.backend.clear_session()
    gc.collect()
    assert len(made) <= 3
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same_weights(clone, model)
    model.fit(X, Y, verbose=0)  # goes on as a plain Keras model
