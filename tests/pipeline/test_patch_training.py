"""What the training of patches weighs and scores."""

import numpy as np
import pytest

from toy import build_toy
from unfreeze.audio.augmentation import AUGMENTATIONS
from unfreeze.audio.clip_model import patch_model
from unfreeze.core.graph import flatten
from unfreeze.core.presets import preset
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.pipeline.patch_training import (
    clip_scorer,
    tap_names,
    with_caches,
)

LABELS = np.array([0, 1, 1, 2, 0, 2])  # of six clips
# Patches of the clips 0, 1, 2 and 4: one, two, three and one of them.
CLIP = np.array([0, 1, 1, 2, 2, 2, 4])
SCORES = np.array(
    [
        [0.6, 0.3, 0.1],
        # The first patch alone is wrong, the mean of both is right.
        [0.5, 0.4, 0.1],
        [0.1, 0.8, 0.1],
        # Two patches of three are right, the mean is wrong.
        [0.4, 0.5, 0.1],
        [0.4, 0.5, 0.1],
        [0.9, 0.0, 0.1],
        [0.2, 0.3, 0.5],
    ]
)


def test_scores_are_of_clips_not_of_patches():
    found = clip_scorer(LABELS, CLIP)(SCORES)
    # Clips 0 and 1 are right, 2 and 4 wrong: of class 0 one of two, of class 1 one of two.
    assert found["clip_accuracy"] == 0.5
    assert found["balanced_accuracy"] == 0.5
    likelihoods = [0.6, (0.4 + 0.8) / 2, (0.5 + 0.5 + 0.0) / 3, 0.2]
    assert found["clip_loss"] == pytest.approx(-np.log(likelihoods).mean())
    # The loss of each clip is that of its patches, not of their mean.
    names = {"clip_accuracy", "balanced_accuracy", "clip_loss", "loss_error"}
    assert set(found) == names
    assert {type(value) for value in found.values()} == {float}


def test_the_error_of_the_loss_is_that_of_a_weighted_mean_over_clips():
    found = clip_scorer(LABELS, CLIP)(SCORES)["loss_error"]
    losses = -np.log(np.maximum(SCORES[np.arange(7), LABELS[CLIP]], 1e-7))
    clips = [losses[clip == CLIP].mean() for clip in (0, 1, 2, 4)]
    counts = np.array([1, 2, 3, 1])
    mean = np.average(clips, weights=counts)
    assert found == pytest.approx(np.sqrt(((counts * (clips - mean)) ** 2).sum()) / 7)
    # Where each clip counts the same, it is the usual standard error.
    weights = 1 / np.bincount(CLIP)[CLIP]
    equal = clip_scorer(LABELS, CLIP, weights)(SCORES)["loss_error"]
    assert equal == pytest.approx(np.std(clips) / 2)


def test_balanced_accuracy_is_the_mean_over_the_classes_that_occur():
    labels = np.array([0, 0, 0, 2])
    scores = np.eye(3)[[0, 0, 1, 2]]
    found = clip_scorer(labels, np.arange(4))(scores)
    assert found["clip_accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_a_likelihood_of_zero_costs_much_but_not_everything():
    found = clip_scorer(np.array([1, 0]), np.arange(2))(np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert found["clip_loss"] == pytest.approx(-np.log(1e-7) / 2)
    assert found["clip_accuracy"] == 0.5


def test_the_order_of_patches_does_not_matter():
    order = np.random.default_rng(0).permutation(len(CLIP))
    shuffled = clip_scorer(LABELS, CLIP[order])(SCORES[order])
    assert shuffled == pytest.approx(clip_scorer(LABELS, CLIP)(SCORES))


def augments(schedule, augmentation="strong") -> list[bool]:
    model = patch_model(build_toy(), 3, 0, "auto", AUGMENTATIONS[augmentation])
    return [stage.augment for stage in with_caches(flatten(model), schedule)]


def test_a_stage_that_is_cached_does_not_augment_and_others_do():
    assert augments(preset("probe_tune")) == [False, False, True]
    # Above the second block little is left to do; below the first there is nothing to cache.
    stages = [Stage("a", ["transfer_output"]), Stage("b", ["block2_*", "transfer_output"])]
    assert augments(Schedule((*stages, Stage("c")))) == [False, False, True]


def test_a_stage_with_views_or_without_a_cache_augments():
    views = Stage("a", ["transfer_output"], views=3)
    never = Stage("b", ["transfer_output"], cache="never")
    assert augments(Schedule((views, never))) == [True, True]


def test_the_option_for_taps_may_name_several():
    assert tap_names("auto") == "auto"
    assert tap_names("none") is None
    assert tap_names("block4*, block9*") == ["block4*", "block9*"]
