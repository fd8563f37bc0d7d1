import keras
import numpy as np
import pytest

from unfreeze.core.objective import KnownBinaryCrossentropy

RNG = np.random.default_rng(0)
TRUTH = (RNG.random((6, 3)) > 0.5).astype("float32")
GUESS = RNG.uniform(0.1, 0.9, (6, 3)).astype("float32")


def test_with_all_labels_known_it_is_that_of_keras() -> None:
    ours = KnownBinaryCrossentropy()(TRUTH, GUESS)
    assert float(ours) == pytest.approx(float(keras.losses.BinaryCrossentropy()(TRUTH, GUESS)))


def test_what_is_not_known_counts_for_nothing() -> None:
    some = TRUTH.copy()
    some[:2, 1] = -1
    each = -np.where(some > 0.5, np.log(GUESS), np.log(1 - GUESS)) * (some >= 0)
    assert float(KnownBinaryCrossentropy()(some, GUESS)) == pytest.approx(each.mean(), rel=1e-5)
    other = GUESS.copy()
    other[:2, 1] = 0.99
    assert float(KnownBinaryCrossentropy()(some, other)) == pytest.approx(each.mean(), rel=1e-5)


def test_sides_and_sample_weights() -> None:
    sides = np.array([[1, 2], [0.5, 1], [1, 1]])
    loss = KnownBinaryCrossentropy(sides)
    weights = np.where(TRUTH > 0.5, sides[:, 1], sides[:, 0])
    each = (-np.where(TRUTH > 0.5, np.log(GUESS), np.log(1 - GUESS)) * weights).mean(axis=1)
    assert float(loss(TRUTH, GUESS)) == pytest.approx(each.mean(), rel=1e-5)
    samples = np.array([0, 1, 2, 1, 1, 1], "float32")
    weighted = float(loss(TRUTH, GUESS, sample_weight=samples))
    assert weighted == pytest.approx((each * samples).mean(), rel=1e-5)
    again = KnownBinaryCrossentropy.from_config(loss.get_config())
    assert float(again(TRUTH, GUESS)) == pytest.approx(float(loss(TRUTH, GUESS)))
