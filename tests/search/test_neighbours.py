"""Approximate search: as an exact one, also of what was added later; damage is found."""

import numpy as np
import pytest

from faults import flip
from made_index import clustered, write_index
from unfreeze.errors import DataError, UnfreezeError
from unfreeze.search.index_folder import IndexWriter, open_index
from unfreeze.search.likeness import likeness
from unfreeze.search.neighbours import ABOUT, GRAPH, make_neighbours, open_neighbours
from unfreeze.search.queries import Example, find_like

pytest.importorskip("usearch")


@pytest.fixture
def index(tmp_path):
    vectors = [clustered(n, seed=n) for n in (900, 40, 1500)]
    vectors[1][:5] = 0
    return write_index(tmp_path / "index", vectors)


def shared(index, neighbours, seed):
    """The share of the ten likest windows that an approximate search finds."""
    example = clustered(1, seed=seed)
    rows, scores = neighbours.nearest(index, example, 10)
    exact = likeness(index, example)
    np.testing.assert_allclose(scores, exact[rows], atol=1e-6)
    assert np.all(np.diff(scores) <= 0)
    return len(set(rows) & set(np.argsort(-exact)[:10])) / 10


def test_what_it_finds_is_what_an_exact_search_finds(index):
    seen = []
    make_neighbours(index, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2440, 2440)
    neighbours = open_neighbours(index)
    assert np.mean([shared(index, neighbours, seed) for seed in range(100, 120)]) > 0.97
    example = Example(index.recordings[1].path, 10.0, 12.0)
    assert find_like(index, [example], 5, neighbours) == find_like(index, [example], 5)


def test_what_was_added_later_is_found_with_and_without_adding_it(index, tmp_path):
    make_neighbours(index)
    more = write_index(index.folder, [clustered(300, seed=77)], name="more")
    neighbours = open_neighbours(more)
    assert neighbours.places == 2440
    example = np.asarray(more.vectors(2500, 2501), np.float32)
    rows, scores = neighbours.nearest(more, example, 3)
    assert rows[0] == 2500
    assert scores[0] == pytest.approx(1, abs=1e-5)
    make_neighbours(more)
    grown = open_neighbours(more)
    assert grown.places == 2740
    assert grown.nearest(more, example, 3)[0].tolist() == rows.tolist()


def test_old_rows_of_a_recording_that_was_added_anew_are_not_found(index):
    make_neighbours(index)
    old = np.asarray(index.vectors(100, 101), np.float32)
    (index.folder.parent / "recordings" / "r0.wav").write_bytes(b"another sound")
    anew = write_index(index.folder, [clustered(20, seed=3)])
    # That wrote r0.wav as it was, but with another time: it is another recording.
    assert anew.rows == 40 + 1500 + 20
    rows, scores = open_neighbours(anew).nearest(anew, old, 20)
    assert len(rows)
    assert scores.max() < 0.9999


def test_a_graph_that_is_missing_damaged_or_of_another_index_is_not_used(index):
    with pytest.raises(DataError, match="has nothing for an approximate search"):
        open_neighbours(index)
    make_neighbours(index)
    flip(index.folder / GRAPH, 5000)
    with pytest.raises(DataError, match="its checksum does not match"):
        open_neighbours(index)
    make_neighbours(index)
    assert open_neighbours(index).places == index.rows
    about = index.folder / ABOUT
    about.write_text(about.read_text().replace('"abc"', '"abd"'))
    with pytest.raises(DataError, match="has nothing for an approximate search"):
        open_neighbours(open_index(index.folder))


def test_an_index_that_is_begun_again_has_no_graph(index):
    make_neighbours(index)
    IndexWriter(index.folder, index.settings, overwrite=True).close()
    write_index(index.folder, [clustered(2440, seed=1)])
    with pytest.raises(DataError, match="has nothing for an approximate search"):
        open_neighbours(open_index(index.folder))


def test_without_usearch_it_says_what_to_install(index, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    with pytest.raises(UnfreezeError, match=r"pip install 'unfreeze\[search\]'"):
        make_neighbours(index)
