"""Several steps a call where that pays, one where somebody listens to batches."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from small_runs import assert_same_weights, make, run, whole
from unfreeze.core.boundary import find_cut
from unfreeze.core.callbacks import StageCallback
from unfreeze.core.data import Rows, ShuffledRows
from unfreeze.core.graph import flatten
from unfreeze.core.stage_fit import feed_by_threads, hears_batches, steps_a_call
from unfreeze.core.step_model import joined_model

pytestmark = [pytest.mark.several_steps, pytest.mark.on_each_backend]

SEVERAL = 16 if keras.backend.backend() == "tensorflow" else 1


def ready(model: keras.Model, batch_size=32):
    cut = find_cut(flatten(model), {id(v) for v in model.weights})
    rows = Rows((np.ones((64, *model.input_shape[1:])),), np.ones(64), None, 64)
    feed = ShuffledRows(rows, batch_size, 0)
    return SimpleNamespace(model=joined_model(cut, model, frozenset()), train=feed, cut=cut)


def dense_model(units=16) -> keras.Model:
    x = keras.Input((1024,))
    return keras.Model(x, layers.Dense(units)(x))


def conv_model() -> keras.Model:
    x = keras.Input((64, 64, 16))
    return keras.Model(x, layers.Conv2D(64, 3)(x))


class Listener(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


class Display(StageCallback):
    def on_train_batch_end(self, batch, logs=None):
        pass


def test_small_steps_go_together():
    assert steps_a_call(ready(dense_model()), []) == SEVERAL
    assert steps_a_call(ready(dense_model()), [Display()]) == SEVERAL


def test_large_steps_go_alone():
    assert steps_a_call(ready(conv_model()), []) == 1
    assert steps_a_call(ready(dense_model(2048), batch_size=64), []) == 1


def test_a_callback_that_hears_batches_hears_each():
    assert steps_a_call(ready(dense_model()), [Listener()]) == 1


def test_large_steps_are_fed_by_threads_and_small_ones_are_not():
    for model, wanted in ((conv_model(), SEVERAL > 1), (dense_model(), False)):
        stage = ready(model)
        stage.validation = None
        feed_by_threads(stage)
        assert (stage.train.workers > 1) == wanted


@pytest.mark.slow_on("jax")
def test_threads_change_nothing_in_a_run(monkeypatch):
    alone, threads = whole().model, make()
    monkeypatch.setattr("unfreeze.core.stage_fit.has_small_steps", lambda stage: False)
    result = run(threads)
    assert_same_weights(alone, threads)
    assert len(result.history) == 4


def test_streams_of_unknown_size_go_step_by_step():
    stage = ready(dense_model())
    stage.train = object()
    assert steps_a_call(stage, []) == 1


@pytest.mark.parametrize(
    ("callback", "hears"),
    [
        (keras.callbacks.Callback(), False),
        (keras.callbacks.EarlyStopping(), False),
        (keras.callbacks.CSVLogger("log.csv"), False),
        (keras.callbacks.ReduceLROnPlateau(), False),
        (keras.callbacks.TerminateOnNaN(), True),
        (Listener(), True),
        (Display(), False),
        (StageCallback(), False),
        (keras.callbacks.LambdaCallback(on_train_batch_end=print), True),
        (keras.callbacks.LambdaCallback(on_epoch_end=print), False),
    ],
)
def test_who_hears_batches(callback, hears):
    assert hears_batches(callback) is hears
