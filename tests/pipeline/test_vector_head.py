"""A head on known vectors: the same as a dense layer's, and chosen on the validation clips."""

from pathlib import Path

import numpy as np
import pytest

from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.pipeline.vector_head import ClipVectors, VectorHead, solve_head

LABELS = ("cat", "dog", "owl")


def data(several=False, seed=0):
    """A manifest of 60 clips, and five vectors of each that its class moves."""
    rng = np.random.default_rng(seed)
    truth = np.arange(60) % 3
    clips = tuple(
        Clip(Path(f"{n}.wav"), LABELS[c], f"{n}", None, 1.0, 100, 1, f"{n}")
        for n, c in enumerate(truth)
    )
    clip = np.repeat(np.arange(60), 5)
    vectors = rng.normal(size=(300, 4)) + 2 * np.eye(3, 4)[truth[clip]]
    train = clip < 45
    parts = [ClipVectors(vectors[own].astype(np.float32), clip[own]) for own in (train, ~train)]
    return Manifest(Path(), clips, LABELS, (), "", several), *parts, truth


@pytest.mark.parametrize("several", [False, True])
def test_it_tells_the_classes_apart_and_its_strength_is_the_best_on_the_validation_clips(several):
    manifest, train, held, truth = data(several)
    head, strength = solve_head(manifest, train, held)
    scores = head.scores(held.vectors)
    assert (scores.argmax(axis=1) == truth[held.clip]).mean() > 0.85
    assert head.several is several
    if not several:
        assert np.allclose(scores.sum(axis=1), 1, atol=1e-6)
    # Without validation clips nothing can be chosen: the first is taken.
    none = ClipVectors(held.vectors[:0], held.clip[:0])
    assert solve_head(manifest, train, none)[1] == 0.01
    assert strength > 0.01


def test_where_vectors_lie_and_how_large_they_are_changes_nothing():
    manifest, train, held, _ = data()
    head, strength = solve_head(manifest, train, held)
    moved = [ClipVectors(100 * one.vectors + 7, one.clip) for one in (train, held)]
    other, same = solve_head(manifest, *moved)
    assert same == strength
    assert np.allclose(other.scores(moved[1].vectors), head.scores(held.vectors), atol=1e-3)


def test_large_logits_do_not_overflow():
    kernel, bias = np.array([[100.0, -100.0]], np.float32), np.zeros(2, np.float32)
    for several in (False, True):
        scores = VectorHead(kernel, bias, several).scores(np.array([[50.0], [-50.0]]))
        assert scores.tolist() == [[1.0, 0.0], [0.0, 1.0]]
