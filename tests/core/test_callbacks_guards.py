"""Guards that watch a stage."""

import keras
import numpy as np
import pytest
from keras import layers

from playing import model_stub, play
from unfreeze.core.callbacks import FirstEpochGuard, FlagGuard
from unfreeze.errors import StageError


def test_the_guard_waits_for_a_step_and_then_looks_once():
    checks = []
    model = model_stub()
    guard = FirstEpochGuard(lambda: checks.append(1))
    play([guard], [{"loss": np.nan}, {"loss": 1.0}], model)
    assert checks == []  # no step yet: mixed_float16 leaves out those that overflow
    model.optimizer.iterations.assign(1)
    play([guard], [{"loss": 1.0}, {"loss": 1.0}], model)
    assert checks == [1]


def test_the_guard_sees_through_loss_scaling():
    checks = []
    model = model_stub()
    inner = model.optimizer
    model.optimizer = keras.optimizers.LossScaleOptimizer(inner)
    model.optimizer.build([keras.Variable(1.0)])
    guard = FirstEpochGuard(lambda: checks.append(1))
    play([guard], [{"loss": 1.0}], model)
    assert checks == []  # the wrapper may have counted, but no step was taken
    inner.iterations.assign(1)
    play([guard], [{"loss": 1.0}], model)
    assert checks == [1]


def nested() -> keras.Model:
    x = keras.Input((3,))
    inner = keras.Sequential(
        [x, layers.Dense(2, name="dense"), layers.BatchNormalization(name="bn")], name="inner"
    )
    z = keras.Input((3,))
    return keras.Model(z, layers.Dense(1, name="head")(inner(z)))


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("place", ["layer", "variable"])
def test_a_changed_flag_is_found_and_its_layer_named(value, place):
    model = nested()
    bn = model.layers[1].layers[1]
    bn.trainable = not value
    guard = FlagGuard("probe", model)
    guard.check()
    if place == "layer":
        bn.trainable = value
    else:
        bn.gamma.trainable = value
    with pytest.raises(StageError, match=r"stage 'probe': `trainable` was changed.*bn"):
        guard.on_epoch_begin(1)
    if place == "layer":
        bn.trainable = not value
    else:
        bn.gamma.trainable = not value
    guard.check()
