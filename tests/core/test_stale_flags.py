"""The common mistake, on each backend: flags changed, and no new `compile`."""

from typing import Any

import keras
import numpy as np
import pytest

from unfreeze.core.optimizers import stage_optimizer
from unfreeze.core.stale_flags import DetectStaleFlags, check_compiled
from unfreeze.errors import StageError

pytestmark = pytest.mark.on_each_backend

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4)).astype("float32")
Y = RNG.integers(0, 2, 16)


def model_of(affine: bool = True) -> keras.Model:
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="base")(inputs)
    x = layers.BatchNormalization(name="norm", center=affine, scale=affine)(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="top")(x), name="small")


def compiled(model: keras.Model, optimizer: Any = "sgd", **more: Any) -> keras.Model:
    model.compile(optimizer, "sparse_categorical_crossentropy", **more)
    return model


def fit(model: keras.Model, *callbacks: keras.callbacks.Callback, epochs: int = 1) -> Any:
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks))


def weights(layer: Any) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(w)) for w in layer.weights]


def frozen_and_fitted(optimizer: Any = "sgd", **more: Any) -> keras.Model:
    model = model_of()
    model.get_layer("base").trainable = False
    compiled(model, optimizer, **more)
    fit(model)
    return model


def test_unfreezing_without_a_new_compile_is_detected_and_trains_nothing() -> None:
    model = frozen_and_fitted()
    base = model.get_layer("base")
    before = weights(base)
    base.trainable = True
    with pytest.raises(StageError, match=r"unfrozen without a new compile.*: base; compile the mo"):
        check_compiled(model)
    with pytest.raises(StageError, match=r"unfrozen without a new compile.*: base; compile the mo"):
        fit(model, DetectStaleFlags())
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(base), strict=True))


def test_freezing_without_a_new_compile_is_detected() -> None:
    model = compiled(model_of())
    fit(model)
    model.get_layer("base").trainable = False
    with pytest.raises(StageError, match=r"frozen without a new compile.*could train on: base;"):
        check_compiled(model)
    with pytest.raises(StageError, match="frozen without a new compile"):
        fit(model, DetectStaleFlags())


def test_a_new_compile_heals_it() -> None:
    model = frozen_and_fitted()
    base = model.get_layer("base")
    base.trainable = True
    compiled(model)
    check_compiled(model)
    before = weights(base)
    fit(model, DetectStaleFlags(), epochs=2)
    assert all(not np.array_equal(a, b) for a, b in zip(before, weights(base), strict=True))
    check_compiled(model)


def test_flags_set_between_compile_and_the_first_fit_are_fine() -> None:
    """Keras builds the optimizer in `fit`, so nothing is stale yet."""
    model = compiled(model_of())
    model.get_layer("base").trainable = False
    check_compiled(model)
    before = weights(model.get_layer("base"))
    fit(model, DetectStaleFlags())
    after = weights(model.get_layer("base"))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def _multi() -> Any:
    chosen = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(), {"(.*/)?top/.*": keras.optimizers.SGD(0.1)}
    )
    return keras.optimizers.MultiOptimizer(chosen)


@pytest.mark.parametrize("kind", ["multi", "loss scale", "layer rates", "adam"])
def test_all_kinds_of_optimizers(kind: str) -> None:
    model = model_of()
    base = model.get_layer("base")
    base.trainable = False
    made = {
        "multi": _multi,
        "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        "layer rates": lambda: stage_optimizer(
            "sgd", 0.1, model.trainable_variables, {id(model.get_layer("top").kernel): 0.5}
        ),
        "adam": lambda: "adam",
    }[kind]()
    compiled(model, made)
    fit(model, DetectStaleFlags())
    check_compiled(model)
    base.trainable = True
    with pytest.raises(StageError, match=r"unfrozen.*: base;"):
        check_compiled(model)


def test_not_compiled() -> None:
    with pytest.raises(StageError, match="'small' is not compiled"):
        check_compiled(model_of())
    model = model_of()
    model.compile(optimizer=None, loss="mse")
    with pytest.raises(StageError, match="is not compiled"):
        check_compiled(model)


def test_an_optimizer_that_was_built_for_another_selection() -> None:
    model = frozen_and_fitted()
    model.get_layer("base").trainable = True
    compiled(model, model.optimizer)
    with pytest.raises(StageError, match="unfrozen without a new compile"):
        fit(model, DetectStaleFlags())


class _At(keras.callbacks.Callback):
    """Does something to the model at the start of an epoch."""

    def __init__(self, epoch: int, action: Any) -> None:
        super().__init__()
        self.epoch, self.action, self.epochs_run = epoch, action, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            self.action(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs_run += 1


def test_a_callback_that_unfreezes_during_fit_is_caught_before_the_next_step() -> None:
    """The wide-spread recipe: set the flag in a callback, and trust that it works."""
    model = model_of()
    model.get_layer("base").trainable = False
    compiled(model)

    def unfreeze(model: keras.Model) -> None:
        model.get_layer("base").trainable = True

    culprit = _At(1, unfreeze)
    with pytest.raises(StageError, match=r"unfrozen.*: base;"):
        fit(model, DetectStaleFlags(), culprit, epochs=3)
    assert culprit.epochs_run == 1


def test_compiling_during_fit_is_caught() -> None:
    model = compiled(model_of())
    with pytest.raises(StageError, match="compiled the model during `fit`"):
        fit(model, DetectStaleFlags(), _At(1, compiled), epochs=2)


def test_batch_norm_without_gamma_and_beta_switched_to_inference() -> None:
    """No trainable variable tells of it, only the watch over the layer's flag."""
    model = compiled(model_of(affine=False))
    detector = DetectStaleFlags()
    fit(model, detector)
    model.get_layer("norm").trainable = False
    check_compiled(model)
    with pytest.raises(StageError, match=r"between training and inference.*: norm;"):
        fit(model, detector)
    compiled(model)
    fit(model, detector)
