"""A head on labelled places of an index: the run that it makes, and what it refuses."""

import csv
import json

import numpy as np
import pytest

import toy
from unfreeze.errors import DataError, RunError
from unfreeze.search.embedding import embed
from unfreeze.search.head_from_index import train_head


@pytest.fixture(scope="module")
def home(tmp_path_factory, toy_run):
    """Sounds of three classes, two annotated recordings, and an index of all of them."""
    folder = tmp_path_factory.mktemp("labelled")
    toy.write_sounds(folder / "sounds", clips=12, seed=3)
    for number in range(2):
        toy.write_annotated(folder / "field", seconds=60, seed=number, name=f"site{number}")
    files = sorted(folder.rglob("*.wav"))
    embed(files, folder / "index", run=toy_run)
    return folder


@pytest.fixture(scope="module")
def index(home):
    from unfreeze.search.index_folder import open_index

    return open_index(home / "index")


@pytest.fixture(scope="module")
def table(home):
    rows = [("file", "label"), *((p, p.parent.name) for p in (home / "sounds").rglob("*.wav"))]
    with (home / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return home / "labels.csv"


@pytest.fixture(scope="module")
def trained(index, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("head") / "run"
    # No recording is read: they are not even where they were.
    return out, train_head(index, table, out)


def test_it_is_a_run_that_predicts(trained, home):
    import unfreeze

    out, metrics = trained
    assert metrics["test"]["accuracy"] == 1.0
    assert metrics["test"]["clips"] >= 3
    assert set(metrics["thresholds"]) == {"high", "low", "noise"}
    classifier = unfreeze.SoundClassifier.load(out)
    assert classifier.labels == ("high", "low", "noise")
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert {row["split"] for row in rows} == {"validation", "test"}
    for row in rows[:6]:
        # The model hears the sound; the head was told of vectors in float16.
        (block,) = classifier.scan(home / "sounds" / row["path"], hop=0.96)
        told = [float(row[f"score_{label}"]) for label in classifier.labels]
        np.testing.assert_allclose(block.scores.mean(axis=0), told, atol=5e-3)
    events = classifier.detect(home / "field" / "site0.wav")
    assert {event.label for event in events} >= {"high", "low"}


def test_no_recording_is_in_two_parts_and_the_same_seed_gives_the_same(
    trained, index, table, tmp_path
):
    out, metrics = trained
    rows = list(csv.DictReader((out / "splits.csv").open()))
    assert len(rows) == 36
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    assert train_head(index, table, tmp_path / "again") == metrics
    with pytest.raises(RunError, match="holds a finished run"):
        train_head(index, table, out)


def test_places_in_long_recordings_are_labelled_by_tables(index, home, tmp_path):
    metrics = train_head(index, home / "field", tmp_path / "run", validation=0.25, test=0.25)
    assert metrics["test"]["accuracy"] > 0.8
    notes = (tmp_path / "run" / "notes.json").read_text()
    assert "recordings only, so its parts are stretches of time" in notes


def test_places_with_two_labels_are_left_out_and_repeated_ones_count_once(index, home, tmp_path):
    sounds = sorted((home / "sounds").rglob("*.wav"))
    rows = [f"{path},0,0.9,{path.parent.name}\n" for path in sounds]
    (tmp_path / "tables").mkdir()
    head = "file,start,end,label\n"
    (tmp_path / "tables" / "one.csv").write_text(head + "".join(rows))
    (tmp_path / "tables" / "two.csv").write_text(head + f"{sounds[0]},0,0.9,noise\n" + rows[1])
    train_head(index, tmp_path / "tables", tmp_path / "run")
    clips = list(csv.DictReader((tmp_path / "run" / "splits.csv").open()))
    assert len(clips) == len(sounds) - 1
    (note,) = (n for n in _notes(tmp_path / "run") if "two labels" in n)
    assert f"1 places have two labels and are left out, such as {sounds[0]} from 0 to 0." in note
    assert note.endswith("high and noise")


def _notes(run):
    return json.loads((run / "notes.json").read_text())["notes"]


def test_what_cannot_be_used_is_refused_and_nothing_is_left(index, home, tmp_path):
    table, out = tmp_path / "labels.csv", tmp_path / "run"
    scene = home / "field" / "site0.wav"
    for text, said in (
        ("file,label\n/nowhere/a.wav,cat\n", r"has no place that is in .*index.*a\.wav"),
        (f"file,start,end,label\n{scene},1,2,cat\n{scene},3,4,cat\n", "has places of cat alone"),
        (
            f"file,start,end,label\n{scene},1,2,cat\n/nowhere/a.wav,1,2,dog\n",
            r"places of cat alone: .* \(1 places are of 1 recordings that are not in the index",
        ),
        (f"file,start,end,label\n{scene},1,2,cat;dog\n", "several labels"),
        (f"file,start,end,label\n{scene},,,cat\n", "none of its 1 rows has both a label and a st"),
        (f"file,start,end,label\n{scene},1,2,cat\n{scene},3,4,dog\n", "group"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=said):
            train_head(index, table, out)
    with pytest.raises(DataError, match="does not exist"):
        train_head(index, tmp_path / "none.csv", out)
    assert not out.exists()
