"""`predictions.csv`: what is written is what is read, whatever the classes are called."""

from pathlib import Path

import numpy as np
import pytest

from reporting import rows_of
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.errors import RunError
from unfreeze.pipeline.predictions import FILE, of_part, read_predictions, write_predictions

LABELS = ("path", "score", "dog, wet")
SCORES = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])


def manifest(*labels, several=False, **more):
    clips = tuple(
        Clip(Path(f"/data/a b/{n}.wav"), label, f"g{n}", None, 1.0, 16_000, 1, f"c{n}", **more)
        for n, label in enumerate(labels)
    )
    return Manifest(Path("/data"), clips, LABELS, (), "fingerprint", several)


def test_what_is_written_is_read(tmp_path):
    parts = {"validation": ([1], SCORES[1:]), "test": ([0], SCORES[:1])}
    write_predictions(tmp_path, manifest("path", "dog, wet"), parts, LABELS)
    rows = rows_of(tmp_path / FILE)
    assert list(rows[0]) == [
        *("path", "label", "group", "split", "predicted", "score"),
        *("score_path", "score_score", "score_dog, wet"),
    ]
    assert [row["path"] for row in rows] == ["a b/1.wav", "a b/0.wav"]
    read = read_predictions(tmp_path, Path("/data"))
    assert read.labels == LABELS
    (test,) = of_part(read, "test")
    assert (test.label, test.predicted, test.group) == ("path", "path", "g0")
    assert test.score == 0.7
    assert test.scores == pytest.approx([0.7, 0.2, 0.1])
    assert test.start is None
    assert list(of_part(read, "train")) == list(of_part(None, "test")) == []


def test_several_labels_and_stretches(tmp_path):
    data = manifest("path;score", "", several=True, start=2.0, end=3.25)
    parts = {"test": ([0, 1], SCORES)}
    write_predictions(tmp_path, data, parts, LABELS, [0.5, 0.2, 0.6])
    one, other = read_predictions(tmp_path, Path("/data")).rows
    assert (one.predicted, other.predicted) == ("path;score", "score")
    assert (one.label, other.label) == ("path;score", "")
    assert (one.score, other.score) == (0.7, 0.5)
    assert (one.start, one.end) == (2.0, 3.25)


def test_none_and_damaged_ones(tmp_path):
    assert read_predictions(tmp_path, Path("/data")) is None
    write_predictions(tmp_path, manifest("path"), {"test": ([0], SCORES[:1])}, LABELS)
    text = (tmp_path / FILE).read_text()
    for old, new in (("0.700000", "inf"), ("0.200000,0.1", "0.1"), ("a b/", "/etc/")):
        (tmp_path / FILE).write_text(text.replace(old, new))
        with pytest.raises(RunError):
            read_predictions(tmp_path, Path("/data"))
