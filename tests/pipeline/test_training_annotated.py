"""A detector from annotated recordings, from the table to the test."""

import csv
import json

import numpy as np
import pytest

import toy
import unfreeze

RATE = 16_000


@pytest.fixture
def run(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    rows = toy.write_annotated(tmp_path / "field")
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
    new = toy.write_annotated(folder / "new", seconds=60, seed=1)
    events = classifier.detect(folder / "new/site.wav", min_score=0.5)
    found = [
        any(e.label == label and e.start < end and e.end > start for e in events)
        for start, end, label in new
    ]
    assert np.mean(found) > 0.8
    scored = classifier.evaluate(folder / "new")
    assert scored["clips"] == len(new)
    assert scored["accuracy"] > 0.8
