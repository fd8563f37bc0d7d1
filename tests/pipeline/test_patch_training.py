"""What the training of patches weighs and scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from toy import build_toy
from unfreeze.audio.augmentation import AUGMENTATIONS, Augmentation
from unfreeze.audio.clip_model import mixup_of, patch_model
from unfreeze.core.data import ShuffledRows
from unfreeze.core.graph import flatten
from unfreeze.core.presets import preset
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.pipeline.patch_training import (
    clip_scorer,
    fit_patches,
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


class Patches:
    """Patches in memory, as a `PatchView`: half of the bands hold each label, 1 or 0."""

    def __init__(self, clip, truth):
        self.clip = np.asarray(clip)
        halves = np.repeat(truth[self.clip], 32, axis=1)
        self.values = np.repeat(halves[:, None], 96, axis=1).astype(np.float32)
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def __len__(self):
        return len(self.clip)

    def __getitem__(self, rows):
        return self.values[rows]


@pytest.mark.parametrize("several", [False, True])
def test_mixup_mixes_labels_as_patches(several, monkeypatch, tmp_path):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path))
    words = ["a", "b", "a;b" if several else "a"]
    clips = [SimpleNamespace(label=words[n % 3]) for n in range(40)]
    manifest = SimpleNamespace(
        clips=clips, labels=("a", "b"), several=several, classes_of=lambda c: c.label.split(";")
    )
    truth = np.array([[float(x in clip.label) for x in "ab"] for clip in clips])
    clip = np.repeat(np.arange(30), 2)
    parts = {"train": Patches(clip, truth), "validation": Patches(np.arange(30, 40), truth)}
    activation = "sigmoid" if several else "softmax"
    model = patch_model(build_toy(), 2, 0, None, Augmentation(mixup=0.5), activation)
    assert mixup_of(model) == 0.5
    seen, plain = [], ShuffledRows._batch

    def batch(self, index):
        made = plain(self, index)
        seen.append((self.seed is None, *made))
        return made

    monkeypatch.setattr(ShuffledRows, "_batch", batch)
    stage = Stage("all", train="*", epochs=2, cache="never", learning_rate=1e-4)
    fit_patches(model, Schedule((stage,)), manifest, parts, seed=0)
    for held, _, y, *_ in seen:
        assert not held or set(np.unique(y)) == {0, 1}
    mixed = [batch[1:] for batch in seen if not batch[0]]
    shares, y = (np.concatenate([part[n] for part in mixed]) for n in (0, 1))
    shares = shares.reshape(len(y), 96, 2, 32).mean(axis=(1, 3))
    assert ((shares > 0.01) & (shares < 0.99)).any(axis=1).sum() > 20
    if several:
        np.testing.assert_allclose(y, shares, atol=1e-5)
        return
    # By weights of classes: each clip's part in the loss is its share times its class's weight.
    balanced = len(clip) / (2 * np.bincount(truth[clip].argmax(axis=1)))
    weight = np.concatenate([part[2] for part in mixed])
    np.testing.assert_allclose(weight[:, None] * y, shares * balanced, rtol=1e-4, atol=1e-5)


def test_a_stage_on_a_cache_mixes_its_views_alone():
    model = patch_model(build_toy(), 3, 0, "auto", Augmentation(mixup=0.5))
    stages = (Stage("a", train="head", solve=True), Stage("b", train="head", views=3))
    assert [stage.augment for stage in with_caches(flatten(model), Schedule(stages))] == [
        *(False, True)
    ]
