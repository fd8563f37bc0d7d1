"""Approximate search: a graph of neighbours, by USearch, beside the vectors of an index.

The graph (Malkov and Yashunin, "Efficient and Robust Approximate Nearest Neighbor Search Using
Hierarchical Navigable Small World Graphs", IEEE PAMI 42, 2020) gives candidates; their likeness
is then computed from the index's own vectors, so scores are those of an exact search. Windows
that were added since the graph was made are compared one by one. Files:

    neighbours.usearch   the graph; a window's key is its place in `vectors.f16`
    neighbours.json      what it is a graph of, and its checksum; written after it

The graph holds its vectors in 8 bits a number, a quarter of what float32 takes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze.core.array_files import checksum
from unfreeze.errors import DataError, RunError, UnfreezeError, show
from unfreeze.files import atomic_path, remove, write_json
from unfreeze.pipeline.run_folder import read_json
from unfreeze.search.index_folder import Index
from unfreeze.search.likeness import cosines, joined, likeness, unit

if TYPE_CHECKING:
    from usearch.index import Index as Graph

GRAPH, ABOUT = "neighbours.usearch", "neighbours.json"
FORMAT = 1
# Edges of a window; candidates looked at when one is added, and when one is sought. Measured in
# `benchmarks/search.py`.
_EDGES, _ADDING, _SEEKING = 16, 64, 256
# So many candidates more than are wanted, and twice as many.
_MORE = 64
# Windows that are added at once.
_BLOCK = 1 << 14
_REMAKE = "make it again with `unfreeze embed RECORDINGS --out INDEX --approximate`"


class Neighbours:
    """A graph that is open for searching.

    Make one with `open_neighbours`.

    Attributes:
        places: how many places in `vectors.f16` it covers.
    """

    def __init__(self, graph: "Graph", places: int) -> None:
        self._graph, self.places = graph, places

    def nearest(
        self, index: Index, examples: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The windows that are most like their most similar example, approximately.

        Args:
            index: whose graph this is; it may have grown since.
            examples: (examples, numbers).
            count: the most windows.

        Returns:
            Numbers of windows and their likeness, the likest first; fewer than `count` if
            there are no more.
        """
        wanted = unit(examples.astype(np.float32))
        new = index.from_file(np.arange(self.places, index.end_in_file))
        first_new = int(new[new >= 0].min(initial=index.rows))
        places = [np.zeros(0, np.int64)]
        if len(self._graph):
            # With 8 bits a number, some of the likest come a little later.
            asked = min(2 * count + _MORE, len(self._graph))
            for example in wanted:
                found = self._graph.search(example, asked, threads=1)
                places.append(np.asarray(found.keys).reshape(-1).astype(np.int64))
        old = index.from_file(np.unique(np.concatenate(places)))
        old = old[old >= 0]
        rows = np.concatenate([old, np.arange(first_new, index.rows)])
        scores = joined(
            [
                cosines(index.vectors_at(old), wanted.T.copy()),
                likeness(index, wanted, first_new),
            ]
        )
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > -np.inf][:count]
        return rows[order], scores[order]


def open_neighbours(index: Index) -> Neighbours:
    """Open the graph of an index.

    Raises:
        UnfreezeError: USearch is not installed.
        DataError: the index has no graph, or it is damaged or of another index.
    """
    kind, about = _usearch(), _read_about(index)
    if about is None:
        raise DataError(
            f"{show(index.folder)} has nothing for an approximate search: {_REMAKE}, or leave out "
            "--approximate"
        )
    file = index.folder / GRAPH
    try:
        if checksum(file) != about["crc32"]:
            raise ValueError("its checksum does not match")
        graph = kind.restore(file, view=True)
        if graph is None or graph.ndim != index.settings.numbers:
            raise ValueError("it is of other vectors")
        graph.expansion_search = _SEEKING
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{show(file)} cannot be used ({error}): {_REMAKE}") from None
    return Neighbours(graph, int(about["places"]))


def make_neighbours(index: Index, progress: Callable[[int, int], None] | None = None) -> None:
    """Make the graph of an index, or add the windows that it does not have yet.

    The folder is held by the caller, or no other process writes to it.

    Args:
        index: the vectors.
        progress: called as progress(done, total) with counts of windows.

    Raises:
        UnfreezeError: USearch is not installed.
        RunError: the graph cannot be written.
    """
    kind, about = _usearch(), _read_about(index)
    graph, places = None, 0
    if about is not None:
        try:
            if checksum(index.folder / GRAPH) == about["crc32"]:
                graph = kind.restore(index.folder / GRAPH, view=False)
                places = int(about["places"])
        except (OSError, ValueError, RuntimeError):
            graph = None
    if graph is None:
        graph, places = _new(kind, index.settings.numbers), 0
    if about is not None and places == index.end_in_file:
        return
    rows = index.from_file(np.arange(places, index.end_in_file))
    rows = rows[rows >= 0]
    for at in range(0, len(rows), _BLOCK):
        some = rows[at : at + _BLOCK]
        vectors = index.vectors(int(some[0]), int(some[-1]) + 1).astype(np.float32)
        kept = np.any(vectors != 0, axis=1)
        if kept.any():
            graph.add(index.in_file(some[kept]), unit(vectors[kept]))
        if progress is not None:
            progress(min(at + _BLOCK, len(rows)), len(rows))
    _write(graph, index)


def _new(kind: Any, numbers: int) -> "Graph":
    return kind(
        ndim=numbers,
        metric="cos",
        dtype="i8",
        connectivity=_EDGES,
        expansion_add=_ADDING,
        expansion_search=_SEEKING,
    )


def _write(graph: "Graph", index: Index) -> None:
    file = index.folder / GRAPH
    try:
        # Until the new one is there, none is told of.
        remove(index.folder / ABOUT)
        with atomic_path(file) as partial:
            graph.save(partial)
        write_json(
            index.folder / ABOUT,
            {
                "unfreeze_neighbours": FORMAT,
                "encoder": index.settings.encoder,
                "places": index.end_in_file,
                "crc32": checksum(file),
            },
        )
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"{show(file)} cannot be written ({error}): free some space and repeat the command; "
            "the index itself is complete"
        ) from None


def _read_about(index: Index) -> dict[str, Any] | None:
    """What the graph is of; None if there is none, or it is of an index that was replaced."""
    if not (index.folder / ABOUT).is_file() or not (index.folder / GRAPH).is_file():
        return None
    about = read_json(index.folder / ABOUT, _REMAKE)
    same = about.get("unfreeze_neighbours") == FORMAT
    same = same and about.get("encoder") == index.settings.encoder
    same = same and 0 <= int(about.get("places", -1)) <= index.end_in_file
    return about if same else None


def _usearch() -> Any:
    try:
        from usearch.index import Index as Graph
    except ImportError:
        raise UnfreezeError(
            "An approximate search needs USearch: run pip install 'unfreeze[search]', or leave "
            "out --approximate"
        ) from None
    return Graph
