"""A small run, recordings to review with it, and their index, for the tests of reviews."""

import sys
from pathlib import Path

import numpy as np
import soundfile

import toy

#: Starts `unfreeze` with the toy backbone, as a process of its own.
PROGRAM = (sys.executable, str(Path(__file__).parent / "toy_cli.py"))
LENGTH = 2.0


def write_field(folder, recordings=4, seconds=16, seed=1):
    """Recordings of faint noise, each with a high and a low tone of two seconds.

    Returns:
        For each, by its name, a list of (start, end, label).
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number in range(recordings):
        ticks = np.arange(seconds * toy.RATE) / toy.RATE
        sound = 0.02 * rng.normal(size=len(ticks))
        truth[f"field-{number}.wav"] = rows = []
        for begin, label in ((2 + 2 * (number % 2), "high"), (10, "low")):
            pitch = rng.uniform(2000, 4000) if label == "high" else rng.uniform(150, 400)
            span = slice(begin * toy.RATE, (begin + 2) * toy.RATE)
            sound[span] += 0.3 * np.sin(6.283 * pitch * ticks[span])
            rows.append((begin, begin + 2, label))
        soundfile.write(folder / f"field-{number}.wav", sound, toy.RATE)
    return truth


def label_of(truth, question):
    """What a person hears in the clip of a question; None for noise alone."""
    rows = truth[question.recording.name]
    heard = [x for a, b, x in rows if min(b, question.end) - max(a, question.start) > 0.5]
    return heard[0] if heard else None


def make_home(folder, monkeypatch):
    """Write `run`, `field` and `index` into a folder; return the truth of the field."""
    import unfreeze
    from unfreeze.search.embedding import embed

    toy.register(monkeypatch, folder)
    toy.write_sounds(folder / "data", clips=12, classes=("high", "low", "background"))
    unfreeze.SoundClassifier.train(folder / "data", "probe", folder / "run", backbone="toy")
    truth = write_field(folder / "field")
    embed(sorted((folder / "field").iterdir()), folder / "index", run=folder / "run")
    return truth


def write_index(
    folder, recordings, labels=("background", "cat", "dog"), hop=0.48, several=False, seed=0
):
    """An index of recordings of noise, with random vectors and scores.

    Args:
        folder: where to.
        recordings: seconds of each by name.
        labels: the classes.
        hop: seconds from one window to the next.
        several: whether each class is judged by itself.
        seed: of what is drawn.
    """
    from unfreeze.search.index_folder import Finished, IndexWriter, Settings, open_index

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    shape = Settings(1, "encoder", "run", 8, labels, several, hop, 0.96, 125.0, 7500.0)
    writer = IndexWriter(folder, shape)
    files = [folder.parent / name for name in recordings]
    for file, seconds in zip(files, recordings.values(), strict=True):
        if not file.exists():
            soundfile.write(file, rng.normal(0, 0.01, round(100 * seconds)), 100)
    writer.unfinished(files)
    for file, seconds in zip(files, recordings.values(), strict=True):
        rows = max(int(np.ceil((seconds - 0.96) / hop)) + 1, 1)
        scores = rng.dirichlet(np.ones(len(labels)), rows).astype(np.float16)
        vectors = rng.normal(size=(rows, 8)).astype(np.float16)
        writer.add([Finished(file, vectors, scores, seconds, 100)])
    writer.close()
    return open_index(folder)
