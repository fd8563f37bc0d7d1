"""Label errors and outliers, from descriptions whose answer is known."""

import numpy as np
import pytest

from unfreeze.pipeline.odd_clips import (
    Doubt,
    find_doubts,
    find_several,
    likeness,
    out_of_fold,
    outliers,
)

LABELS = ("cat", "dog", "owl")


@pytest.fixture
def clips():
    """Sixty clips of three classes in clusters of their own, in folds of whole groups."""
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    features = 3 * np.eye(3)[truth] @ rng.normal(size=(3, 20)) + rng.normal(size=(60, 20))
    return features.astype("f4"), truth, np.arange(60) // 3 % 5


def test_a_wrong_label_is_found_with_the_right_one(clips):
    features, truth, fold = clips
    given = truth.copy()
    given[[6, 31]] = [2, 0]  # a cat called owl, a dog called cat
    heard = np.eye(3)[given]
    scores = out_of_fold(features, heard, fold, several=False)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
    numbers = np.arange(100, 160)
    found = find_doubts(scores, heard, numbers, LABELS)
    assert {(d.clip, d.label, d.suggested) for d in found} == {
        (106, "owl", "cat"), (131, "cat", "dog"),
    }  # fmt: skip
    for doubt in found:
        assert doubt.score == scores[doubt.clip - 100, LABELS.index(doubt.label)]
        assert doubt.suggested_score > 0.6 > 0.4 > doubt.score
    right = np.eye(3)[truth]
    assert find_doubts(out_of_fold(features, right, fold, False), right, numbers, LABELS) == []


def test_a_class_that_only_one_fold_has_is_in_no_doubt(clips):
    features, truth, fold = clips
    truth = np.where(fold == 0, truth, truth % 2)
    heard = np.eye(3)[truth]
    scores = out_of_fold(features, heard, fold, several=False)
    assert np.isnan(scores[fold == 0, 2]).all()
    found = find_doubts(scores, heard, np.arange(60), LABELS)
    assert all(doubt.label != "owl" for doubt in found)


def test_several_labels_are_in_doubt_one_by_one(clips):
    features, truth, fold = clips
    heard = np.eye(3)[truth]
    heard[7, 1], heard[8, 0], heard[9, 0] = 0, 1, -1  # a dog missed, a cat made up, one unknown
    scores = out_of_fold(features, heard, fold, several=True)
    found = find_several(scores, heard, np.arange(60), LABELS)
    assert {(d.clip, d.label, d.suggested) for d in found} == {(7, None, "dog"), (8, "cat", None)}
    missed = next(d for d in found if d.clip == 7)
    assert missed == Doubt(7, None, "dog", 1 - missed.suggested_score, scores[7, 1])


def test_the_oddest_are_far_from_their_class_or_from_all(clips):
    features, truth, _ = clips
    features = features - features.mean(axis=0)
    features[10] = 50.0
    truth[12] = 1  # among the cats, labelled dog
    like = likeness(features, np.arange(60), truth)
    odd = outliers(like, features)
    assert len(odd) == len(set(odd.tolist())) == 6
    assert {10, 12} <= set(odd[:4].tolist())
