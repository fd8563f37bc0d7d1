"""Places: like, unlike, of a class, uncertain; put together, and without the example's own."""

import numpy as np
import pytest

from made_index import NUMBERS, clustered, write_index
from unfreeze.errors import DataError, UnfreezeError
from unfreeze.search.queries import (
    Example,
    best_places,
    example_vectors,
    find_class,
    find_like,
    find_uncertain,
    find_unlike,
    ranking_of,
    rows_of,
)

A, B, C = np.eye(NUMBERS)[:3]


def near(*directions, by=0.1):
    """A row for each direction, a little off it, each in its own way."""
    rng = np.random.default_rng(len(directions))
    return np.stack([d + by * rng.normal(size=NUMBERS) / 4 for d in directions])


@pytest.fixture
def index(tmp_path):
    """Three recordings of A, B and C; a window each half a second, of a second."""
    rows = [near(A, B, B, C, A, A), near(B, B, C, C, C, C), near(A, 0 * A, C, B)]
    rows[2][1] = 0
    return write_index(tmp_path / "index", rows)


def where(found):
    return [(f.place.recording.name, f.place.start, f.place.end) for f in found]


def test_places_are_neighbouring_windows_and_not_the_example_itself(index, tmp_path):
    example = Example(index.recordings[0].path, 2.0, 3.0)
    # It is the window of row 4; those of rows 3 and 5 have half of it.
    np.testing.assert_array_equal(
        example_vectors(index, [example])[0], index.vectors(4, 5)[0].astype(np.float32)
    )
    found = find_like(index, [example], top=2)
    assert sorted(where(found)) == [("r0.wav", 0.0, 1.0), ("r2.wav", 0.0, 1.0)]
    assert found[0].score >= found[1].score > 0.98
    both = find_like(index, [Example(index.recordings[1].path, 1.0, 3.5)], top=2)
    assert sorted(where(both)) == [("r0.wav", 1.5, 2.5), ("r2.wav", 1.0, 2.0)]
    # A whole recording as example: none of its windows is listed.
    assert {name for name, *_ in where(find_like(index, [Example(index.recordings[1].path)]))} == {
        "r0.wav",
        "r2.wav",
    }


def test_an_example_by_another_name_of_its_file_is_not_found_itself(index, tmp_path):
    (tmp_path / "link.wav").symlink_to(index.recordings[1].path)
    # The recordings hold no sound: they are not read, since they are in the index.
    found = find_like(index, [Example(tmp_path / "link.wav")], top=9)
    assert {name for name, *_ in where(found)} == {"r0.wav", "r2.wav"}
    up = index.recordings[1].path.parent / ".." / "recordings" / "r1.wav"
    assert find_like(index, [Example(up)], top=9) == found


def test_each_of_several_examples_counts(index):
    examples = [
        Example(index.recordings[0].path, 0.0, 1.0),
        Example(index.recordings[0].path, 1.5, 2.5),
    ]
    found = find_like(index, examples, top=6)
    # The A of the third recording, the C of the second and of the third.
    rows = {item.row for item in found if item.score > 0.97}
    assert {12, 14} < rows
    assert rows & {8, 9, 10, 11}


def test_unlike_is_what_resembles_no_example(index):
    examples = [Example(index.recordings[0].path, 0.0, 1.0), Example(index.recordings[1].path, 1.0)]
    found = find_unlike(index, examples, top=3)
    # All B, neither the A nor the C; not the window of digital silence, nor what shares sound
    # with an example: the window from 0.5 s on of either recording.
    assert sorted(where(found)) == [
        ("r0.wav", 1.0, 2.0),
        ("r1.wav", 0.0, 1.0),
        ("r2.wav", 1.5, 2.5),
    ]
    assert all(0.7 < item.score < 1.3 for item in found)


@pytest.fixture
def scored(tmp_path):
    """Two recordings with the probabilities of three classes; row 6 is digital silence."""
    scores = np.array(
        [
            *([0.9, 0.1, 0.0], [0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.5, 0.45, 0.05]),
            *([0.2, 0.2, 0.6], [0.95, 0.05, 0.0], [0.0, 0.0, 0.0], [0.34, 0.33, 0.33]),
        ]
    )
    rows = clustered(8)
    return write_index(
        tmp_path / "index",
        [rows[:5], rows[5:]],
        scores=[scores[:5], scores[5:]],
        labels=("cat", "dog", "cow"),
    )


def test_a_class_is_found_where_its_probability_is_highest(scored):
    found = find_class(scored, "cat", top=2)
    # The second window of r0.wav, at 0.85, is nearly as good as the first; the third is not.
    assert where(found) == [("r1.wav", 0.0, 1.0), ("r0.wav", 0.0, 1.5)]
    assert [round(item.score, 2) for item in found] == [0.95, 0.9]
    # The third window adjoins that place: the next place is the one after it.
    assert where(find_class(scored, "cat", top=9))[2:] == [
        ("r0.wav", 1.5, 2.5),
        ("r1.wav", 1.0, 2.0),
    ]
    assert {item.label for item in found} == {"cat"}
    with pytest.raises(UnfreezeError, match=r"no class 'cta'; it has cat, dog, cow\. Did you mean"):
        find_class(scored, "cta")


def test_what_is_uncertain_has_a_small_margin_and_digital_silence_is_not(scored):
    found = find_uncertain(scored, top=2)
    assert where(found) == [("r1.wav", 1.0, 2.0), ("r0.wav", 1.5, 2.5)]
    np.testing.assert_allclose([item.score for item in found], [0.99, 0.95], atol=2e-3)
    assert [item.label for item in found] == ["cat", "cat"]


def test_where_classes_are_independent_a_half_is_uncertain(tmp_path):
    scores = np.array([[0.9, 0.9], [0.02, 0.45], [0.0, 0.0], [0.6, 0.1]])
    index = write_index(
        tmp_path / "i", [clustered(4)], scores=[scores], labels=("cat", "dog"), several=True
    )
    found = find_uncertain(index, top=1)
    assert (found[0].row, round(found[0].score, 2)) == (1, 0.9)


def test_queries_about_classes_need_a_run(index):
    for query in (lambda: find_class(index, "cat"), lambda: find_uncertain(index)):
        with pytest.raises(UnfreezeError, match="made without a run, so it has no classes"):
            query()


def test_an_example_that_says_nothing_is_refused(index):
    silent = Example(index.recordings[2].path, 0.5, 1.5)
    sounding, said = Example(index.recordings[0].path), []
    some = example_vectors(index, [Example(silent.recording, 0.9, 1.1), sounding], said.append)
    np.testing.assert_array_equal(some, example_vectors(index, [sounding]))
    (error,) = said
    assert "r2.wav is digital silence" in str(error)
    with pytest.raises(DataError, match=r"r2\.wav is digital silence"):
        example_vectors(index, [Example(silent.recording, 0.9, 1.1)])
    with pytest.raises(DataError, match=r"r2\.wav is empty from there on"):
        example_vectors(index, [Example(silent.recording, 60.0)])
    with pytest.raises(DataError, match="No example is given"):
        find_like(index, [])


def test_the_windows_of_an_example_are_those_that_lie_in_it_or_the_nearest(index):
    item = index.recordings[0]  # six windows of 1 s, the last from 2.5 s to the end at 3.5 s
    for (start, end), rows in {
        (0.0, np.inf): range(6),
        (0.0, 1.0): range(1),
        (0.5, 2.5): range(1, 4),
        (0.503, 2.497): range(1, 4),
        (0.7, 1.0): range(1, 2),
        (0.9, 2.6): range(2, 4),
        (3.2, 9.0): range(5, 6),
        (0.0, 0.1): range(1),
        (9.0, 12.0): range(0),
    }.items():
        assert rows_of(index, item, Example(item.path, start, end)) == rows, (start, end)


def test_the_best_places_of_many_windows_are_those_of_a_plain_search(tmp_path):
    lengths = (40, 1, 1900, 25)
    index = write_index(tmp_path / "index", [clustered(n, seed=n) for n in lengths])
    rng = np.random.default_rng(1)
    # Slow enough that places have many windows, one of them more than are looked at at once.
    scores = np.convolve(rng.normal(size=index.rows), np.ones(5) / 2, "same")
    scores[200:800] = 4 + 0.1 * rng.random(600)
    scores[rng.integers(200, size=30)] = -np.inf
    scores = scores.astype(np.float32)
    taken = [range(3, 9), range(41, 60)]
    for top in (1, 5, 30, 400):
        found = best_places(index, ranking_of(scores), top, taken)
        expected = plain_search(index, scores.copy(), top, taken)
        assert [(item.row, item.place.start) for item in found] == expected
    assert max(item.place.end - item.place.start for item in found) > 150


def plain_search(index, scores, top, taken):
    """The best window and the start of each place, by looking at one window after the other."""
    middle, found = float(np.median(scores[scores > -np.inf])), []
    left = set(range(index.rows))
    for rows in taken:
        left -= set(rows)
    for row in np.argsort(-scores, kind="stable").tolist():
        if row not in left or len(found) == top or scores[row] == -np.inf:
            continue
        item, least = index.recording_of(row), scores[row] - 0.25 * max(scores[row] - middle, 0)
        within = range(item.first, item.first + item.rows)
        place = {row}
        for step in (-1, 1):
            at = row + step
            while at in within and at in left and scores[at] >= least:
                place.add(at)
                at += step
        left -= {at + step for at in place for step in (-1, 0, 1) if at + step in within}
        found.append((row, index.place(min(place)).start))
    return found
