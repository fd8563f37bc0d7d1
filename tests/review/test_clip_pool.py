"""Recordings divided into clips, with the scores of an index."""

from pathlib import Path

import numpy as np
import pytest

from reviewing import write_index
from unfreeze.pipeline.vector_head import VectorHead
from unfreeze.review.clip_pool import (
    clip_edges,
    make_pool,
    overlapping,
    scored_again,
    similarities,
    without,
)
from unfreeze.review.quick_head import QuickHead


@pytest.fixture
def index(tmp_path):
    return write_index(tmp_path / "index", {"a.wav": 10.0, "b.wav": 0.5, "c.wav": 6.5})


def test_clips_do_not_overlap_and_cover_all(index):
    pool = make_pool(index, 3.0)
    assert [path.name for path in pool.recordings] == ["a.wav", "b.wav", "c.wav"]
    places = [(path.name, start, end) for path, start, end in map(pool.place, range(len(pool)))]
    assert places == [
        ("a.wav", 0.0, 3.0), ("a.wav", 3.0, 6.0), ("a.wav", 6.0, 10.0),
        ("b.wav", 0.0, 0.5), ("c.wav", 0.0, 3.0), ("c.wav", 3.0, 6.5),
    ]  # fmt: skip
    assert pool.rows[0] == 0
    assert pool.rows[-1] == index.rows


@pytest.mark.parametrize("seconds", [0.01, 0.5, 2.9, 3.0, 3.9, 4.1, 61.3, 3600.0])
def test_the_last_clip_is_no_scrap(seconds):
    edges = clip_edges(seconds, 3.0)
    assert (edges[0], edges[-1]) == (0.0, seconds)
    lengths = np.diff(edges)
    assert lengths.min() >= min(seconds, 1.0 - 1e-9)
    assert lengths.max() <= 4.0 + 1e-9


def test_a_clip_has_the_largest_scores_of_the_windows_in_its_middle(index):
    pool = make_pool(index, 3.0)
    scores = index.scores(0, index.rows)
    for clip in range(len(pool)):
        _, start, end = pool.place(clip)
        rows = []
        for row in range(index.rows):
            place = index.place(row)
            middle = (place.start + place.end) / 2
            same = place.recording == pool.place(clip)[0]
            if same and start <= middle < end:
                rows.append(row)
        assert rows == list(range(*pool.rows[clip : clip + 2]))
        assert np.array_equal(pool.scores[clip], scores[rows].max(axis=0))


def test_background_is_never_asked_for(index):
    pool = make_pool(index, 3.0)
    assert set(pool.likeliest()) <= {1, 2}
    assert np.array_equal(pool.likeliest(), 1 + pool.scores[:, 1:].argmax(axis=1))


def test_certainty_is_the_margin_or_the_distance_from_a_half(tmp_path, index):
    pool = make_pool(index, 3.0)
    two = np.sort(pool.scores.astype(float), axis=1)[:, -2:]
    assert np.allclose(pool.certainty(), two[:, 1] - two[:, 0], atol=1e-3)
    several = make_pool(write_index(tmp_path / "s", {"a.wav": 10.0}, several=True), 3.0)
    expected = 2 * np.abs(several.scores.astype(float) - 0.5).min(axis=1)
    assert np.allclose(several.certainty(), expected, atol=1e-3)


@pytest.mark.parametrize(("label", "columns"), [("cat", [1]), ("owl", [1, 2])])
def test_likeness_is_that_of_the_most_similar_window(index, label, columns):
    pool = make_pool(index, 3.0)
    alike = similarities(index, pool, 2, label)
    vectors = index.vectors(0, index.rows).astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, last = pool.rows[2:4]
    best = first + index.scores(first, last)[:, columns].max(axis=1).argmax()
    cosines = vectors @ vectors[best]
    expected = [cosines[a:b].max() for a, b in zip(pool.rows, pool.rows[1:], strict=False)]
    assert np.allclose(alike, expected, atol=1e-3)
    assert alike[2] == pytest.approx(1, abs=1e-3)


def test_a_new_head_gives_all_clips_its_scores_and_classes(index):
    pool = make_pool(index, 3.0)
    rng, labels = np.random.default_rng(0), ("cat", "dog", "owl")
    heads = [VectorHead(rng.normal(size=(8, 3)), np.zeros(3), False) for _ in range(2)]
    quick = QuickHead(heads[0], labels, heads[1], index.labels, index.labels, "encoder")
    again = scored_again(index, pool, quick)
    assert again.labels == ("background", "cat", "dog", "owl")
    rows = quick.scores(
        index.vectors(0, index.rows).astype(np.float32), index.scores(0, index.rows)
    )
    expected = [rows[a:b].max(axis=0) for a, b in zip(pool.rows, pool.rows[1:], strict=False)]
    assert np.allclose(again.scores, expected, atol=1e-3)
    assert np.array_equal(again.start, pool.start)


def test_clips_are_found_by_their_place_and_recording(index):
    pool = make_pool(index, 3.0)
    file = pool.recordings[0]
    assert overlapping(pool, file, 3.0, 6.0) == [1]
    assert overlapping(pool, file, 2.0, 6.5) == [0, 1, 2]
    assert overlapping(pool, Path("/elsewhere.wav"), 0.0, 9.0) == []
    assert without(pool, {file: "used"}).tolist() == [False] * 3 + [True] * 3
