"""How fast an index of two million windows is written, opened and searched.

    python -m benchmarks.search [--windows 2000000] [--graph 2000000] [--folder FOLDER]

The vectors are made: 20,000 clusters in 256 dimensions, each spread along 24 directions of its
own and a little along all. So is what they are of: recordings of ten minutes, a window each
0.96 s, with the probabilities of ten classes. An exact search is timed with a warm disk cache,
first in an index just opened, when checksums are compared, then again; each number is the middle
one of five runs, and processor time is that of all threads. The graph of neighbours is made in
steps, with what each costs and finds: recall is the share of the ten likest windows that an
approximate search returns, over 100 examples near windows drawn at random. Run it alone: it
prints how busy the machine was before.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import busy, machine
from unfreeze.search.index_folder import (
    JOURNAL,
    SCORES,
    VECTORS,
    Finished,
    IndexWriter,
    Settings,
    open_index,
)
from unfreeze.search.likeness import likeness
from unfreeze.search.neighbours import GRAPH, make_neighbours, open_neighbours
from unfreeze.search.queries import (
    Example,
    best_places,
    find_class,
    find_like,
    find_uncertain,
    ranking_of,
)

NUMBERS, CLASSES, OF_EACH = 256, 10, 625
CLUSTERS, DIRECTIONS = 20_000, 24
STEPS = (125_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000)


class Made:
    """Windows around centres."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.centres = rng.normal(size=(CLUSTERS, NUMBERS)).astype(np.float32)
        self.spread = rng.normal(size=(64, DIRECTIONS, NUMBERS)).astype(np.float32) / 6

    def windows(self, rng, count):
        """(count, numbers), in stretches of one cluster as in a recording."""
        cluster = np.repeat(rng.integers(CLUSTERS, size=-(-count // 5)), 5)[:count]
        rows = self.centres[cluster] + 0.1 * rng.normal(size=(count, NUMBERS)).astype(np.float32)
        along = rng.normal(size=(count, DIRECTIONS)).astype(np.float32)
        for number in np.unique(cluster % 64):
            mine = cluster % 64 == number
            rows[mine] += along[mine] @ self.spread[number]
        return rows


def add(folder, made, first, end):
    """Write windows into the index; returns the seconds that writing took."""
    labels = tuple(f"class {n}" for n in range(CLASSES))
    settings = Settings(1, "made", "run", NUMBERS, labels, False, 0.96, 0.96, 125.0, 7500.0)
    folder.mkdir(exist_ok=True)
    writer, spent = IndexWriter(folder, settings), 0.0
    for at in range(first, end, OF_EACH):
        rng = np.random.default_rng([1, at])
        count = min(OF_EACH, end - at)
        scores = rng.dirichlet(np.full(CLASSES, 0.2), size=count)
        path = folder / f"{at}.wav"
        item = Finished(
            path,
            made.windows(rng, count).astype(np.float16),
            scores.astype(np.float16),
            count * 0.96,
            16_000,
        )
        began = time.perf_counter()
        writer.unfinished([path])
        writer.add([item])
        spent += time.perf_counter() - began
    writer.close()
    return spent


def timed(function, times=5):
    """The middle of some runs: seconds, and seconds of processor time of all threads."""
    found = []
    for _ in range(times):
        began = time.perf_counter(), time.process_time()
        function()
        found.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    wall, work = (sorted(values)[times // 2] for values in zip(*found, strict=True))
    return f"{wall:.3f} s (processor time {work:.3f} s)"


def exact(folder):
    """Seconds of each kind of query."""
    began = time.perf_counter()
    index = open_index(folder)
    print(f"opened in {time.perf_counter() - began:.2f} s", flush=True)
    example = np.asarray(index.vectors(1000, 1001), np.float32)
    size = (folder / VECTORS).stat().st_size / index.rows
    scores = (folder / SCORES).stat().st_size / index.rows
    journal = (folder / JOURNAL).stat().st_size / index.rows
    print(f"bytes a window: {size:.0f} vector, {scores:.0f} scores, {journal:.2f} journal")

    def query():
        return best_places(index, ranking_of(likeness(index, example)), 20)

    print(f"like, first (with checksums): {timed(query, 1)}", flush=True)
    print(f"like, again: {timed(query)}", flush=True)
    find_class(index, "class 3")
    print(f"class: {timed(lambda: find_class(index, 'class 3'))}")
    print(f"uncertain: {timed(lambda: find_uncertain(index))}", flush=True)


def approximate(folder, made):
    """Seconds and recall with the graph as it is."""
    index = open_index(folder)
    began = time.perf_counter()
    neighbours = open_neighbours(index)
    opened = time.perf_counter() - began
    rng = np.random.default_rng(7)
    examples = index.vectors_at(np.sort(rng.integers(index.rows, size=100))).astype(np.float32)
    examples += 0.15 * rng.normal(size=examples.shape).astype(np.float32)
    shares, seconds = [], []
    for example in examples:
        began = time.perf_counter()
        rows, _ = neighbours.nearest(index, example[None], 10)
        seconds.append(time.perf_counter() - began)
        true = np.argsort(-likeness(index, example[None]))[:10]
        shares.append(len(set(rows) & set(true)) / 10)
    item = index.recordings[3]
    place = Example(item.path, 96.0, 98.0)
    whole = timed(lambda: find_like(index, [place], 20, neighbours))
    size = (folder / GRAPH).stat().st_size / index.rows
    print(
        f"{neighbours.places:>9,} windows: graph {size:.0f} bytes a window, opened in "
        f"{opened:.2f} s, a search {1000 * np.median(seconds):.1f} ms, 20 places {whole}, "
        f"recall at 10 {np.mean(shares):.3f}",
        flush=True,
    )


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=2_000_000)
    parser.add_argument("--graph", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    print(machine(), f"busy before: {busy()}", flush=True)
    made = Made()
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary) / "index"
        spent = add(folder, made, 0, args.windows)
        print(f"written: {args.windows / spent:,.0f} windows a second", flush=True)
        exact(folder)
        folder = Path(temporary) / "graph"
        done = 0
        for step in [n for n in STEPS if n < args.graph] + [args.graph]:
            add(folder, made, done, step)
            cost = timed(lambda: make_neighbours(open_index(folder)), 1)
            print(f"{step - done:,} windows added to the graph in {cost}", flush=True)
            approximate(folder, made)
            done = step
    print(f"busy after: {busy()}; cores: {os.cpu_count()}")


if __name__ == "__main__":
    main()
