"""A detector from annotated recordings, from the table to the test."""

import csv
import json

import numpy as np
import pytest
import soundfile

import toy
import unfreeze
from unfreeze.errors import DataError
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.planning import planned

RATE = 16_000


def annotated(folder, seconds=120, seed=0):
    """One recording of faint noise with high and low tones in it, and Raven's table of them."""
    rng = np.random.default_rng(seed)
    wave = rng.normal(0, 0.003, seconds * RATE)
    rows, at, number = [], 2.0, 0
    while at < seconds - 4:
        label = ("high", "low")[number % 2]
        length = rng.uniform(0.4, 2.0)
        pitch = rng.uniform(2000, 4000) if label == "high" else rng.uniform(150, 400)
        ticks = np.arange(round(length * RATE)) / RATE
        first = round(at * RATE)
        wave[first : first + len(ticks)] += 0.3 * np.sin(2 * np.pi * pitch * ticks)
        rows.append((at, at + length, label))
        at, number = at + length + rng.uniform(0.8, 1.8), number + 1
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "site.wav", wave.astype("float32"), RATE)
    names = (
        "Selection,View,Channel,Begin Time (s),End Time (s),Low Freq (Hz),High Freq (Hz),Species"
    )
    head = names.replace(",", "\t") + "\n"
    (folder / "site.Table.1.selections.txt").write_text(
        head
        + "".join(
            f"{n}\tSpectrogram 1\t1\t{a:.6f}\t{b:.6f}\t100\t5000\t{label}\n"
            for n, (a, b, label) in enumerate(rows, start=1)
        )
    )
    return rows


@pytest.fixture
def run(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    rows = annotated(tmp_path / "field")
    classifier = unfreeze.SoundClassifier.train(
        tmp_path / "field", "probe", tmp_path / "run", backbone="toy", annotated="fully"
    )
    return classifier, rows, tmp_path


def test_a_detector_is_trained_tested_and_finds_the_sounds(run):
    classifier, rows, folder = run
    assert classifier.labels == ("background", "high", "low")
    scores = json.loads((folder / "run/metrics.json").read_text())
    assert scores["test"]["accuracy"] > 0.8
    with (folder / "run/splits.csv").open() as file:
        splits = list(csv.DictReader(file))
    named = [(float(r["start"]), float(r["end"]), r["label"]) for r in splits if r["low"]]
    assert [row[2] for row in sorted(named)] == [row[2] for row in rows]
    np.testing.assert_allclose([r[:2] for r in sorted(named)], [r[:2] for r in rows], atol=1e-6)
    assert {r["split"] for r in splits} == {"train", "validation", "test"}
    groups = {}
    for row in splits:
        groups.setdefault(row["group"], set()).add(row["split"])
    assert all(len(parts) == 1 for parts in groups.values())
    # Each tone is found in a recording that was never heard, by its own class.
    new = annotated(folder / "new", seconds=60, seed=1)
    events = classifier.detect(folder / "new/site.wav", min_score=0.5)
    found = [
        any(e.label == label and e.start < end and e.end > start for e in events)
        for start, end, label in new
    ]
    assert np.mean(found) > 0.8
    scored = classifier.evaluate(folder / "new")
    assert scored["clips"] == len(new)
    assert scored["accuracy"] > 0.8


def test_what_does_not_take_sounds_says_so(run):
    _, _, folder = run
    with pytest.raises(DataError, match="--add-to takes whole clips, not sounds in annotated"):
        planned(TrainOptions(folder / "field", backbone="toy", add_to=folder / "run")).__enter__()
