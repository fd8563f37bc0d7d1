"""Babble is computed, and heard as speech by a network that knows it."""

import numpy as np
import pytest

from unfreeze.audio.babble import make_babble
from unfreeze.audio.front_ends import patches_of
from unfreeze.backbones.registry import get_backbone

RATE = 16_000


@pytest.mark.parametrize("samples", [1, 79, 80, 401, 16_000, 46_081])
def test_it_has_any_length_and_follows_from_the_seed(samples):
    for seed in range(4):
        sound = make_babble(samples, np.random.default_rng(seed))
        assert sound.shape == (samples,)
        assert np.isfinite(sound).all()
        np.testing.assert_array_equal(sound, make_babble(samples, np.random.default_rng(seed)))


def test_it_has_syllables_and_pauses_and_no_two_are_alike():
    rng = np.random.default_rng(2)
    sounds = [make_babble(3 * RATE, rng) for _ in range(12)]
    levels = np.array([[np.std(part) for part in np.split(x / x.std(), 150)] for x in sounds])
    # Of 20 ms pieces some are far below the sound's level and some are far above it.
    assert (levels < 0.2).any(axis=1).all()
    assert (levels > 1.5).any(axis=1).all()
    likeness = np.corrcoef(np.abs(np.stack(sounds)))[np.triu_indices(12, 1)]
    assert np.abs(likeness).max() < 0.2


def test_yamnet_hears_speech(yamnet_weights):
    backbone = get_backbone("yamnet")
    model = backbone.build_published(weights=yamnet_weights)
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(24):
        sound = make_babble(3 * RATE, rng)
        patches = patches_of((0.03 * sound / sound.std()).astype(np.float32), backbone.front_end)
        scores.append(np.asarray(model.predict_on_batch(patches)).mean(axis=0))
    names = backbone.published_classes()
    speech = np.array(scores)[:, names.index("Speech")]
    assert speech.mean() > 0.7
    assert [names[one.argmax()] for one in scores].count("Speech") >= 22
