"""An index of vectors that a test makes, without recordings or a network."""

import numpy as np

from unfreeze.search.index_folder import Finished, IndexWriter, Settings, open_index

NUMBERS = 16


def write_index(folder, vectors, *, scores=None, labels=(), hop=0.5, several=False, name="r"):
    """Write vectors of several recordings: a list of (windows, numbers)."""
    home = folder.parent / "recordings"
    home.mkdir(exist_ok=True)
    settings = Settings(
        *(1, "abc", "run", vectors[0].shape[1], tuple(labels), several, hop, 1.0, 100.0, 8000.0)
    )
    folder.mkdir(exist_ok=True)
    writer = IndexWriter(folder, settings)
    for number, rows in enumerate(vectors):
        path = home / f"{name}{number}.wav"
        path.write_bytes(b"sound")
        writer.unfinished([path])
        mine = np.zeros((len(rows), 0)) if scores is None else scores[number]
        seconds = (len(rows) - 1) * hop + 1.0
        writer.add(
            [Finished(path, rows.astype(np.float16), mine.astype(np.float16), seconds, 16_000)]
        )
    writer.close()
    return open_index(folder)


def clustered(windows, seed=0, clusters=40):
    """Vectors around some centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(clusters, NUMBERS))
    return centres[rng.integers(clusters, size=windows)] + 0.3 * rng.normal(size=(windows, NUMBERS))
